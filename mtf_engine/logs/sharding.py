"""Writes datasets as folders of Parquet buckets, some buckets at a time; see `logs.buckets` for what they hold."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mtf_engine import sealed
from mtf_engine.disk import TEMPS, appear, check_guards, room_for, temp_of
from mtf_engine.logs import buckets
from mtf_engine.logs.buckets import BUCKET, MANIFEST, MODEL, N_BUCKETS, S3, SUFFIX, Manifest, Shard
from mtf_engine.logs.datasets import ORDER, Dataset, RowsHash
from mtf_engine.logs.schema import DatasetMeta, Ledger

USERS = f"SELECT user_id, {BUCKET} AS bucket FROM (SELECT DISTINCT user_id FROM requests)"
SOURCES = {
    "requests": "requests t JOIN users USING (user_id)",
    "impressions": "impressions t JOIN users USING (user_id)",
    "candidates": "candidates t JOIN (SELECT request_id, user_id FROM requests) USING (request_id) "
    "JOIN users USING (user_id)",
}
"""Where the rows of each table are told their bucket."""


def place_of(folder: Path, dataset_id: str, to: str) -> str:
    """Returns where the files of a dataset to come are written: below a URL `to`, else a folder that is to appear."""
    if to.startswith(S3):
        return f"{to.rstrip('/')}/{dataset_id}{SUFFIX}"
    return str(folder / f".{dataset_id}.tmp{SUFFIX}")


def write_buckets(source: Dataset, place: str, share: tuple[int, int]) -> list[Shard]:
    """Returns the shards of the buckets first..stop of the `share`, written to `place`."""
    found = []
    with TemporaryDirectory() as spill:
        for table in source.tables:
            sql = (
                f"WITH users AS ({USERS}) SELECT bucket, t.* FROM {SOURCES[table]} WHERE bucket >= ? AND bucket < ? "
                f"ORDER BY bucket, {', '.join(_order(source, table))}"
            )
            parts = _cut(source.batches(sql, share, Path(spill)))
            for bucket, group in groupby(parts, key=lambda part: part[0]):
                found.append(_write(place, table, bucket, (rows for _, rows in group)))
    return found


def _order(source: Dataset, table: str) -> Iterator[str]:
    """Yields what the rows of a bucket are in the order of; a request may have an item twice among its candidates."""
    told = ORDER[table].split(", ")
    more = source.types(table) if table == "candidates" else ()
    yield from (f"t.{name}" for name in dict.fromkeys((*told, *more)))


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields the rows of each bucket apart, which stand together, without the column that tells it."""
    for batch in batches:
        bucket = batch.column(0).to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(bucket)]
        rows = batch.select(batch.schema.names[1:])
        for low, high in pairwise(edges):
            if high > low:
                yield int(bucket[low]), rows.slice(low, high - low)


def _write(place: str, table: str, bucket: int, parts: Iterator[pa.RecordBatch]) -> Shard:
    name, n_rows = buckets.name_of(table, bucket), 0
    digest = RowsHash()
    first = next(parts)
    with _file(place, name) as file:
        with pq.ParquetWriter(file, first.schema, compression="zstd", write_page_checksum=True) as writer:
            for part in (first, *parts):
                writer.write_batch(part)
                n_rows += part.num_rows
                digest.add(part)
        n_bytes = file.tell()
    return Shard(table=table, bucket=bucket, n_rows=n_rows, n_bytes=n_bytes, content_hash=digest.hexdigest())


@contextmanager
def _file(place: str, name: str) -> Iterator[Any]:
    """Yields the file `name` of a place, open for writing; it is there once it is whole.

    So two that write the same at once do no harm, nor does one that was given up on, and wakes.
    """
    check_guards()
    if not place.startswith(S3):
        path = Path(place) / name
        path.parent.mkdir(exist_ok=True)
        temp = temp_of(path)
        with room_for(path, temp):
            with temp.open("wb") as file:
                yield file
            check_guards()
            temp.replace(path)
        return
    try:
        with buckets.filesystem(place).open_output_stream(
            f"{buckets.without_scheme(place)}/{name}"
        ) as stream:
            yield stream
    except OSError as error:
        check_guards()
        raise buckets.unreachable(place, error) from None


def finish(
    folder: Path, dataset_id: str, meta: DatasetMeta, source: Dataset, shards: Iterable[Shard], place: str
) -> Ledger:
    """Returns the ledger of the dataset whose files were written to `place`; its folder appears now, whole.

    The manifest is written last, at the place too where that is a server.
    """
    final, temp = folder / f"{dataset_id}{SUFFIX}", folder / f".{dataset_id}.tmp{SUFFIX}"
    remote = place.startswith(S3)
    manifest = Manifest(
        place=place if remote else "",
        meta=meta.model_dump_json(),
        types={table: source.types(table) for table in source.tables},
        shards=tuple(sorted(shards, key=lambda shard: shard.name)),
    )
    content = manifest.model_dump_json(indent=1).encode()
    temp.mkdir(exist_ok=True)
    for left in temp.glob(TEMPS):  # by a writer that was killed, or may be at work yet
        left.unlink(missing_ok=True)
    with room_for(final, temp):
        if (model := source.kept_model()) is not None:
            (temp / MODEL).write_bytes(model)
        if remote:
            with _file(place, MANIFEST) as file:
                file.write(content)
        sealed.write(temp / MANIFEST, content)
        appear(temp, final)
    counts = {f"n_{table}": manifest.count(table) for table in ("requests", "impressions")}
    return Ledger(dataset_id=dataset_id, content_hash=manifest.content_hash, **counts)


def abandon(place: str) -> None:
    """Removes what was written to a place of which nothing will come; not what is another process's by now."""
    check_guards()
    if place.startswith(S3):
        buckets.remove(place)
    else:
        shutil.rmtree(place, ignore_errors=True)


def shares(n: int) -> list[tuple[int, int]]:
    """Returns the buckets first..stop of each of `n` writers."""
    return list(pairwise(N_BUCKETS * i // n for i in range(n + 1)))
