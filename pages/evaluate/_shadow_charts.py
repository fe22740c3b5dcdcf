"""Figures of a shadow diff: frame in, figure out."""

import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BASELINE, BOUND, INSIDE, OUTSIDE, escape, interval, limits, sized, wholes


def in_common(frame: pd.DataFrame) -> go.Figure:
    """Returns a bar for each number of items in common: columns items in common, share of requests."""
    x, y = frame["items in common"], frame["share of requests"]
    figure = go.Figure(
        go.Bar(x=x, y=y, marker_color=INSIDE, width=0.8, hovertemplate="%{x}: %{y:.1%}<extra></extra>")
    )
    figure.update_xaxes(title="items of the top that both have, count", **wholes(x))
    figure.update_yaxes(title="share of requests", tickformat=".0%", **limits("share of requests"))
    return sized(figure, 260)


def changes(frame: pd.DataFrame, prediction: str, value: str) -> go.Figure:
    """Returns a bar with its interval for each tenth of a prediction's values.

    `frame` has one row a tenth: tenth, value from, value to, `value`, low, high.
    """
    figure = go.Figure(
        go.Bar(
            x=frame["tenth"],
            y=frame[value],
            marker_color=[INSIDE if change >= 0 else OUTSIDE for change in frame[value]],
            width=0.8,
            error_y=interval(frame, value),
            customdata=frame[["value from", "value to", "low", "high"]],
            hovertemplate="predicted %{customdata[0]:.3g} to %{customdata[1]:.3g}: %{y:+.2%} "
            "[%{customdata[2]:+.2%}, %{customdata[3]:+.2%}]<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": BOUND, "dash": "dash"})
    figure.update_xaxes(
        title=f"tenth of the values of {escape(prediction)}, the lowest first", **wholes(frame["tenth"])
    )
    figure.update_yaxes(title="share of top places, change", tickformat="+.1%", zerolinecolor=BASELINE)
    return sized(figure, 260)
