"""One metric of several trainings in one picture: raw and smoothed lines, or seeds as mean and interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from mtf_engine.learning.curves import mean_and_interval, smoothed
from pages.shared.charts import DASHES, MOST_POINTS, SEQUENCE, escape, sized, thinned

MINUTES = "minutes"
SIGN_ROOM = 16
"""Pixels to the right of the curves for each sign of those that end together."""


class Look(NamedTuple):
    """How curves are drawn: over `step` or `minutes`, how smooth, on which scale."""

    over: str = "step"
    smoothing: float = 0.0
    logarithmic: bool = False


def signs(n: int) -> list[str]:
    """Returns a letter for each of n curves, by which pictures and tables name them."""
    return [chr(ord("A") + i) for i in range(n)]


def lines(metrics: Mapping[str, pd.DataFrame], name: str, look: Look) -> dict[str, pd.DataFrame]:
    """Returns the curve of a metric by training: x, raw, value (smoothed); those that do not log it left out."""
    logged = {key: frame.dropna(subset=[name]) for key, frame in metrics.items() if name in frame}
    return {
        key: pd.DataFrame(
            {
                "x": rows["step"] if look.over == "step" else rows["seconds"].fillna(0.0) / 60,
                "raw": rows[name],
                "value": smoothed(rows[name], look.smoothing),
            }
        )
        for key, rows in logged.items()
        if len(rows)
    }


def grouped(
    groups: Mapping[str, Mapping[str, pd.DataFrame]], name: str, look: Look
) -> dict[str, pd.DataFrame]:
    """Returns the curve of a metric by group of seeds, over steps: x, value (mean of smoothed), low, high, n."""
    by_step = look._replace(over="step")
    curves = {
        key: [curve.set_index("x")["value"] for curve in lines(members, name, by_step).values()]
        for key, members in groups.items()
    }
    return {
        key: mean_and_interval(each).rename(columns={"mean": "value"}).rename_axis("x").reset_index()
        for key, each in curves.items()
        if each
    }


def overlaid(
    curves: Mapping[str, pd.DataFrame], titles: Mapping[str, str], unit: str, look: Look
) -> go.Figure:
    """Returns curves of `lines` or `grouped` in one picture, each with its key, a short sign, at its end.

    `titles` has every key of the page and what hovering says: a curve keeps its colour and its kind of line
    in all pictures.
    """
    figure = go.Figure()
    points = MOST_POINTS // (3 * max(1, len(curves)))
    for place, (key, title) in enumerate(titles.items()):
        if key in curves:
            rows = thinned(curves[key], points)
            _draw(figure, rows, key, title, place)
            _sign(figure, rows, key, place)
    figure.update_xaxes(title="step" if look.over == "step" else "minutes of training")
    figure.update_yaxes(title=unit, type="log" if look.logarithmic else "linear")
    at_one_end = Counter(rows["x"].iloc[-1] for rows in curves.values())
    room = SIGN_ROOM * max(at_one_end.values(), default=0)
    return sized(figure, 330).update_layout(margin_r=24 + room, margin_t=16)


def _draw(figure: go.Figure, rows: pd.DataFrame, key: str, title: str, place: int) -> None:
    colour = SEQUENCE[place % len(SEQUENCE)]
    line = {"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2}
    if "low" in rows:
        figure.add_trace(_band(rows.dropna(), colour))
    elif not rows["raw"].equals(rows["value"]):
        raw = {"color": colour, "width": 1}
        figure.add_scatter(x=rows["x"], y=rows["raw"], mode="lines", line=raw, opacity=0.35, hoverinfo="skip")
    figure.add_scatter(
        x=rows["x"],
        y=rows["value"],
        mode="lines" if len(rows) > 1 else "markers",
        line=line,
        name=escape(title),
        hovertemplate=f"{escape(key)}: %{{y:.4g}} at %{{x:,.4~g}}<extra>{escape(title)}</extra>",
    )


def _sign(figure: go.Figure, rows: pd.DataFrame, key: str, place: int) -> None:
    """Writes a curve's key at its end, to the right of those that end at the same x."""
    end = rows["x"].iloc[-1]
    beside = sum(trace.mode == "text" and trace.x[0] == end for trace in figure.data)
    figure.add_scatter(
        x=[end],
        y=rows["value"].tail(1),
        mode="text",
        text=[f"{'&#8195;' * beside} <b>{escape(key)}</b>"],
        textposition="middle right",
        textfont={"color": SEQUENCE[place % len(SEQUENCE)], "size": 13},
        cliponaxis=False,
        hoverinfo="skip",
    )


def _band(rows: pd.DataFrame, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[*rows["x"], *rows["x"][::-1]],
        y=[*rows["high"], *rows["low"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0, "color": colour},
        opacity=0.25,
        hoverinfo="skip",
    )


def ends(curves: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> pd.DataFrame:
    """Returns where each curve ends, one row a curve."""
    last: Sequence[dict[str, object]] = [
        {"": key, "training": titles[key], **rows.iloc[-1].to_dict()} for key, rows in curves.items()
    ]
    return pd.DataFrame(last)
