"""The log of what is served: two growing files of JSON lines and their mapping, as `dataset import` reads them."""

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtf_engine.disk import write_atomically
from mtf_engine.exploration.policies import Kind
from mtf_engine.logs.mapping import FusionChoice
from mtf_engine.logs.mapping import Mapping as LogMapping
from mtf_engine.spec import FusionSpec, Refusal

REQUESTS, IMPRESSIONS, MAPPING = "requests.jsonl", "impressions.jsonl", "mapping.yaml"
CHUNK = 1 << 16
"""Bytes in which the end of the last whole line is looked for."""


class ServedLog:
    """A folder that one server at a time writes to; what was logged before it was started is kept."""

    def __init__(self, folder: Path, mapping: LogMapping) -> None:
        """Opens the log in `folder`, which is made where it is not there.

        A Refusal where another server writes to it, or where what is there means something else than `mapping`.
        """
        if folder.exists() and not folder.is_dir():
            raise Refusal(f"{folder} is a file, and a log is a folder; name another")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.mapping = folder, mapping
        self.requests, self.impressions = _Lines(folder / REQUESTS), _Lines(folder / IMPRESSIONS)
        path = folder / MAPPING
        if path.is_file():
            self.mapping = LogMapping.read(path)
            if self.mapping.model_copy(update={"signals": ()}) != mapping:
                self.close()
                raise Refusal(
                    f"the log in {folder} has another fusion, other features or another exploration; name a new folder"
                )
        else:
            self._write(mapping)

    @property
    def signals(self) -> tuple[str, ...]:
        """The feedback signals of every impression, once the first has said them."""
        return self.mapping.signals

    def know(self, signals: Sequence[str]) -> None:
        """Has the log know the signals that its impressions have."""
        known = self.mapping.model_copy(update={"signals": tuple(signals)})
        self._write(known)
        self.mapping = known

    def _write(self, mapping: LogMapping) -> None:
        told = mapping.model_dump(mode="json", exclude_defaults=True)
        write_atomically(self.folder / MAPPING, yaml.safe_dump(told, sort_keys=False).encode())

    def close(self) -> None:
        """Has all that was logged on the disk, and lets another server write."""
        self.requests.close()
        self.impressions.close()


def mapping_of(
    fusion: FusionSpec, features: Sequence[str], standardised: Sequence[str], kind: Kind
) -> LogMapping:
    """Returns the mapping of a log of served requests; uniform exploration is told by its `pscore`."""
    return LogMapping(
        predictions=fusion.predictions,
        features=tuple(features),
        binary_features=tuple(name for name in features if name not in standardised),
        fusion=FusionChoice(dimensions=fusion.dimensions),
        exploration=None if kind == "uniform" else kind,
    )


class _Lines:
    """A file of JSON lines that only ever has whole ones: what a kill or a full disk cut off is taken back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise Refusal(f"another server writes to {path}; name another folder, or stop that one") from None
        self._size = self._whole()
        os.ftruncate(self._file, self._size)

    def _whole(self) -> int:
        """Returns the bytes up to the end of the last whole line."""
        at = os.fstat(self._file).st_size
        while at:
            start = max(0, at - CHUNK)
            if end := os.pread(self._file, at - start, start).rfind(b"\n") + 1:
                return start + end
            at = start
        return 0

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a line a row, all of them or none."""
        content = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows).encode()
        try:
            if os.write(self._file, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(content)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open() as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)
