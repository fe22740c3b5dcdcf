"""Figures of exploration: frame in, figure out; uniform in the one colour, Gaussian noise in the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BASELINE, BOUND, INSIDE, OUTSIDE, cell, escape, grid, sized
from pages.shared.panels import Panels

UNIFORM, GAUSSIAN = INSIDE, OUTSIDE
DRAWS = 250
"""Of either kind, in the picture of a plan."""
PICTURE_HEIGHT, PANEL_HEIGHT = 430, 370

Edges = tuple[float, float]


def picture(box: tuple[Edges, Edges], sigma: float, names: tuple[str, str]) -> go.Figure:
    """Returns two dimensions of a box (the paper's Fig. 3): draws of either noise, and their densities.

    `box` has the lower and upper offset of each dimension. The draws are always the same ones, scaled.
    """
    reach = max(0.4, 1.2 * np.abs(box).max(), 2.2 * sigma)
    offset = {"range": [-reach, reach], "zeroline": True, "zerolinewidth": 1}
    density = {"rangemode": "tozero", "showticklabels": False, "title": {"text": "density"}}
    (x_low, x_high), (y_low, y_high) = box
    corners = {"x0": x_low, "x1": x_high, "y0": y_low, "y1": y_high}
    return go.Figure(
        [
            *_draws(box, sigma, reach),
            *_densities(box[0], sigma, reach, along="x", axes={"xaxis": "x", "yaxis": "y2"}),
            *_densities(box[1], sigma, reach, along="y", axes={"xaxis": "x2", "yaxis": "y"}),
        ],
        {
            "height": PICTURE_HEIGHT,
            "showlegend": False,
            "dragmode": "select",
            "margin": {"l": 10, "r": 24, "t": 10, "b": 10},
            "xaxis": {"domain": [0, 0.76], "title": {"text": f"offset of {escape(names[0])}"}, **offset},
            "yaxis": {"domain": [0, 0.76], "title": {"text": f"offset of {escape(names[1])}"}, **offset},
            "xaxis2": {"domain": [0.78, 1], "anchor": "y", **density},
            "yaxis2": {"domain": [0.79, 1], "anchor": "x", **density},
            "shapes": [{"type": "rect", **corners, "line": {"color": BOUND, "width": 2.5}}],
            "annotations": [_name("Gaussian", GAUSSIAN, 1), _name("uniform", UNIFORM, 0.7)],
        },
    )


def _name(text: str, colour: str, height: float) -> dict[str, Any]:
    """Returns the name of a noise, `height` of the way up the panel of densities."""
    place = {"xref": "x domain", "x": 1, "yref": "y2 domain", "y": height}
    font = {"color": colour, "size": 12}
    return {"text": text, "showarrow": False, "xanchor": "right", "yanchor": "top", "font": font, **place}


def _draws(box: tuple[Edges, Edges], sigma: float, reach: float) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    noise = sigma * generator.standard_normal((DRAWS, 2))
    low, high = np.transpose(box)
    inside = low + (high - low) * generator.random((DRAWS, 2))
    shown = noise[np.abs(noise).max(axis=1) < reach]
    return [
        {
            "type": "scattergl",
            "x": points[:, 0],
            "y": points[:, 1],
            "mode": "markers",
            "opacity": 0.65,
            "marker": {"symbol": symbol, "size": 5, "color": colour, "line": {"color": colour, "width": 1}},
            "hovertemplate": f"{name} draw (%{{x:.3f}}, %{{y:.3f}})<extra></extra>",
        }
        for name, points, colour, symbol in (
            ("Gaussian", shown, GAUSSIAN, "x-thin"),
            ("uniform", inside, UNIFORM, "circle"),
        )
    ]


def _densities(
    edges: Edges, sigma: float, reach: float, along: str, axes: dict[str, str]
) -> list[dict[str, Any]]:
    """Returns the densities of both noises in one dimension, drawn `along` the x or the y axis."""
    (low, high), across = edges, "y" if along == "x" else "x"
    offsets = np.linspace(-reach, reach, 121)
    bell = np.exp(-((offsets / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    curves = [("Gaussian", GAUSSIAN, "dash", offsets, bell)]
    if high > low:
        flat = np.array([0, 1, 1, 0]) / (high - low)
        curves.append(("uniform", UNIFORM, "solid", np.array([low, low, high, high]), flat))
    return [
        {
            "type": "scatter",
            along: places,
            across: density,
            "mode": "lines",
            "line": {"color": colour, "width": 2, "dash": dash},
            "hovertemplate": f"{name} density<extra></extra>",
            **axes,
        }
        for name, colour, dash, places, density in curves
    ]


POWERS_OF_TWO = {"tickprefix": "2<sup>", "ticksuffix": "</sup>", "rangemode": "tozero"}
"""An axis whose values are logarithms."""
SAMPLES = "Gaussian samples for one uniform"
HOVER_SAMPLES = "2<sup>%{y:.2f}</sup> samples at %{x:.3g}"


def efficiency(panels: Sequence[tuple[str, pd.DataFrame, str, float]], names: Mapping[str, str]) -> go.Figure:
    """Returns log2 of the exploration-density efficiency, a panel for each (title, frame, unit, chosen x)."""
    drawn = Panels([title for title, *_ in panels], PANEL_HEIGHT)
    for i, (_, frame, unit, chosen) in enumerate(panels):
        drawn.lines(i, frame, names, HOVER_SAMPLES)
        drawn.mark(i, chosen, f"{chosen:g}")
        y = {"title": SAMPLES if i == 0 else "", **POWERS_OF_TWO}
        drawn.axes(i, {"title": unit, "range": _with_names(frame)}, y)
    return drawn.figure()


def _with_names(frame: pd.DataFrame) -> list[float]:
    """Returns the range of the first column, with room for the names of lines at its end."""
    first, last = frame.iloc[0, 0], frame.iloc[-1, 0]
    return [first, last + 0.22 * (last - first)]


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
    ("at_lower", "at wall", PRESSING, "black"),
    ("inside", "inside", INSIDE, "white"),
    ("at_upper", "at wall", PRESSING, "black"),
    ("above", "above", OUTSIDE, "white"),
)
"""Columns of the figure of walls, from the lower end of a dimension to its upper: title, colours."""
NARROWEST_LABEL = 12
"""% of the width that a share's own name needs."""


def walls(frame: pd.DataFrame) -> go.Figure:
    """Returns, per dimension, the shares of requests beyond, at and inside the walls, and what is proposed.

    `frame` has one row a dimension: dimension, below, at_lower, inside, at_upper, above, proposal.
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
    figure = grid([f"{escape(measure)}, {escape(unit)}" for (measure, unit), _ in measures], 2)
    for i, (_, rows) in enumerate(measures):
        place, reach = cell(i, 2), rows["to"].max()
        near_one = rows["from"].min() > 0.5 and reach <= 1
        first = rows["from"].min() - 0.2 * (reach - rows["from"].min()) if near_one else -0.06 * reach
        figure.add_trace(_noises(rows.iloc[::-1]), **place)
        figure.update_xaxes(range=[first, reach + 0.12 * (reach - first)], zeroline=not near_one, **place)
        figure.update_yaxes(range=[-0.5, 1.7], **place)
    return figure.update_layout(height=470)


def _noises(rows: pd.DataFrame) -> go.Scatter:
    """Returns a dot, a cross for Gaussian noise, with its interval for each of `rows`."""
    uniform = rows["noise"] == "uniform"
    return go.Scatter(
        x=rows["value"],
        y=rows["noise"],
        mode="markers+text",
        text=[f"{value:.3g}" for value in rows["value"]],
        textposition="top center",
        cliponaxis=False,
        marker={
            "size": 11,
            "color": np.where(uniform, UNIFORM, GAUSSIAN),
            "symbol": np.where(uniform, "circle", "x"),
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": rows["to"] - rows["value"],
            "arrayminus": rows["value"] - rows["from"],
            "color": BASELINE,
            "thickness": 2,
            "width": 6,
        },
        customdata=rows[["from", "to"]],
        hovertemplate="%{y}: %{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra></extra>",
    )


def coverage(frame: pd.DataFrame, columns: int = 5) -> go.Figure:
    """Returns where in its box each dimension was explored: a histogram a dimension, 1 being even.

    `frame` has one row a cell: dimension, left and right (0 and 1 are the walls), relative (1 is even), rows.
    """
    names = list(dict.fromkeys(frame["dimension"]))
    figure = grid([escape(name) for name in names], columns)
    top = 1.1 * max(1.0, frame["relative"].max())
    for i, name in enumerate(names):
        cells, place = frame[frame["dimension"] == name], cell(i, columns)
        middle = (cells["left"] + cells["right"]) / 2
        figure.add_trace(
            go.Bar(
                x=middle,
                y=cells["relative"],
                width=cells["right"] - cells["left"],
                marker={
                    "color": np.where((middle < 0) | (middle > 1), OUTSIDE, INSIDE),
                    "line": {"width": 0},
                },
                customdata=cells["rows"],
                hovertemplate="%{customdata:,} requests, %{y:.2f} of an even share<extra></extra>",
            ),
            **place,
        )
        figure.add_hline(y=1, line={"color": BOUND, "dash": "dash", "width": 1.5}, **place)
        title = "place in the box" if i + columns >= len(names) else None
        figure.update_xaxes(title=title, tickvals=[0, 1], tickangle=0, **place)
        first = i % columns == 0
        figure.update_yaxes(
            title="even = 1" if first else None, range=[0, top], nticks=4, showticklabels=first, **place
        )
    return figure


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
            colorscale="Blues",
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


def penalties(
    frame: pd.DataFrame, forms: Sequence[str], walls: Edges, titles: tuple[str, str], unit: str
) -> go.Figure:
    """Returns the value and the gradient of each form over the offset, with the box shaded.

    `frame` has the columns `offset`, `<form> value` and `<form> gradient`. A form that explodes leaves the
    picture, so that it does not flatten the others.
    """
    drawn = Panels(titles, PANEL_HEIGHT)
    for i, part in enumerate(("value", "gradient")):
        names = {f"{form} {part}": form for form in forms}
        window = _window(frame[list(names)])
        drawn.shade(i, *walls)
        drawn.lines(i, frame, names, "%{y:.4g} at %{x:.3f}", window)
        drawn.axes(i, {"title": unit, "range": _with_names(frame)}, {"range": window})
    return drawn.figure()


def _window(values: pd.DataFrame) -> tuple[float, float]:
    """Returns the range that is shown: that of all forms but the farthest one, widened by half."""
    lows, highs = sorted(values.min()), sorted(values.max(), reverse=True)
    low, high = lows[1], highs[1]
    margin = 0.5 * (high - low) or 1.0
    low, high = max(lows[0], low - margin), min(highs[0], high + margin)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
