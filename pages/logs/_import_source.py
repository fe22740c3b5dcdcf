"""A visitor's import: where its log lies, on the server or in a temporary folder, and what became of it."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from streamlit.runtime.uploaded_file_manager import UploadedFile

from mtf_engine.registry import RunRow
from mtf_engine.spec import Refusal


class Source(NamedTuple):
    """Where the log lies: paths, None where nothing is given; `folder` is there for the import alone."""

    log: Path | None
    user_features: Path | None
    mapping: Path | None
    folder: Path | None = None


@dataclass
class Import:
    """An import that a visitor started: its run, the folder to be removed with it, and at last what it said.

    It is one value of the visitor's session and is changed in place: a page can be ended, and drawn anew, at
    any use of the session's state, and must then find all of it or nothing.
    """

    run_id: str = ""
    folder: Path | None = None
    said: RunRow | Refusal | None = None

    @property
    def works(self) -> bool:
        return bool(self.run_id) and self.said is None

    def end(self, said: RunRow | Refusal) -> None:
        """Keeps what the import said and removes what was stored for it."""
        self.said = said
        if self.folder:
            shutil.rmtree(self.folder)
            self.folder = None


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="mtf-upload-"))


def stored(files: list[UploadedFile], features: UploadedFile | None, mapping: UploadedFile | None) -> Source:
    """Returns where the uploads lie now: in a temporary folder, or the one file in it."""
    names = [_safe(file.name) for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refusal(f"two of the files are called {twice[0]}; give each a name of its own")
    folder = _temporary_folder()
    (folder / "log").mkdir()
    paths = [_store(file, folder / "log") for file in files]
    extra = (_store(file, folder) if file else None for file in (features, mapping))
    return Source(paths[0] if len(paths) == 1 else folder / "log", *extra, folder=folder)


def with_mapping(source: Source, text: str) -> Source:
    """Returns `source` with the mapping in `text`, stored for the time of the import, if there is any."""
    if not text:
        return source
    folder = source.folder or _temporary_folder()
    path = folder / "mapping.yaml"
    path.write_text(text)
    return source._replace(mapping=path, folder=folder)


def _safe(name: str) -> str:
    """Returns the name of an upload as a name in our folder; its ending stays."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "upload"


def _store(file: UploadedFile, folder: Path) -> Path:
    path = folder / _safe(file.name)
    path.write_bytes(file.getbuffer())  # all of it, however far the preview has read
    return path
