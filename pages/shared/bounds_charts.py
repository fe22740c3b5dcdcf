"""Figures of closed forms: boxes, densities, penalties. Uniform has the one colour, Gaussian noise the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BOUND, INSIDE, OUTSIDE, escape
from pages.shared.panels import Panels

UNIFORM, GAUSSIAN = INSIDE, OUTSIDE
DRAWS = 150
"""Of either kind, in the picture of a plan."""
DRAWN = 0.9
"""Opacity of a draw: one that is fainter vanishes on black."""
PICTURE_HEIGHT, PANEL_HEIGHT = 430, 270
ROOM, LOW = 0.35, 0.15
"""Shares of a chart's width and height that names to the left of a point and below it take, on a phone."""

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
            "type": "scatter",
            "x": points[:, 0],
            "y": points[:, 1],
            "mode": "markers",
            "opacity": DRAWN,
            "marker": {"symbol": symbol, "size": 5, "color": colour, "line": {"color": colour, "width": 1.5}},
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


def teaching(frontier: pd.DataFrame, ways: pd.DataFrame, far: float) -> go.Figure:
    """Returns information against the users' loss: the line of the best boxes, and three ways to explore.

    `frontier` has the columns loss and information; `ways` has the columns way, noise, `loss, %` and information,
    and the chance to move beyond `far`: uniform in a box, Gaussian of the same variances, Gaussian of one sigma.
    """
    x, y = "loss, %", "information"
    most, top = max(frontier[x].max(), ways[x].max()), max(frontier[y].max(), ways[y].max())
    marks = ways.head(3)
    traces = [
        {
            "type": "scatter",
            "x": frontier[x],
            "y": frontier[y],
            "mode": "lines",
            "line": {"color": UNIFORM, "width": 2},
            "hovertemplate": "best box: %{y:.2f} times for %{x:.3g} %<extra></extra>",
        }
    ]
    end = 1.6 * most or 1
    size = [most or 1, top or 1]
    free = _farthest(frontier[[x, y]] / size, marks[[x, y]] / size)
    texts = [_mark_name("best boxes", frontier[x].iloc[free], frontier[y].iloc[free], UNIFORM, shift=-12)]
    box = marks.iloc[0]
    if box[x] > ROOM * end:  # above the line, where nothing else is
        beside = {"shift": 12, "aside": -12}, {"shift": -24}
    elif box[y] > LOW * top:
        beside = {"shift": 0}, {"shift": -34}
    else:  # between the line and the axis
        beside = {"shift": 26, "aside": 70}, {"shift": -4, "aside": 70}
    looks = (
        ("circle", 14, UNIFORM, beside[0]),
        ("x-thin", 9, GAUSSIAN, beside[1]),
        ("x-thin", 12, GAUSSIAN, {"shift": -12}),
    )
    for row, (symbol, size, colour, place) in zip(marks.to_dict("records"), looks, strict=True):
        reach = row[f"beyond {far:g}, %"]
        reaches = f"{reach:.2g} % beyond ±{far:g}" if reach else f"none beyond ±{far:g}"
        marker = {"symbol": symbol, "size": size, "color": colour, "line": {"color": colour, "width": 2.5}}
        hover = f"{escape(row['way'])}: %{{y:.2f}} times for %{{x:.3g}} %, {reaches}<extra></extra>"
        point = {"x": [row[x]], "y": [row[y]], "mode": "markers", "marker": marker, "hovertemplate": hover}
        traces.append({"type": "scatter", **point})
        texts.append(_mark_name(f"{row['way']}\n{reaches}", row[x], row[y], colour, **place))
    return go.Figure(
        traces,
        {
            "height": PICTURE_HEIGHT,
            "showlegend": False,
            "margin": {"l": 10, "r": 24, "t": 20, "b": 10},
            "xaxis": {
                "title": {"text": "users' loss, % of a session's return"},
                "range": [0, end],
            },
            "yaxis": {"title": {"text": "information, times the pilot's"}, "range": [0, 1.12 * top]},
            "annotations": texts,
        },
    )


def _farthest(line: pd.DataFrame, marks: pd.DataFrame) -> int:
    """Returns which point of `line` is farthest from all `marks`: there is room for its name."""
    gaps = np.linalg.norm(line.to_numpy()[:, None] - marks.to_numpy(), axis=2)
    return int(gaps.min(axis=1)[1:].argmax()) + 1


def _mark_name(text: str, x: float, y: float, colour: str, shift: float, aside: float = 12) -> dict[str, Any]:
    """Returns a name of one line or more, `shift` pixels above a point and `aside` right of it, or left below 0."""
    side = "left" if aside > 0 else "right"
    place = {"x": x, "y": y, "xshift": aside, "yshift": shift, "xanchor": side, "align": side}
    lines = "<br>".join(escape(line) for line in text.split("\n"))
    return {"text": lines, "font": {"color": colour, "size": 12}, "showarrow": False, **place}


def _window(values: pd.DataFrame) -> tuple[float, float]:
    """Returns the range that is shown: that of all forms but the farthest one, widened by half."""
    lows, highs = sorted(values.min()), sorted(values.max(), reverse=True)
    low, high = lows[1], highs[1]
    margin = 0.5 * (high - low) or 1.0
    low, high = max(lows[0], low - margin), min(highs[0], high + margin)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
