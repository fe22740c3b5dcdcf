"""A log of requests with their impressions, two files of CSV or Parquet: actions, bounds and feedback.

The files have the columns of `mtf_engine.logs.schema`. Needed are request_id, session_id, user_id, step and
timestamp of each request; request_id, predictions and feedback signals of each impression. All else is
optional: without `action` it is a log without actions; without `observation`, the log itself makes them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mtf_engine.logs.columns import left_out, usual_length, whole_or_text
from mtf_engine.logs.files import array, connect, fetch, quoted
from mtf_engine.logs.like import Encoded, Like, encode, fused
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.ordered import (
    NUMBER,
    READ_ROWS,
    Part,
    SplitOf,
    of_whole_users,
    read_columns,
    read_parts,
    values,
)
from mtf_engine.logs.schema import ACTION_COLUMNS, REQUEST_COLUMNS, DatasetMeta, Tables
from mtf_engine.logs.sessions import (
    BATCH_REQUESTS,
    Arrays,
    ImportedLog,
    batches,
    drawn_uniformly,
    encoder_meta,
    observe_log,
    said_of_drawn,
    within,
    without_actions,
)
from mtf_engine.logs.splits import UNASKED, Splitting, split_rule
from mtf_engine.logs.tables import Checked, check_tables
from mtf_engine.logs.validation import BadRows
from mtf_engine.spec import FusionSpec

LISTS = (*ACTION_COLUMNS, "observation")

ACTIONS = ("action", "baseline_action", "lower", "upper")
MOST_IDS = 10**18
"""Larger ids are numbered anew: several logs of them could not be numbered on."""

PLACE, IS_LAST = quoted(NUMBER), quoted("the request is the last of its session")
"""Columns beside those of a log, and called like none of them."""
ORDER = f"""
    CREATE TABLE places AS
    SELECT row, request_id, user_id,
        row_number() OVER (ORDER BY user_id, timestamp, session_id::VARCHAR, step) - 1 AS {PLACE},
        row_number() OVER (PARTITION BY session_id ORDER BY step DESC) = 1 AS {IS_LAST}
    FROM requests
"""
"""The place of each request by user and time, and whether it is the last of its session; ids are sorted as texts."""
IN_ORDER = f"requests r JOIN (SELECT row, {PLACE}, {IS_LAST} FROM places) USING (row)"
"""Requests with their places."""
FILLED = f"""
    coalesce(segment, 'all') AS segment, step::INTEGER AS step, coalesce(clipped, 0)::INTEGER AS clipped,
    coalesce(truncated, false) AS truncated,
    coalesce(terminal, {IS_LAST} AND NOT coalesce(truncated, false)) AS terminal
"""
"""Columns of the requests with what stands where the log has nothing."""
GROWS = f"""
    SELECT bool_and(grows) FROM (
        SELECT coalesce(request_id > lag(request_id) OVER (PARTITION BY user_id ORDER BY {PLACE}), true) AS grows
        FROM (SELECT {{ids}}, user_id, {PLACE} FROM places)
    )
"""


@dataclass(frozen=True)
class Rules:
    """What the requests of a log get that is not, or not so, in their file."""

    own_requests: bool  # ids of requests are those of the file
    own_sessions: bool  # and those of sessions
    split_of: SplitOf
    drawn: bool  # the mapping alone says that actions are uniform in their bounds


def read_tabular(
    requests: Path,
    impressions: Path,
    mapping: Mapping,
    name: str,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
) -> ImportedLog:
    """Returns the log of the two files; a Refusal lists everything that is wrong with both.

    Its batches are made as they are asked for, so memory does not grow with the log, but by the profiles of its
    requests where observations are made of them.
    """
    with ExitStack() as opened:
        con = opened.enter_context(connect())
        log = check_tables(con, requests, impressions, mapping, bad_rows)
        con.execute(ORDER)
        explored = "action" in log.requests.names
        rules, warnings = _rules(con, mapping, splitting, explored)
        warnings += [*log.requests.warnings(), *log.impressions.warnings()]
        n_actions = usual_length(con, "requests", "action") if explored else None
        fuse = partial(fused, like, mapping, log.feedback, n_actions=n_actions)
        fusion, _, told = fuse(np.empty((0, log.impressions.length(con, "predictions")), np.float32))
        warnings += told
        seen, encoded = _observations(con, log, mapping, rules, like)
        warnings += encoded.warnings if encoded else ()
        meta = DatasetMeta(
            name=name,
            source=log.requests.raw.kind,
            fusion=fusion,
            reward=log.feedback.reward,
            signals=log.feedback.signals,
            exploration=(mapping.exploration or "uniform") if explored else None,
            mixture=mapping.mixture if explored else None,
            details={
                "warnings": warnings,
                **left_out(log.requests, log.impressions),
                **(like.told(encoded) if like else {}),
            },
            **seen,
        )
        read = partial(_tables, meta=meta, rules=rules, encoded=encoded)
        tables = _batches(opened.pop_all(), _parts(con, log), fuse, read)
    return ImportedLog(meta, tables, tuple(warnings))


def _rules(
    con: duckdb.DuckDBPyConnection, mapping: Mapping, splitting: Splitting, explored: bool
) -> tuple[Rules, list[str]]:
    """Returns what the requests get, and what a user should know of it."""
    warnings = []
    ids = whole_or_text(con, "places", "request_id")
    own_requests = _are_countable(con, "places", ids) and _one(con, GROWS.format(ids=ids))
    if not own_requests:
        warnings.append("requests are numbered anew, by user and time: their ids are no growing integers")
    own_sessions = _are_countable(con, "requests", whole_or_text(con, "requests", "session_id"))
    split_of, how = _split_of(con, splitting, explored)
    warnings += how
    drawn = explored and mapping.exploration == "uniform"
    drawn = drawn and not _one(con, "SELECT count(pscore) FILTER (NOT isnan(pscore)) FROM requests")
    if drawn:
        warnings.append(_believed(con))
    elif not explored:
        warnings += mapping.without_actions()
    return Rules(own_requests, own_sessions, split_of, drawn), warnings


def _split_of(
    con: duckdb.DuckDBPyConnection, splitting: Splitting, explored: bool
) -> tuple[SplitOf, list[str]]:
    """Returns what makes the splits of requests, and how they come about where the log does not have them."""
    if not splitting.kind and _one(con, "SELECT count(split) FROM requests"):
        return lambda requests: values(requests["split"]), []
    days = fetch(con, "SELECT DISTINCT timestamp::DATE AS day FROM requests ORDER BY day")["day"]
    rule, how = split_rule(days.astype("datetime64[D]"), explored, splitting)
    return lambda rows: rule(values(rows["user_id"]), rows["timestamp"].astype("datetime64[D]")), [how]


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    return con.execute(sql).fetchall()[0][0]


def _are_countable(con: duckdb.DuckDBPyConnection, table: str, ids: str) -> bool:
    """Returns whether `ids` are integers from 0 on that a joined log can go on counting from."""
    name, kind = con.execute(f"DESCRIBE SELECT {ids} FROM {table}").fetchall()[0][:2]
    counted = f"SELECT min({name}) >= 0 AND max({name}) < {MOST_IDS} FROM (SELECT {ids} FROM {table})"
    return kind == "BIGINT" and bool(_one(con, counted))


def _believed(con: duckdb.DuckDBPyConnection) -> str:
    """Returns a sentence of the actions that only the mapping calls uniform in their bounds."""
    n_moved = n_acted = 0
    for rows in con.sql(f"SELECT {_sized(con, ACTIONS)} FROM requests").to_arrow_reader(READ_ROWS):
        columns = [array(rows[name]) for name in ACTIONS]
        n_moved += (~np.isnan(drawn_uniformly(*columns))).sum()
        n_acted += (~np.isnan(columns[0]).any(axis=1)).sum()
    return said_of_drawn(n_moved, n_acted)


def _sized(con: duckdb.DuckDBPyConnection, names: Iterable[str]) -> str:
    """Returns SQL for columns of lists as the arrays of one length that they are."""
    return ", ".join(f"{name}::FLOAT[{usual_length(con, 'requests', name)}] AS {name}" for name in names)


def _requests(con: duckdb.DuckDBPyConnection, log: Checked, n: int) -> Iterator[pa.Table]:
    """Yields the requests by user and time, about `n` at once and all of a user together."""
    ids = [whole_or_text(con, "requests", name) for name in ("request_id", "session_id")]
    lists = [_sized(con, [name]) for name in LISTS if name in log.requests.names]
    columns = ", ".join([*ids, "user_id", "timestamp", "split", "pscore", FILLED, *lists])
    sql = f"SELECT {columns} FROM {IN_ORDER} ORDER BY {PLACE}"
    return of_whole_users(con.cursor().sql(sql).to_arrow_reader(READ_ROWS), n)


def _parts(con: duckdb.DuckDBPyConnection, log: Checked) -> Iterator[Part]:
    """Yields the log in parts of whole users."""
    order = "position, row" if "position" in log.impressions.names else "row"
    shown = con.cursor().sql(
        f"SELECT {PLACE}, {log.feedback.select(con, log.impressions)} FROM impressions "
        f"JOIN (SELECT request_id, {PLACE} FROM places) USING (request_id) ORDER BY {PLACE}, {order}"
    )
    return read_parts(_requests(con, log, BATCH_REQUESTS), shown.to_arrow_reader(READ_ROWS))


def _observations(
    con: duckdb.DuckDBPyConnection, log: Checked, mapping: Mapping, rules: Rules, like: Like | None
) -> tuple[dict[str, Any], Encoded | None]:
    """Returns what the meta data says of observations, and their encoder where the log itself makes them."""
    if "observation" in log.requests.names:
        width = usual_length(con, "requests", "observation")
        names = mapping.features or tuple(f"feature_{i}" for i in range(width))
        mask = tuple(name not in mapping.binary_features for name in names)
        if like:
            names, mask = like.features(width, mapping.features)
        return {"feature_names": names, "numeric_mask": mask}, None
    found = [name for name in mapping.profile.names if name in log.requests.names]
    profiles = pd.DataFrame(index=range(_one(con, "SELECT count(*) FROM requests")))
    if found:
        profile = ", ".join(f"r.{quoted(name)}" for name in found)
        columns = read_columns(con.sql(f"SELECT {profile} FROM {IN_ORDER} ORDER BY {PLACE}").to_arrow_table())
        profiles = pd.DataFrame({name: values(columns[name]) for name in found})
    split = np.concatenate([rules.split_of(read_columns(rows)) for rows in _requests(con, log, READ_ROWS)])
    encoded = encode(like, profiles, split, log.feedback.signals, mapping.profile)
    return encoder_meta(encoded.encoder), encoded


def _batches(
    opened: ExitStack,
    parts: Iterable[Part],
    fuse: Callable[[NDArray], tuple[FusionSpec, NDArray, tuple[str, ...]]],
    read: Callable[[Part], Iterator[Tables]],
) -> Iterator[Tables]:
    """Yields what is `read` of the parts of a log, and closes what is `opened` behind the last one."""
    with opened:
        for part in parts:
            _, part.impressions["predictions"], _ = fuse(part.impressions["predictions"])
            yield from read(part)


def _tables(part: Part, meta: DatasetMeta, rules: Rules, encoded: Encoded | None) -> Iterator[Tables]:
    """Yields the request and impression columns of a part for the dataset."""
    requests = _filled(part, meta, rules)
    shown = {
        "request_id": requests["request_id"][part.request],
        "user_id": requests["user_id"].take(pa.array(part.request)),
        "position": within(part.request),
        **part.impressions,
    }
    observe = _observer(part, requests, shown, encoded)
    yield from batches(requests, shown, part.first, observe, np.arange(len(part.user)))


def _observer(
    part: Part, requests: Arrays, shown: Arrays, encoded: Encoded | None
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Returns what makes the observations of some requests of a part, or takes those that the log has."""
    if encoded is None:
        return part.requests["observation"].__getitem__
    profiles = encoded.profiles.iloc[part.start : part.start + len(part.user)]
    return observe_log(encoded.encoder, profiles, {**requests, "user_id": part.user}, shown, part.first)


def _filled(part: Part, meta: DatasetMeta, rules: Rules) -> Arrays:
    """Returns the columns of the requests of a part; ids are integers, and what the log does not say is filled in."""
    asked, n = part.requests, len(part.user)
    filled = {
        **({} if "action" in asked else without_actions(n, meta.fusion.n_actions)),
        "reward": np.bincount(part.request, part.impressions["reward"], minlength=n),
        "split": rules.split_of(asked),
    }
    if not rules.own_requests:
        filled["request_id"] = part.start + np.arange(n)
    if not rules.own_sessions:
        filled["session_id"] = part.n_sessions + part.session
    if rules.drawn:
        filled["pscore"] = drawn_uniformly(*(asked[name] for name in ACTIONS))
    columns = asked | filled
    return {name: columns[name] for name in REQUEST_COLUMNS if name != "observation"}
