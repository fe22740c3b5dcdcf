"""Small charts side by side, gathered as plain values and made a figure at once.

Ten times as fast as adding to a plotly figure piece by piece: what a slider moves must be drawn in a blink.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.shared.charts import BOUND, SEQUENCE, escape

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
TOP, BOTTOM, SIDE = 45, 55, 0.24
"""Pixels above and below a panel; share of the width between two, divided by their number."""
ROOM = 0.07
"""Of a panel's height, between two names of lines."""


class Panels:
    """A row of panels that is filled by `lines`, `mark` and `axes`, and drawn by `figure`."""

    def __init__(self, titles: Sequence[str], height: int) -> None:
        self.height = height
        self.traces: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}
        gap = SIDE / len(titles)
        width = (1 - gap * (len(titles) - 1)) / len(titles)
        for i, title in enumerate(titles):
            domain = [i * (width + gap), i * (width + gap) + width]
            x, y = _axes(i)
            self.layout[_key(x)], self.layout[_key(y)] = {"domain": domain, "anchor": y}, {"anchor": x}
            self.annotations.append(
                _text(f"<b>{escape(title)}</b>", sum(domain) / 2, 1.0)
                | {"xref": "paper", "yref": "paper", "yanchor": "bottom", "yshift": 8}
            )

    def axes(self, panel: int, x: Mapping[str, Any], y: Mapping[str, Any]) -> None:
        """Sets the axes of a panel; a title is given as its text."""
        for axis, values in zip(_axes(panel), (x, y), strict=True):
            self.layout[_key(axis)] |= {**values, "title": {"text": values.get("title", "")}}

    def mark(self, panel: int, x: float, text: str) -> None:
        """Draws an upright line with its name."""
        axes = self._upright(panel)
        line = {"color": BOUND, "dash": "dash", "width": 1.5}
        self.shapes.append({"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line, **axes})
        self.annotations.append(_text(text, x, 1.0) | axes | {"xanchor": "left", "yanchor": "top"})

    def shade(self, panel: int, low: float, high: float) -> None:
        """Shades all between two places of the x axis."""
        axes = self._upright(panel)
        look = {"fillcolor": BOUND, "opacity": 0.1, "line": {"color": BOUND, "width": 1}, "layer": "below"}
        self.shapes.append({"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, **look, **axes})

    @staticmethod
    def _upright(panel: int) -> dict[str, str]:
        """Returns the references of what spans a panel's whole height."""
        x, y = _axes(panel)
        return {"xref": x, "yref": f"{y} domain"}

    def lines(
        self,
        panel: int,
        frame: pd.DataFrame,
        names: Mapping[str, str],
        hover: str,
        window: tuple[float, float] | None = None,
    ) -> None:
        """Draws the columns `names` of `frame` over its first, each named at its end as `names` says.

        Names that would meet are moved apart, and stay inside the panel's `window`.
        """
        x, values = frame.iloc[:, 0].to_numpy(), frame[list(names)].to_numpy()
        ends = _apart(values[-1], *(window or (values.min(), values.max())))
        styles = zip(names.values(), values.T, ends, itertools.cycle(SEQUENCE), itertools.cycle(DASHES))
        for title, line, end, colour, dash in styles:
            across, upwards = _axes(panel)
            axes = {"xaxis": across, "yaxis": upwards}
            look = {"mode": "lines", "line": {"color": colour, "width": 2, "dash": dash}}
            text = {"name": escape(title), "hovertemplate": f"{escape(title)}: {hover}<extra></extra>"}
            self.traces.append({"type": "scatter", "x": x, "y": line, **look, **text, **axes})
            self.annotations.append(
                _text(escape(title), x[-1], end, colour)
                | {"xref": across, "yref": upwards, "xanchor": "left", "xshift": 4}
            )

    def figure(self) -> go.Figure:
        """Returns what was gathered."""
        margin = {"l": 10, "r": 24, "t": TOP, "b": BOTTOM}
        layout = {"height": self.height, "showlegend": False, "margin": margin, **self.layout}
        return go.Figure(self.traces, {**layout, "annotations": self.annotations, "shapes": self.shapes})


def _axes(panel: int) -> tuple[str, str]:
    """Returns what plotly calls the axes of a panel: x and y, x2 and y2, ..."""
    number = panel + 1 if panel else ""
    return f"x{number}", f"y{number}"


def _key(axis: str) -> str:
    return f"{axis[0]}axis{axis[1:]}"


def _text(text: str, x: float, y: float, colour: str | None = None) -> dict[str, Any]:
    font = {"size": 12, "color": colour} if colour else {"size": 12}
    return {"text": text, "x": x, "y": y, "showarrow": False, "font": font}


def _apart(ends: np.ndarray, low: float, high: float) -> list[float]:
    """Returns where names go: at `ends` within [low, high], but no nearer to each other than `ROOM`."""
    least = ROOM * (high - low)
    placed: dict[int, float] = {}
    for i in np.argsort(ends, kind="stable").tolist():
        end = min(max(float(ends[i]), low), high)
        placed[i] = max(end, max(placed.values(), default=-np.inf) + least)
    down = max(0.0, max(placed.values()) - high)
    return [placed[i] - down for i in range(len(ends))]
