"""Following a run until it is finished, and refusals shown in their place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor
from mtf_engine.spec import Refusal
from pages.shared import access, loaders, notices, words

SECONDS_BETWEEN_PARTS = 2.0


@contextmanager
def refusals() -> Iterator[None]:
    """Shows a refusal raised inside as its sentence; nothing else is caught."""
    try:
        yield
    except Refusal as refusal:
        st.error(words.plain(refusal))


def told(key: str, call: Callable[..., object], *arguments: object) -> None:
    """Calls back, and keeps a refusal under `key` until `tell` shows it: a callback itself draws nothing."""
    try:
        call(*arguments)
    except Refusal as refusal:
        st.session_state[key] = str(refusal)


def tell(key: str) -> None:
    """Shows the refusal that `told` has kept, once."""
    if refusal := st.session_state.pop(key, None):
        st.error(words.plain(refusal))


def finished(run_id: str) -> RunRow | None:
    """Returns the run once it is finished; until then draws its progress, live, and returns None."""
    run = loaders.workspace().registry.run(run_id)
    if run.state.is_finished:
        return run
    st.fragment(_progress, run_every=1.0)(run_id)
    notices.switch(run_id)
    return None


def parts(
    run: RunRow,
    told: Callable[[RunRow], int],
    seconds_left: Callable[[RunRow], float | None] = lambda run: None,
) -> None:
    """Draws the state of a run that tells its result part by part: live until its end, then what it came to.

    `told` counts the parts that its result tells; the page is drawn anew when there is one more.
    """
    if run.state.is_finished:
        _ended(run)
    else:
        st.fragment(_parts, run_every=SECONDS_BETWEEN_PARTS)(run.id, told, told(run), seconds_left)
        notices.switch(run.id)


def progress_bar(run: RunRow, seconds_left: float | None = None) -> None:
    """Draws how far a live run is, and how long it has to go: as is known, else at the pace so far."""
    share = min(run.step / run.n_steps, 1.0) if run.n_steps else 0.0
    text = f"{words.STATES[run.state]} · {words.duration(run.seconds)}"
    if run.n_steps:
        text += f" · {run.step:,} of {run.n_steps:,}"
    if seconds_left is None and run.seconds and share:
        seconds_left = run.seconds * (1 - share) / share
    if seconds_left is not None:
        text += f" · about {words.duration(seconds_left)} to go"
    st.progress(share, text=text)


def _live(run_id: str) -> RunRow:
    """Returns the run as it is now; draws the page anew where it is finished."""
    workspace = loaders.workspace()
    executor.reconcile(workspace)
    run = workspace.registry.run(run_id)
    if run.state.is_finished:
        st.rerun()
    return run


def _progress(run_id: str) -> None:
    run = _live(run_id)
    progress_bar(run)
    _cancel_button(run)


def _parts(
    run_id: str,
    told: Callable[[RunRow], int],
    n_told: int,
    seconds_left: Callable[[RunRow], float | None],
) -> None:
    run = _live(run_id)
    if told(run) != n_told:
        st.rerun()
    progress_bar(run, seconds_left(run))
    _cancel_button(run)


def _cancel_button(run: RunRow) -> None:
    if access.button(
        Action.STEER_RUN, "Cancel", key=f"cancel {run.id}", disabled=run.cancel_requested_at is not None
    ):
        with refusals():
            executor.cancel(loaders.workspace(), run.id)


def _ended(run: RunRow) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(words.STATES[run.state], color=words.STATE_COLOURS[run.state])
        ways_on(run)
        st.page_link("pages/train/runs.py", label="Look at the run →", query_params={"run": run.id})
    show_error(run)


def ways_on(run: RunRow) -> None:
    """Draws what makes a run go on that has ended before its end: a decision where it waits for one, else a button."""
    if run.state is RunState.WAITING:
        st.page_link("pages/release/review.py", label="**Review it →**", query_params={"run": run.id})
    elif run.state.can_resume and access.button(Action.STEER_RUN, "Resume"):
        with refusals():
            executor.resume(loaders.workspace(), run.id)
            st.rerun()


def show_error(run: RunRow) -> None:
    """Draws why a run has ended before its end; that a round waits for people is no error."""
    if run.state is RunState.WAITING:
        number = len((run.result or {}).get("rounds", ()))
        st.info(
            f"Round {number} is trained and scored. It goes on once somebody has decided whether to promote it."
        )
    elif run.error:
        st.error(words.plain(run.error))
