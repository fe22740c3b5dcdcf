"""Import logs: which log to learn from. A log is checked whole, and kept only if nothing is wrong with it."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from mtf_engine.jobs import executor, submissions
from mtf_engine.spec import Refusal
from pages.shared import follow, loaders, words
from pages.shared.exhibit import csv_download

FORMATS = {
    "auto": "Tell by the files",
    "csv": "Requests and impressions, CSV",
    "parquet": "Requests and impressions, Parquet",
    "impressions": "Impressions alone (predictions and feedback, no actions)",
    "kuairand": "KuaiRand, as published",
}


class Source(NamedTuple):
    """Where the log lies: paths, None where nothing is given."""

    log: Path | None
    user_features: Path | None
    mapping: Path | None


def typed_paths() -> Source:
    path = st.text_input("Path of the file or folder", key="import_path", placeholder="/data/logs/2026-11")
    with st.expander("User features and renamed columns"):
        features = st.text_input("Path of a table of user features (optional)")
        mapping = st.text_input("Path of a YAML file that renames columns (optional)", key="import_mapping")
    return Source(*(Path(p).expanduser() if p else None for p in (path, features, mapping)))


def uploads() -> tuple[list[UploadedFile], UploadedFile | None, UploadedFile | None]:
    files = st.file_uploader(
        "Files of the log",
        type=["csv", "parquet"],
        accept_multiple_files=True,
        help="requests and impressions together, or impressions alone, or the files of KuaiRand",
    )
    with st.expander("User features and renamed columns"):
        features = st.file_uploader("Table of user features (optional)", type=["csv", "parquet"])
        mapping = st.file_uploader("YAML file that renames columns (optional)", type=["yaml", "yml"])
    return files, features, mapping


def stored(files: list[UploadedFile], features: UploadedFile | None, mapping: UploadedFile | None) -> Source:
    """Returns where the uploads lie now: a temporary folder, removed when the import has ended."""
    folder = Path(tempfile.mkdtemp(prefix="mtf-upload-"))
    st.session_state["import_upload"] = folder
    (folder / "log").mkdir()
    for file in files:
        _store(file, folder / "log")
    extra = (_store(file, folder) if file else None for file in (features, mapping))
    return Source(folder / "log", *extra)


def _store(file: UploadedFile, folder: Path) -> Path:
    path = folder / re.sub(r"[^A-Za-z0-9._-]", "_", file.name).lstrip(".")
    with path.open("wb") as target:
        shutil.copyfileobj(file, target)
    return path


def start(source: Source, log_format: str, name: str) -> None:
    """Queues the import and remembers it, so that this page follows it."""
    assert source.log is not None
    with follow.refusals():
        st.session_state["import_run"] = submissions.submit_import(
            loaders.workspace(),
            source.log,
            format=log_format,
            user_features=source.user_features,
            mapping=source.mapping,
            name=name or None,
        )
        st.rerun()


def show_form() -> None:
    place = st.segmented_control(
        "Where the log is", ["On the server", "Upload"], default="On the server", required=True
    )
    left, right = st.columns(2)
    log_format = left.selectbox("Format", FORMATS, format_func=FORMATS.__getitem__, key="import_format")
    name = right.text_input("Name (optional)", placeholder="what lists call it", key="import_name")
    if place == "Upload":
        files, features, mapping = uploads()
        if st.button("Check and import", type="primary", disabled=not files):
            start(stored(files, features, mapping), log_format, name or Path(files[0].name).stem)
        return
    source = typed_paths()
    if st.button("Check and import", type="primary", disabled=source.log is None):
        start(source, log_format, name)
    if source.log:
        options = {"--name": name, "--user-features": source.user_features, "--mapping": source.mapping}
        given = [str(part) for option in options.items() if option[1] for part in option]
        words_of = ("dataset", "import", source.log, "--format", log_format, *given)
        st.caption("The same on the command line")
        st.code(words.command(loaders.workspace().path, *words_of), language=None, wrap_lines=True)


def show_import(run_id: str) -> None:
    """Follows the import; at its end keeps what it said and forgets it."""
    run = follow.finished(run_id)
    if run is None:
        return
    del st.session_state["import_run"]
    if folder := st.session_state.pop("import_upload", None):
        shutil.rmtree(folder)
    try:
        st.session_state["import_report"] = executor.completed(loaders.workspace(), run)
    except Refusal as refusal:
        st.session_state["import_report"] = refusal


def show_refusal(refusal: Refusal) -> None:
    st.error(f"Nothing was imported: {words.plain(refusal)}")
    if not refusal.defects:
        return
    columns = ["code", "file", "row", "column", "count", "message", "remedy"]
    table = pd.DataFrame([defect.model_dump() for defect in refusal.defects])[columns]
    st.header("Defects", anchor=False)
    st.caption("`row` is the first affected data row, counted from 1; `count` says how many are affected.")
    st.dataframe(table, hide_index=True, alt="Defects of the log that was refused")
    csv_download(table, "defects")


def show_success(result: dict) -> None:
    st.success(
        f"Imported {result['requests']:,} requests and {result['impressions']:,} impressions "
        f"as `{result['dataset_id']}`."
    )
    for warning in result["warnings"]:
        st.warning(words.plain(warning))
    row = loaders.workspace().dataset(result["dataset_id"])
    quality = {"dataset": row.id}
    st.page_link("pages/logs/datasets.py", label="Look at its quality →", query_params=quality)
    if loaders.explored([row]):
        st.page_link("pages/train/start.py", label="Train on it →", query_params={"dataset": row.id})
        return
    st.write("It has no explored actions: a policy learns from a log that is collected by replaying it.")
    query = {"env": "replay", "dataset": row.id, "explore": "uniform"}
    st.page_link("pages/logs/collect.py", label="Collect an explored log →", query_params=query)


def main() -> None:
    st.title("Import logs", anchor=False)
    st.caption(
        "Decides what can be learned from. The whole log is checked first; with a defect, nothing is kept."
    )
    if run_id := st.session_state.get("import_run"):
        show_import(run_id)
    if "import_run" in st.session_state:
        return
    show_form()
    match st.session_state.get("import_report"):
        case Refusal() as refusal:
            show_refusal(refusal)
        case None:
            pass
        case run:
            show_success(run.result)


main()
