"""Figures of an evaluation: frame in, figure out; a policy has its method's colour and a sign of its own."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import (
    BOUND,
    DASHES,
    SYMBOLS,
    cell,
    escape,
    grid,
    interval,
    legend_above,
    limits,
    policy_colours,
    sized,
)


def segments(frame: pd.DataFrame, value: str, unit: str, zero: str | None = None) -> go.Figure:
    """Returns a dot with its interval per segment and policy: segment, policy, algo, `value`, low, high.

    Segments lie below each other, the policies of one beside each other. `zero` names the line at 0.
    """
    names = list(dict.fromkeys(frame["segment"]))
    place = {name: -i for i, name in enumerate(names)}
    figure = go.Figure()
    policies, colours = frame.groupby("policy", sort=False), policy_colours(frame)
    for i, ((policy, rows), symbol) in enumerate(zip(policies, itertools.cycle(SYMBOLS), strict=False)):
        shift = 0.6 * ((i + 0.5) / policies.ngroups - 0.5)
        figure.add_trace(
            go.Scatter(
                x=rows[value],
                y=rows["segment"].map(place) - shift,
                name=escape(policy),
                mode="markers",
                marker={"size": 9, "symbol": symbol, "color": colours[policy]},
                error_x=interval(rows, value),
                customdata=rows[["segment", "low", "high"]].assign(segment=rows["segment"].map(escape)),
                hovertemplate="%{customdata[0]}: %{x:.4f} [%{customdata[1]:.4f}, %{customdata[2]:.4f}]",
            )
        )
    ticks = {"tickvals": list(place.values()), "ticktext": [escape(name) for name in names]}
    figure.update_yaxes(**ticks, automargin=True, range=[-len(names) + 0.4, 0.6], zeroline=False)
    figure.update_xaxes(title=unit, zeroline=False, **limits(unit))
    if zero:
        figure.add_vline(x=0, line={"color": BOUND, "dash": "dash"}, annotation_text=escape(zero))
    height = 130 + len(names) * max(34, 17 * policies.ngroups)
    return legend_above(sized(figure, height))


def deviation(frame: pd.DataFrame, walls: pd.DataFrame, signed: bool, columns: int = 5) -> go.Figure:
    """Returns how new minus baseline action is spread in each dimension, policies overlaid, with the bounds.

    `frame` has one row a policy, dimension and bin: policy, algo, dimension, left, right, share; `walls` one
    row a policy and dimension: dimension, lower, upper. `signed` tells whether the deviation has a direction
    or is a size (Fig. 2 of IntegratedRL-MTF); a size has the farther bound only.
    """
    names = list(dict.fromkeys(frame["dimension"]))
    figure, colours = grid([escape(name) for name in names], columns), policy_colours(frame)
    title = "new − baseline action" if signed else "|new − baseline action|"
    for i, name in enumerate(names):
        panel = frame[frame["dimension"] == name]
        for trace in _steps(panel, colours, first=i == 0):
            figure.add_trace(trace, **cell(i, columns))
        for wall in _walls(walls[walls["dimension"] == name], signed):
            line = {"color": BOUND, "dash": "dash", "width": 1.5}
            figure.add_vline(x=wall, line=line, **cell(i, columns))
        figure.update_xaxes(title=title if i + columns >= len(names) else None, **cell(i, columns))
        unit = "% of requests" if i % columns == 0 else None
        figure.update_yaxes(title=unit, rangemode="tozero", **cell(i, columns))
    above_titles = {"yref": "container", "yanchor": "top"}
    return legend_above(figure).update_layout(legend=above_titles, margin_t=80)


def _steps(panel: pd.DataFrame, colours: dict[str, str], first: bool) -> Iterator[go.Scatter]:
    """Yields a policy's outline of one dimension, filled lightly; in the legend if it is the first."""
    for (policy, rows), dash in zip(
        panel.groupby("policy", sort=False), itertools.cycle(DASHES), strict=False
    ):
        yield go.Scatter(
            x=[*rows["left"], rows["right"].iloc[-1]],
            y=[*(100 * rows["share"]), 100 * rows["share"].iloc[-1]],
            name=escape(policy),
            legendgroup=str(policy),
            showlegend=first,
            mode="lines",
            line={"color": colours[policy], "width": 1.8, "dash": dash, "shape": "hv"},
            fill="tozeroy",
            fillcolor="rgba(122, 130, 140, 0.12)",
            hovertemplate="from %{x:.3f}: %{y:.1f} % of requests",
        )


def _walls(walls: pd.DataFrame, signed: bool) -> set[float]:
    known = walls.dropna()
    if signed:
        return {*known["lower"], *known["upper"]}
    return set(np.maximum(-known["lower"], known["upper"]))
