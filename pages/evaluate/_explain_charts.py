"""Figures of one request: weights, ranks, and what each prediction adds to an item's score."""

import itertools

import pandas as pd
import plotly.graph_objects as go

from pages.evaluate._explaining import SHORT, UNSEEN, WATCHED
from pages.shared.charts import INSIDE, OUTSIDE, SYMBOLS, escape, legend_above, policy_colours, sized

NEUTRAL = "rgba(122, 130, 140, 0.35)"


def weights(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Returns the real weights of one request, a row a dimension and a sign a policy, over their ranges.

    `frame` has one row a policy and dimension: policy, algo, dimension, weight, low, high.
    """
    names, colours = list(dict.fromkeys(frame["dimension"])), policy_colours(frame)
    figure = go.Figure()
    for name, rows in frame.groupby("dimension", sort=False):
        ends = [rows["low"].iloc[0], rows["high"].iloc[0]]
        line = {"color": NEUTRAL, "width": 6}
        figure.add_trace(
            go.Scatter(
                x=ends, y=[escape(name)] * 2, mode="lines", line=line, hoverinfo="skip", showlegend=False
            )
        )
    for (policy, rows), symbol in zip(
        frame.groupby("policy", sort=False), itertools.cycle(SYMBOLS), strict=False
    ):
        figure.add_trace(
            go.Scatter(
                x=rows["weight"],
                y=rows["dimension"].map(escape),
                name=escape(policy),
                mode="markers",
                marker={"size": 11, "symbol": symbol, "color": colours[policy]},
                customdata=rows["action"],
                hovertemplate="%{y}: %{x:.4g} (action %{customdata:.3f})",
            )
        )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title=unit, zeroline=False)
    return legend_above(sized(figure, 140 + 30 * len(names)))


DID = {WATCHED: (INSIDE, "solid"), SHORT: (OUTSIDE, "dash"), UNSEEN: (NEUTRAL, "dot")}
"""What became of an item, by the colour and the kind of its line."""


def ranks(frame: pd.DataFrame, most: int) -> go.Figure:
    """Returns a line an item through its rank under each policy: what the user did is its colour and line.

    `frame` has one row a policy and item: policy, item, item_id, rank, did. Items that are among the first
    `most` nowhere are left out.
    """
    followed = frame[frame.groupby("item")["rank"].transform("min") <= most]
    lowest = min(int(followed["rank"].max()), int(1.5 * most))
    figure = go.Figure()
    for did, (colour, dash) in DID.items():
        lines = followed[followed["did"] == did].groupby("item", sort=False)
        for i, (_, rows) in enumerate(lines):
            item = escape(rows["item_id"].iloc[0])
            figure.add_trace(
                go.Scatter(
                    x=rows["policy"].map(escape),
                    y=rows["rank"],
                    name=did,
                    legendgroup=did,
                    showlegend=i == 0,
                    mode="lines+markers",
                    line={"color": colour, "dash": dash, "width": 2},
                    marker={"size": 8},
                    hovertemplate=f"item {item}, {did}: rank %{{y}} by %{{x}}<extra></extra>",
                )
            )
            _name_ends(figure, rows[rows["rank"] <= lowest], item)
    names = [escape(policy) for policy in frame["policy"].unique()]
    figure.update_xaxes(categoryarray=names, range=[-0.35, len(names) - 0.65])
    figure.update_yaxes(title="rank (1 is first)", range=[lowest + 0.5, 0.5], dtick=1, zeroline=False)
    return legend_above(sized(figure, 120 + 24 * lowest))


def _name_ends(figure: go.Figure, rows: pd.DataFrame, item: str) -> None:
    """Writes an item's id before the first and after the last of its ranks."""
    for row, anchor, shift in ((rows.head(1), "right", -10), (rows.tail(1), "left", 10)):
        for policy, rank in zip(row["policy"], row["rank"], strict=True):
            place = {"x": escape(policy), "y": rank, "xanchor": anchor, "xshift": shift}
            figure.add_annotation(text=item, showarrow=False, font={"size": 11}, **place)


def contributions(frame: pd.DataFrame) -> go.Figure:
    """Returns what each prediction adds to an item's score above the list's mean, a bar a policy.

    `frame` has one row a policy and prediction: policy, algo, prediction, above.
    """
    figure = go.Figure()
    patterns, colours = ("", "/", ".", "x", "+"), policy_colours(frame)
    for i, (policy, rows) in enumerate(frame.groupby("policy", sort=False)):
        figure.add_trace(
            go.Bar(
                x=rows["above"],
                y=rows["prediction"].map(escape),
                name=escape(policy),
                orientation="h",
                marker={
                    "color": colours[policy],
                    "pattern": {"shape": patterns[i % len(patterns)]},
                },
                hovertemplate="%{y}: %{x:+.3f}",
            )
        )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="part of the log final score, above the mean of the list")
    height = 140 + 18 * len(frame) + 10 * frame["prediction"].nunique()
    return legend_above(sized(figure, height)).update_layout(barmode="group", bargap=0.25)
