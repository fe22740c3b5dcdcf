"""Fencing: of a run's attempts the newest alone writes, also where an older one was only asleep.

`attempts.txt` in the run's folder is the fence: a line an attempt, and one more when it is given up on. Whoever
writes opens a file first, or fills a temp file, then looks at the fence, then writes, or gives the temp file its
name. Whoever takes over adds its line first, then removes the temp files of others, and puts a copy in the place
of every file that grows. So what a worker had open that fell asleep between its look and its write is no longer
in the folder. There is no lock, which a sleeper could hold.
"""

import os
import shutil
from pathlib import Path

from mtf_engine.disk import TEMPS, settle
from mtf_engine.runs import files
from mtf_engine.sealed import HASHES

GROW = (files.METRICS, files.LOG, HASHES)
CLOSED = "given up"


class Fence:
    """What lets one attempt write to a run's folder, and no earlier one."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder, self.attempt = folder, attempt
        self._path = folder / files.ATTEMPTS

    @property
    def mark(self) -> str:
        """What the names of its temp files end in."""
        return f"-{self.attempt}"

    @property
    def is_open(self) -> bool:
        """Whether this attempt may write: no later one has taken over, nor was this one given up on."""
        return _newest(self.folder) == (self.attempt, False)

    def take_over(self) -> bool:
        """Returns whether the folder is this attempt's from now on: not where a later one has it already."""
        self._add(f"{self.attempt}\n")
        if not self.is_open:
            return False
        for temp in (one for one in self.folder.glob(TEMPS) if _mark(one) < self.attempt):
            shutil.rmtree(temp) if temp.is_dir() else temp.unlink(missing_ok=True)
        return all(self._own(self.folder / name) for name in GROW if (self.folder / name).exists())

    def close(self) -> None:
        """Gives this attempt up: it writes no more, whatever it is at."""
        self._add(f"{self.attempt} {CLOSED}\n")

    def clear(self) -> None:
        """Removes this attempt's own temp files, which no other writes to."""
        for temp in self.folder.glob(f".*.tmp{self.mark}"):
            temp.unlink(missing_ok=True)

    def _own(self, path: Path) -> bool:
        """Puts a copy in the place of a file; returns whether that is still for this attempt to do."""
        temp = path.with_name(f".{path.name}.tmp{self.mark}")
        shutil.copyfile(path, temp)
        settle(temp)
        if not self.is_open:
            return False
        temp.replace(path)
        return True

    def _add(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def next_attempt(folder: Path, known: int) -> int:
    """Returns the number of a run's next attempt, `known` the last that the registry knows.

    One that was made anew from what the folders say may know less than the fence.
    """
    return max(known, _newest(folder)[0]) + 1


def _newest(folder: Path) -> tuple[int, bool]:
    """Returns the last attempt, and whether it was given up; 0 where there was none, or the run was deleted."""
    try:
        told = (folder / files.ATTEMPTS).read_text()
    except FileNotFoundError:
        return 0, False
    return max(map(_place, told.splitlines()), default=(0, False))


def _mark(temp: Path) -> int:
    """Returns the attempt that a temp file is marked with, else 0."""
    number = temp.name.rpartition(".tmp-")[2]
    return int(number) if number.isdecimal() else 0


def _place(line: str) -> tuple[int, bool]:
    """Returns the attempt that a line is of and whether it was given up, in the order of what they forbid."""
    number, _, rest = line.partition(" ")
    return (int(number), rest == CLOSED) if number.isdecimal() else (0, False)
