"""metrics.jsonl of a run: one flat row per logged step, which any process may read while it grows."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from mtf_engine.disk import write_atomically
from mtf_engine.runs.files import METRICS

TAIL = 16_384
"""Bytes at the end of the file in which its last row is looked for first."""


def append(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds one row in a single write, so that a reader or a kill meets whole rows."""
    line = to_json(row, inf_nan_mode="null") + b"\n"
    descriptor = os.open(folder / METRICS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / METRICS))
    finally:
        os.close(descriptor)


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows logged so far; a last line without its newline is not one yet."""
    return [json.loads(line) for line in _lines(folder)]


def last(folder: Path) -> dict[str, Any]:
    """Returns the row logged last, read from the end of the file; none where nothing is logged."""
    path = folder / METRICS
    if not path.exists():
        return {}
    with path.open("rb") as rows:
        cut = rows.seek(max(0, path.stat().st_size - TAIL)) > 0
        *before, line = rows.read().rpartition(b"\n")[0].rsplit(b"\n", 1)
    if cut and not before:
        return (read(folder) or [{}])[-1]
    return json.loads(line) if line else {}


def cut_back(folder: Path, before: int) -> None:
    """Keeps the rows before a step, which is the first that a resumed training logs again."""
    kept = b"".join(line for line in _lines(folder) if json.loads(line)["step"] < before)
    write_atomically(folder / METRICS, kept)


def _lines(folder: Path) -> list[bytes]:
    path = folder / METRICS
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
