"""Figures of exploration: frame in, figure out; uniform in the one colour, Gaussian noise in the other."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.shared.charts import BOUND, INSIDE, OUTSIDE, SEQUENCE, cell, escape, grid, sized

UNIFORM, GAUSSIAN = INSIDE, OUTSIDE
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
DRAWS = 250
"""Of either kind, in the picture of a plan."""
PICTURE_HEIGHT = 430


def picture(
    box: tuple[tuple[float, float], tuple[float, float]], sigma: float, names: tuple[str, str]
) -> go.Figure:
    """Returns two dimensions of a box (the paper's Fig. 3): draws of either noise, and their densities.

    `box` has the lower and upper offset of each dimension. The draws are always the same ones, scaled.
    """
    figure = make_subplots(
        2,
        2,
        shared_xaxes=True,
        shared_yaxes=True,
        column_widths=[0.76, 0.24],
        row_heights=[0.24, 0.76],
        horizontal_spacing=0.02,
        vertical_spacing=0.03,
    )
    reach = max(0.4, 1.2 * np.abs(box).max(), 2.2 * sigma)
    _draws(figure, box, sigma, reach)
    for dimension, place in enumerate(({"row": 1, "col": 1}, {"row": 2, "col": 2})):
        _densities(figure, box[dimension], sigma, reach, upright=dimension == 0, place=place)
    (x_low, x_high), (y_low, y_high) = box
    figure.add_shape(
        type="rect",
        x0=x_low,
        x1=x_high,
        y0=y_low,
        y1=y_high,
        line={"color": BOUND, "width": 2.5},
        row=2,
        col=1,
    )
    axis = {"range": [-reach, reach], "zeroline": True, "zerolinewidth": 1}
    figure.update_xaxes(title=f"offset of {escape(names[0])}", **axis, row=2, col=1)
    figure.update_yaxes(title=f"offset of {escape(names[1])}", **axis, row=2, col=1)
    figure.update_xaxes(range=[-reach, reach], row=1, col=1)
    figure.update_yaxes(range=[-reach, reach], row=2, col=2)
    figure.update_yaxes(title="density", rangemode="tozero", showticklabels=False, row=1, col=1)
    figure.update_xaxes(title="density", rangemode="tozero", showticklabels=False, row=2, col=2)
    return sized(figure, PICTURE_HEIGHT).update_layout(dragmode="select", margin_t=10)


def _draws(figure: go.Figure, box: Sequence[tuple[float, float]], sigma: float, reach: float) -> None:
    generator = np.random.default_rng(0)
    noise = sigma * generator.standard_normal((DRAWS, 2))
    inside = np.array([low + (high - low) * generator.random(DRAWS) for low, high in box]).T
    for name, points, colour, symbol in (
        ("Gaussian", noise[np.abs(noise).max(axis=1) < reach], GAUSSIAN, "x-thin"),
        ("uniform", inside, UNIFORM, "circle"),
    ):
        figure.add_trace(
            go.Scattergl(
                x=points[:, 0],
                y=points[:, 1],
                mode="markers",
                marker={"symbol": symbol, "size": 5, "color": colour, "line": {"color": colour, "width": 1}},
                opacity=0.65,
                hovertemplate=f"{name} draw (%{{x:.3f}}, %{{y:.3f}})<extra></extra>",
            ),
            row=2,
            col=1,
        )


def _densities(
    figure: go.Figure,
    edges: tuple[float, float],
    sigma: float,
    reach: float,
    upright: bool,
    place: dict[str, int],
) -> None:
    low, high = edges
    offsets = np.linspace(-reach, reach, 121)
    bell = np.exp(-((offsets / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    lines = [("Gaussian", GAUSSIAN, "dash", offsets, bell)]
    if high > low:
        flat = 1 / (high - low)
        lines.append(
            ("uniform", UNIFORM, "solid", np.array([low, low, high, high]), np.array([0, flat, flat, 0]))
        )
    for name, colour, dash, along, density in lines:
        x, y = (along, density) if upright else (density, along)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate=f"{name} density<extra></extra>",
            ),
            **place,
        )
    if upright:
        top = max(density.max() for *_, density in lines)
        for i, (name, colour, *_) in enumerate(lines):
            figure.add_annotation(
                x=reach, y=top * (1 - 0.3 * i), text=name, showarrow=False, xanchor="right",
                yanchor="top", font={"color": colour, "size": 12}, **place,
            )  # fmt: skip


def lines(
    figure: go.Figure,
    frame: pd.DataFrame,
    x: str,
    names: Mapping[str, str],
    hover: str,
    place: dict[str, int],
    room: float = 0.02,
) -> None:
    """Draws the columns `names` of `frame` over its column `x`, each named at its end as `names` says.

    Names that would meet are moved apart by `room` of the panel's height.
    """
    ends = _apart({name: float(frame[name].iloc[-1]) for name in names}, frame[list(names)], room)
    styles = zip(names.items(), itertools.cycle(SEQUENCE), itertools.cycle(DASHES))
    for (name, title), colour, dash in styles:
        figure.add_trace(
            go.Scatter(
                x=frame[x],
                y=frame[name],
                name=escape(title),
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate=f"{escape(title)}: {hover}<extra></extra>",
            ),
            **place,
        )
        figure.add_annotation(
            x=frame[x].iloc[-1], y=ends[name], text=escape(title), showarrow=False, xanchor="left",
            xshift=4, font={"color": colour, "size": 12}, **place,
        )  # fmt: skip


def _apart(ends: dict[str, float], values: pd.DataFrame, room: float) -> dict[str, float]:
    """Returns where labels go: at `ends`, but no nearer to each other than `room` of the values' range."""
    least = room * float(np.ptp(values.to_numpy()))
    placed: dict[str, float] = {}
    for name in sorted(ends, key=ends.__getitem__):
        placed[name] = max(ends[name], max(placed.values(), default=-np.inf) + least)
    return placed


POWERS_OF_TWO = {"tickprefix": "2<sup>", "ticksuffix": "</sup>", "rangemode": "tozero"}
"""An axis whose values are logarithms."""
SAMPLES = "Gaussian samples for one uniform"
HOVER_SAMPLES = "2<sup>%{y:.2f}</sup> samples at %{x:.3g}"


def efficiency(
    panels: Sequence[tuple[str, pd.DataFrame, str, float]], names: Mapping[str, str], columns: int
) -> go.Figure:
    """Returns log2 of the exploration-density efficiency, a panel for each (title, frame, unit, chosen x)."""
    figure = grid([title for title, *_ in panels], columns)
    for i, (_, frame, unit, chosen) in enumerate(panels):
        place = cell(i, columns)
        x = frame.columns[0]
        lines(figure, frame, x, names, HOVER_SAMPLES, place, room=0.07)
        figure.add_vline(
            x=chosen,
            line={"color": BOUND, "dash": "dash", "width": 1.5},
            annotation_text=f"{chosen:g}",
            **place,
        )
        span = float(np.ptp(frame[x]))
        figure.update_xaxes(title=unit, range=[frame[x].iloc[0], frame[x].iloc[-1] + 0.22 * span], **place)
        figure.update_yaxes(title=SAMPLES if i % columns == 0 else None, **POWERS_OF_TWO, **place)
    return figure
