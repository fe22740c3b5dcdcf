"""A dataset as a folder of Parquet files, here or on a server. Decides where the rows of a large log lie."""

import streamlit as st

from mtf_engine.logs.buckets import HERE
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow, RunRow
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.work.shard import submit_shard
from pages.shared import access, follow, loaders, places, processes, words


def show_place(row: DatasetRow) -> None:
    """Says where the rows of a dataset in Parquet files lie."""
    try:
        dataset = open_dataset(loaders.workspace(), row.id)
    except Refusal as refusal:
        st.error(words.plain(refusal))
        return
    if dataset.n_files:
        st.caption(
            words.plain(f"In {dataset.n_files:,} Parquet files, in {dataset.place or dataset.path.name}.")
        )


def show(row: DatasetRow) -> None:
    """Draws the name of the new dataset, the place of its files, the button that writes it, and the command."""
    st.write("The same log in 64 buckets of users, as a dataset of its own.")
    name = st.text_input(
        "Name of the dataset", f"{row.name} in Parquet", key=f"name of the shards of {row.id}"
    )
    to = st.text_input(
        "Place of the files (optional)",
        placeholder="s3://bucket/prefix",
        key=f"place of the shards of {row.id}",
    )
    n_workers = processes.choose(st.columns([1, 3])[0])
    with follow.refusals():
        mine = _newest(row)
        is_live = mine is not None and not mine.state.is_finished
        if access.button(Action.COLLECT, "Write Parquet files", disabled=is_live) and not is_live:
            submit_shard(loaders.workspace(), row.id, name=name, to=to or HERE, n_workers=n_workers)
            st.rerun()  # so that the button cannot be pressed from here on
        if mine and (run := follow.finished(mine.id)):
            follow.show_error(run)
            if run.result:
                query = {"dataset": str(run.dataset_id)}
                st.page_link(places.START, label=f"Train on {words.plain(run.name)} →", query_params=query)
    st.caption("The same on the command line")
    options = ("--name", name, *(("--to", to) if to else ()), *processes.option(n_workers))
    command = words.command(loaders.workspace().path, "dataset", "shard", row.id, *options)
    st.code(command, language=None, wrap_lines=True)


def _newest(row: DatasetRow) -> RunRow | None:
    """Returns the last run that wrote this log to Parquet files, or does."""
    made = loaders.workspace().registry.runs(kind="shard")
    return next((run for run in made if run.config["source"] == row.id), None)
