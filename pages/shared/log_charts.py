"""Figures of what logs and policies say about bounds: frame in, figure out."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BASELINE, BOUND, INSIDE, OUTSIDE, escape, sized
from pages.shared.panels import Panels

UNIFORM, GAUSSIAN = INSIDE, OUTSIDE


def drift(frame: pd.DataFrame) -> go.Figure:
    """Returns where a policy's actions lie relative to the baseline's, with a box around them.

    `frame` has one row a dimension: dimension, the quantiles `1 %` to `99 %`, and the edges of the box with
    their intervals (`lower edge`, `lower from`, `lower to`, `upper edge`, ...).
    """
    rows = frame.iloc[::-1]
    names = rows["dimension"].map(escape)
    figure = go.Figure()
    for low, high, width in (("1 %", "99 %", 2), ("5 %", "95 %", 8)):
        figure.add_trace(_spans(names, rows[low], rows[high], width, f"{low} to {high}"))
    figure.add_trace(
        go.Scatter(
            x=rows["50 %"],
            y=names,
            mode="markers",
            marker={"color": "white", "size": 7, "line": {"color": UNIFORM, "width": 2}},
            hovertemplate="%{y}: median %{x:.4f}<extra></extra>",
        )
    )
    for edge in ("lower", "upper"):
        figure.add_trace(_edges(names, rows, edge))
    figure.add_vline(x=0, line={"color": BOUND, "width": 1}, annotation_text="baseline action")
    figure.update_xaxes(title="new minus baseline action, in units of [-1, 1]", zeroline=False)
    figure.update_yaxes(automargin=True, range=[-0.6, len(rows) - 0.4])
    return sized(figure, 110 + 34 * len(rows))


def _spans(names: pd.Series, low: pd.Series, high: pd.Series, width: int, title: str) -> go.Scatter:
    """Returns a horizontal line from `low` to `high` at each name."""
    gaps = [None] * len(names)
    return go.Scatter(
        x=np.ravel(list(zip(low, high, gaps, strict=True))).tolist(),
        y=np.ravel(list(zip(names, names, gaps, strict=True))).tolist(),
        mode="lines",
        line={"color": UNIFORM, "width": width},
        hovertemplate=f"%{{y}}, {title}: %{{x:.4f}}<extra></extra>",
    )


def _edges(names: pd.Series, rows: pd.DataFrame, edge: str) -> go.Scatter:
    """Returns one edge of a box in every dimension, with its interval."""
    return go.Scatter(
        x=rows[f"{edge} edge"],
        y=names,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 18, "color": BOUND, "line": {"width": 2.5, "color": BOUND}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rows[f"{edge} to"] - rows[f"{edge} edge"]).clip(lower=0),
            "arrayminus": (rows[f"{edge} edge"] - rows[f"{edge} from"]).clip(lower=0),
            "color": BOUND,
            "thickness": 1.5,
            "width": 4,
        },
        hovertemplate=f"%{{y}}: {edge} %{{x:.4f}}<extra></extra>",
    )


PRESSING = "#f0b98f"
"""Inside the bounds still, at a wall."""
WALL_PARTS = (
    ("below", "below", OUTSIDE, "white"),
    ("at lower", "at wall", PRESSING, "black"),
    ("inside", "inside", INSIDE, "white"),
    ("at upper", "at wall", PRESSING, "black"),
    ("above", "above", OUTSIDE, "white"),
)
"""Columns of the figure of walls, from the lower end of a dimension to its upper: title, colours."""
NARROWEST_LABEL = 12
"""% of the width that a share's own name needs."""


def walls(frame: pd.DataFrame) -> go.Figure:
    """Returns, per dimension, the shares of requests beyond, at and inside the walls, and what is proposed.

    `frame` has one row a dimension: dimension, below, at lower, inside, at upper, above, proposal.
    """
    rows = frame.iloc[::-1]
    names = rows["dimension"].map(escape)
    figure = go.Figure()
    for column, title, colour, ink in WALL_PARTS:
        share = 100 * rows[column]
        figure.add_trace(
            go.Bar(
                x=share,
                y=names,
                orientation="h",
                name=title,
                marker={"color": colour, "line": {"width": 0}},
                text=[f"{title} {value:.0f} %" if value >= NARROWEST_LABEL else "" for value in share],
                textfont={"color": ink},
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                hovertemplate=f"%{{y}}: %{{x:.1f}} % {title}<extra></extra>",
            )
        )
    for name, proposal in zip(names, rows["proposal"], strict=True):
        figure.add_annotation(x=101, y=name, text=escape(proposal), showarrow=False, xanchor="left")
    figure.update_xaxes(title="% of requests", range=[0, 118], tickvals=[0, 25, 50, 75, 100])
    figure.update_yaxes(automargin=True)
    return sized(figure, 90 + 34 * len(rows)).update_layout(barmode="stack", bargap=0.25)


def cost(frame: pd.DataFrame) -> go.Figure:
    """Returns a panel a measure, with a dot and its interval for each kind of noise.

    `frame` has one row a measure and kind: measure, unit, noise, value, from, to.
    """
    measures = list(frame.groupby(["measure", "unit"], sort=False))
    drawn = Panels([f"{measure}, {unit}" for (measure, unit), _ in measures], 150, 2)
    for i, (_, rows) in enumerate(measures):
        reach, least = rows["to"].max(), rows["from"].min()
        near_one = least > 0.5 and reach <= 1
        first = least - 0.2 * (reach - least) if near_one else -0.06 * reach
        drawn.add(i, _noises(rows.iloc[::-1]))
        x = {"range": [first, reach + 0.12 * (reach - first)], "zeroline": not near_one}
        drawn.axes(i, x, {"range": [-0.5, rows["noise"].nunique() - 0.3]})
    return drawn.figure()


def _noises(rows: pd.DataFrame) -> dict[str, Any]:
    """Returns a dot, a cross for Gaussian noise, a diamond for mixed, with its interval for each of `rows`."""
    uniform = rows["noise"] == "uniform"
    other = np.where(rows["noise"] == "mixed", "diamond", "x")
    return {
        "type": "scatter",
        "x": rows["value"],
        "y": rows["noise"],
        "mode": "markers+text",
        "text": [f"{value:.3g}" for value in rows["value"]],
        "textposition": "top center",
        "cliponaxis": False,
        "marker": {
            "size": 11,
            "color": np.where(uniform, UNIFORM, GAUSSIAN),
            "symbol": np.where(uniform, "circle", other),
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rows["to"] - rows["value"],
            "arrayminus": rows["value"] - rows["from"],
            "color": BASELINE,
            "thickness": 2,
            "width": 6,
        },
        "customdata": rows[["from", "to"]],
        "hovertemplate": "%{y}: %{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra></extra>",
    }


def coverage(frame: pd.DataFrame, columns: int = 5) -> go.Figure:
    """Returns where in its box each dimension was explored: a histogram a dimension, 1 being even.

    `frame` has one row a cell: dimension, left and right (0 and 1 are the walls), relative (1 is even), rows.
    """
    dimensions = list(frame.groupby("dimension", sort=False))
    drawn = Panels([name for name, _ in dimensions], 165, columns)
    top = 1.1 * max(1.0, frame["relative"].max())
    for i, (_, cells) in enumerate(dimensions):
        middle, is_first = (cells["left"] + cells["right"]) / 2, i % columns == 0
        colour = np.where((middle < 0) | (middle > 1), OUTSIDE, INSIDE)
        drawn.add(
            i,
            {
                "type": "bar",
                "x": middle,
                "y": cells["relative"],
                "width": cells["right"] - cells["left"],
                "marker": {"color": colour, "line": {"width": 0}},
                "customdata": cells["rows"],
                "hovertemplate": "%{customdata:,} requests, %{y:.2f} of an even share<extra></extra>",
            },
        )
        drawn.level(i, 1)
        title = "place in the box" if i + columns >= len(dimensions) else ""
        y = {
            "title": "even = 1" if is_first else "",
            "range": [0, top],
            "nticks": 4,
            "showticklabels": is_first,
        }
        drawn.axes(i, {"title": title, "tickvals": [0, 1], "tickangle": 0}, y)
    return drawn.figure()


def pair(counts: np.ndarray, names: tuple[str, str]) -> go.Figure:
    """Returns how many requests lie in each cell [a, b] of two dimensions' boxes, the first one across."""
    share = [f"{100 * i / len(counts):.0f}–{100 * (i + 1) / len(counts):.0f} %" for i in range(len(counts))]
    figure = go.Figure(
        go.Heatmap(
            x=share,
            y=share,
            z=counts.T,
            text=counts.T,
            texttemplate="%{text:,}",
            zmin=0,
            zmax=2 * float(counts.mean()) or 1,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{z:,} requests<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"place in the box of {escape(names[0])}", type="category")
    figure.update_yaxes(title=f"place in the box of {escape(names[1])}", type="category")
    return sized(figure, 380)
