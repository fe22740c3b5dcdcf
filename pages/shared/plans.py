"""The plan that is being drawn: one a visitor, kept from page to page, and carried by links."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import streamlit as st
from pydantic import ValidationError

from mtf_engine.spec import BoundsPlan, Box, Refusal
from pages.shared import links, loaders

HALF_WIDTH = 0.15
"""Of the plan a visitor starts from; the paper's."""
DRAFT, LOGGED, DEFAULT = "*draft", "*logged", "*default"
LINK, ORIGIN = "box", "from"
"""Names in the address: the draft, and where it comes from."""
MOST_DIMENSIONS = 1_000
"""That a link may ask for."""


class Draft(NamedTuple):
    """A plan that is being drawn, and where it comes from."""

    plan: BoundsPlan
    origin: str = "by hand"


def draft(n_actions: int) -> Draft:
    """Returns the visitor's plan of that many dimensions: at first +-0.15 everywhere."""
    return st.session_state.get(_key(n_actions)) or Draft(BoundsPlan.symmetric(HALF_WIDTH, n_actions))


def draw(plan: BoundsPlan, origin: str) -> None:
    """Makes `plan` the visitor's."""
    st.session_state[_key(plan.n_actions)] = Draft(plan, origin)


def linked_draft(n_actions: int) -> Draft:
    """Returns the visitor's plan after taking up that of the address, which then carries what is returned.

    An address that this visit has written itself is not taken up: a browser that is behind still sends it.
    """
    text, written = st.query_params.get(LINK), st.session_state.setdefault("written links", set())
    if text is not None and text not in written:
        plan = from_text(text)
        if plan.n_actions == n_actions:
            draw(plan, st.query_params.get(ORIGIN, "a link"))
        else:
            st.warning(f"The link's plan has {plan.n_actions} dimensions, this log's actions {n_actions}.")
    found = draft(n_actions)
    st.query_params[LINK] = to_text(found.plan)
    written.add(st.query_params[LINK])
    st.query_params[ORIGIN] = found.origin
    return found


class Chosen(NamedTuple):
    """A plan, what sentences call it, and the option of commands that names it."""

    plan: BoundsPlan
    title: str
    option: tuple[str, ...]


def logged(plan: BoundsPlan | None) -> dict[str, Chosen]:
    """Returns the plan that a log was collected with as a choice, none where it declares no plan."""
    return {LOGGED: Chosen(plan, "the bounds of its log", ())} if plan else {}


def default(n_actions: int) -> dict[str, Chosen]:
    """Returns as a choice the box that a collection has where no plan is named."""
    box = BoundsPlan.symmetric(HALF_WIDTH, n_actions)
    return {DEFAULT: Chosen(box, f"the default box, ±{HALF_WIDTH:g}", ())}


def choose(n_actions: int, place: Any = st, first: Mapping[str, Chosen] | None = None) -> Chosen:
    """Draws a choice of the plans in `first`, the planner's and the stored ones."""
    stored = [row for row in loaders.workspace().registry.plans() if row.plan.n_actions == n_actions]
    plans = {
        **(first or {}),
        DRAFT: Chosen(draft(n_actions).plan, "the planner's plan", ("--bounds", "plan.yaml")),
        **{row.name: Chosen(row.plan, row.name, ("--bounds", row.name)) for row in stored},
    }
    key = links.choice("Bounds plan", {key: found.title for key, found in plans.items()}, "plan", place)
    return plans[key]._replace(plan=linked_draft(n_actions).plan) if key == DRAFT else plans[key]


def where(chosen: Chosen) -> str:
    """Returns what a command needs to be told where the file of the planner's plan comes from."""
    return "; plan.yaml is the planner's download" if "plan.yaml" in chosen.option else ""


def box_of(plan: BoundsPlan, segment: str | None) -> Box:
    """Returns the box that holds for `segment`; the default one for None and for segments without one."""
    return plan.segments.get(segment, plan) if segment is not None else plan


def with_box(plan: BoundsPlan, segment: str | None, box: Box) -> BoundsPlan:
    """Returns `plan` with `box` for `segment`, or as its default."""
    if segment is None:
        return BoundsPlan(lower=box.lower, upper=box.upper, segments=plan.segments, edge=plan.edge)
    return _with_segments(plan, {**plan.segments, segment: Box(lower=box.lower, upper=box.upper)})


def without_box(plan: BoundsPlan, segment: str) -> BoundsPlan:
    """Returns `plan` with the default box for `segment`."""
    return _with_segments(plan, {name: box for name, box in plan.segments.items() if name != segment})


def _with_segments(plan: BoundsPlan, segments: dict[str, Box]) -> BoundsPlan:
    return BoundsPlan(lower=plan.lower, upper=plan.upper, segments=segments, edge=plan.edge)


def to_text(plan: BoundsPlan) -> str:
    """Returns `plan` as an address carries it: `-0.15:0.15*10;new=-0.1:0.1*10`, `clip;` before it."""
    boxes = [_box_text(plan), *(f"{quote(s)}={_box_text(box)}" for s, box in plan.segments.items())]
    return ";".join(["clip", *boxes] if plan.edge == "clip" else boxes)


def _box_text(box: Box) -> str:
    edges = (f"{low + 0:.10g}:{high + 0:.10g}" for low, high in zip(box.lower, box.upper, strict=True))
    runs = ((text, len(list(same))) for text, same in groupby(edges))
    return ",".join(f"{text}*{n}" if n > 1 else text for text, n in runs)


def from_text(text: str) -> BoundsPlan:
    """Returns the plan that `to_text` wrote; Refusal for anything else."""
    clipped, boxes = text.startswith("clip;"), text.removeprefix("clip;").split(";")
    try:
        default, *others = (box.rpartition("=") for box in boxes)
        segments = {unquote(segment): _box(edges) for segment, _, edges in others}
        edge = "clip" if clipped else "truncate"
        return BoundsPlan(**_box(default[2]).model_dump(), segments=segments, edge=edge)
    except (ValueError, ValidationError):
        raise Refusal("the bounds plan in this link cannot be read; ask for the link again") from None


def _box(text: str) -> Box:
    runs = (run.partition("*") for run in text.split(","))
    edges = [pair.split(":") for pair, _, times in runs for _ in range(min(int(times or 1), MOST_DIMENSIONS))]
    return Box(lower=[float(low) for low, _ in edges], upper=[float(high) for _, high in edges])


def _key(n_actions: int) -> str:
    return f"plan of {n_actions}"
