"""The widgets that draw one box of the visitor's plan: sliders, numbers, and a rectangle on a picture."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

from mtf_engine.spec import BoundsPlan, Box
from pages.shared import explore_charts, plans
from pages.shared.charts import escape

WIDEST = 2.0
REACH = 0.5
"""Of the sliders, at least; they reach farther once a bound does."""
STEP = 0.005
EDITED = ", then by hand"
PICTURE = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "autoScale2d", "zoom2d", "pan2d"]}

Edges = tuple[float, float]


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
            key = _showing("own box", not self.is_locked)
            st.toggle(f"{self.segment} has a box of its own", key=key, on_change=self._own_box)
        if not np.array_equal(*np.abs(self._edges())):
            st.session_state["symmetric"] = False
        st.session_state.setdefault("symmetric", True)
        left, right = st.columns([2, 3], vertical_alignment="bottom")
        symmetric = left.toggle(
            "Symmetric",
            key="symmetric",
            on_change=self._symmetrise,
            disabled=self.is_locked,
            help="As far below the baseline action as above it.",
        )
        right.number_input(
            "Half width of all dimensions",
            0.0,
            WIDEST,
            step=0.01,
            format="%g",
            key=_showing("all dimensions", self._largest()),
            on_change=self._move_all,
            disabled=self.is_locked,
        )
        return symmetric

    def sliders(self, symmetric: bool) -> None:
        """Draws a slider and its numbers for each dimension."""
        reach = min(WIDEST, max(REACH, math.ceil(2.4 * self._largest()) / 2))
        for i, name in enumerate(self.names):
            if symmetric:
                self._half_width_row(i, name, reach)
            else:
                self._edges_row(i, name, reach)

    def _half_width_row(self, i: int, name: str, reach: float) -> None:
        value = self.box.upper[i]
        left, right = st.columns([5, 2], vertical_alignment="bottom")
        self._slider(left, i, name, _showing(f"half {i}", value), 0.0, reach, _half_width)
        self._number(right, i, f"half width of {name}", _showing(f"half width {i}", value), _half_width)

    def _edges_row(self, i: int, name: str, reach: float) -> None:
        low, high = self.box.lower[i], self.box.upper[i]
        left, middle, right = st.columns([2, 4, 2], vertical_alignment="bottom")
        self._number(left, i, f"lower bound of {name}", _showing(f"lower {i}", low), _lower)
        self._slider(middle, i, name, _showing(f"range {i}", (low, high)), -reach, reach, _range)
        self._number(right, i, f"upper bound of {name}", _showing(f"upper {i}", high), _upper)

    def _slider(self, place, i: int, name: str, key: str, low: float, high: float, to: Callable) -> None:
        place.slider(
            name,
            low,
            high,
            step=STEP,
            format="%.3f",
            key=key,
            on_change=self._move,
            args=(i, key, to),
            disabled=self.is_locked,
        )

    def _number(self, place, i: int, label: str, key: str, to: Callable) -> None:
        place.number_input(
            label,
            -WIDEST,
            WIDEST,
            step=0.01,
            format="%g",
            key=key,
            on_change=self._move,
            args=(i, key, to),
            label_visibility="collapsed",
            disabled=self.is_locked,
        )

    def picture(self, symmetric: bool, sigma: float, dimensions: tuple[int, int]) -> None:
        """Draws two dimensions of the box, on which a rectangle can be drawn in its place."""
        names = (self.names[dimensions[0]], self.names[dimensions[1]])
        walls = [(self.box.lower[i], self.box.upper[i]) for i in dimensions]
        figure = explore_charts.picture((walls[0], walls[1]), sigma, names)
        key = f"picture {st.session_state.get('selections', 0)}"
        texts = [f"{n} from {low:g} to {high:g}" for n, (low, high) in zip(names, walls, strict=True)]
        box = " and ".join(texts)
        alt = f"Uniform draws fill the box, {box}; Gaussian draws of sigma {sigma:g} reach beyond"
        if self.is_locked:
            st.plotly_chart(figure, config=PICTURE, alt=escape(alt), key=f"{key} locked")
            return

        def take() -> None:
            self._take_rectangle(key, dimensions, symmetric)

        st.plotly_chart(
            figure, config=PICTURE, alt=escape(alt), key=key, on_select=take, selection_mode="box"
        )

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

    def _move(self, i: int, key: str, to: Callable[..., Edges]) -> None:
        edges = self._edges()
        edges[:, i] = to(st.session_state[key], *edges[:, i])
        self._put(edges)

    def _move_all(self) -> None:
        half_width = np.full(len(self.names), st.session_state["all dimensions"])
        self._put(np.array([-half_width, half_width]))

    def _symmetrise(self) -> None:
        if st.session_state["symmetric"]:
            half_width = np.abs(self._edges()).max(axis=0)
            self._put(np.array([-half_width, half_width]))

    def _own_box(self) -> None:
        if st.session_state["own box"]:
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
    return -abs(value), abs(value)


def _range(value: Edges, *_: float) -> Edges:
    return value


def _lower(value: float, low: float, high: float) -> Edges:
    return value, max(value, high)


def _upper(value: float, low: float, high: float) -> Edges:
    return min(value, low), value


def _showing(key: str, value: bool | float | Edges) -> str:
    """Returns `key` after making its widget show `value`; a widget that does already is left in peace."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
    return key
