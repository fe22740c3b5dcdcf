"""Figures of the critics: their disagreement, each of them, two of them, and all against the log."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import (
    BASELINE,
    BOUND,
    DASHES,
    INSIDE,
    OUTSIDE,
    SEQUENCE,
    SYMBOLS,
    escape,
    interval,
    legend_above,
    policy_colours,
    sized,
)

BOTH_WAYS = [[0, OUTSIDE], [0.5, BASELINE], [1, INSIDE]]
"""Of what is above or below 0: its middle is neither white nor black, so that it is read on either background."""
BANDS = 3
"""With more lines than this their bands would hide each other and are left out."""


def disagreement(frame: pd.DataFrame) -> go.Figure:
    """Returns the critics' disagreement against distance beyond the bounds, a line and a band per policy.

    `frame` has one row a policy (or segment, without algo) and distance in half widths, 0 inside: policy,
    algo, distance, std over critics, std 5 %, std 95 %.
    """
    figure, colours = go.Figure(), policy_colours(frame)
    lines = list(frame.groupby("policy", sort=False))
    ends = _apart([rows["std over critics"].iloc[-1] for _, rows in lines], frame["std over critics"].max())
    for i, ((name, rows), end) in enumerate(zip(lines, ends, strict=True)):
        algo = rows["algo"].iloc[0]
        colour = colours[name] if isinstance(algo, str) else SEQUENCE[i % len(SEQUENCE)]
        if len(lines) <= BANDS:
            figure.add_trace(_band(rows, colour))
        figure.add_trace(
            go.Scatter(
                x=rows["distance"],
                y=rows["std over critics"],
                name=escape(name),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": DASHES[i % len(DASHES)]},
                marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7},
                hovertemplate="%{x:.2f} half widths beyond: std %{y:.4g}",
            )
        )
        label = {"text": escape(name), "font": {"color": colour}, "xanchor": "left", "xshift": 8}
        figure.add_annotation(x=rows["distance"].iloc[-1], y=end, showarrow=False, **label)
    figure.add_vline(x=0, line={"color": BOUND, "dash": "dash"}, annotation_text="bounds")
    ends = [-0.1, frame["distance"].max() + 0.1]
    figure.update_xaxes(title="distance beyond the bounds, half widths (0: inside)", range=ends)
    figure.update_yaxes(title="std of Q over critics, reward", rangemode="tozero")
    longest = max((len(str(name)) for name, _ in lines), default=0)
    return sized(figure, 380).update_layout(margin_r=min(30 + 7 * longest, 320))


def histogram(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Returns how much critics differ inside the bounds and outside, each as shares of its own points."""
    figure, width = go.Figure(), frame["to"] - frame["from"]
    for part, colour, pattern in (("inside", INSIDE, ""), ("outside", OUTSIDE, "/")):
        figure.add_bar(
            x=frame["from"] + width / 2,
            y=frame[f"{part}, %"],
            width=width,
            name=f"{part} the bounds",
            marker={"color": colour, "pattern": {"shape": pattern}},
            opacity=0.65,
            hovertemplate="around %{x:.4g}: %{y:.1f} % of the points",
        )
    figure.update_xaxes(title=unit, rangemode="tozero")
    figure.update_yaxes(title="% of the points")
    return legend_above(sized(figure, 300)).update_layout(barmode="overlay")


def _apart(values: Sequence[float], span: float) -> list[float]:
    """Returns where the labels of lines that end at `values` go, so that none covers another."""
    places = np.array(values, float)
    order = np.argsort(places)
    for below, above in itertools.pairwise(order):
        places[above] = max(places[above], places[below] + span / 16)
    return places.tolist()


def _band(rows: pd.DataFrame, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[*rows["distance"], *rows["distance"][::-1]],
        y=[*rows["std 95 %"], *rows["std 5 %"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0, "color": colour},
        opacity=0.25,
        hoverinfo="skip",
    )


def each_critic(frame: pd.DataFrame, value: str) -> go.Figure:
    """Returns a map of critics by distance beyond the bounds: how each differs from the mean of all.

    `frame` has one row a critic and distance; `value` is bias (both colours) or size (one).
    """
    table = frame.pivot(index="critic", columns="distance", values=value)
    scale = {"colorscale": BOTH_WAYS, "zmid": 0} if value == "bias" else {"zmin": 0}
    unit = (
        "mean Q − mean of all, reward" if value == "bias" else "root mean square of Q − mean of all, reward"
    )
    figure = go.Figure(
        go.Heatmap(
            x=["inside" if distance == 0 else f"{distance:.4g}" for distance in table.columns],
            y=table.index,
            z=table,
            **scale,
            colorbar={"title": {"text": unit, "side": "right"}},
            texttemplate="%{z:.2g}",
            textfont={"size": 10},
            hovertemplate="critic %{y}, %{x} half widths beyond: %{z:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="distance beyond the bounds, half widths", type="category")
    figure.update_yaxes(title="critic", autorange="reversed", dtick=1 if len(table) <= 30 else None)
    return sized(figure, 120 + 17 * len(table))


def two_critics(counts: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """Returns how many actions have which Q by one critic (rows of `counts`) and by the other (columns)."""
    figure = go.Figure(
        go.Heatmap(
            x=counts.index,
            y=counts.columns,
            z=counts.T,
            zmin=0,
            colorbar={"title": {"text": "actions", "side": "right"}},
            hovertemplate=f"{names[0]} %{{x:.3g}}, {names[1]} %{{y:.3g}}: %{{z}} actions<extra></extra>",
        )
    )
    filled = [*counts.index[counts.notna().any(axis=1)], *counts.columns[counts.notna().any(axis=0)]]
    ends = [min(filled), max(filled)]
    figure.add_trace(_identity(ends))
    _same(figure, "they agree", ends)
    figure.update_xaxes(title=f"Q of {names[0]}, reward")
    figure.update_yaxes(title=f"Q of {names[1]}, reward")
    return sized(figure, 420)


def calibration(frame: pd.DataFrame) -> go.Figure:
    """Returns the mean return that followed steps of similar Q, with intervals, beside where both are equal.

    `frame` has one row a bin: mean Q, mean return, low, high, steps.
    """
    figure = go.Figure()
    everything = frame[["mean Q", "mean return", "low", "high"]]
    ends = [everything.min(axis=None), everything.max(axis=None)]
    figure.add_trace(_identity(ends))
    figure.add_trace(
        go.Scatter(
            x=frame["mean Q"],
            y=frame["mean return"],
            mode="lines+markers",
            marker={"size": 9, "color": INSIDE},
            line={"color": INSIDE, "width": 1},
            error_y=interval(frame, "mean return"),
            customdata=frame[["low", "high", "steps"]],
            hovertemplate="Q %{x:.3g}: return %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], "
            "%{customdata[2]:,} steps<extra></extra>",
        )
    )
    _same(figure, "Q = return", ends)
    figure.update_xaxes(title="mean Q of the logged action, reward")
    figure.update_yaxes(title="discounted return that followed, reward")
    return sized(figure, 420)


def _identity(ends: Sequence[float]) -> go.Scatter:
    line = {"color": BOUND, "dash": "dash", "width": 1.5}
    return go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip")


def _same(figure: go.Figure, text: str, ends: Sequence[float]) -> None:
    label = {
        "text": text,
        "font": {"color": BOUND},
        "showarrow": False,
        "xanchor": "right",
        "yanchor": "bottom",
    }
    figure.add_annotation(x=ends[1], y=ends[1], xshift=-24, **label)
