"""What was known of an A/B test after how many users: the chart, its table and its words, simulated or live."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from mtf_engine.evaluation.sequential import Look, first_told
from pages.shared import glossary, words
from pages.shared.charts import BOUND, cell, dates, escape, grid, interval, policy_colours
from pages.shared.exhibit import exhibit

FAINT = 0.25
COLUMNS = 2
Named = Mapping[str, Mapping[str, str]]
"""What a row about each arm starts with: policy, its title, and algo, its method, for its colour."""


def metric_title(metric: str) -> str:
    return metric.replace("_", " ")


def looks_frame(looks: Sequence[Look], metric: str, named: Named) -> pd.DataFrame:
    """Returns the looks at one metric, one row a look and arm."""
    frame = pd.DataFrame(
        {
            **named[look.arm],
            **({"day": pd.Timestamp(look.day)} if look.day else {}),
            "users": look.users,
            "relative difference": look.relative,
            "boundary from": look.low,
            "boundary to": look.high,
        }
        for look in looks
        if look.metric == metric
    )
    return frame.astype(dict.fromkeys(("relative difference", "boundary from", "boundary to"), float))


def figure(frame: pd.DataFrame) -> go.Figure:
    """Returns a panel a policy: its difference over users, or over days, in its boundary, with a line at 0."""
    policies = list(dict.fromkeys(frame["policy"]))
    columns = min(COLUMNS, len(policies))
    drawn, over = grid([escape(policy) for policy in policies], columns), "day" if "day" in frame else "users"
    for i, policy in enumerate(policies):
        place, rows = cell(i, columns), frame[frame["policy"] == policy]
        for line in _band(rows, over, policy_colours(frame)[policy]):
            drawn.add_trace(line, **place)
        drawn.add_hline(y=0, line={"color": BOUND, "dash": "dash"}, **place)
        ticks = dates(frame["day"]) if over == "day" else {"rangemode": "tozero"}
        drawn.update_xaxes(title="day" if over == "day" else "users so far", **ticks, **place)
        drawn.update_yaxes(title="difference to the base", tickformat="+.1%", zeroline=False, **place)
    return drawn


def _band(rows: pd.DataFrame, over: str, colour: str) -> list[go.Scatter]:
    """Returns the two edges of the boundary, filled between, and the difference with its marks."""
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    fill = {"fill": "tonexty", "fillcolor": f"rgba({_rgb(colour)}, {FAINT})"}
    difference = go.Scatter(
        x=rows[over],
        y=rows["relative difference"],
        mode="lines+markers",
        line={"color": colour, "width": 1.8},
        marker={"size": 5},
        error_y=_bar(rows) if len(rows) == 1 else None,
        customdata=rows[["users", "boundary from", "boundary to"]],
        hovertemplate="%{y:+.2%} [%{customdata[1]:+.2%}, %{customdata[2]:+.2%}]<br>"
        "%{customdata[0]:,} users<extra></extra>",
    )
    lower = go.Scatter(x=rows[over], y=rows["boundary from"], **edge)
    return [lower, go.Scatter(x=rows[over], y=rows["boundary to"], **edge, **fill), difference]


def _bar(rows: pd.DataFrame) -> dict[str, Any]:
    """Returns the boundary of a single look, which no band can show, as a bar."""
    ends = rows.rename(columns={"boundary from": "low", "boundary to": "high"})
    return interval(ends, "relative difference")


def _rgb(colour: str) -> str:
    return ", ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))


def verdicts(looks: Sequence[Look], metric: str, named: Named) -> list[str]:
    """Returns for each arm whether, and after how many users, its difference was told from 0."""
    told, last = first_told(looks), {look.arm: look for look in looks if look.metric == metric}
    return [_verdict(named[arm]["policy"], told.get((arm, metric)), last[arm]) for arm in last]


def _verdict(policy: str, told: Look | None, last: Look) -> str:
    if told is None or told.relative is None:
        return f"{policy}: not told from the base in {last.users:,} users."
    on = f", on {told.day}" if told.day else ""
    better = "above" if told.relative > 0 else "below"
    return f"{policy}: told to be {better} the base after {told.users:,} users{on}."


def head() -> None:
    st.header("Difference as users came in", anchor=False, help=glossary.TERMS["boundary"])


def show(looks: Sequence[Look], metric: str, named: Named, name: str) -> None:
    """Draws the looks at one metric, and says when it was told; `name` tells this chart from others."""
    frame = looks_frame(looks, metric, named)
    alt = f"Relative difference of {metric_title(metric)} to the base as users came in, in its boundary"
    exhibit(figure(frame), frame.drop(columns="algo"), f"{name} looks", alt)
    st.caption(
        "You may look as often as you like: of a hundred tests without a difference, about five at most ever have 0 "
        "outside the shaded boundary, at whatever look. An interval made for a single look would not hold."
    )
    for verdict in verdicts(looks, metric, named):
        st.markdown(words.plain(verdict))
