"""Datasets: which logs there are, what one holds, and what moved between two. Decides which to learn from."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from mtf_engine.logs import aggregates
from mtf_engine.logs.quality import LONGEST, Quality
from mtf_engine.logs.shift import drift
from mtf_engine.permissions import Action
from mtf_engine.questions import dependents
from mtf_engine.registry import DatasetRow
from mtf_engine.runs.storage import delete_dataset
from pages.logs import _coverage, _export_log, _log_tables, _rewards, _shards, _teaching
from pages.shared import access, dataset_charts, follow, links, loaders, needed, places, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import csv_download, described, exhibit, shares

QUALITY = Aggregate(aggregates.stored_quality, aggregates.quality, "parts")
NO_OTHER = "*none"


def show_list(rows: Sequence[DatasetRow]) -> None:
    """Draws the datasets; a click on one opens it below."""

    def open_it() -> None:
        if chosen := st.session_state["datasets"].selection.rows:
            st.session_state["dataset"] = rows[chosen[0]].id

    columns = {
        "Requests": st.column_config.NumberColumn(format="localized"),
        "Impressions": st.column_config.NumberColumn(format="localized"),
        "Written": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
    }
    table = _log_tables.datasets(rows)
    st.dataframe(
        table,
        placeholder="",
        hide_index=True,
        key="datasets",
        on_select=open_it,
        selection_mode="single-row",
        column_config=columns,
        height=min(38 + 35 * len(rows), 300),
        alt="Datasets of the workspace",
    )
    csv_download(table, "datasets")


def show_deletion(row: DatasetRow) -> None:
    """Asks twice, by a tick and by a button, and deletes."""
    st.write(f"{words.plain(row.name)} has {row.n_requests:,} requests. Policies trained on it stay.")
    needed.show(dependents.of_dataset(loaders.workspace(), row))
    sure = st.checkbox("I know that this cannot be undone.", key=f"sure to delete {row.id}")
    if access.button(Action.DELETE_DATASET, "Delete for good", type="primary", disabled=not sure):
        with follow.refusals():
            delete_dataset(loaders.workspace(), row.id)
            links.forget("dataset")
            st.rerun()


def show_ways(row: DatasetRow) -> None:
    query = {"dataset": row.id}
    with st.container(horizontal=True, vertical_alignment="center"):
        if loaders.learnable([row]):
            st.page_link("pages/train/start.py", label="Train on it →", query_params=query)
        with st.popover("Export…"):
            _export_log.show(row)
        with st.popover("Parquet…"):
            _shards.show(row)
        with st.popover("Delete…"):
            show_deletion(row)


def show_counts(quality: Quality) -> None:
    counts = {
        "Requests": quality.n_requests,
        "Impressions": quality.n_impressions,
        "Users": quality.n_users,
        "Sessions": quality.n_sessions,
        "Days": len(quality.days),
    }
    for column, (label, count) in zip(st.columns(len(counts)), counts.items(), strict=True):
        column.metric(label, f"{count:,}", border=True)
    splits = ", ".join(f"{n:,} {split}" for split, n in quality.splits.items()) or "none: all rows are one"
    st.caption(f"Requests by split: {splits}.")
    if quality.without_action:
        st.caption(f"{quality.without_action:,} requests carry no action.")


def show_left_out(row: DatasetRow) -> None:
    """Says which rows the import left out, if it did."""
    for file, counts in row.meta["details"].get("left_out", {}).items():
        codes = ", ".join(f"{n:,} {words.plain(code)}" for code, n in counts.items())
        st.caption(f"Left out of {words.plain(file)} at import: {codes}.")


def show_spread(quality: Quality) -> None:
    """Draws the requests of each day and the lengths of the sessions."""
    left, right = st.columns(2)
    days = pd.DataFrame(day.model_dump() for day in quality.days)
    lengths = pd.DataFrame(quality.session_lengths.items(), columns=["requests a session", "sessions"])
    if days.empty:
        left.caption("The log has no times, so there are no days to draw.")
    else:
        alt = f"Requests of each of {len(days)} days"
        with left:
            exhibit(dataset_charts.bars(days, "day", "requests"), days, "requests per day", alt)
    with right:
        figure = dataset_charts.bars(lengths, "requests a session", "sessions")
        exhibit(figure, lengths, "session lengths", "Sessions by the number of their requests")
        if lengths["requests a session"].max() == LONGEST:
            st.caption(f"{LONGEST} stands for {LONGEST} and more.")


def show_columns(row: DatasetRow, quality: Quality) -> None:
    if quality.signals:
        st.header("Signals", anchor=False)
        signals = _log_tables.signals(quality, row.meta["reward"]["weights"])
        described(signals, "signals", "Feedback signals of the log", **shares("rate"))
    with st.expander("Features and predictions"):
        columns = _log_tables.columns(quality)
        described(columns, "columns", "Features and predictions of the log")
        if quality.sampled_requests < quality.n_requests:
            st.caption(f"Of {quality.sampled_users:,} users, the same ones every time.")


def show_drift(row: DatasetRow, quality: Quality, others: dict[str, DatasetRow]) -> None:
    st.header("Drift from another log", anchor=False)
    titles = {NO_OTHER: "choose a log"} | {
        i: f"{r.name} · {r.n_requests:,} requests · {i}" for i, r in others.items()
    }
    other = links.choice("Compare with", titles, "drift_from")
    if other == NO_OTHER:
        return
    reference = counted(others[other], QUALITY)
    if reference is None:
        return
    found = drift(quality, reference)
    moved = any(shift.verdict == "moved" for shift in found.shifts)
    (st.warning if moved else st.success)(words.plain(found.sentence))
    if found.only_here or found.only_there:
        st.caption(
            words.plain(f"Only here: {_some(found.only_here)}. Only there: {_some(found.only_there)}.")
        )
    table = _log_tables.drift(found)
    if not table.empty:
        alt = f"Standardised differences to {others[other].name}: {found.sentence}"
        exhibit(dataset_charts.drift(table), table, "drift", alt)
        st.caption(
            "Dashed: 0.2 standard deviations. A column moved if its interval lies beyond, or its PSI is above "
            "0.25 and above what luck explains; slightly from 0.1. Intervals: 95 %, users are the unit."
        )
    show_command(row, "--against", other)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"


def show_command(row: DatasetRow, *options: str) -> None:
    st.caption("The same on the command line")
    command = words.command(loaders.workspace().path, "dataset", "quality", row.id, *options)
    st.code(command, language=None, wrap_lines=True)


def show_quality(row: DatasetRow, others: dict[str, DatasetRow]) -> None:
    """Draws the tab."""
    quality = counted(row, QUALITY)
    if quality is None:
        return
    show_counts(quality)
    show_left_out(row)
    _shards.show_place(row)
    show_spread(quality)
    show_columns(row, quality)
    show_command(row)
    show_drift(row, quality, others)


def main() -> None:
    st.title("Datasets", anchor=False)
    st.caption("Decides which log is fit to learn from, and whether a newer one is still like an older one.")
    rows = loaders.datasets()
    if not rows:
        st.info("No dataset yet. Import a log, or collect one from synthetic users.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        st.page_link("pages/explore/collect.py", label="Collect a log →")
        return
    show_list(rows)
    by_id = {row.id: row for row in rows}
    titles = {i: f"{row.name} · {row.n_requests:,} requests · {i}" for i, row in by_id.items()}
    row = by_id[links.choice("Look at", titles, "dataset")]
    show_ways(row)
    others = {i: other for i, other in by_id.items() if i != row.id}
    places.tabs(
        {
            places.QUALITY: partial(show_quality, row, others),
            places.REWARDS: partial(_rewards.show, row),
            places.COVERAGE: partial(_coverage.show, row),
            places.TEACHING: partial(_teaching.show, row),
        }
    )


main()
