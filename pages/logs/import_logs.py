"""Import logs: which log to learn from. A log is checked whole, and kept only if nothing is wrong with it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from mtf_engine.logs.endings import HDF5, SUFFIXES
from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import imported, submit_import
from pages.logs import _import_choices, _mapping_form
from pages.logs._import_source import Import, Source, stored, with_mapping
from pages.shared import access, follow, loaders, words
from pages.shared.exhibit import csv_download
from pages.shared.firsts import first

FORMATS = {
    "auto": "Tell by the files",
    "csv": "Requests and impressions, CSV",
    "json": "Requests and impressions, JSON lines",
    "parquet": "Requests and impressions, Parquet",
    "impressions": "Impressions alone (predictions and feedback, no actions)",
    "kuairand": "KuaiRand, as published",
    "transitions": "Transitions (observations, actions, rewards; nothing shown)",
    "minari": "A Minari dataset",
    "d3rlpy": "d3rlpy, HDF5",
}

BAD_ROWS = {"refuse": "refuse the log", "drop": "leave those rows out, and count them"}
PLACES = ("On the server", "Upload")
FOLLOWED = "an import"
"""Name of the visitor's import in the session."""


def typed_paths() -> Source:
    """Draws where paths are typed, and returns them; a Refusal of one that the visitor may not have read."""
    label = "Path of the file or folder"
    path = st.text_input(label, key=first("import_path", ""), placeholder="/data/logs/2026-11")
    with st.expander("User features and a mapping file"):
        label = "Path of a table of user features (optional)"
        features = st.text_input(label, key=first("import_features", ""))
        label = "Path of a YAML file that renames columns (optional)"
        mapping = st.text_input(label, key=first("import_mapping", ""))
    return Source(*(access.server_path(Path(p)) if p else None for p in (path, features, mapping)))


def uploads() -> tuple[list[UploadedFile], UploadedFile | None, UploadedFile | None]:
    files = st.file_uploader(
        "Files of the log",
        type=[*SUFFIXES, *HDF5],
        accept_multiple_files=True,
        help="requests and impressions together, or impressions alone, or the files of KuaiRand",
    )
    with st.expander("User features and a mapping file"):
        features = st.file_uploader("Table of user features (optional)", type=list(SUFFIXES))
        mapping = st.file_uploader("YAML file that renames columns (optional)", type=["yaml", "yml"])
    return files, features, mapping


def start(
    place: Callable[[], Source], log_format: str, name: str, bad_rows: str, chosen: _import_choices.Choices
) -> None:
    """Queues the import of the log that `place` puts in its place; this page then follows it.

    The session is told first: between its being told and the run's being known, nothing can end the page.
    """
    workspace = loaders.workspace()
    following = st.session_state[FOLLOWED] = Import()
    try:
        source = place()
        assert source.log is not None
        following.folder = source.folder
        following.run_id = submit_import(
            workspace,
            source.log,
            format=log_format,
            user_features=source.user_features,
            mapping=source.mapping,
            name=name or None,
            bad_rows=bad_rows,
            **chosen.told,
        )
    except Refusal as refusal:
        following.end(refusal)
    st.rerun()


def show_form() -> None:
    closed = access.closed_paths()
    places = PLACES[1:] if closed else PLACES
    key = first("import_place", places[0])
    if st.session_state[key] not in places:
        st.session_state[key] = places[0]
    place = st.segmented_control("Where the log is", places, required=True, key=key)
    if closed:
        st.caption(f"Logs on the server are not offered. {closed}.")
    left, right = st.columns(2)
    key = first("import_format", "auto")
    log_format = left.selectbox("Format", FORMATS, format_func=FORMATS.__getitem__, key=key)
    key = first("import_name", "")
    name = right.text_input("Name (optional)", placeholder="what lists call it", key=key)
    key = first("import_bad_rows", "refuse")
    label = "Where a row has a defect of its own"
    bad_rows = st.segmented_control(label, BAD_ROWS, format_func=BAD_ROWS.__getitem__, required=True, key=key)
    if place == PLACES[1]:
        show_upload(log_format, name, bad_rows)
    else:
        show_path(log_format, name, bad_rows)


def show_upload(log_format: str, name: str, bad_rows: str) -> None:
    files, features, mapping = uploads()
    chosen = _import_choices.choices(log_format)
    text: str | None = ""
    if files and mapping is None:
        found = _mapping_form.previews({file.name: file for file in files[: _mapping_form.MOST_FILES]})
        text = _mapping_form.mapping_form(found, log_format)
    lacks = not files or text is None or chosen is None
    if access.button(Action.IMPORT, "Check and import", type="primary", disabled=lacks) and chosen:
        upload = partial(stored, files, features, mapping)
        called = name or Path(files[0].name).stem
        start(lambda: with_mapping(upload(), text or ""), log_format, called, bad_rows, chosen)


def show_path(log_format: str, name: str, bad_rows: str) -> None:
    try:
        source = typed_paths()
    except Refusal as refusal:
        st.error(words.plain(refusal))
        return
    text: str | None = ""
    chosen = _import_choices.choices(log_format)
    if source.log and source.mapping is None:
        text = _mapping_form.mapping_form(_mapping_form.previews_at(source.log), log_format)
    lacks = source.log is None or text is None or chosen is None
    if access.button(Action.IMPORT, "Check and import", type="primary", disabled=lacks) and chosen:
        start(partial(with_mapping, source, text or ""), log_format, name, bad_rows, chosen)
    if source.log and text is not None and chosen:
        mapping = "mapping.yaml" if text else source.mapping
        options = {"--name": name, "--user-features": source.user_features, "--mapping": mapping}
        options |= {"--bad-rows": bad_rows if bad_rows != "refuse" else None} | chosen.options
        given = [str(part) for option in options.items() if option[1] not in ("", None) for part in option]
        words_of = ("dataset", "import", source.log, "--format", log_format, *given)
        where = "; mapping.yaml is the download above" if text else ""
        st.caption(f"The same on the command line{where}")
        st.code(words.command(loaders.workspace().path, *words_of), language=None, wrap_lines=True)


def follow_up(following: Import) -> None:
    """Draws how far the import is; at its end keeps what it said."""
    workspace = loaders.workspace()
    try:
        if run := follow.finished(following.run_id):
            following.end(imported(workspace, run))
    except Refusal as refusal:
        following.end(refusal)


def show_refusal(refusal: Refusal) -> None:
    st.error(f"Nothing was imported: {words.plain(refusal)}")
    if not refusal.defects:
        return
    if any(defect.row for defect in refusal.defects):
        st.write(
            f"To import the log without such rows, choose “{BAD_ROWS['drop']}” above and check it again."
        )
    columns = ["code", "file", "row", "column", "count", "message", "remedy"]
    table = pd.DataFrame([defect.model_dump() for defect in refusal.defects])[columns]
    st.header("Defects", anchor=False)
    st.caption("`row` is the first affected data row, counted from 1; `count` says how many are affected.")
    st.dataframe(table, placeholder="", hide_index=True, alt="Defects of the log that was refused")
    csv_download(table, "defects")


def show_success(result: dict) -> None:
    st.success(
        f"Imported {result['requests']:,} requests and {result['impressions']:,} impressions "
        f"as `{result['dataset_id']}`."
    )
    for warning in result["warnings"]:
        st.warning(words.plain(warning))
    if told := result.get("resolvable"):
        show_resolvable(told)
    row = loaders.workspace().dataset(result["dataset_id"])
    quality = {"dataset": row.id}
    st.page_link("pages/logs/datasets.py", label="Look at its quality →", query_params=quality)
    if loaders.learnable([row]):
        st.page_link("pages/train/start.py", label="Train on it →", query_params={"dataset": row.id})
        return
    st.write("It has no explored actions: a policy learns from a log that is collected by replaying it.")
    query = {"env": "replay", "dataset": row.id, "explore": "uniform"}
    st.page_link("pages/explore/collect.py", label="Collect an explored log →", query_params=query)


def show_resolvable(told: dict) -> None:
    """Says what the test users can tell, where they can tell anything."""
    gaps = {
        "a policy within ±0.15 of the default fusion": told["in_bounds"],
        "a single prediction": told["single_prediction"],
    }
    said = " and ".join(f"{gap:.3f} for {what}" for what, gap in gaps.items() if gap is not None)
    if said:
        st.caption(
            f"{told['test_users']:,} users are for test. A true difference in weighted GAUC from the default fusion "
            f"would show from {said} (80 % power at 5 %)."
        )


def main() -> None:
    st.title("Import logs", anchor=False)
    st.caption(
        "Decides what can be learned from. The whole log is checked first; with a defect nothing is kept, "
        "unless you have such rows left out."
    )
    _mapping_form.keep_choices()
    following = st.session_state.get(FOLLOWED, Import())
    if following.works:
        follow_up(following)
    if following.works:
        return
    show_form()
    match following.said:
        case Refusal() as refusal:
            show_refusal(refusal)
        case RunRow() as run:
            show_success(run.result or {})


main()
