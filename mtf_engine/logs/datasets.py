"""Datasets: immutable DuckDB files, written once by `write_dataset` and read by `Dataset`."""

import contextlib
import hashlib
import os
import shutil
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mtf_engine.disk import appear, fill_atomically, room_for, write_atomically
from mtf_engine.fusion import PREDICTION_FLOOR
from mtf_engine.logs import transitions
from mtf_engine.logs.buckets import Folder, Shard, content_hash
from mtf_engine.logs.schema import (
    ACTION_COLUMNS,
    LOGGED,
    SCALAR_TYPES,
    Columns,
    DatasetMeta,
    EvaluationRows,
    EvaluationWhole,
    Ledger,
    Tables,
    UserLog,
    UserShare,
    user_keys,
)
from mtf_engine.logs.splits import ALL, CONTROL, TEST, TRAIN, VALIDATION
from mtf_engine.logs.transitions import Transitions
from mtf_engine.observation import item_names, item_states
from mtf_engine.spec import Refusal

STORAGE_VERSION = "v1.5.0"
"""Read by DuckDB 1.5 and 2.0 alike."""

TABLES = ("requests", "impressions", "candidates")
ORDER = {
    "requests": "user_id, request_id",
    "impressions": "user_id, request_id, position",
    "candidates": "request_id, item_id",
}
HASH_ROWS = 65_536
GROUP_ROWS = 122_880
"""Rows that DuckDB stores together."""
WRITE_MB, STAGE_MB = 2_000, 300
"""Memory of a dataset being sorted: to sort 1,000,000 sessions without it held 20 GB, and was no faster; and before."""
BOUND_MB, BOUND_THREADS, BOUND_ROWS = 512, 2, 16_384
"""Memory of a query of few rows of a large log, and of one that sorts all of them: what is beyond waits on disk. Each
thread needs a part of it; rows are taken over so many at once. 10 million of 108 numbers took 26 seconds."""
WATCH_TIME = "watch_time"
OF_SPLIT = "FROM requests WHERE split IS NULL OR split = ?"
BY_ITEM = """
SELECT dense_rank() OVER (ORDER BY r.session_id, i.place) AS session_id, r.step, {requests}, {impressions}
FROM (SELECT * FROM requests WHERE split IS NULL OR split = ?) r JOIN (
    SELECT *, row_number() OVER (PARTITION BY request_id ORDER BY position) AS place FROM impressions
) i USING (request_id)
"""
"""A session for each place of a logged one: what was shown there at its first request, at its second, ..."""


def write_dataset(
    folder: Path, dataset_id: str, meta: DatasetMeta, batches: Iterable[Tables], model: bytes | None = None
) -> Ledger:
    """Returns the ledger of the dataset written to `folder/<dataset_id>.duckdb`; all of it or nothing.

    `model`, the file of the prediction model that `meta` has the hash of, is kept in it.

    Rows are staged as they come, so memory is bounded by a batch; where they do not come sorted by user, as an
    imported log does, they are sorted then. The file appears under its name in one step; a process killed before
    leaves temp files only.
    """
    final, temp, stage = (
        folder / f"{p}{dataset_id}{s}.duckdb" for p, s in (("", ""), (".", ".tmp"), (".", ".tmp.stage"))
    )
    try:
        with room_for(final, temp, stage):
            with duckdb.connect() as con:
                con.execute("SET preserve_insertion_order = true")
                con.execute(f"SET temp_directory = '{_quoted(folder / f'.{dataset_id}.tmp.spill')}'")
                con.execute(f"SET memory_limit = '{STAGE_MB}MB'")
                _attach(con, "stage", stage)
                digest = _staged(con, batches)
                if digest:
                    name, path = "stage", stage
                else:
                    name, path = "final", temp
                    con.execute(f"SET memory_limit = '{WRITE_MB}MB'")
                    _attach(con, "final", temp)
                    for table in _tables(con, "stage"):
                        con.execute(
                            f"CREATE TABLE final.{table} AS FROM stage.{table} ORDER BY {ORDER[table]}"
                        )
                    con.execute("CHECKPOINT final")  # from here on rows are read as they are stored
                    digest = _content_hash(con, name)
                con.execute(
                    f"CREATE TABLE {name}.meta AS SELECT ? AS meta, ? AS content_hash",
                    [meta.model_dump_json(), digest],
                )
                if model is not None:
                    con.execute(
                        f"CREATE TABLE {name}.prediction_model AS SELECT ? AS content", [zlib.compress(model)]
                    )
                counts = [con.sql(f"SELECT count(*) FROM {name}.{t}").fetchall()[0][0] for t in TABLES[:2]]
                con.execute(f"CHECKPOINT {name}")
            appear(path, final)
    finally:
        for left in folder.glob(f".{dataset_id}.tmp*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return Ledger(dataset_id=dataset_id, n_requests=counts[0], n_impressions=counts[1], content_hash=digest)


def _attach(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    con.execute(f"ATTACH '{_quoted(path)}' AS {name} (STORAGE_VERSION '{STORAGE_VERSION}')")


def _staged(con: duckdb.DuckDBPyConnection, batches: Iterable[Tables]) -> str | None:
    """Writes the rows of `batches` to the database `stage`; returns their hash, None where it is not known.

    It is not where a table is not in order, or may be read otherwise than it came. Rows are written in whole groups,
    since a part of one is written again with what comes behind it; meanwhile they are hashed and the next batch is
    made.
    """
    held: dict[str, list[pa.Table]] = {}
    last: dict[str, pa.Table] = {}
    begun = set[str]()
    in_order, hashes = True, ContentHash()
    with ThreadPoolExecutor(2) as pool:
        pending: list[Future[None]] = []

        def write(name: str, rows: pa.Table) -> None:
            while pending:
                pending.pop().result()
            pending.append(pool.submit(_stage, con, name, rows, name not in begun))
            begun.add(name)
            if in_order:
                pending.append(pool.submit(hashes.add_new, name, rows))

        for batch in batches:
            for name, columns in ((name, getattr(batch, name)) for name in TABLES):
                if columns is None:
                    continue
                rows = _arrow(columns)
                keys = rows.select(ORDER[name].split(", "))
                in_order = in_order and _are_sorted([*([last[name]] if name in last else []), keys])
                last[name] = keys.slice(max(len(keys) - 1, 0))
                held.setdefault(name, []).append(rows)
                n = sum(map(len, held[name])) // GROUP_ROWS * GROUP_ROWS
                if n:
                    whole = pa.concat_tables(held[name], promote_options="permissive").combine_chunks()
                    write(name, whole.slice(0, n))
                    held[name] = [whole.slice(n)]
        for name, parts in held.items():
            write(name, pa.concat_tables(parts, promote_options="permissive").combine_chunks())
        for one in pending:
            one.result()
    return hashes.hexdigest() if in_order and hashes.is_known else None


def _are_sorted(parts: list[pa.Table]) -> bool:
    """Returns whether the rows of all parts are sorted by all columns, the first one first, and none is missing."""
    keys = pa.concat_tables(parts, promote_options="permissive")
    higher, equal = np.zeros(max(len(keys) - 1, 0), bool), np.ones(max(len(keys) - 1, 0), bool)
    for column in keys.columns:
        if column.null_count:
            return False
        before, after = column.slice(0, len(equal)), column.slice(1)
        higher |= equal & pc.greater(after, before).to_numpy()
        equal &= pc.equal(after, before).to_numpy()
    return bool((higher | equal).all())


def _stage(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, is_first: bool) -> None:
    con.register("batch", rows)
    into = f"CREATE TABLE stage.{name} AS" if is_first else f"INSERT INTO stage.{name} BY NAME"
    con.execute(f"{into} SELECT * FROM batch")
    con.unregister("batch")


def _arrow(columns: Columns) -> pa.Table:
    """Returns an Arrow table in which an array [n, width] becomes a column of fixed-size lists."""
    return pa.table({name: _column(name, values) for name, values in columns.items()})


def _column(name: str, values: np.ndarray | pa.Array) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values, SCALAR_TYPES.get(name), from_pandas=True)


def _tables(con: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    found = con.sql(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ?", params=[database]
    ).fetchall()
    return [t for t in TABLES if (t,) in found]


class ContentHash:
    """The SHA-256 of the rows of tables, which come some at a time in stored order, however they are cut and encoded.

    `is_known` tells whether new rows were hashed as they are read from the file that they were written to.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Any]] = {name: defaultdict(hashlib.sha256) for name in TABLES}
        self._schemas: dict[str, pa.Schema] = {}
        self.is_known = True

    def add(self, table: str, rows: pa.RecordBatch, each: Callable[..., Iterable[None]] = map) -> None:
        """Adds the next rows of a table, a column at a time or as `each` does it."""
        hashes = [self._of[table][name] for name in rows.schema.names]
        list(each(lambda found, column: found.update(_bytes(column)), hashes, rows.columns))

    def add_new(self, table: str, rows: pa.Table) -> None:
        """Adds the next rows of a table before they are read from a file."""
        schema = self._schemas.setdefault(table, rows.schema)
        self.is_known = self.is_known and rows.schema.equals(schema)
        for batch in rows.to_batches():
            self.is_known = self.is_known and all(map(_is_read_so, batch.columns))
            if self.is_known:
                self.add(table, batch)

    def hexdigest(self) -> str:
        """Returns the hash of all rows so far."""
        digest = hashlib.sha256()
        for table, columns in self._of.items():
            for name in sorted(columns):
                digest.update(f"{table}.{name}:{columns[name].hexdigest()}".encode())
        return digest.hexdigest()


def _is_read_so(column: pa.Array) -> bool:
    """Returns whether a column is read from a file with the bytes that it has here.

    DuckDB may store one of what it takes for equal, which are 0 and -0, and any two that are no numbers.
    """
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        column, kind = column.flatten(), kind.value_type
    if not pa.types.is_floating(kind):
        is_number = pa.types.is_integer(kind) or kind in (pa.bool_(), pa.timestamp("us"))
        return bool(pa.types.is_string(kind) or (is_number and not column.null_count))
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype not in (np.float32, np.float64):
        return False
    whole = np.int32 if values.dtype == np.float32 else np.int64
    bits = values.view(whole)
    strange = np.isnan(values) & (bits != np.array(np.nan, values.dtype).view(whole))
    return not (strange | (bits == np.iinfo(whole).min)).any()


def _content_hash(con: duckdb.DuckDBPyConnection, database: str) -> str:
    """Returns the hash of all rows in stored order."""
    hashes = ContentHash()
    with ThreadPoolExecutor(BOUND_THREADS) as hashing:
        for table in _tables(con, database):
            for batch in con.sql(f"SELECT * FROM {database}.{table}").to_arrow_reader(HASH_ROWS):
                hashes.add(table, batch, hashing.map)
    return hashes.hexdigest()


def _bytes(column: pa.Array) -> np.ndarray | pa.Buffer:
    """Returns what is hashed of a column: its numbers, or its texts, each with a NUL behind; a missing one is 1, 0."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        known = pc.fill_null(column.cast(pa.large_string()), "\1")
        ended = pc.binary_join_element_wise(
            known, pa.scalar("", pa.large_string()), pa.scalar("\0", pa.large_string())
        )
        _, offsets, texts = ended.buffers()
        ends = np.frombuffer(offsets, np.int64)[ended.offset : ended.offset + len(ended) + 1]
        return texts.slice(ends[0], ends[-1] - ends[0]) if texts else pa.py_buffer(b"")
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False))


class RowsHash:
    """The SHA-256 of rows, which come some at a time, however Arrow cuts and encodes them."""

    def __init__(self) -> None:
        self._of: dict[str, Any] = defaultdict(hashlib.sha256)

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds the next rows."""
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            self._of[name].update(_bytes(column))

    def hexdigest(self) -> str:
        """Returns the hash of all rows so far."""
        lines = (f"{name}:{self._of[name].hexdigest()}\n" for name in sorted(self._of))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _as_found(con: duckdb.DuckDBPyConnection, folder: Folder) -> Iterator[Shard]:
    """Yields the shards of a manifest with the hash of the rows that their files hold now."""
    for shard in folder.manifest.shards:
        digest = RowsHash()
        for batch in con.sql(folder.rows(shard.table, [shard.bucket])).to_arrow_reader(HASH_ROWS):
            digest.add(batch)
        yield shard.model_copy(update={"content_hash": digest.hexdigest()})


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


DAMAGE = "corrupt", "could not read enough bytes", "failed to deserialize"
"""What DuckDB says of a file whose blocks are not those that it wrote: each block has a checksum."""
OF_FILES = OSError, duckdb.IOException
"""What is raised of a Parquet file that is missing, and of any other file."""


class Dataset:
    """A dataset file, opened read-only for each query, so any number of processes may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = Folder.at(path)

    @classmethod
    def open(cls, path: Path, ledger: Ledger | None = None) -> Self:
        """Returns the dataset at `path`; a Refusal where it is missing or is not what the ledger says."""
        if not path.exists():
            raise Refusal(f"the dataset file {path.name} is missing; restore it or delete the dataset")
        dataset = cls(path)
        if ledger is not None:
            found = (dataset.n_requests, dataset.n_impressions, dataset.content_hash)
            if found != (ledger.n_requests, ledger.n_impressions, ledger.content_hash):
                raise Refusal(
                    f"the dataset file {path.name} is not the one that was written (rows or content hash differ); "
                    "restore it or delete the dataset"
                )
        return dataset

    @contextlib.contextmanager
    def _connect(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yields a connection; with `spill`, one of bounded memory, which puts there what is beyond."""
        with duckdb.connect() as con:
            if spill:
                con.execute(f"SET memory_limit = '{BOUND_MB}MB'; SET threads = {BOUND_THREADS}")
                con.execute(f"SET temp_directory = '{_quoted(spill)}'")
            try:
                if self._folder:
                    self._folder.attach(con)
                else:
                    con.execute(f"ATTACH '{_quoted(self.path)}' AS dataset (READ_ONLY)")
            except (duckdb.Error, OSError) as error:
                raise self._unreadable(error) from None
            con.execute("USE dataset")
            try:
                yield con
            except (duckdb.Error, OSError) as error:
                if self._is_damage(error):
                    raise self._unreadable(error) from None
                raise

    def _is_damage(self, error: Exception) -> bool:
        """Returns whether an error is of the dataset's files, and not of what is done with their rows."""
        told = str(error)
        if any(word in told.lower() for word in DAMAGE):
            return True
        if not self._folder:
            return False
        if isinstance(error, OF_FILES):
            folders = self.path.name, self.place.rpartition("/")[2]
            return any(f"{folder}/" in told for folder in folders if folder)
        return type(error) is duckdb.Error or isinstance(error, duckdb.InvalidInputException)

    def _unreadable(self, error: Exception) -> Refusal:
        problem = str(error).splitlines()[0]
        return Refusal(f"the dataset file {self.path.name} cannot be read, restore it from a copy: {problem}")

    @property
    def place(self) -> str:
        """The URL of the Parquet files of a dataset whose files lie on a server; empty where they lie here."""
        return self._folder.manifest.place if self._folder else ""

    @property
    def n_files(self) -> int:
        """How many Parquet files there are; 0 where the dataset is one DuckDB file."""
        return len(self._folder.manifest.shards) if self._folder else 0

    def keep(self, path: Path, content: bytes) -> None:
        """Keeps what was computed of the dataset in the file `path` beside it, where that can be written to."""
        if os.access(path.parent, os.W_OK):
            writer = f"{os.getpid()}.{threading.get_native_id()}"
            temp = path.with_name(f".{self.path.stem}.tmp.{writer}{''.join(path.suffixes)}")
            write_atomically(path, content, temp)

    def query(self, sql: str, params: Sequence[Any] = ()) -> pd.DataFrame:
        """Returns the result of read-only SQL over requests, impressions, candidates and meta."""
        with self._connect() as con:
            return con.sql(sql, params=list(params)).df()

    def arrays(self, sql: str, params: Sequence[Any] = ()) -> dict[str, np.ndarray]:
        """Returns the columns of a query as arrays; list columns are float32 [n, width], NaN where absent."""
        return columns(self.table(sql, params))

    def parts(self, sql: str, params: Sequence[Any], n_rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the columns of a query, as `arrays` has them, at most so many rows at a time, in stored order."""
        with self._connect() as con:
            for batch in con.sql(sql, params=list(params)).to_arrow_reader(n_rows):
                yield columns(pa.Table.from_batches([batch]))

    def table(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """Returns the result of a query as it is stored beside a dataset."""
        with self._connect() as con:
            return con.sql(sql, params=list(params)).to_arrow_table()

    @cached_property
    def _head(self) -> dict[str, Any]:
        if self._folder:
            of = self._folder.manifest
            counted = {f"n_{table}": of.count(table) for table in TABLES[:2]}
            return {"meta": of.meta, "content_hash": of.content_hash, **counted}
        counts = ", ".join(f"(SELECT count(*) FROM {t}) AS n_{t}" for t in TABLES[:2])
        return self.query(f"SELECT meta, content_hash, {counts} FROM meta").to_dict("records")[0]

    @cached_property
    def meta(self) -> DatasetMeta:
        return DatasetMeta.model_validate_json(self._head["meta"])

    @property
    def content_hash(self) -> str:
        return self._head["content_hash"]

    @property
    def n_requests(self) -> int:
        return int(self._head["n_requests"])

    @property
    def n_impressions(self) -> int:
        return int(self._head["n_impressions"])

    @cached_property
    def n_users(self) -> int:
        """Users with a request; all rows are read to count them."""
        return int(self.query("SELECT count(DISTINCT user_id) AS n FROM requests")["n"][0])

    def prediction_model(self) -> bytes | None:
        """Returns the file of the model that made the predictions, None of a log that brought them.

        A Refusal where it is not the one that was written.
        """
        if self.meta.prediction_model is None:
            return None
        try:
            content = zlib.decompress(self.kept_model() or b"")
        except (duckdb.Error, zlib.error):
            content = b""
        if hashlib.sha256(content).hexdigest() != self.meta.prediction_model:
            raise Refusal(
                f"the prediction model of {self.meta.name} is damaged, in {self.path.name}; restore that file, or "
                "import its log again"
            )
        return content

    def kept_model(self) -> bytes | None:
        """Returns the prediction model as it is kept, compressed; None of a log without one."""
        if self.meta.prediction_model is None:
            return None
        if self._folder:
            return self._folder.prediction_model()
        return self.table("SELECT content FROM prediction_model")["content"][0].as_py()

    def recompute_content_hash(self) -> str:
        """Returns the hash of the rows as they are in the file now; reads all of it."""
        with self._connect() as con:
            if self._folder:
                return content_hash(_as_found(con, self._folder))
            return _content_hash(con, "dataset")

    def changed_files(self) -> list[str]:
        """Returns the names of the files whose rows are not those that were written; reads all of them."""
        if not self._folder:
            return [] if self.recompute_content_hash() == self.content_hash else [self.path.name]
        with self._connect() as con:
            pairs = zip(self._folder.manifest.shards, _as_found(con, self._folder), strict=True)
            return [f"{self.path.name}/{written.name}" for written, found in pairs if found != written]

    @cached_property
    def tables(self) -> list[str]:
        """The tables that the file has, of requests, impressions and candidates."""
        if self._folder:
            return [table for table in TABLES if table in self._folder.manifest.types]
        with self._connect() as con:
            return _tables(con, "dataset")

    def types(self, table: str) -> dict[str, str]:
        """Returns DuckDB's type of each column of a table."""
        told = self.query(f"DESCRIBE {table}")
        return dict(zip(told["column_name"], told["column_type"], strict=True))

    def batches(self, sql: str, params: Sequence[Any], spill: Path) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a query some at a time; what does not fit into memory goes to the folder `spill`."""
        with self._connect(spill) as con:
            yield from con.sql(sql, params=list(params)).to_arrow_reader(BOUND_ROWS)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(
            self.query("SELECT DISTINCT split FROM requests WHERE split IS NOT NULL ORDER BY split")["split"]
        )

    def transitions(self, split: str = TRAIN, by_item: bool = False) -> Transitions:
        """Returns the steps of `split` (of all rows where the dataset has no split) for training.

        With `by_item` those of impressions, see `known_steps`.
        """
        steps = self.known_steps(split, by_item)
        if not len(steps):
            raise Refusal(
                f"the dataset {self.meta.name} has no {split} step whose successor or end is known: every session "
                "with an action is one request that was cut off; bring longer ones, or mark which have ended"
            )
        return steps

    def known_steps(self, split: str, by_item: bool = False) -> Transitions:
        """Returns the steps of `split` whose successor or end is known, perhaps none.

        With `by_item` a step is an impression: its reward is the impression's, its observation has the item's
        features behind the user's, and it leads to what the next request showed at its place. Where the log has
        no item features, they are the logarithms of the predictions.

        They lie beside the file, written by whoever asks first; where that folder cannot be written to, in a
        temporary one.
        """
        kind = f"{split}-items" if by_item else split
        watched = None if by_item else self._watch_rewards(split)
        open_in = partial(Transitions.open, meta=self.meta, by_item=by_item, watch_rewards=watched)
        folder = self.path.with_name(f"{self._transitions_of(kind)}{self.content_hash[:16]}.transitions")
        if folder.exists():
            return open_in(folder)
        self._check_actions(split)
        if by_item and not self.n_impressions:
            raise Refusal(
                f"the dataset {self.meta.name} shows no items, so there are none to give weights of their own; set "
                "action_level=request"
            )
        write = partial(self._write_item_transitions if by_item else self._write_transitions, split)
        if not os.access(folder.parent, os.W_OK):
            with TemporaryDirectory() as elsewhere:
                write(Path(elsewhere))
                return open_in(Path(elsewhere))
        temp = folder.with_name(f".{self.path.stem}.tmp.{kind}.transitions")
        fill_atomically(folder, temp, write)
        for other in folder.parent.glob(f"{self._transitions_of(kind)}*"):
            if other != folder:  # of the rows that an earlier file of this name had
                shutil.rmtree(other)
        return open_in(folder)

    def _transitions_of(self, kind: str) -> str:
        return f"{self.path.stem}.{kind}."

    def _check_actions(self, split: str) -> None:
        """Refuses a split without rows, or without actions."""
        counted = self.query(
            f"SELECT count(*) AS rows, count(*) FILTER (NOT isnan(action[1])) AS actions {OF_SPLIT}", [split]
        )
        if not counted["rows"][0]:
            raise Refusal(f"the dataset {self.meta.name} has no {split} rows to train on")
        if not counted["actions"][0]:
            raise Refusal(
                f"the dataset {self.meta.name} has no actions to learn from; explore on it first: "
                "dataset collect --env replay --from it"
            )

    def _write_transitions(self, split: str, folder: Path) -> None:
        rows = f"SELECT {', '.join(transitions.READ)} {OF_SPLIT}"
        numbered = f"SELECT session_id, step, row_number() OVER () - 1 AS place {OF_SPLIT}"
        places = self._streamed(f"SELECT place FROM ({numbered}) ORDER BY session_id, step", split, folder)
        order = (part["place"] for part in places)  # to sort numbers is cheaper than to sort rows
        transitions.write(folder, partial(self._streamed, rows, split, folder), order)

    def _write_item_transitions(self, split: str, folder: Path) -> None:
        rows = BY_ITEM.format(
            requests=", ".join(
                f"r.{name}" for name in transitions.READ if name not in ("session_id", "reward")
            ),
            impressions=", ".join(f"i.{name}" for name in ("reward", *self._item_columns)),
        )
        ordered = partial(self._streamed, f"{rows} ORDER BY session_id, r.step", split, folder)
        transitions.write(folder, lambda: map(self._states, ordered()), typical=self._typical(split))

    def _typical(self, split: str) -> tuple[float, ...]:
        """Returns the geometric mean of each prediction over the impressions of `split`."""
        n = len(self.meta.fusion.predictions)
        means = ", ".join(
            f"exp(avg(ln(greatest(predictions[{i + 1}], {PREDICTION_FLOOR}::FLOAT)))) AS p{i}"
            for i in range(n)
        )
        found = self.query(
            f"SELECT {means} FROM impressions SEMI JOIN (SELECT request_id {OF_SPLIT}) USING (request_id)",
            [split],
        )
        return tuple(float(found[f"p{i}"][0]) for i in range(n))

    @property
    def _item_columns(self) -> tuple[str, ...]:
        """The columns of impressions that item features are read from."""
        return ("predictions", "item_features") if self.meta.item_features else ("predictions",)

    def _states(self, rows: Columns) -> Columns:
        """Returns impressions whose observations have the item's features behind the user's."""
        meta, named = self.meta, item_names(self.meta.item_features, self.meta.fusion.predictions)
        items = item_states(
            named, meta.item_features, rows.get("item_features"), meta.fusion.predictions, rows["predictions"]
        )
        return {**rows, "observation": np.concatenate([rows["observation"], items], axis=1)}

    def _streamed(self, sql: str, split: str, folder: Path) -> Iterator[Columns]:
        """Yields the rows of a query of `split` part by part; what does not fit into memory goes to `folder`."""
        with self._connect(folder / "spill") as con:
            for batch in con.sql(sql, params=[split]).to_arrow_reader(BOUND_ROWS):
                yield {
                    name: _numpy(column, writable=False)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }

    def _watch_rewards(self, split: str) -> Callable[[], np.ndarray] | None:
        """Returns what reads what watch time is of the rewards of `split`, float32 [n], in the order of transitions.

        None where the reward has no weight for it, or for nothing else.
        """
        weighted = {name for name, weight in self.meta.reward.weights.items() if weight}
        if WATCH_TIME not in weighted.intersection(self.meta.signals) or len(weighted) == 1:
            return None
        watched = f"sum(i.{WATCH_TIME} ORDER BY i.position)"  # in one order, for the bits
        sql = (
            f"SELECT coalesce({watched}, 0) * {self.meta.reward.weights[WATCH_TIME]!r} AS reward "
            f"FROM (SELECT request_id, session_id, step {OF_SPLIT}) r LEFT JOIN impressions i USING (request_id) "
            "GROUP BY r.request_id, r.session_id, r.step ORDER BY r.session_id, r.step"
        )

        def read() -> np.ndarray:
            with TemporaryDirectory() as spill:
                parts = [part["reward"] for part in self._streamed(sql, split, Path(spill))]
            return np.concatenate([np.empty(0), *parts]).astype(np.float32)

        return read

    def by_session(self) -> Iterator[Columns]:
        """Yields all requests of one session after the other, by step, without memory for all of the log."""
        held: list[pa.Table] = []
        with TemporaryDirectory() as spill, self._connect(Path(spill)) as con:
            ordered = con.sql("SELECT * FROM requests ORDER BY session_id, step").to_arrow_reader(BOUND_ROWS)
            for batch in ordered:
                held.append(pa.Table.from_batches([batch]))
                *whole, rest = _sessions(pa.concat_tables(held))
                yield from map(columns, whole)
                held = [rest]
        yield from map(columns, held)

    def copy_to(self, sql: str, path: Path) -> None:
        """Writes the result of read-only SQL to the Parquet file `path`."""
        with self._connect() as con:
            con.execute(f"COPY ({sql}) TO '{_quoted(path)}' (FORMAT parquet)")

    def evaluation_rows(
        self, split: str | None = None, n_users: int | None = None, share: UserShare | None = None
    ) -> EvaluationRows:
        """Returns requests and impressions of `split`; by default test rows, else validation, else all.

        "control" are the users of an explored log who met the baseline policy itself.

        With `n_users`, those of at most so many users, the same ones at every call; with `share`, those of its users.
        """
        split, where = self._whom(split)
        params: list[Any] = [split]
        if n_users is not None:
            users = (
                f"SELECT user_id FROM requests WHERE {where} GROUP BY user_id ORDER BY md5(user_id) LIMIT ?"
            )
            where, params = f"{where} AND user_id IN ({users})", [split, split, n_users]
        share = share or UserShare()
        where, params = f"{where} AND {share.sql}", [*params, *share.ids]
        requests = self._sought(
            f"SELECT request_id, user_id, segment, observation, {', '.join(ACTION_COLUMNS)} "
            f"FROM requests WHERE {where} ORDER BY user_id, request_id",
            params,
        )
        impressions = self._sought(
            f"SELECT i.request_id, {', '.join(f'i.{name}' for name in self._item_columns)}, i.reward, i.label "
            f"FROM impressions i SEMI JOIN (SELECT request_id FROM requests WHERE {where}) r USING (request_id) "
            f"WHERE {share.sql} ORDER BY i.user_id, i.request_id, i.position",
            [*params, *share.ids],
        )
        codes, users_there = pd.factorize(requests["user_id"])
        by_id = np.argsort(requests["request_id"], kind="stable")
        request = by_id[np.searchsorted(requests["request_id"], impressions["request_id"], sorter=by_id)]
        actions = {k: None if np.isnan(requests[k]).all() else requests[k] for k in ACTION_COLUMNS}
        return EvaluationRows(
            split=split,
            request_id=requests["request_id"],
            user=codes,
            user_keys=user_keys(users_there),
            segment=requests["segment"],
            observations=requests["observation"],
            baseline_actions=actions["baseline_action"],
            lower=actions["lower"],
            upper=actions["upper"],
            request=request,
            predictions=impressions["predictions"],
            reward=impressions["reward"],
            label=impressions["label"].astype(bool),
            fusion=self.meta.fusion,
            feature_names=self.meta.feature_names,
            item_features=impressions.get("item_features"),
            item_names=self.meta.item_features,
        )

    def _whom(self, split: str | None) -> tuple[str, str]:
        """Returns the split that an evaluation is of, and the condition of its requests, which takes that."""
        split = split or next((s for s in (TEST, VALIDATION) if s in self.splits), ALL)
        whom = {
            ALL: "?::VARCHAR IS NOT NULL",
            CONTROL: "pscore IS NULL AND NOT isnan(action[1]) AND ?::VARCHAR IS NOT NULL",
        }
        return split, whom.get(split, "split = ?")

    def evaluation_whole(self, split: str | None = None) -> EvaluationWhole:
        """Returns what is to be known of all of `evaluation_rows`, without reading them at once."""
        named, where = self._whom(split)
        logged = dict(zip(LOGGED, ("baseline_action", "lower", "upper"), strict=True))
        counted = ", ".join(
            f"count(*) FILTER (NOT isnan(list_min({column}::FLOAT[]))) AS {name}"
            for name, column in logged.items()
        )
        found = self._sought(
            f"SELECT segment, {counted} FROM requests WHERE {where} GROUP BY segment "
            "ORDER BY count(*) DESC, segment",
            [named],
        )
        return EvaluationWhole(
            n_impressions=self.evaluation_size(split),
            segments=tuple(map(str, found["segment"])),
            logged=tuple(name for name in LOGGED if found[name].any()),
        )

    def evaluation_shares(
        self, n_shares: int, n_parts: int, n_impressions: int, split: str | None = None
    ) -> list[UserShare]:
        """Returns shares of `evaluation_rows`, about `n_shares`, that cut none of its parts; they have all users."""
        split, where = self._whom(split)
        requests = f"FROM requests WHERE {where}"
        with TemporaryDirectory() as spill, self._connect(Path(spill)) as con:
            found = con.sql(
                "SELECT min(user_id) AS first, min(before) AS before FROM ("
                "SELECT user_id, (sum(n) OVER (ORDER BY user_id) - n)::BIGINT AS before FROM ("
                f"SELECT user_id, count(*) - 1 AS n FROM (SELECT DISTINCT user_id {requests} UNION ALL "
                f"SELECT user_id FROM impressions SEMI JOIN (SELECT request_id {requests}) USING (request_id)) "
                "GROUP BY user_id)) GROUP BY before * ? // ? * ? // ? ORDER BY first",
                params=[split, split, n_parts, max(n_impressions, 1), n_shares, n_parts],
            ).fetchall()
        ends = [*(first for first, _ in found[1:]), None]
        shares = [UserShare(first, stop, before) for (first, before), stop in zip(found, ends, strict=True)]
        return [shares[0]._replace(first=None), *shares[1:]] if shares else [UserShare()]

    def request_shares(self, split: str, n_requests: int) -> list[UserShare]:
        """Returns shares of the users of `split`, and of none, with about so many requests of it each; perhaps none.

        They depend on the rows alone, wherever those lie.
        """
        with TemporaryDirectory() as spill, self._connect(Path(spill)) as con:
            firsts = con.sql(
                "SELECT min(user_id) AS first FROM (SELECT user_id, "
                f"(sum(n) OVER (ORDER BY user_id) - n) // ? AS share FROM (SELECT user_id, count(*) AS n {OF_SPLIT} "
                "GROUP BY user_id)) GROUP BY share ORDER BY first",
                params=[n_requests, split],
            ).fetchall()
        return [UserShare(first, stop) for (first,), (stop,) in pairwise([*firsts, (None,)])]

    def evaluation_size(self, split: str | None = None) -> int:
        """Returns how many impressions `evaluation_rows` has."""
        split, where = self._whom(split)
        if split == ALL:
            return self.n_impressions
        requests = f"SELECT request_id FROM requests WHERE {where}"
        counted = f"SELECT count(*) AS n FROM impressions SEMI JOIN ({requests}) USING (request_id)"
        return int(self._sought(counted, [split])["n"][0])

    def _sought(self, sql: str, params: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns what `arrays` does, without memory for all that is looked through."""
        with TemporaryDirectory() as spill, self._connect(Path(spill)) as con:
            return columns(con.sql(sql, params=list(params)).to_arrow_table())

    def user_log(self, split: str = TRAIN) -> UserLog:
        """Returns the impressions of `split` by user and time."""
        if not self.n_impressions:
            raise Refusal(f"the dataset {self.meta.name} has no impressions to replay; take a log that has")
        if self.meta.encoder is None:
            raise Refusal(
                f"the dataset {self.meta.name} brought its own observations, so replay cannot encode new ones"
            )
        rows = self.arrays(
            "SELECT i.user_id, r.segment, r.observation, epoch(r.timestamp) AS seconds, i.item_id, "
            f"{', '.join(f'i.{name}' for name in self._item_columns)}, "
            f"{', '.join(_identifier(f'i.{s}') for s in self.meta.signals)}, i.reward, i.label "
            "FROM impressions i JOIN requests r USING (request_id) WHERE r.split IS NULL OR r.split = ? "
            "ORDER BY i.user_id, i.request_id, i.position",
            [split],
        )
        if not len(rows["reward"]):
            raise Refusal(f"the dataset {self.meta.name} has no {split} rows to replay")
        user, users = pd.factorize(rows["user_id"])
        first = np.flatnonzero(np.diff(user, prepend=-1))
        n_profile = len(self.meta.encoder.profile_names)
        return UserLog(
            users=np.asarray(users),
            segments=rows["segment"][first],
            profiles=rows["observation"][first, :n_profile],
            first=np.append(first, len(user)),
            user=user,
            seconds=rows["seconds"],
            item_id=rows["item_id"],
            predictions=rows["predictions"],
            signals=np.stack([rows[s] for s in self.meta.signals], axis=1).astype(np.float32),
            reward=rows["reward"],
            label=rows["label"].astype(bool),
            item_features=rows.get("item_features"),
        )


def _sessions(rows: pa.Table) -> list[pa.Table]:
    """Returns the rows of each session, which stand together."""
    session = rows["session_id"].to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(session)) + 1), len(session)]
    return [rows.slice(low, high - low) for low, high in pairwise(edges)]


def _identifier(name: str) -> str:
    """Returns `table.column` with the column quoted, so that a column may have any name."""
    table, column = name.split(".", 1)
    return f'{table}."{column.replace(chr(34), chr(34) * 2)}"'


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Returns the columns as arrays; list columns are float32 [n, width], NaN where absent."""
    return {name: _numpy(table[name].combine_chunks()) for name in table.column_names}


def _numpy(column: pa.Array, writable: bool = True) -> np.ndarray:
    width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
    values = (column.flatten() if width else column).to_numpy(zero_copy_only=False, writable=writable)
    return values.reshape(-1, width) if width else values
