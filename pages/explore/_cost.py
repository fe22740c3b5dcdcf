"""Cost before collecting: what exploring would change for users. Decides whether a plan may be collected."""

import pandas as pd
import streamlit as st

from mtf_engine.exploration.cost import Estimate, ExplorationCost
from mtf_engine.exploration.sensitivity import RankSensitivity
from mtf_engine.spec import FusionSpec
from pages.shared import follow, links, loaders, log_charts, plans, words
from pages.shared.exhibit import described, exhibit

SAMPLES = (2_000, 10_000)
SOURCES = {
    "candidates": "the logged candidate lists",
    "impressions": "the impressions that were shown, since the log keeps no candidates",
}


def measures(found: ExplorationCost) -> dict[str, tuple[str, str]]:
    """Returns what is measured: its title and its unit."""
    return {
        "top_changed": (f"Top {found.k} that changes", "% of the places shown"),
        "rank_correlation": ("Rank correlation", "Spearman, all candidates"),
        "beyond": (f"Any weight moves beyond {found.far:g}", "% of requests"),
        "largest": ("Largest deviation of a weight", "expected, in units of [-1, 1]"),
    }


def cost_table(found: ExplorationCost) -> pd.DataFrame:
    """Returns one row a measure and kind of noise: its value and 95 % interval, where it was drawn."""
    rows = []
    for measure, (title, unit) in measures(found).items():
        scale = 100 if unit.startswith("%") else 1
        for kind, noise in (("uniform", found.uniform), ("Gaussian", found.gaussian), ("mixed", found.mixed)):
            value = getattr(noise, measure)
            drawn = value if isinstance(value, Estimate) else Estimate(value=value, low=value, high=value)
            row = {"measure": title, "unit": unit, "noise": kind, "value": scale * drawn.value}
            rows.append(row | {"from": scale * drawn.low, "to": scale * drawn.high})
    return pd.DataFrame(rows)


def show_cost(found: ExplorationCost, plan: plans.Chosen) -> None:
    table = cost_table(found)
    alt = f"What uniform draws in {plan.title} and Gaussian noise of sigma {found.sigma:g} do to rankings"
    exhibit(log_charts.cost(table), table, "cost before collecting", alt)
    st.caption(
        f"{found.n_requests:,} requests are ranked again from {SOURCES[found.source]}. Intervals are 95 % "
        "over requests, and all kinds of noise share their luck; the lower two are integrals, without luck. Mixed: "
        "half of the requests with that Gaussian noise, half at random over the whole range."
    )
    if found.n_left_out:
        st.caption(f"{found.n_left_out:,} requests with {found.k} candidates or fewer are left out.")


def show_sensitivity(found: RankSensitivity) -> None:
    st.header("Dimensions that change the ranking", anchor=False)
    st.write(words.plain(found.sentence))
    st.caption(
        "Each dimension is moved alone to the ends of its box. Two candidates swap where that turns their order; "
        "dimensions that swap the same pairs count as one."
    )
    table = pd.DataFrame(one.model_dump() for one in found.dimensions)
    table["swapped"] *= 100
    described(table.rename(columns={"swapped": "pairs swapped, %"}), "sensitivity", "Pairs that each swaps")


def show() -> None:
    """Draws the tab."""
    st.caption("Decides whether a plan may be collected: how much of what users see it would change.")
    rows = {row.id: row for row in loaders.datasets()}
    if not rows:
        st.info("There is no log whose rankings could be replayed. Import one.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        return
    left, right = st.columns(2)
    titles = {i: f"{row.name} · {row.n_requests:,} requests · {i}" for i, row in rows.items()}
    row = rows[links.choice("On the log", titles, "dataset", left)]
    plan = plans.choose(FusionSpec.model_validate(row.meta["fusion"]).n_actions, right)
    first, second, third = st.columns([3, 1, 1], vertical_alignment="bottom")
    bound = {"bind": "query-params"}
    sigma = first.slider("Sigma of the Gaussian noise", 0.05, 1.0, 0.2, 0.05, key="sigma", **bound)
    k = second.number_input("Places shown", 1, 100, 3, key="k", **bound)
    n = third.selectbox("Requests replayed", SAMPLES, format_func="{:,}".format, key="replayed", **bound)
    with follow.refusals():
        show_cost(loaders.collection_cost(row, plan.plan, sigma, k, n), plan)
    with follow.refusals():
        show_sensitivity(loaders.sensitivity(row, plan.plan))
    st.caption(f"The same on the command line{plans.where(plan)}")
    asked = (*plan.option, "--sigma", f"{sigma:g}", "--k", k, "--requests", n)
    command = words.command(loaders.workspace().path, "bounds", "cost", row.id, *asked)
    st.code(command, language=None, wrap_lines=True)
