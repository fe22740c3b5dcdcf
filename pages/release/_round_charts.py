"""Figures of progressive rounds: frame in, figure out."""

import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import (
    BASELINE,
    BOUND,
    FAINT,
    INSIDE,
    OUTSIDE,
    cell,
    escape,
    grid,
    legend_above,
    limits,
    sized,
    wholes,
)


def gains(frame: pd.DataFrame, panels: list[tuple[str, str, str, str, str]]) -> go.Figure:
    """Returns what each round gained over its own baseline, with intervals.

    A panel is title, unit, and the columns of the value and of the ends of its interval; `frame` has `round`.
    """
    figure = grid([title for title, *_ in panels], len(panels))
    for i, (_, unit, value, low, high) in enumerate(panels):
        trace = go.Scatter(
            x=frame["round"],
            y=frame[value],
            mode="markers",
            marker={"size": 10, "color": INSIDE},
            error_y=_ends(frame, value, low, high),
            customdata=frame[[low, high]],
            hovertemplate="round %{x}: %{y:.4f} [%{customdata[0]:.4f}, %{customdata[1]:.4f}]<extra></extra>",
        )
        figure.add_trace(trace, **cell(i, len(panels)))
        figure.add_hline(y=0, line={"color": BOUND, "dash": "dash"}, **cell(i, len(panels)))
        figure.update_yaxes(title=unit, zeroline=False, **cell(i, len(panels)))
        figure.update_xaxes(title="round", zeroline=False, **wholes(frame["round"]), **cell(i, len(panels)))
    return sized(figure, 320).update_layout(showlegend=False)


def walked(frame: pd.DataFrame) -> go.Figure:
    """Returns the distance from the first baseline by round: `all` thick, each dimension faint."""
    figure = go.Figure()
    for name in [column for column in frame.columns if column != "round"]:
        whole = name == "all"
        figure.add_trace(
            go.Scatter(
                x=frame["round"],
                y=frame[name],
                mode="lines+markers",
                marker={"size": 7 if whole else 4},
                line={"color": INSIDE if whole else FAINT, "width": 3 if whole else 1.5},
                name=escape(name),
                hovertemplate=f"{escape(name)}: %{{y:.4f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="round", zeroline=False, **wholes(frame["round"]))
    figure.update_yaxes(title="mean |action − first baseline|", rangemode="tozero")
    last = frame.iloc[-1]
    label = {"text": "all dimensions", "font": {"color": INSIDE}, "showarrow": False, "yshift": 12}
    figure.add_annotation(x=last["round"], y=last["all"], xanchor="right", **label)
    return sized(figure, 320).update_layout(showlegend=False)


def predicted(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Returns what was predicted of each policy beside what was realised, with intervals."""
    figure = go.Figure()
    looks = {"predicted": ("diamond", OUTSIDE, -0.08), "realised": ("circle", BASELINE, 0.08)}
    for name, (symbol, colour, shift) in looks.items():
        figure.add_trace(
            go.Scatter(
                x=frame["measured in round"] + shift,
                y=frame[name],
                mode="markers",
                name=name,
                marker={"size": 10, "symbol": symbol, "color": colour},
                error_y=_ends(frame, name, f"{name} low", f"{name} high"),
                customdata=frame["policy"].map(escape),
                hovertemplate=f"{name} of %{{customdata}}: %{{y:.4f}}<extra></extra>",
            )
        )
    ticks = wholes(frame["measured in round"])
    figure.update_xaxes(title="round in which it was the baseline", zeroline=False, **ticks)
    figure.update_yaxes(title=unit, **limits(unit))
    return legend_above(sized(figure, 320))


def _ends(frame: pd.DataFrame, value: str, low: str, high: str) -> dict[str, object]:
    return {
        "type": "data",
        "array": frame[high] - frame[value],
        "arrayminus": frame[value] - frame[low],
        "thickness": 1.5,
    }
