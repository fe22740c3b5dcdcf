"""What can be done with runs: archived, deleted, noted, tagged, moved in the queue; and the commands for it."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.questions import dependents
from mtf_engine.registry import RunRow
from mtf_engine.runs import differences, executor, keeping
from pages.shared import access, follow, loaders, needed, places, words
from pages.shared.exhibit import csv_download


def show_chosen(runs: Sequence[RunRow]) -> None:
    """Draws what can be done with the runs that are ticked in the table."""
    if not runs:
        st.caption("Tick runs to open, compare, archive or delete them.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(runs)} ticked**")
        _compare_link(runs)
        archived = all(run.archived for run in runs)
        if access.button(Action.DESCRIBE_RUN, "Take out of the archive" if archived else "Archive"):
            with follow.refusals():
                for run in runs:
                    keeping.archive(loaders.workspace(), run.id, not archived)
                st.rerun()
        if access.button(Action.DELETE_RUN, "Delete…"):
            ask_to_delete(runs)
        with st.popover("Command line"):
            ids = [run.id for run in runs]
            undo = ["--undo"] if archived else []
            show_command("runs", "archive", *ids, *undo)
            show_command("runs", "delete", *ids)
            if all(run.kind == "train" for run in runs):
                show_command("runs", "compare", *ids)
                show_command("runs", "tensorboard", *ids, "--to", "tensorboard")


def _compare_link(runs: Sequence[RunRow]) -> None:
    trainings = [run.id for run in runs if run.kind == "train"]
    if differences.FEWEST <= len(trainings) <= differences.MOST:
        label = f"Compare {len(trainings)} trainings →"
        query = {places.TAB: places.COMPARED, "runs": trainings}
        st.page_link(places.RUNS, label=label, query_params=query)
    elif len(trainings) > differences.MOST:
        st.caption(f"At most {differences.MOST} trainings are compared at once.")


@st.dialog("Delete for good?")
def ask_to_delete(runs: Sequence[RunRow]) -> None:
    """Asks twice, by a tick and by a button, and deletes."""
    for run in runs:
        st.markdown(f"- {words.plain(words.run_title(run))}")
    st.write("Their settings, metrics, logs, policies and bundles are deleted. Datasets stay.")
    needed.show(dependents.of_runs(loaders.workspace(), runs))
    sure = st.checkbox("I know that this cannot be undone.")
    if access.button(Action.DELETE_RUN, "Delete for good", type="primary", disabled=not sure):
        with follow.refusals():
            loaders.workspace().delete_runs(*(run.id for run in runs))
            st.rerun()


def show_queue() -> None:
    """Draws the runs that wait, the next one first, with ways to move them; nothing where none waits."""
    workspace = loaders.workspace()
    queue = workspace.registry.queue()
    if not queue:
        return
    with st.container(border=True):
        st.markdown(f"**Queue** · {len(queue)} wait; {executor.MAX_WORKING} work at once on this machine.")
        st.caption("On the command line: `runs move RUN up`, `down`, `first` or `last`.")
        for place, run in enumerate(queue):
            with st.container(horizontal=True, vertical_alignment="center", key=f"queue {run.id}"):
                _move_button("↑ up", run, -1, disabled=place == 0 or not run.is_local)
                _move_button("↓ down", run, 1, disabled=place == len(queue) - 1 or not run.is_local)
                waits = "" if run.is_local else words.plain(f" · waits for {run.executor}")
                st.markdown(f"{place + 1}\\. {words.plain(words.run_title(run))}{waits}")


def _move_button(label: str, run: RunRow, places: int, disabled: bool) -> None:
    if access.button(Action.STEER_RUN, label, key=f"{label} {run.id}", disabled=disabled, type="tertiary"):
        with follow.refusals():
            executor.move(loaders.workspace(), run.id, places)
        st.rerun()


def edit(run: RunRow, known_tags: Sequence[str]) -> None:
    """Draws the run's name, note and tags, to be changed."""
    workspace = loaders.workspace()
    with st.form(f"note and tags {run.id}", border=False):
        name = st.text_input("Name", run.name, max_chars=keeping.LONGEST_NAME)
        note = st.text_area("Note", run.note, height=80)
        options = sorted({*known_tags, *run.tags})
        tags = st.multiselect("Tags", options, run.tags, accept_new_options=True)
        saved = access.form_submit_button(Action.DESCRIBE_RUN, "Save")
    if saved:
        with follow.refusals():
            if name != run.name:
                keeping.rename(workspace, run.id, name)
            keeping.note(workspace, run.id, note)
            keeping.tag(workspace, run.id, add=tags, remove=set(run.tags) - set(tags))
            st.rerun()
    show_command("runs", "rename", run.id, run.name)
    show_command("runs", "note", run.id, run.note or "a note")
    show_command("runs", "tag", run.id, *(run.tags or ["candidate"]))


def show_deletions() -> None:
    """Draws what was deleted for good, folded; nothing where nothing was."""
    rows = loaders.workspace().registry.deletions()
    if not rows:
        return
    with st.expander(f"{len(rows)} deleted for good"):
        table = pd.DataFrame(row.model_dump(exclude={"id"}) for row in rows)
        columns = {"created_at": st.column_config.DatetimeColumn("when", format="YYYY-MM-DD HH:mm")}
        st.dataframe(
            table,
            placeholder="",
            hide_index=True,
            column_config=columns,
            alt="Deleted runs, datasets and plans",
        )
        csv_download(table, "deletions")
        show_command("runs", "deletions")


def show_command(*arguments: str) -> None:
    st.code(words.command(loaders.workspace().path, *arguments), language=None, wrap_lines=True)
