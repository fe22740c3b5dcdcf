"""Following a run until it is finished, and refusals shown in their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from mtf_engine.jobs import executor
from mtf_engine.registry import RunRow
from mtf_engine.spec import Refusal
from pages.shared import loaders, words


@contextmanager
def refusals() -> Iterator[None]:
    """Shows a refusal raised inside as its sentence; nothing else is caught."""
    try:
        yield
    except Refusal as refusal:
        st.error(words.plain(refusal))


def finished(run_id: str) -> RunRow | None:
    """Returns the run once it is finished; until then draws its progress, live, and returns None."""
    run = loaders.workspace().registry.run(run_id)
    if run.state.is_finished:
        return run
    st.fragment(_progress, run_every=1.0)(run_id)
    return None


def progress_bar(run: RunRow) -> None:
    """Draws how far a live run is, and how long it has to go at the pace so far."""
    share = min(run.step / run.n_steps, 1.0) if run.n_steps else 0.0
    text = f"{words.STATES[run.state]} · {words.duration(run.seconds)}"
    if run.n_steps:
        text += f" · {run.step:,} of {run.n_steps:,}"
    if run.seconds and share:
        text += f" · about {words.duration(run.seconds * (1 - share) / share)} to go"
    st.progress(share, text=text)


def _progress(run_id: str) -> None:
    workspace = loaders.workspace()
    executor.reconcile(workspace)
    run = workspace.registry.run(run_id)
    if run.state.is_finished:
        st.rerun()
    progress_bar(run)
    if st.button("Cancel", key=f"cancel {run_id}", disabled=run.cancel_requested_at is not None):
        with refusals():
            executor.cancel(workspace, run_id)
