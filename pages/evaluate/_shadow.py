"""The shadow diff of a candidate and the live policy. Decides whether users would see what one means them to see."""

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from mtf_engine.registry import BASELINE, DatasetRow
from pages.evaluate import _shadow_charts
from pages.shared import comparison, evaluation_charts, follow, glossary, links, loaders, places, words
from pages.shared.exhibit import described, exhibit, folded, shares
from pages.shared.firsts import first

if TYPE_CHECKING:
    from mtf_engine.evaluation.shadow import Estimate, Shadow

SOURCES = {
    "candidates": "all candidates of the requests that kept them",
    "impressions": "the impressions that were shown, as the log kept no other candidates",
}
OVERLAP, CHANGE = "share of the top in common", "change of the share of top places"


def ends(found: "Estimate") -> dict[str, float | None]:
    """Returns the ends of an interval as the columns beside its number."""
    return {"low": found.ci_low, "high": found.ci_high}


def choose(policies: list[str], row: DatasetRow) -> tuple[str, str, int | None]:
    """Draws the choice of candidate, the other policy and the places; returns all three."""
    left, middle, right = st.columns([3, 3, 2])
    runs, live = loaders.runs_by_id(), loaders.workspace().live
    titles = {policy: words.policy_title(policy, runs) for policy in policies}
    candidate = links.choice("Candidate", titles, "shadowed", left)
    others = dict.fromkeys((live, BASELINE, *policies))
    said = {live: f"live: {words.policy_title(live, runs)}"}
    beside = {p: said.get(p, words.policy_title(p, runs)) for p in others if p != candidate}
    against = links.choice("Against", beside, "shadows", middle)
    key = first("top_places", None)
    help = "How many of the first places are compared; empty: half of the middle list, 10 at most."
    k = right.number_input(
        "Places", 1, 100, None, key=key, placeholder="half a list", help=help, bind="query-params"
    )
    return candidate, against, k


def show_overlap(found: "Shadow") -> None:
    st.header("What stays on top", anchor=False)
    mean = found.overlap
    between = "" if mean.ci_low is None else f" (95 % between {mean.ci_low:.1%} and {mean.ci_high:.1%})"
    st.markdown(
        f"Of the first {found.top_k} places, **{mean.value:.1%}** hold the same items{between}; the first place "
        f"does in {found.same_first.value:.1%} of the requests."
    )
    table = pd.DataFrame({"items in common": range(found.top_k + 1), "share of requests": found.in_common})
    alt = f"Share of requests by how many of the first {found.top_k} items both policies have in common"
    exhibit(_shadow_charts.in_common(table), table, "overlap", alt)
    left_out = f"; {found.n_left_out:,} with {found.top_k} items or fewer are left out" * bool(
        found.n_left_out
    )
    st.caption(
        f"{found.n_requests:,} requests of {found.n_users:,} users, split: {found.split}{left_out}. Ranked are "
        f"{SOURCES[found.source]}. Intervals are by bootstrap over users."
    )


def show_score(found: "Shadow") -> None:
    st.header("The score", anchor=False, help=glossary.TERMS["score"])
    told = {"mean": found.score_mean, "standard deviation within a request": found.score_spread}
    table = pd.DataFrame(
        {
            "of the log final score": what,
            "live": shift.live,
            "candidate": shift.candidate,
            "shift": shift.difference.value,
            **ends(shift.difference),
        }
        for what, shift in told.items()
    )
    described(table, "score shift", "Mean and spread of the log final score under both")
    st.caption(
        "Another mean or spread moves no item by itself, but what reads the score downstream: thresholds, caps."
    )


def show_attributes(found: "Shadow") -> None:
    st.header("What rises, what falls", anchor=False)
    table = pd.DataFrame(
        {
            "prediction": one.prediction,
            "tenth": one.decile,
            "value from": one.low,
            "value to": one.high,
            "live": one.live,
            "candidate": one.candidate,
            CHANGE: one.difference.value,
            **ends(one.difference),
        }
        for one in found.attributes
    )
    moved = (
        table.groupby("prediction")[CHANGE].agg(lambda of: of.abs().sum() / 2).sort_values(ascending=False)
    )
    titles = {name: f"{name} · {share:.1%} of the places move" for name, share in moved.items()}
    name = links.choice("By prediction", titles, "risen")
    shown = table[table["prediction"] == name]
    alt = f"Change of the share of top places that items of each tenth of {name} have, with intervals"
    exhibit(_shadow_charts.changes(shown, name, CHANGE), table, "rises by prediction", alt)
    st.caption(
        "Tenths of the predicted values of all ranked items, the lowest first; where many are alike, fewer."
    )


def show_segments(found: "Shadow") -> None:
    if not found.segments:
        st.info("All users of this log are of one segment.")
        return
    table = pd.DataFrame(
        {
            "segment": one.segment,
            "policy": "candidate",
            "algo": BASELINE,
            "requests": one.n_requests,
            OVERLAP: one.overlap.value,
            **ends(one.overlap),
            "shift of the mean score": one.score_mean.value,
        }
        for one in found.segments
    )
    alt = f"Share of the top {found.top_k} in common in {len(table)} user segments"
    figure = evaluation_charts.segments(table, OVERLAP, f"{OVERLAP}, 95 % interval")
    exhibit(figure, table.drop(columns=["policy", "algo"]), "overlap by segment", alt)


def show_requests(found: "Shadow", policies: tuple[str, str], row: DatasetRow) -> None:
    st.header("Requests that differ most", anchor=False)
    if not found.requests:
        st.info("Both policies rank every request alike.")
        return
    asked = {places.TAB: places.REQUEST, "on": row.id, "policies": [p for p in policies if p != BASELINE]}
    table = pd.DataFrame(
        {
            "request": one.request_id,
            "segment": one.segment,
            "items": one.n_items,
            OVERLAP: one.overlap,
            "places an item moves": one.places_moved,
            "Explain": f"policies?{urlencode(asked | {'request': one.request_id}, doseq=True)}",
        }
        for one in found.requests
    )
    opens = st.column_config.LinkColumn(display_text="explain", help="This request under both policies.")
    alt = f"The {len(table)} requests whose rankings differ most"
    described(table, "requests that differ", alt, Explain=opens, **shares(OVERLAP))


def show(row: DatasetRow, policies: list[str]) -> None:
    """Draws the tab."""
    comparison.warn_if_synthetic(row)
    candidate, against, k = choose(policies, row)
    with follow.refusals():
        found = loaders.shadowed(candidate, against, row, k)
        for sentence in found.differs:
            st.warning(words.plain(sentence))
        show_overlap(found)
        show_attributes(found)
        show_score(found)
        folded("By user segment", lambda: show_segments(found))
        show_requests(found, (candidate, against), row)
    st.caption("The same on the command line")
    asked = ("--against", against, "--on", row.id, *(("--top-k", k) if k else ()))
    command = words.command(loaders.workspace().path, "shadow", candidate, *asked)
    st.code(command, language=None, wrap_lines=True)
