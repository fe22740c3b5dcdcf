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
GAUC, ABTEST, DEVIATION, CRITICS, REQUEST = (
    "Weighted GAUC", "A/B test", "Deviation", "Critics", "One request",
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


def leading(old: str) -> Callable[[], None]:
    """Returns what a page at an `old` address does: it leads to where that is now, with all that was chosen."""
    place = MOVED[old]

    def lead() -> None:
        kept = {place.renamed.get(key, key): st.query_params.get_all(key) for key in st.query_params}
        st.switch_page(place.page, query_params={**kept, **({TAB: place.tab} if place.tab else {})})

    return lead


def tabs(contents: Mapping[str, Callable[[], None]]) -> None:
    """Draws a tab for each of `contents` and what is in the open one, which the address names."""
    drawn = links.tabs(list(contents), TAB)
    for tab, draw in zip(drawn, contents.values(), strict=True):
        if tab.open:
            with tab:
                draw()
