"""Where a log to import lies: on the server, or in a temporary folder for the time of its import."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

KEPT = "import_upload"


class Source(NamedTuple):
    """Where the log lies: paths, None where nothing is given."""

    log: Path | None
    user_features: Path | None
    mapping: Path | None


def _temporary_folder() -> Path:
    """Returns a folder that is removed when the import has ended."""
    folder = Path(tempfile.mkdtemp(prefix="mtf-upload-"))
    st.session_state[KEPT] = folder
    return folder


def stored(files: list[UploadedFile], features: UploadedFile | None, mapping: UploadedFile | None) -> Source:
    """Returns where the uploads lie now: in a temporary folder, or the one file in it."""
    folder = _temporary_folder()
    (folder / "log").mkdir()
    paths = [_store(file, folder / "log") for file in files]
    extra = (_store(file, folder) if file else None for file in (features, mapping))
    return Source(paths[0] if len(paths) == 1 else folder / "log", *extra)


def with_mapping(source: Source, text: str) -> Source:
    """Returns `source` with the mapping in `text`, stored for the time of the import, if there is any."""
    if not text:
        return source
    folder = st.session_state.get(KEPT) or _temporary_folder()
    path = folder / "mapping.yaml"
    path.write_text(text)
    return source._replace(mapping=path)


def _store(file: UploadedFile, folder: Path) -> Path:
    path = folder / re.sub(r"[^A-Za-z0-9._-]", "_", file.name).lstrip(".")
    path.write_bytes(file.getbuffer())  # all of it, however far the preview has read
    return path


def remove() -> None:
    """Removes what was stored for an import that has ended."""
    if folder := st.session_state.pop(KEPT, None):
        shutil.rmtree(folder)
