"""Where everything is: the tabs of pages that hold several, and where the addresses of earlier versions lead."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import streamlit as st

from pages.shared import links

TAB = "tab"
"""Name of a page's tab in the address."""
DATASETS, BOUNDS = "pages/logs/datasets.py", "pages/explore/bounds.py"
START, RUNS, POLICIES = "pages/train/start.py", "pages/train/runs.py", "pages/evaluate/policies.py"
QUALITY, REWARDS, COVERAGE, TEACHING = "Quality", "Reward weights", "Coverage", "Can it teach?"
BY_HAND, DRIFT, WALLS, COST = "By hand", "From drift", "From walls", "Cost"
TRAIN, TUNE, PENALTY = "Train", "Tune", "The penalty, explained"
ALL_RUNS, COMPARED = "All runs", "Compare"
GAUC, ABTEST, OFF_POLICY, DEVIATION, CRITICS, REQUEST, SHADOW = (
    "Weighted GAUC", "A/B test", "Off-policy", "Deviation", "Critics", "One request", "Shadow diff",
)  # fmt: skip


class Place(NamedTuple):
    """A page, its tab, and what a choice of the address is called there now."""

    page: str
    tab: str | None = None
    renamed: Mapping[str, str] = {}


SCORED_ON = {"dataset": "on"}
MOVED = {
    "rewards": Place(DATASETS, REWARDS),
    "coverage": Place(DATASETS, COVERAGE),
    "drift": Place(BOUNDS, DRIFT, {"of": "drift_of", "baseline": "holds_baseline"}),
    "walls": Place(BOUNDS, WALLS, {"of": "pressure_of"}),
    "cost": Place(BOUNDS, COST),
    "formulas": Place(START, PENALTY),
    "compare_runs": Place(RUNS, COMPARED),
    "compare": Place(POLICIES, GAUC, SCORED_ON),
    "abtest": Place(POLICIES, ABTEST, {"seed": "test_seed"}),
    "deviation": Place(POLICIES, DEVIATION, SCORED_ON),
    "critics": Place(
        POLICIES, CRITICS, SCORED_ON | {"of": "critics_of", "one": "critic", "another": "other_critic"}
    ),
    "explain": Place(POLICIES, REQUEST, SCORED_ON),
    "compare_methods": Place(
        "pages/evaluate/methods.py", None, {"of": "ranked_of", "against": "base_method"}
    ),
}
"""Where the addresses of earlier versions lead."""
STAYED = {
    "bounds": Place(BOUNDS, BY_HAND, {"k": "samples_a_cell", "requests": "requests_a_session"}),
    "collect": Place("pages/explore/collect.py", None, {"seed": "collect_seed"}),
    "datasets": Place(DATASETS, QUALITY, {"against": "drift_from"}),
    "export": Place("pages/release/export.py", None, SCORED_ON),
}
"""Pages whose address is that of earlier versions, and which choices those called otherwise."""


def leading(old: str) -> Callable[[], None]:
    """Returns what a page at an `old` address does: it leads to where that is now, with all that was chosen."""
    return lambda: _lead(MOVED[old])


def lead_earlier_link(address: str) -> None:
    """Makes of a link of an earlier version one of today, where the page's `address` stayed; its choices may not have.

    A link of a page with tabs names none only where it is from before they were: there `k` is another choice today.
    """
    place = STAYED.get(address)
    if place and TAB not in st.query_params and place.renamed.keys() & set(st.query_params):
        _lead(place)


def _lead(place: Place) -> None:
    kept = {place.renamed.get(key, key): st.query_params.get_all(key) for key in st.query_params}
    st.switch_page(place.page, query_params={**kept, **({TAB: place.tab} if place.tab else {})})


def tabs(contents: Mapping[str, Callable[[], None]]) -> None:
    """Draws a tab for each of `contents` and what is in the open one, which the address names."""
    drawn = links.tabs(list(contents), TAB)
    for tab, draw in zip(drawn, contents.values(), strict=True):
        if tab.open:
            with tab:
                draw()
