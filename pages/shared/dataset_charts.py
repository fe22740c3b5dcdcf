"""Figures of what a log holds and how it moved: frame in, figure out."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BASELINE, BOUND, INSIDE, OUTSIDE, dates, escape, interval, sized

MOST_COLUMNS = 25
"""Columns in the figure of a drift; the table has all."""
LARGE = 0.2


def bars(frame: pd.DataFrame, across: str, upwards: str) -> go.Figure:
    """Returns a bar for each row of `frame`, `upwards` over `across`, which are also the axes' titles."""
    figure = go.Figure(
        go.Bar(
            x=frame[across],
            y=frame[upwards],
            marker={"color": INSIDE, "line": {"width": 0}},
            hovertemplate=f"%{{x}}: %{{y:,}} {upwards}<extra></extra>",
        )
    )
    figure.update_xaxes(title=across, **(dates(frame[across]) if across == "day" else {}))
    figure.update_yaxes(title=upwards, rangemode="tozero")
    return sized(figure, 270).update_layout(bargap=0.2)


def correlations(frame: pd.DataFrame) -> go.Figure:
    """Returns the correlation of each signal with the next day, with its interval: signal, correlation, low, high."""
    return _estimates(
        frame, "signal", "correlation", "correlation with the watch time of the user's next day"
    )


def slopes(frame: pd.DataFrame) -> go.Figure:
    """Returns what the return gains with each dimension, with its interval: dimension, slope, low, high."""
    return _estimates(frame, "dimension", "slope", "gain in the return per unit of the action, 95 % interval")


def _estimates(frame: pd.DataFrame, name: str, value: str, title: str) -> go.Figure:
    """Returns the `value` of each row with its interval; a filled diamond where that leaves out 0, else a circle."""
    rows = frame.iloc[::-1]
    sure = (rows["low"] > 0) | (rows["high"] < 0)
    figure = go.Figure(
        go.Scatter(
            x=rows[value],
            y=rows[name].map(escape),
            mode="markers",
            marker={
                "size": np.where(sure, 12, 8),
                "symbol": np.where(sure, "diamond", "circle"),
                "color": np.where(sure, INSIDE, BASELINE),
            },
            error_x=interval(rows, value),
            customdata=rows[["low", "high"]],
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": BOUND, "dash": "dash", "width": 1})
    figure.update_xaxes(title=title, zeroline=False)
    figure.update_yaxes(automargin=True)
    return sized(figure, 110 + 30 * len(rows))


def drift(frame: pd.DataFrame) -> go.Figure:
    """Returns the standardised differences of the columns that come first, with their intervals.

    `frame` has one row a column: column, kind, difference, low, high, PSI, what became of it. One that
    moved has a filled diamond, another a circle.
    """
    rows = frame.head(MOST_COLUMNS).iloc[::-1]
    names = (rows["column"] + ", " + rows["kind"]).map(escape)
    moved = rows["verdict"] == "moved"
    figure = go.Figure(
        go.Scatter(
            x=rows["difference"],
            y=names,
            mode="markers",
            marker={
                "size": np.where(moved, 12, 8),
                "symbol": np.where(moved, "diamond", "circle"),
                "color": np.where(moved, OUTSIDE, BASELINE),
            },
            error_x=interval(rows, "difference"),
            customdata=rows[["low", "high", "PSI"]],
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
            "PSI %{customdata[2]:.3f}<extra></extra>",
        )
    )
    for name, psi in zip(names, rows["PSI"], strict=True):
        figure.add_annotation(
            x=1, xref="paper", y=name, text=f"PSI {psi:.2f}", showarrow=False, xanchor="left"
        )
    for edge in (-LARGE, LARGE):
        figure.add_vline(x=edge, line={"color": BOUND, "dash": "dash", "width": 1})
    figure.update_xaxes(title="difference of the means, in standard deviations", zeroline=True)
    figure.update_yaxes(automargin=True)
    return sized(figure, 110 + 26 * len(rows)).update_layout(margin_r=90)
