"""Runs: what works, waits or has ended. Decides which run is worth going on with, and which to compare."""

import streamlit as st

from mtf_engine.environments.names import meets_again
from mtf_engine.permissions import Action
from mtf_engine.registry import POLICY_KINDS, RunRow, RunState
from mtf_engine.runs import executor
from pages.shared import (
    access,
    charts,
    follow,
    links,
    loaders,
    notices,
    places,
    run_actions,
    run_table,
    words,
)
from pages.shared.exhibit import csv_download, exhibit
from pages.train import _compare, _run_filters
from pages.train._run_filters import View

LIVE_SECONDS, IDLE_SECONDS = 2.0, 15.0
"""Between looks at the registry while a run is at work, and while none is: one may start elsewhere."""
PART_COLUMNS = ("State", "Kind", "Name", "Method", "Seed", "Best score", "Took")
SHOWN = 200
"""Runs in the table."""


def dataset_names() -> dict[str, str]:
    return {row.id: row.name for row in loaders.datasets()}


def at_work(runs: list[RunRow]) -> bool:
    return any(not run.state.is_finished for run in runs)


def show_table(view: View, was_live: bool) -> None:
    """Draws the table, whose ticks are kept by run, however the rows come to stand."""
    executor.reconcile(loaders.workspace())
    there = loaders.workspace().registry.runs()
    if at_work(there) != was_live:
        st.rerun()
    filtered = [run for run in there if view.filters.shows(run)]
    facts = loaders.facts(filtered)
    runs = [run for run in filtered if view.holds(facts[run.id])]
    shown = run_table.ordered(runs, view.by, view.descending, facts)[:SHOWN]
    more = [name for name in view.columns if name not in run_table.COLUMNS]
    ids = [run.id for run in shown]
    ticked = st.session_state.get("ticked", [])
    key = f"runs {hash(tuple(ids))}"

    def keep_ticks() -> None:
        now = [ids[row] for row in st.session_state[key].selection.rows]
        before = st.session_state.get("ticked", [])
        st.session_state.update(ticked=now, ticked_anew=True)
        if fresh := [run_id for run_id in now if run_id not in before]:
            st.session_state["run"] = fresh[-1]

    rows = [ids.index(run_id) for run_id in ticked if run_id in ids]
    table = run_table.table(shown, dataset_names(), facts, more)
    st.dataframe(
        table,
        hide_index=True,
        key=key,
        on_select=keep_ticks,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows, "columns": [], "cells": []}},
        column_order=view.columns,
        column_config=run_table.column_config(view.columns),
        height=min(38 + 35 * max(len(shown), 1), 395),
        placeholder="",
        alt=f"{len(shown)} runs by {view.by}",
    )
    csv_download(table, "runs")
    if not runs:
        st.caption(f"None of the {len(there):,} runs is shown: choose “all”, or take filters back.")
    if len(runs) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(runs):,} runs; filter to see others.")
    run_actions.show_queue()
    if st.session_state.pop("ticked_anew", False):
        st.rerun()


def follow_table(view: View, was_live: bool) -> None:
    """Draws the table anew: what fits the expression no more, since a run came that it cannot be held of, is told."""
    with follow.refusals():
        show_table(view, was_live)


def show_run(run_id: str, was_live: bool) -> None:
    """Draws one run: state, progress, what is wrong with it, curves, log."""
    run = loaders.workspace().registry.run(run_id)
    if was_live and run.state.is_finished:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(words.STATES[run.state], color=words.STATE_COLOURS[run.state])
        show_actions(run)
    if run.state.is_finished:
        best = best_score(run)
        steps = f" · step {run.step:,} of {run.n_steps:,}" if run.n_steps else ""
        took = f"Took {words.duration(run.seconds)}{steps}"
        took += words.plain(f" · started by {run.person}") if run.person else ""
        took += works_on(run)
        st.caption(took + best, help=run_table.BEST_SCORE if best else None)
    else:
        follow.progress_bar(run)
        if where := works_on(run):
            st.caption(where.removeprefix(" · "))
    follow.show_error(run)
    if untold := (run.result or {}).get("no_validation"):
        st.caption(words.plain(untold))
    for sentinel in loaders.sentinels(run.id):
        st.warning(words.plain(sentinel.sentence))
    show_curves(run)
    show_parts(run)
    show_details(run)


def works_on(run: RunRow) -> str:
    """Returns where a run works or worked that is not of this machine alone, and which attempt it is at."""
    if run.executor == "local":
        return ""
    where = f"on {run.host}, by {run.executor}" if run.host else f"waits for {run.executor}"
    return words.plain(f" · {where}, attempt {run.attempt}")


def best_score(run: RunRow) -> str:
    """Returns the best score on validation users, and how far it is from that of the policy started from."""
    if run.best_score is None or run.best_step is None:
        return ""
    start = ((run.result or {}).get("validation") or {}).get("start_score")
    change = f", {run.best_score - start:+.4f} against the start" if start is not None else ""
    return f" · best score {run.best_score:.4f} at step {run.best_step:,}{change}"


def show_actions(run: RunRow) -> None:
    workspace = loaders.workspace()
    if not run.state.is_finished:
        asked = run.cancel_requested_at is not None
        if access.button(Action.STEER_RUN, "Cancelling…" if asked else "Cancel", disabled=asked):
            with follow.refusals():
                executor.cancel(workspace, run.id)
                st.rerun()
    follow.ways_on(run)
    if run.kind == "train":
        again = {"from": run.id}
        st.page_link("pages/train/start.py", label="Run again with changes →", query_params=again)
    if run.kind in POLICY_KINDS and run.state is RunState.COMPLETED:
        compare = {"policies": words.policies(run)}
        st.page_link(places.POLICIES, label="Compare it →", query_params=compare)
        if (takes := loaders.takes(run)) and meets_again(takes.env):
            test = {places.TAB: places.ABTEST, "policies": run.id}
            st.page_link(places.POLICIES, label="A/B test it →", query_params=test)
        st.page_link("pages/release/export.py", label="Export it →", query_params={"run": run.id})
    if run.kind == "tune":
        query = {places.TAB: places.TUNE, "tune": run.id}
        st.page_link(places.START, label="Read it →", query_params=query)
    if run.kind == "abtest" and run.state is RunState.COMPLETED:
        query = {places.TAB: places.ABTEST, "test": run.id}
        st.page_link(places.POLICIES, label="Read it →", query_params=query)


def show_curves(run: RunRow) -> None:
    frame = loaders.metrics(run.id)
    if frame.empty:
        return
    panels = charts.metric_panels(frame.columns)
    table = charts.thinned(frame, charts.MOST_POINTS // len(frame.columns))
    exhibit(charts.curves(frame, panels), table, f"{run.id} metrics", f"Training curves of {run.id} by step")
    if len(table) < len(frame):
        csv_download(frame, f"{run.id} metrics of every logged step")


def show_parts(run: RunRow) -> None:
    """Draws the runs that this one is made of, folded; a click on one opens it."""
    parts = loaders.workspace().registry.runs(parent_id=run.id)
    if not parts:
        return
    ended = sum(part.state is RunState.COMPLETED for part in parts)
    with st.expander(f"{len(parts)} parts, {ended} of them completed"):
        table = run_table.table(parts, dataset_names())
        st.dataframe(
            table.assign(Open=[f"runs?run={part.id}" for part in parts]),
            hide_index=True,
            column_order=[*PART_COLUMNS, "Open"],
            column_config={**run_table.COLUMNS, "Open": st.column_config.LinkColumn(display_text="open")},
            placeholder="",
            key=f"parts of {run.id}",
            alt=f"{len(parts)} parts of {run.id}",
        )
        csv_download(table, f"parts of {run.id}")


def show_details(run: RunRow) -> None:
    log, config, result, origin = st.tabs(["Log", "Configuration", "Result", "Computed with"])
    lines = loaders.log_tail(run.id)
    log.code(lines or "The log is empty.", language=None, height=260 if lines else "content")
    config.json(run.config)
    result.json(run.result or {})
    origin.json(run.provenance or {})


def all_runs() -> None:
    """Draws the table, and one run."""
    runs = loaders.workspace().registry.runs()
    if not runs:
        st.info("No run yet. Start a training, or import a log.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    view = _run_filters.choose(runs, dataset_names(), loaders.facts(runs))
    live = at_work(runs)
    st.fragment(follow_table, run_every=LIVE_SECONDS if live else IDLE_SECONDS)(view, live)
    notices.switch("of all")
    run_actions.show_chosen([run for run in runs if run.id in st.session_state.get("ticked", [])])
    own_first = sorted(runs, key=lambda run: run.parent_id is not None)
    titles = {run.id: words.run_title(run) for run in own_first}
    run_id = links.choice("Run", titles, "run")
    run = loaders.workspace().registry.run(run_id)
    st.header(words.plain(words.run_title(run)), anchor=False)
    alive = not run.state.is_finished
    st.fragment(show_run, run_every=LIVE_SECONDS if alive else None)(run_id, alive)
    with st.expander("Name, note and tags", expanded=bool(run.note or run.tags)):
        run_actions.edit(run, sorted({tag for one in runs for tag in one.tags}))
    run_actions.show_deletions()


def main() -> None:
    st.title("Runs", anchor=False)
    st.caption("Every import, collection, training, comparison and export, each a process of its own.")
    places.tabs({places.ALL_RUNS: all_runs, places.COMPARED: _compare.show})


main()
