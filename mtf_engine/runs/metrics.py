"""metrics.jsonl of a run: one flat row per logged step, which any process may read while it grows.

Each line ends in the CRC-32 of what it would be without, so that a damaged one is told; those of earlier versions
have none.
"""

import errno
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from mtf_engine.disk import check_guards, room_for, write_atomically
from mtf_engine.runs.files import METRICS
from mtf_engine.spec import Refusal

TAIL = 16_384
"""Bytes at the end of the file in which its last row is looked for first."""


_CRC = b',"crc32":'


def append(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds one row in a single write, so that a reader or a kill meets whole rows; it is on the disk afterwards.

    A checkpoint is of the rows before it: it must not outlive them.
    """
    line = _sealed(to_json(row, inf_nan_mode="null"))
    descriptor = os.open(folder / METRICS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        check_guards()
        with room_for(folder / METRICS, n_bytes=len(line)):
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows logged so far; a last line without its newline is not one yet.

    A Refusal names the first line that is damaged.
    """
    return _rows(folder, _lines(folder))


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
    if not line:
        return {}
    row = _sealed_row(line)
    return json.loads(row) if row else read(folder)[-1]


def cut_back(folder: Path, before: int) -> None:
    """Keeps the rows before a step, which is the first that a resumed training logs again."""
    lines = _lines(folder)
    rows = zip(lines, _rows(folder, lines), strict=True)  # those of an earlier version get their checksum
    kept = (_sealed(_sealed_row(line) or line.rstrip(b"\n")) for line, row in rows if row["step"] < before)
    write_atomically(folder / METRICS, b"".join(kept))


def _sealed(row: bytes) -> bytes:
    """Returns the line of a row, a JSON object of one field at least."""
    return row[:-1] + _CRC + str(zlib.crc32(row)).encode() + b"}\n"


def _sealed_row(line: bytes) -> bytes | None:
    """Returns what `_sealed` made a line of; None where it is no such line."""
    row = line.rpartition(_CRC)[0] + b"}"
    return row if _sealed(row) == line.rstrip(b"\n") + b"\n" else None


def _rows(folder: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Returns the rows in lines. Where one has a checksum all have: a line that lost its own is damaged."""
    any_sealed = any(_CRC in line for line in lines)
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _sealed_row(line)
        try:
            if row is None and any_sealed:
                raise ValueError(line)
            rows.append(json.loads(row or line))
        except ValueError:
            raise Refusal(
                f"{folder.name}/{METRICS} is damaged in line {number} of {len(lines)}; restore it from a copy, or "
                "train again with the same settings and seed, which gives the same"
            ) from None
    return rows


def _lines(folder: Path) -> list[bytes]:
    path = folder / METRICS
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
