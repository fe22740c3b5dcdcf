"""The widgets that draw one box of the visitor's plan: sliders, numbers, and a rectangle on a picture."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from mtf_engine.spec import BoundsPlan, Box
from pages.shared import bounds_charts, plans, words
from pages.shared.charts import escape
from pages.shared.pictures import picture_downloads

WIDEST = 2.0
REACH = 0.5
"""Of the sliders, at least; they reach farther once a bound does."""
STEP = 0.005
EDITED = ", then by hand"
PICTURE = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "autoScale2d", "zoom2d", "pan2d"]}

SYMMETRIC = "symmetric box"
BY = ("sliders", "numbers")

Edges = tuple[float, float]
Moved = Callable[[Any], None]
_numbers = itertools.count(1)


class BoundsEditor:
    """Draws a box of the visitor's plan: the default one, or a segment's. Each widget acts at once."""

    def __init__(self, names: Sequence[str], segment: str | None) -> None:
        self.names, self.segment = names, segment

    @property
    def plan(self) -> BoundsPlan:
        return plans.draft(len(self.names)).plan

    @property
    def box(self) -> Box:
        return plans.box_of(self.plan, self.segment)

    @property
    def is_locked(self) -> bool:
        """Whether the segment has no box of its own, so that the default one is shown."""
        return self.segment is not None and self.segment not in self.plan.segments

    def switches(self) -> bool:
        """Draws what holds for the box as a whole; returns whether it is kept symmetric."""
        if self.segment is not None:
            self._toggle(f"{self.segment} has a box of its own", "own box", not self.is_locked, self._own_box)
        if not np.array_equal(*np.abs(self._edges())):
            st.session_state[SYMMETRIC] = False
        symmetric = st.session_state.setdefault(SYMMETRIC, True)
        left, right = st.columns([2, 3], vertical_alignment="bottom")
        with left:
            self._toggle("Symmetric", "symmetric", symmetric, self._symmetrise)
        label = "Half width of all dimensions"
        self._number(right, label, "all", self._largest(), self._move_all)
        return symmetric

    def walls(self, symmetric: bool) -> None:
        """Draws what moves the walls of each dimension: a slider, or numbers."""
        by = st.segmented_control("Set by", BY, default=BY[0], required=True, key="by", bind="query-params")
        reach = min(WIDEST, max(REACH, math.ceil(2.4 * self._largest()) / 2))
        for i, name in enumerate(self.names):
            edges = self.box.lower[i], self.box.upper[i]
            if by == "sliders":
                self._slider(i, name, edges, reach, symmetric)
            else:
                self._numbers(i, name, edges, symmetric)

    def _slider(self, i: int, name: str, edges: Edges, reach: float, symmetric: bool) -> None:
        low, value, to = (0.0, edges[1], _half_width) if symmetric else (-reach, edges, _range)
        acting = _acting(f"{'half' if symmetric else 'range'} {i}", value, self._moving(i, to))
        st.slider(
            words.plain(name), low, reach, value, STEP, format="%.3f", disabled=self.is_locked, **acting
        )

    def _numbers(self, i: int, name: str, edges: Edges, symmetric: bool) -> None:
        if symmetric:
            self._number(st, name, f"half number {i}", edges[1], self._moving(i, _half_width))
        else:
            left, right = st.columns(2)
            self._number(left, f"{name}, lower", f"lower {i}", edges[0], self._moving(i, _lower))
            self._number(right, f"{name}, upper", f"upper {i}", edges[1], self._moving(i, _upper))

    def _number(self, place: Any, label: str, name: str, value: float, moved: Moved) -> None:
        acting = _acting(name, value, moved)
        place.number_input(
            words.plain(label), -WIDEST, WIDEST, value, 0.01, format="%g", disabled=self.is_locked, **acting
        )

    def _toggle(self, label: str, name: str, value: bool, moved: Moved) -> None:
        locked = self.is_locked and name != "own box"
        st.toggle(words.plain(label), value, disabled=locked, **_acting(name, value, moved))

    def picture(self, symmetric: bool, sigma: float, dimensions: tuple[int, int]) -> None:
        """Draws two dimensions of the box, on which a rectangle can be drawn in its place."""
        names = (self.names[dimensions[0]], self.names[dimensions[1]])
        walls = [(self.box.lower[i], self.box.upper[i]) for i in dimensions]
        figure = bounds_charts.picture((walls[0], walls[1]), sigma, names)
        key = f"picture {st.session_state.get('selections', 0)}"
        texts = [f"{n} from {low:g} to {high:g}" for n, (low, high) in zip(names, walls, strict=True)]
        box = " and ".join(texts)
        alt = f"Uniform draws fill the box, {box}; Gaussian draws of sigma {sigma:g} reach beyond"
        if self.is_locked:
            st.plotly_chart(figure, config=PICTURE, alt=escape(alt), key=f"{key} locked")
            picture_downloads(f"{key} locked", "box")
            return

        def take() -> None:
            self._take_rectangle(key, dimensions, symmetric)

        st.plotly_chart(
            figure, config=PICTURE, alt=escape(alt), key=key, on_select=take, selection_mode="box"
        )
        st.caption("Draw a rectangle on the picture, and the box takes its place.")
        picture_downloads(key, "box")

    def _edges(self) -> np.ndarray:
        return np.array([self.box.lower, self.box.upper])

    def _largest(self) -> float:
        return float(np.abs(self._edges()).max())

    def _put(self, edges: np.ndarray) -> None:
        """Makes `edges` [2, d] the walls of the box."""
        found = plans.draft(len(self.names))
        lower, upper = np.clip(edges, -WIDEST, WIDEST).tolist()
        box = Box(lower=lower, upper=upper)
        origin = found.origin if found.origin.endswith(("by hand", EDITED)) else found.origin + EDITED
        plans.draw(plans.with_box(found.plan, self.segment, box), origin)

    def _moving(self, i: int, to: Callable[..., Edges]) -> Moved:
        """Returns what moves the walls of dimension `i` to where a widget says."""

        def moved(value: Any) -> None:
            edges = self._edges()
            edges[:, i] = to(value, *edges[:, i])
            self._put(edges)

        return moved

    def _move_all(self, value: float) -> None:
        self._put(np.outer(_half_width(value), np.ones(len(self.names))))

    def _symmetrise(self, value: bool) -> None:
        st.session_state[SYMMETRIC] = value
        if value:
            self._put(np.abs(self._edges()).max(axis=0) * np.array([[-1], [1]]))

    def _own_box(self, value: bool) -> None:
        if value:
            self._put(self._edges())
        else:
            found = plans.draft(len(self.names))
            plans.draw(plans.without_box(found.plan, str(self.segment)), found.origin)

    def _take_rectangle(self, key: str, dimensions: tuple[int, int], symmetric: bool) -> None:
        rectangles = st.session_state[key].selection.box
        if not rectangles:
            return
        edges = self._edges()
        for i, axis in zip(dimensions, "xy", strict=True):
            walls = np.round(sorted(rectangles[0][axis]), 3)
            edges[:, i] = _half_width(np.abs(walls).max()) if symmetric else walls
        self._put(edges)
        st.session_state["selections"] = st.session_state.get("selections", 0) + 1


def _half_width(value: float, *_: float) -> Edges:
    return 0.0 - abs(value), abs(value)


def _range(value: Edges, *_: float) -> Edges:
    return value


def _lower(value: float, low: float, high: float) -> Edges:
    return value, max(value, high)


def _upper(value: float, low: float, high: float) -> Edges:
    return min(value, low), value


def _acting(name: str, value: bool | float | Edges, moved: Moved) -> dict[str, Any]:
    """Returns the key and the callback of the widget `name`: a new key where it would not show `value`.

    A widget whose value follows another's is replaced, never told: a browser that has not heard of the change
    yet would send the old value with the next move, and undo it.
    """
    keys = st.session_state.setdefault("editor keys", {})
    if st.session_state.get(keys.get(name, name), value) != value:
        keys[name] = f"{name} {next(_numbers)}"
    key = keys.get(name, name)
    return {"key": key, "on_change": _tell, "args": (name, key, moved)}


def _tell(name: str, key: str, moved: Moved) -> None:
    """Hands on the value of the widget `name`, unless that one has been replaced since."""
    if st.session_state["editor keys"].get(name, name) == key:
        moved(st.session_state[key])
