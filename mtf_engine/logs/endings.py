"""What a file holds, as its name says: the one list of endings that a log is read from, and a folder's parts."""

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import BinaryIO, Literal, NamedTuple

import pyarrow as pa

Kind = Literal["csv", "json", "parquet"]
KINDS: dict[str, Kind] = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet",
    ".dat": "csv", ".inter": "csv",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Of texts; Parquet compresses its columns itself."""
READ = (
    ".csv, .tsv, .dat, .inter, .jsonl, .ndjson (each also with .gz or .zst behind it), .parquet, .pq, "
    "or a folder of such parts"
)
HDF5 = (".h5", ".hdf5")
"""Of files of episodes, which say themselves what they hold."""
METADATA, DATA = "metadata.json", "data"
"""What tells the folder of a Minari dataset, and the folder in it where that may stand."""
SUFFIXES = tuple(KINDS) + tuple(COMPRESSIONS)
"""The last suffixes of files that may be read."""


class Ending(NamedTuple):
    """What a file holds, how it is compressed, and its name without what says so."""

    kind: Kind
    compression: str | None
    stem: str
    is_recbole: bool = False


def ending_of(path: PurePath) -> Ending | None:
    """Returns what the name of a file tells, in capitals or not; None where it ends otherwise."""
    name, compression = path.name, COMPRESSIONS.get(path.suffix.lower())
    inner = PurePath(name).with_suffix("") if compression else PurePath(name)
    kind = KINDS.get(inner.suffix.lower())
    if kind is None or (compression and kind == "parquet"):
        return None
    return Ending(kind, compression, inner.stem, inner.suffix.lower() == ".inter")


def parts_of(path: Path) -> tuple[Path, ...]:
    """Returns the files of a table: `path` itself, or all of a folder by name, markers such as _SUCCESS aside."""
    if not path.is_dir():
        return (path,)
    inner = (p for p in path.rglob("*") if p.is_file())
    return tuple(sorted(p for p in inner if not _is_marker(p.relative_to(path).parts)))


def _is_marker(parts: Iterable[str]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def table_at(folder: Path, table: str) -> list[Path]:
    """Returns the files of `folder`, or folders of parts, that are called `table` but for their ending."""
    return [path for path in sorted(folder.iterdir()) if _stem(path) == table]


def minari_place(folder: Path) -> Path | None:
    """Returns where in `folder` the files of a Minari dataset are; None where it is none."""
    return next((place for place in (folder, folder / DATA) if (place / METADATA).is_file()), None)


def _stem(path: Path) -> str | None:
    if path.is_dir():
        return path.stem if path.suffix.lower() in KINDS else path.name
    ending = ending_of(path)
    return ending.stem if ending else None


def decompressed(stream: BinaryIO, ending: Ending) -> BinaryIO:
    """Returns the bytes of a file as its writer wrote them."""
    return pa.CompressedInputStream(stream, ending.compression) if ending.compression else stream
