"""HDF5 files of users, opened once nothing in them leads elsewhere or asks for more memory than they can fill.

HDF5 lets a dataset lie in any other file of the machine that reads it, and a small file declare arrays of any size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtf_engine.logs.episodes import extra
from mtf_engine.spec import Refusal

MOST_BYTES = 8 << 30
"""An import has all of a file's arrays in memory at once."""
MOST_TIMES, FREE_BYTES = 1_000, 1 << 20
"""Arrays come to at most so many times the size of their file, about what gzip makes of zeros, and so many bytes."""


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
