"""Runs: what works, waits or has ended. Decides whether a run is worth going on with."""

import pandas as pd
import streamlit as st

from mtf_engine.jobs import executor
from mtf_engine.registry import RunRow, RunState
from pages.shared import charts, follow, links, loaders, words
from pages.shared.exhibit import exhibit

KINDS = ("all", "train", "import", "collect", "evaluate", "export")
LIVE_SECONDS = 2.0
SHOWN = 200
"""Runs in the table, newest first."""


def chosen_kind() -> str:
    hidden = {"label_visibility": "collapsed", "bind": "query-params"}
    return st.segmented_control("Kind", KINDS, default="all", required=True, key="kind", **hidden)


def runs_of(kind: str) -> list[RunRow]:
    return loaders.workspace().registry.runs(kind=None if kind == "all" else kind)[:SHOWN]


def run_table(runs: list[RunRow]) -> pd.DataFrame:
    """Returns one row a run."""
    return pd.DataFrame(
        {
            "State": words.STATES[run.state],
            "Progress": run.step / run.n_steps if run.n_steps else float(run.state is RunState.COMPLETED),
            "Kind": run.kind,
            "Name": run.name,
            "Method": run.algo or "",
            "Seed": "" if run.seed is None else str(run.seed),
            "Created": words.ago(run.created_at),
            "Took": words.duration(run.seconds),
            "Run": run.id,
        }
        for run in runs
    )


def show_table(kind: str) -> None:
    """Draws the table; a click on a row opens that run."""
    executor.reconcile(loaders.workspace())
    runs = runs_of(kind)

    def open_clicked() -> None:
        if rows := st.session_state["runs_table"].selection.rows:
            st.session_state["run"] = runs[rows[0]].id
            st.session_state["run_clicked"] = True

    st.dataframe(
        run_table(runs),
        hide_index=True,
        key="runs_table",
        on_select=open_clicked,
        selection_mode="single-row",
        height=min(38 + 35 * len(runs), 360),
        column_config={"Progress": st.column_config.ProgressColumn(format="percent", width=95)},
        alt="Runs, newest first",
    )
    if st.session_state.pop("run_clicked", False):
        st.rerun()


def show_run(run_id: str, was_live: bool) -> None:
    """Draws one run: state, progress, what can be done with it, curves, log."""
    workspace = loaders.workspace()
    run = workspace.registry.run(run_id)
    if was_live and run.state.is_finished:
        st.rerun()
    st.subheader(words.plain(words.run_title(run)), anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(words.STATES[run.state], color=words.STATE_COLOURS[run.state])
        show_actions(run)
    if run.state.is_finished:
        st.caption(f"Took {words.duration(run.seconds)} · step {run.step:,} of {run.n_steps:,}")
    else:
        follow.progress_bar(run)
    if run.error:
        st.error(words.plain(run.error))
    show_curves(run)
    show_details(run)


def show_actions(run: RunRow) -> None:
    workspace = loaders.workspace()
    if not run.state.is_finished:
        asked = run.cancel_requested_at is not None
        if st.button("Cancelling…" if asked else "Cancel", disabled=asked):
            with follow.refusals():
                executor.cancel(workspace, run.id)
                st.rerun()
    if run.state.can_resume and st.button("Resume"):
        with follow.refusals():
            executor.resume(workspace, run.id)
            st.rerun()
    if run.kind == "train" and run.state is RunState.COMPLETED:
        st.page_link("pages/evaluate/compare.py", label="Compare it →", query_params={"policies": run.id})
        st.page_link("pages/release/export.py", label="Export it →", query_params={"run": run.id})


def show_curves(run: RunRow) -> None:
    frame = loaders.metrics(run.id)
    if frame.empty:
        return
    panels = charts.metric_panels(frame.columns)
    exhibit(charts.curves(frame, panels), frame, f"{run.id} metrics", f"Training curves of {run.id} by step")


def show_details(run: RunRow) -> None:
    log, config, result = st.tabs(["Log", "Configuration", "Result"])
    lines = loaders.log_tail(run.id)
    log.code(lines or "The log is empty.", language=None, height=260 if lines else "content")
    config.json(run.config)
    result.json(run.result or {})


def main() -> None:
    st.title("Runs", anchor=False)
    st.caption("Every import, collection, training, comparison and export, each a process of its own.")
    kind = chosen_kind()
    runs = runs_of(kind)
    if not runs:
        st.info("No run yet. Start a training, or import a log.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    live = any(not run.state.is_finished for run in runs)
    st.fragment(show_table, run_every=LIVE_SECONDS if live else None)(kind)
    titles = {run.id: words.run_title(run) for run in runs}
    run_id = links.choice("Run", titles, "run")
    alive = not loaders.workspace().registry.run(run_id).state.is_finished
    st.fragment(show_run, run_every=LIVE_SECONDS if alive else None)(run_id, alive)


main()
