"""What is counted once a log, with its progress and a way to cancel it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mtf_engine.logs.aggregates import Progress
from mtf_engine.logs.datasets import Dataset
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow
from mtf_engine.runs.storage import open_dataset
from pages.shared import access, loaders, words

Counts = TypeVar("Counts")


class Aggregate(NamedTuple, Generic[Counts]):
    """How something is read beside a dataset's file, how it is counted, and in what its progress is told."""

    stored: Callable[[Path, str], Counts | None]
    count: Callable[[Dataset, Progress], Counts]
    unit: str


def counted(row: DatasetRow, aggregate: Aggregate[Counts]) -> Counts | None:
    """Returns what is counted of the log; counts it where that was never done, None once that is cancelled."""
    workspace = loaders.workspace()
    stored = aggregate.stored(workspace.dataset_path(row.id), row.content_hash)
    if stored is not None:
        return stored
    if st.session_state.get("count cancelled") == row.id:
        st.info(f"The {row.n_requests:,} requests of this log are not counted yet.")
        access.button(
            Action.LOOK,
            "Count them",
            type="primary",
            key=f"count {row.id} {aggregate.count.__name__}",
            on_click=_remember,
            args=(None,),
        )
        return None
    place = st.empty()
    with place.container():
        bar = st.progress(0.0)
        access.button(
            Action.LOOK,
            "Cancel",
            key=f"cancel count {row.id} {aggregate.count.__name__}",
            on_click=_remember,
            args=(row.id,),
        )
    counts = aggregate.count(open_dataset(workspace, row.id), _telling(bar, aggregate.unit))
    place.empty()
    return counts


def _telling(bar: DeltaGenerator, unit: str) -> Progress:
    """Returns what shows on `bar` how far a count is, and how long it has to go."""
    start = time.monotonic()

    def tell(done: int, of: int) -> None:
        spent = time.monotonic() - start
        left = f" · about {words.duration(spent * (of - done) / done)} to go" if done else ""
        bar.progress(done / of, text=f"Counting, once for this log: {done:,} of {of:,} {unit}{left}")

    return tell


def _remember(cancelled: str | None) -> None:
    st.session_state["count cancelled"] = cancelled
