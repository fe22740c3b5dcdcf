"""The first rows of a log's file as text, before anything is imported."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mtf_engine.logs.endings import READ, decompressed, ending_of
from mtf_engine.logs.files import csv_header, header_lines
from mtf_engine.spec import Refusal

ROWS = 5
MOST_BYTES = 1 << 20
"""Of a CSV file that are looked at."""
LONGEST = 60
"""Characters of a value that are shown."""


class Preview(NamedTuple):
    """The columns of a file and its first rows, all text."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def preview(name: str, stream: BinaryIO, given: Sequence[str] = ()) -> Preview:
    """Returns the first rows of the log's file `name` in `stream`; a Refusal if there are none to show.

    `given` are the names of the columns of a CSV file that has no header. Names that are there more than once are
    numbered: without a header they may be values, and whether a log may have them is for its import to say.
    """
    stream.seek(0)
    ending = ending_of(PurePath(name))
    if ending is None:
        raise Refusal(f"{name} has an ending that is not read; a log is read from {READ}")
    content = decompressed(stream, ending)
    try:
        if ending.kind == "csv":
            columns, rows = _csv(content, PurePath(name), given)
        else:
            columns, rows = {"parquet": _parquet, "json": _json}[ending.kind](content)
    except (pa.ArrowException, csv.Error, ValueError, OverflowError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Refusal(f"{name} has no rows to show: {reason}; export the file again") from None
    return Preview(name, _numbered(columns), tuple(rows))


def _numbered(columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, each once: the second `a` is `a (2)`."""
    told: dict[str, None] = {}
    for name in columns:
        names = (f"{name} ({i})" if i > 1 else name for i in count(1))
        told[next(one for one in names if one not in told)] = None
    return tuple(told)


def _csv(
    stream: BinaryIO, path: PurePath, given: Sequence[str]
) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    text = _head(stream)
    columns, delimiter = csv_header(re.split("[\r\n]", text, maxsplit=1)[0], path, given)
    lines: Iterable[list[str]] = (line.split(delimiter) for line in text.splitlines())
    if len(delimiter) == 1:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    first = header_lines(given)
    return columns, _shown(islice(lines, first, first + ROWS), len(columns))


def _head(stream: BinaryIO) -> str:
    """Returns the whole lines among the first bytes."""
    head = stream.read(MOST_BYTES)
    whole = len(head) < MOST_BYTES
    return (head if whole else head[: head.rfind(b"\n") + 1]).decode("utf-8-sig")


def _json(stream: BinaryIO) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    rows = [json.loads(line) for line in islice(_head(stream).splitlines(), ROWS)]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object of columns")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, _shown(([row.get(name) for name in columns] for row in rows), len(columns))


def _parquet(stream: BinaryIO) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    file = pq.ParquetFile(stream)
    batch = next(file.iter_batches(ROWS), None)
    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True) if batch else ()
    return file.schema_arrow.names, _shown(rows, len(file.schema_arrow.names))


def _shown(rows: Iterable[Sequence[object]], width: int) -> Iterator[tuple[str, ...]]:
    """Yields each row as `width` texts, blank where the file has none."""
    for row in rows:
        texts = ["" if value is None else str(value) for value in row[:width]]
        cut = (text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in texts)
        yield (*cut, *[""] * (width - len(texts)))
