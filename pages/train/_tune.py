"""Tune: searches over settings. Decides with which settings a method is trained."""

import pandas as pd
import streamlit as st

from mtf_engine.registry import BEST, RunRow
from mtf_engine.study.tuning import DEFAULTS, Best, Tuning
from mtf_engine.work.tune import TuneConfig, space_of
from pages.shared import follow, links, loaders, places, words
from pages.shared.exhibit import csv_download, exhibit
from pages.train import _tune_charts, _tune_form

RUN = "tune"
"""Of the address: the search that is shown."""
FEWEST = 2
"""Trials that are drawn; what one alone scores is said."""


def show() -> None:
    """Draws a search and what it found, and below it the form that starts another."""
    runs = {run.id: run for run in loaders.workspace().registry.runs(kind="tune") if not run.archived}
    if runs:
        run = runs[links.choice("Search", {i: words.run_title(r) for i, r in runs.items()}, RUN)]
        follow.parts(run, _n_trials)
        show_found(run, _found(run))
    started = _tune_form.show()
    if started:
        links.forget(RUN)
        st.query_params[RUN] = started
        st.rerun()


def _found(run: RunRow) -> Tuning:
    return Tuning.model_validate(run.result or {})


def _n_trials(run: RunRow) -> int:
    return len(_found(run).trials)


def show_found(run: RunRow, found: Tuning) -> None:
    config = TuneConfig.model_validate(run.config)
    fixed = ", ".join(f"{name} {value or 'empty'}" for name, value in config.settings.items())
    st.caption(
        words.plain(
            f"{config.algo}, {config.trials} trials, {config.at_once} at once, seed {config.seed}, preset "
            f"{config.preset}{f' with {fixed}' if fixed else ''}. Trial 0 has the default settings; Optuna's TPE "
            "proposes the others."
        )
    )
    if found.best:
        show_best(found, found.best)
    if len(found.trials) < FEWEST:
        return
    frame = _tune_charts.trials_table(found.trials)
    left, right = st.columns(2)
    with left:
        show_history(run, frame)
    with right:
        show_importance(run, found)
    if found.best:
        show_parallel(run, config, frame)
    show_trials(run, frame, list(config.space))


def show_best(found: Tuning, best: Best) -> None:
    """Draws the best settings beside the defaults, what they are worth, and the ways on."""
    st.header("Best settings", anchor=False)
    st.write(words.plain(best.said))
    defaults = found.defaults
    columns = ({"defaults": defaults} if defaults else {}) | (
        {f"trial {best.number}": best} if best.number != DEFAULTS else {}
    )
    told = {name: [_shown(value) for value in one.settings.values()] for name, one in columns.items()}
    table = pd.DataFrame({"setting": list(best.settings), **told})
    st.dataframe(
        table, placeholder="", hide_index=True, width="content", alt="Best settings beside the defaults"
    )
    csv_download(table, "best settings")
    with st.container(horizontal=True):
        train = {places.TAB: places.TRAIN, "from": best.run_id}
        st.page_link(places.START, label="Train with these settings →", query_params=train)
        if best.number != DEFAULTS and defaults and defaults.score is not None:
            pair = [best.run_id + BEST, f"{defaults.run_id}{BEST}"]
            query = {places.TAB: places.GAUC, "policies": pair}
            st.page_link(places.POLICIES, label="Score both on another log →", query_params=query)


def _shown(value: object) -> str:
    return "empty" if value is None else str(value)


def show_history(run: RunRow, frame: pd.DataFrame) -> None:
    st.header("History", anchor=False)
    alt = f"Score of {len(frame)} trials and the best so far"
    exhibit(_tune_charts.history(frame), frame[["trial", "score", "best so far"]], f"history {run.id}", alt)


def show_parallel(run: RunRow, config: TuneConfig, frame: pd.DataFrame) -> None:
    st.header("Settings and scores", anchor=False)
    st.caption("A line is a trial. Drag along an axis to keep the lines that cross it there.")
    table = frame[["trial", *config.space, "score"]].astype(str)
    alt = f"Settings and score of {len(frame)} trials as parallel coordinates"
    exhibit(_tune_charts.parallel(frame, space_of(config)), table, f"space {run.id}", alt)


def show_importance(run: RunRow, found: Tuning) -> None:
    st.header("Importance", anchor=False)
    if found.importance:
        table = pd.DataFrame(found.importance.items(), columns=["setting", "importance"])
        alt = f"Importance of {len(table)} settings"
        exhibit(_tune_charts.importance_bars(table), table, f"importance {run.id}", alt)
    st.caption(words.plain(found.importance_said or "Told once all trials are done."))


def show_trials(run: RunRow, frame: pd.DataFrame, searched: list[str]) -> None:
    """Draws the table of trials, with links to each training and to the form filled with its settings."""
    st.header("Trials", anchor=False)
    there = frame["run"].notna()
    shown = frame.drop(columns=["best so far", "run"]).assign(
        Open=("runs?run=" + frame["run"]).where(there),
        Train=("start?from=" + frame["run"]).where(there),
    )
    shown = shown if frame["error"].notna().any() else shown.drop(columns="error")
    numbers = [name for name in searched if pd.api.types.is_numeric_dtype(frame[name])]
    columns = {
        **{name: st.column_config.NumberColumn(format="%.4g") for name in numbers},
        "score": st.column_config.NumberColumn(
            format="%.4f", help="Best on validation users in the training."
        ),
        "Open": st.column_config.LinkColumn(display_text="open", help="The training's curves and log."),
        "Train": st.column_config.LinkColumn(
            display_text="train again", help="The form with these settings."
        ),
    }
    st.dataframe(
        shown,
        placeholder="",
        hide_index=True,
        column_config=columns,
        alt=f"{len(frame)} trials",
        key=f"trials {run.id}",
    )
    csv_download(frame, f"trials {run.id}")
