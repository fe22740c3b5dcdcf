"""Files that know their hash: `hashes.txt` beside them says what was written, and damage is told, never read.

A line is `sha256  name`, added before the file appears: whoever is stopped between the two leaves the old file, whose
line is there too. A file without a line is of an earlier version, and taken as it is.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mtf_engine.disk import check_guards, room_for, write_atomically
from mtf_engine.spec import Refusal

HASHES = "hashes.txt"
AS_THEY_ARE = "restore it from a copy, or delete it: the files beside it are then taken as they are"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)")


def write(path: Path, content: bytes) -> None:
    """Writes `content` to `path` in one step, and its hash to the folder before."""
    _add(path.parent / HASHES, _line(path.name, content))
    write_atomically(path, content)


def seal(path: Path) -> None:
    """Takes a file as it is, which nobody has told yet, for what was written."""
    _add(path.parent / HASHES, _line(path.name, path.read_bytes()))


def read(path: Path, remedy: str) -> bytes:
    """Returns what `write` wrote to `path`; a Refusal with the `remedy` where it holds anything else, or is missing."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Refusal(f"{path.parent.name}/{path.name} cannot be read: it is missing; {remedy}") from None
    try:
        problem = _problem(path, content)
    except ValueError as error:
        raise Refusal(f"{path.parent.name}/{HASHES} is damaged: {error}; {AS_THEY_ARE}") from None
    if problem is not None:
        raise Refusal(f"{path.parent.name}/{path.name} is damaged: {problem}; {remedy}")
    return content


def damaged(folder: Path, is_whole: bool = True) -> Iterator[tuple[Path, str]]:
    """Yields the files of a folder that are not what was written, and how each differs.

    Of one that `is_whole` those too that are missing: whoever is stopped may have told of a file that never appeared.
    """
    try:
        written = _written(folder / HASHES)
    except FileNotFoundError:
        return
    except ValueError as error:
        yield folder / HASHES, str(error)
        return
    for name in written:
        path = folder / name
        if not path.exists():
            if is_whole:
                yield path, "it was written, and is gone"
        elif (problem := _problem(path, path.read_bytes())) is not None:
            yield path, problem


def _line(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def _problem(path: Path, content: bytes) -> str | None:
    """Returns why `content` is not what was written to `path`; None where it is. A ValueError as of `_written`."""
    try:
        written = _written(path.parent / HASHES)
    except FileNotFoundError:
        return None
    own = written.get(path.name)
    if own is None or hashlib.sha256(content).hexdigest() in own:
        return None
    return "its bytes are not those that were written"


def _written(path: Path) -> dict[str, set[str]]:
    """Returns the hashes that each file of a folder may have; a ValueError where their list is damaged.

    A last line without its end is of a write that was stopped: its file is the one of before.
    """
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]
    written: dict[str, set[str]] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if not found:
            raise ValueError(f"line {number} of {HASHES} is no hash")
        written.setdefault(found[2], set()).add(found[1])
    return written


def _add(path: Path, line: bytes) -> None:
    """Adds a line to a file, on the disk afterwards; what a stopped write left without an end is cut off."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        check_guards()
        kept = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = kept.rfind(b"\n") + 1
        if whole < len(kept):
            os.ftruncate(descriptor, whole)
        with room_for(path, n_bytes=len(line)):
            if os.pwrite(descriptor, line, whole) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
