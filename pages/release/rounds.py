"""Rounds: what was explored, learned and promoted, round after round. Decides how the next round goes on."""

from functools import partial

import streamlit as st

from mtf_engine.environments.names import is_replay
from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow
from mtf_engine.release.rounds import Round
from mtf_engine.release.stopping import next_round
from mtf_engine.spec import Refusal
from pages.release import _round_charts, _round_form
from pages.shared import access, follow, glossary, links, loaders, places, round_tables, words
from pages.shared.exhibit import csv_download, described, exhibit, folded
from pages.shared.round_tables import AB_GAIN, AT_WALL, GAUC

COLUMNS = {
    name: st.column_config.NumberColumn(format="percent", help=glossary.meaning(name))
    for name in (AB_GAIN, AT_WALL)
} | {
    round_tables.DISTANCE: st.column_config.NumberColumn(
        "distance", format="%.3g", help=glossary.meaning(round_tables.DISTANCE)
    )
}


def rounds_of(run: RunRow) -> list[Round]:
    return [Round.model_validate(one) for one in (run.result or {}).get("rounds", ())]


def show_table(told: list[Round]) -> None:
    frame = round_tables.table(told, loaders.runs_by_id())
    shown = frame if frame[AB_GAIN].notna().any() else frame.drop(columns=[AB_GAIN, "A/B low", "A/B high"])
    described(round_tables.short(shown), "rounds", "One row a round", **COLUMNS)
    panels = [(f"{GAUC}, candidate − baseline", GAUC, "difference", "low", "high")]
    if AB_GAIN in shown:
        panels.append(
            (f"{AB_GAIN}, candidate over baseline", "relative gain", AB_GAIN, "A/B low", "A/B high")
        )
    alt = "What each round's candidate gained over its baseline, with 95 % intervals"
    exhibit(_round_charts.gains(frame, panels), frame, "gain by round", alt)


def show_path(told: list[Round]) -> None:
    st.header(
        "Distance from the first baseline",
        anchor=False,
        help="How far each candidate's actions are from it, the mean over requests of each dimension.",
    )
    row = next((r for r in loaders.datasets() if r.id == told[0].dataset_id), None)
    names = (
        [f"{d['kind']}_{d['prediction']}" for d in row.meta["fusion"]["dimensions"]]
        if row
        else [str(i) for i in range(len(told[0].policy.walked))]
    )
    frame = round_tables.walked(told, names)
    alt = "Mean distance from the first baseline by round"
    exhibit(_round_charts.walked(frame), frame, round_tables.DISTANCE, alt)


def show_predicted(told: list[Round]) -> None:
    earlier = [one for run in loaders.rounds_runs() for one in rounds_of(run)]
    frame = round_tables.predicted(told, earlier, loaders.runs_by_id())
    if frame.empty:
        st.info("A prediction is held against the control users of the round after it; there is none yet.")
        return
    st.caption(
        "Predicted: by a policy's critics, and on validation users, in the round that trained it. "
        "Realised: by the control users of the round that it was the baseline of. "
        "Weighted GAUC is of other impressions then: those that the policy itself showed."
    )
    for column, (what, rows) in zip(st.columns(2), frame.groupby("figure", sort=False), strict=False):
        with column:
            st.subheader(str(what), anchor=False)
            alt = f"{what}: predicted and realised by round, with 95 % intervals"
            exhibit(_round_charts.predicted(rows, str(what)), rows, f"predicted {what}", alt)


def show_two(told: list[Round]) -> None:
    if len(told) < 2:
        st.info("There is one round so far.")
        return
    by_number = {str(one.number): one for one in told}
    titles = {number: f"round {number}" for number in by_number}
    left, right = st.columns(2)
    one = links.choice("Round", titles, "one", left)
    others = {number: title for number, title in titles.items() if number != one}
    other = links.choice("Beside", others, "other", right)
    table = round_tables.side_by_side(by_number[one], by_number[other], loaders.runs_by_id())
    alt = f"Rounds {one} and {other} side by side"
    st.dataframe(table, placeholder="", hide_index=True, height="content", alt=alt, key="two rounds")
    csv_download(table, "two rounds")


def show_next(run: RunRow, told: list[Round]) -> None:
    """Draws the ways on: the next round's bounds, and the next round itself."""
    st.header("The next round", anchor=False)
    last = told[-1]
    st.caption(
        "Starts around what was promoted last. Its bounds are the planner's, drawn by hand or from pressure."
    )
    try:
        found = next_round(tuple(told))
        (st.warning if found.stop else st.info)(words.plain(found.sentence))
        st.code(
            words.command(loaders.workspace().path, "review", "next", run.id), language=None, wrap_lines=True
        )
    except Refusal as refusal:
        st.caption(words.plain(refusal))
    with st.container(horizontal=True):
        st.page_link(
            places.BOUNDS,
            label="Change its bounds →",
            query_params={places.TAB: places.WALLS, "run": last.candidate, "dataset": last.dataset_id},
        )
        st.page_link("pages/release/review.py", label="Review it →", query_params={"run": run.id})
        promoted = [one.candidate for one in told if one.promoted]
        if promoted and not is_replay(run.config["env"]):
            query = {places.TAB: places.ABTEST, "policies": promoted[-1]}
            st.page_link(places.POLICIES, label="A/B test what they promoted last →", query_params=query)
        if access.button(Action.LOOK, "Fill the form for the next round"):
            _round_form.fill_next(run, last)
            st.rerun()


def main() -> None:
    st.title("Rounds", anchor=False)
    st.caption("Each round explores around the policy promoted last, trains, evaluates and promotes.")
    runs = {run.id: run for run in loaders.rounds_runs()}
    if not runs:
        st.info("No rounds were played yet. Start some below.")
        _round_form.show()
        return
    run = runs[links.choice("Rounds of", {i: words.run_title(r) for i, r in runs.items()}, "run")]
    told = rounds_of(run)
    follow.parts(run, told=lambda run: len(rounds_of(run)))
    if told:
        if told[0].synthetic:
            st.caption("Synthetic: users and feedback are simulated.")
        show_table(told)
        show_path(told)
        folded("Predicted and realised", partial(show_predicted, told))
        folded("Two rounds side by side", partial(show_two, told), asked=("one", "other"))
        show_next(run, told)
    _round_form.show()


main()
