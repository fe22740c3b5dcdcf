"""HDF5 files: of users, opened once nothing in them leads elsewhere or asks for more memory than they can fill; ours.

HDF5 lets a dataset lie in any other file of the machine that reads it, and a small file declare arrays of any size.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mtf_engine.logs.episodes import extra
from mtf_engine.spec import Refusal

MOST_BYTES = 8 << 30
"""An import has all of a file's arrays in memory at once."""
MOST_TIMES, FREE_BYTES = 1_000, 1 << 20
"""Arrays come to at most so many times the size of their file, about what gzip makes of zeros, and so many bytes."""

UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py raises of a file that is damaged, or is not as its reader expects."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yields the file, an `h5py.File`; a Refusal where it links elsewhere or declares more than it can hold."""
    with extra("h5py").File(path, "r") as file:
        most = min(MOST_BYTES, MOST_TIMES * path.stat().st_size + FREE_BYTES)
        declared = 0
        for where, dataset in _datasets(file, path.name):
            if dataset.external or dataset.is_virtual:
                raise _elsewhere(path.name, where, "lies in other files")
            declared += dataset.nbytes
            if declared > most:
                raise Refusal(
                    f"{path.name}: {where} and the arrays before it declare {declared:,} bytes, and {most:,} are read "
                    f"at most of a file of {path.stat().st_size:,}; write fewer episodes, or all of their values"
                )
        yield file


def check_written(path: Path, place: Path, wanted: Iterable[tuple[str, Any]]) -> None:
    """Refuses a file that does not hold what is `wanted` by name (of an attribute `group@name`), meant for `place`.

    Where HDF5 writes what it held back until the file is closed, h5py lets a full disk pass unseen.
    """
    with suppress(*UNREADABLE), extra("h5py").File(path, "r") as file:
        if all(_is(_read(file, name), values) for name, values in wanted):
            return
    raise Refusal(
        f"{place} could not be written whole: the disk is full, or fails; free some space there and try again"
    )


def _read(file: Any, name: str) -> Any:
    where, _, attribute = name.partition("@")
    return file[where].attrs[attribute] if attribute else file[where][()]


def _is(found: Any, values: Any) -> bool:
    found, values = np.asarray(found), np.asarray(values)
    if values.dtype.kind not in "OSU":
        return found.dtype == values.dtype and np.array_equal(
            found, values, equal_nan=found.dtype.kind == "f"
        )
    texts = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
    return found.shape == values.shape and texts == [*values.ravel()]


def _datasets(file: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields each dataset of the file with its path; a Refusal where a link is not the only one, or no hard one."""
    h5py = extra("h5py")
    groups = [("", file)]
    while groups:
        above, group = groups.pop()
        for key in group:
            where = f"{above}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _elsewhere(name, where, "is a link")
            inner = group[key]
            if h5py.h5o.get_info(inner.id).rc != 1:
                raise _elsewhere(name, where, "stands in two places")
            if isinstance(inner, h5py.Group):
                groups.append((where, inner))
            elif isinstance(inner, h5py.Dataset):
                yield where, inner


def _elsewhere(name: str, where: str, what: str) -> Refusal:
    return Refusal(f"{name}: {where} {what}; write its values into the file itself")
