"""Small charts in rows, gathered as plain values and made a figure at once.

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
TOP, BOTTOM, BETWEEN = 45, 55, 65
"""Pixels above all panels, below them, and between two rows."""
SIDE = 0.24
"""Share of the width between two panels of a row, divided by their number."""
ROOM = 0.07
"""Of a panel's height, between two names of lines."""


class Panels:
    """Rows of panels that are filled by `lines`, `add`, `mark`, `shade` and `axes`, and drawn by `figure`."""

    def __init__(self, titles: Sequence[str], height: int, columns: int | None = None) -> None:
        """Makes room for `titles`, `columns` a row (default: all), in rows of `height` pixels."""
        self.columns = columns or len(titles)
        rows = -(-len(titles) // self.columns)
        self.inside = rows * height + (rows - 1) * BETWEEN
        self.traces: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}
        for i, title in enumerate(titles):
            self._place(i, title, height / self.inside)

    def _place(self, panel: int, title: str, height: float) -> None:
        """Lays out one panel, of that share of the whole height."""
        row, column = divmod(panel, self.columns)
        gap = SIDE / self.columns
        width = (1 - gap * (self.columns - 1)) / self.columns
        left, top = column * (width + gap), 1 - row * (height + BETWEEN / self.inside)
        x, y = _axes(panel)
        self.layout[_key(x)] = {"domain": [left, left + width], "anchor": y}
        self.layout[_key(y)] = {"domain": [max(top - height, 0), min(top, 1)], "anchor": x}
        size = {"font": {"size": 13 if self.columns < 4 else 11}}
        self.annotations.append(
            _text(f"<b>{escape(title)}</b>", left + width / 2, top)
            | {
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "yshift": 6,
                **size,
            }
        )

    def add(self, panel: int, trace: Mapping[str, Any]) -> None:
        """Draws a trace, given as plotly's plain values."""
        x, y = _axes(panel)
        self.traces.append({**trace, "xaxis": x, "yaxis": y})

    def level(self, panel: int, y: float) -> None:
        """Draws a level line."""
        axes = {"xref": f"{_axes(panel)[0]} domain", "yref": _axes(panel)[1]}
        line = {"color": BOUND, "dash": "dash", "width": 1.5}
        self.shapes.append({"type": "line", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, **axes})

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
            look = {"mode": "lines", "line": {"color": colour, "width": 2, "dash": dash}}
            text = {"name": escape(title), "hovertemplate": f"{escape(title)}: {hover}<extra></extra>"}
            self.add(panel, {"type": "scatter", "x": x, "y": line, **look, **text})
            self.annotations.append(
                _text(escape(title), x[-1], end, colour)
                | {"xref": across, "yref": upwards, "xanchor": "left", "xshift": 4}
            )

    def figure(self) -> go.Figure:
        """Returns what was gathered."""
        margin = {"l": 10, "r": 24, "t": TOP, "b": BOTTOM}
        height = self.inside + TOP + BOTTOM
        layout = {"height": height, "showlegend": False, "bargap": 0, "margin": margin, **self.layout}
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
