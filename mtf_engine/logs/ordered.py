"""Impressions by user and time, numbered by request and read in parts of whole users: memory is that of a part.

DuckDB groups and sorts on disk what its memory does not hold. Texts stay as they lie in Arrow's memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mtf_engine.logs.columns import Columns, Feedback
from mtf_engine.logs.files import array, fetch, quoted
from mtf_engine.logs.sessions import Arrays, changes
from mtf_engine.logs.splits import Splitting, split_rule

SILENCE = np.timedelta64(30, "m")
"""A session ends when a user is not seen for longer."""
READ_ROWS = 65_536
"""Rows that are read at once."""
NUMBER, TIME = "the number of the request", "the time of the request"
"""Columns beside those of a log, and called like none of them; what of `asked` may be is read as `asked.…`."""
OPENING = "asked JOIN impressions i ON i.row = asked.opening"
"""Requests with their first impressions."""

SplitOf = Callable[[Arrays], NDArray[np.object_]]
"""What makes the splits of requests [r] from their columns."""


@dataclass(frozen=True)
class Part:
    """r requests of whole users and their m impressions, by user and time, and how much of the log comes before."""

    start: int  # requests before
    n_sessions: int  # sessions before
    requests: Arrays  # [r] user_id, request_time, first_time, last_time, split, segment, perhaps session_id
    number: NDArray[np.int64]  # [m] request of each impression, counted from 0 in the log
    impressions: Arrays  # [m] columns of the dataset

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The first impression of each request, and the number of impressions, int [r + 1]."""
        n = len(self.requests["user_id"])
        return np.searchsorted(self.request, np.arange(n + 1))

    @cached_property
    def request(self) -> NDArray[np.int64]:
        """The request of each impression, counted from 0 in this part, int [m]."""
        return self.number - self.start

    @cached_property
    def user(self) -> NDArray[np.int64]:
        """The user of each request, counted from 0 in this part, int [r]."""
        return _codes(self.requests["user_id"])

    @cached_property
    def session(self) -> NDArray[np.int64]:
        """The session of each request, counted from 0 in this part; those of a user may interleave, int [r]."""
        rows = self.requests
        if "session_id" in rows:
            named = _codes(rows["session_id"])
            return pd.factorize(self.user * (named.max(initial=0) + 1) + named)[0]
        silent = np.zeros(len(self.user), bool)
        silent[1:] = rows["first_time"][1:] - rows["last_time"][:-1] > SILENCE
        return np.cumsum(changes(self.user) | silent) - 1

    def rows(self) -> Arrays:
        """Returns the impressions [m] with the users and, as `TIME`, the times of their requests."""
        named = {"user_id": "user_id", TIME: "request_time"}
        asked = {name: values(self.requests[column])[self.request] for name, column in named.items()}
        return {**{name: values(column) for name, column in self.impressions.items()}, **asked}


@dataclass(frozen=True)
class Ordered:
    """A log without a defect in the tables `impressions` and `asked`, which are its `n` requests; it ends at `end`."""

    con: duckdb.DuckDBPyConnection
    columns: Columns
    feedback: Feedback
    n: int
    end: np.datetime64

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, columns: Columns, feedback: Feedback) -> Self:
        """Returns the log in the table `impressions`, with its requests numbered by user and time."""
        keys = ", ".join(_keys(columns))
        order = ", ".join(["user_id", "request_time", *(f"{key}::VARCHAR" for key in _ids(columns))])
        place = "row"
        if "position" in columns.names:
            place = "position" if columns.has_own_keys else "struct_pack(position, row)"
        times = f"arg_min(timestamp, {place}) AS first_time, arg_max(timestamp, {place}) AS last_time"
        con.execute(
            f"CREATE TABLE asked AS SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS number "
            f"FROM (SELECT {keys}, min(timestamp) AS request_time, arg_min(row, {place}) AS opening, {times} "
            "FROM impressions GROUP BY ALL)"
        )
        found = fetch(
            con, "SELECT count(*) AS n, (SELECT max(timestamp) FROM impressions) AS ends FROM asked"
        )
        return cls(con, columns, feedback, int(found["n"][0]), found["ends"][0])

    def split_of(self, splitting: Splitting) -> tuple[SplitOf, list[str]]:
        """Returns what makes the splits of requests, and how they come about where the log does not have them."""
        is_split = "split" in self.columns.names and not splitting.kind
        if is_split and self.con.execute(f"SELECT count(i.split) FROM {OPENING}").fetchall()[0][0]:
            return lambda requests: values(requests["split"]), []
        days = fetch(self.con, "SELECT DISTINCT request_time::DATE AS day FROM asked ORDER BY day")["day"]
        rule, how = split_rule(days.astype("datetime64[D]"), False, splitting)
        return lambda rows: rule(values(rows["user_id"]), rows["request_time"].astype("datetime64[D]")), [how]

    def profiles(self, names: tuple[str, ...], split_of: SplitOf) -> tuple[pd.DataFrame, NDArray[np.object_]]:
        """Returns the columns `names` of all requests [n], and their splits if there is such a column."""
        found = [name for name in names if name in self.columns.names]
        if not found:
            return pd.DataFrame(index=range(self.n)), np.empty(self.n, object)
        profile = ", ".join(f"i.{quoted(name)}" for name in found)
        sql = f"SELECT {profile} FROM {OPENING} ORDER BY asked.number"
        columns = read_columns(self.con.sql(sql).to_arrow_table())
        split = np.concatenate([split_of(read_columns(rows)) for rows in self._requests(READ_ROWS)])
        return pd.DataFrame({name: values(columns[name]) for name in found}), split

    def parts(self, n: int, also: tuple[str, ...] = ()) -> Iterator[Part]:
        """Yields the log in parts of about `n` requests; the columns `also` are read beside those of a dataset."""
        keys = ", ".join(_keys(self.columns))
        texts = {c.name for c in self.columns.found if c.kind == "long"}
        kept = [
            f"{quoted(name)}::VARCHAR AS {quoted(name)}" if name in texts else quoted(name)
            for name in also
            if name in self.columns.names
        ]
        number = quoted(NUMBER)
        read = ", ".join([number, *kept, self.feedback.select(self.con, self.columns)])
        place = "position, row" if "position" in self.columns.names else "row"
        shown = self.con.cursor().sql(
            f"SELECT {read} FROM impressions JOIN (SELECT {keys}, number AS {number} FROM asked) USING ({keys}) "
            f"ORDER BY {number}, {place}"
        )
        return read_parts(self._requests(n), shown.to_arrow_reader(READ_ROWS))

    def _requests(self, n: int) -> Iterator[pa.Table]:
        """Yields the requests in order, about `n` at once and all of a user together."""
        has = self.columns.names
        session = "asked.session_id, " if "session_id" in has else ""
        split = "i.split" if "split" in has else "NULL::VARCHAR"
        segment = "coalesce(i.segment, 'all')" if "segment" in has else "'all'"
        sql = (
            f"SELECT asked.user_id, {session}asked.request_time, asked.first_time, asked.last_time, {split} AS split, "
            f"{segment} AS segment FROM {OPENING if has & {'split', 'segment'} else 'asked'} ORDER BY asked.number"
        )
        return of_whole_users(self.con.cursor().sql(sql).to_arrow_reader(READ_ROWS), n)


def of_whole_users(requests: pa.RecordBatchReader, n: int) -> Iterator[pa.Table]:
    """Yields requests that come user by user, about `n` at once and all of a user together."""
    held: list[pa.RecordBatch] = []
    for batch in requests:
        held.append(batch)
        if sum(map(len, held)) < n:
            continue
        table = pa.Table.from_batches(held).combine_chunks()
        last = pc.index(table["user_id"], table["user_id"][-1]).as_py()
        if last:
            yield table.slice(0, last)
        held = table.slice(last).to_batches()
    yield pa.Table.from_batches(held)


def read_parts(requests: Iterable[pa.Table], impressions: pa.RecordBatchReader) -> Iterator[Part]:
    """Yields a part for each table of `requests` with their `impressions`, which come by the requests' `NUMBER`."""
    take = _taker(impressions)
    start = n_sessions = 0
    for rows in requests:
        shown = read_columns(take(start + len(rows)))
        part = Part(start, n_sessions, read_columns(rows), shown.pop(NUMBER), shown)
        yield part
        start += len(rows)
        n_sessions += int(part.session.max()) + 1


def values(column: NDArray | pa.Array) -> NDArray:
    """Returns a column as an array; of texts, rows with the same one share it, and None is where there is none."""
    if not isinstance(column, pa.Array):
        return column
    coded = column.dictionary_encode()
    texts = np.full(len(coded.dictionary) + 1, None)
    texts[:-1] = coded.dictionary.to_numpy(zero_copy_only=False)
    return texts[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]


def _codes(column: NDArray | pa.Array) -> NDArray[np.int64]:
    """Returns a number for each text or number of a column in which none is missing, the first one 0."""
    if not isinstance(column, pa.Array):
        return pd.factorize(column)[0]
    return column.dictionary_encode().indices.to_numpy().astype(np.int64)


def _keys(columns: Columns) -> list[str]:
    """Returns the columns that tell one request from another."""
    ids = _ids(columns)
    return ["user_id", *ids, *(["timestamp"] if "request_id" not in ids else [])]


def _ids(columns: Columns) -> list[str]:
    """Returns the columns of ids that tell one request of a user from another; they are sorted as texts."""
    return [name for name in ("session_id", "request_id") if name in columns.names]


def _taker(reader: pa.RecordBatchReader) -> Callable[[int], pa.Table]:
    """Returns what takes the next rows of `reader` of requests below a number."""
    rest = reader.schema.empty_table()

    def take(stop: int) -> pa.Table:
        nonlocal rest
        found = []
        while True:
            n = int(np.searchsorted(rest[NUMBER], stop))
            found.append(rest.slice(0, n))
            rest = rest.slice(n)
            if len(rest) or (batch := next(reader, None)) is None:
                return pa.concat_tables(found)
            rest = pa.Table.from_batches([batch])

    return take


def read_columns(table: pa.Table) -> Arrays:
    """Returns the columns of a table, texts as they lie in Arrow's memory and everything else as arrays."""
    whole = {name: table[name].combine_chunks() for name in table.column_names}
    return {name: c if pa.types.is_string(c.type) else array(c) for name, c in whole.items()}
