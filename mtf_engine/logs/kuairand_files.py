"""The files of KuaiRand: found, checked, cleaned of duplicates, by user and time."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mtf_engine.logs.columns import Columns, left_out, whole_or_text
from mtf_engine.logs.endings import ending_of
from mtf_engine.logs.files import RawTable, connect, load
from mtf_engine.logs.splits import UNASKED, Splitting
from mtf_engine.logs.validation import (
    BadRows,
    cut_to_range,
    duplicate,
    known_split,
    negative_watch_time,
    numbered,
    signal_in_range,
)
from mtf_engine.spec import Defect, Refusal

IMPRESSION_FILES, USER_FILES = re.compile("impressions|log_standard.*"), re.compile("user_features.*")
"""How KuaiRand's files are called but for their endings."""

FLAGS = {
    "click": "is_click", "long_view": "long_view", "comment": "is_comment", "follow": "is_follow",
    "forward": "is_forward", "profile_enter": "is_profile_enter",
}  # fmt: skip
"""Signals that are a 0/1 column of the log."""
COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
"""User features that are counts; they enter as log(1 + x)."""
USERS = "users"
CATEGORIES = ("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author")
"""User features with few levels; of the others, ranges repeat counts and anonymous ones tell users apart."""

COUNTED = {
    "duplicates": "{} exact duplicates were dropped",
    "unknown_duration": "{} rows have no duration; it is treated as missing",
    "users_without_features": "{} users have no features; they are treated as missing",
    "blank_user_features": "{} user features are blank; they are treated as missing",
}
"""What a user is told where a count is not 0."""


@dataclass(frozen=True)
class Published:
    """The files of a KuaiRand log that were found, and what a reader should know of the choice."""

    impressions: tuple[Path, ...]
    user_features: Path | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Raw:
    """Impressions by user and time, user features by user id, and how much was read and cleaned."""

    impressions: pd.DataFrame
    users: pd.DataFrame
    counts: dict[str, int]
    reports: tuple[str, ...] = ()
    left_out: dict[str, Any] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        counted = (text.format(self.counts[key]) for key, text in COUNTED.items() if self.counts[key])
        return (*counted, *self.reports)


def find_files(source: Path, user_features: Path | None) -> Published:
    """Returns the files of a KuaiRand log at `source`, a file or its folder."""
    logs = impression_files(source) if source.is_dir() else (source,)
    if not logs:
        raise Refusal(
            f"{source.name} holds no KuaiRand log; it needs impressions.tsv or .csv, or log_standard*.csv"
        )
    if user_features is not None:
        return Published(logs, user_features)
    beside = _matching(source, USER_FILES) if source.is_dir() else ()
    if not beside:
        return Published(logs, None, ("no user features: all users are of one segment",))
    return Published(logs, beside[0], (f"user features are taken from {beside[0].name} in the same folder",))


def impression_files(folder: Path) -> tuple[Path, ...]:
    """Returns the files of a folder that are called as KuaiRand's impressions are."""
    return _matching(folder, IMPRESSION_FILES)


def _matching(folder: Path, called: re.Pattern[str]) -> tuple[Path, ...]:
    """Returns the CSV files of a folder whose names, but for the ending, are `called` so."""
    endings = ((path, ending_of(path)) for path in sorted(folder.iterdir()))
    return tuple(p for p, e in endings if e and e.kind == "csv" and called.fullmatch(e.stem))


def read_files(files: Published, bad_rows: BadRows = "refuse", splitting: Splitting = UNASKED) -> Raw:
    """Returns the distinct rows of the files, duration 0 as missing; a Refusal lists all defects.

    They have a column `split` where the files have the one that holds it.
    """
    with connect() as con:
        raw = [load(con, path, f"raw_{i}", bad_rows) for i, path in enumerate(files.impressions)]
        tables = [_impression_columns(r, splitting) for r in raw if isinstance(r, RawTable)]
        defects = [d for r in raw if not isinstance(r, RawTable) for d in r]
        defects += [d for table in tables for d in _type_impressions(con, table)]
        users, user_defects = _read_users(con, files.user_features, bad_rows, tables)
        if defects or user_defects:
            raise Refusal.of([*defects, *user_defects])
        parts = " UNION ALL BY NAME ".join(f"FROM typed_raw_{i}" for i in range(len(raw)))
        con.execute(f"CREATE TABLE typed AS {parts}")
        typed = f"SELECT * REPLACE ({whole_or_text(con, 'typed', 'video_id')}) FROM typed"
        rows = con.sql(f"SELECT * FROM ({typed}) ORDER BY user_id, date, time_ms, video_id, row").df()
        read = sum(con.execute(f"SELECT count(*) FROM raw_{i}").fetchall()[0][0] for i in range(len(raw)))
    rows["duration_ms"] = rows["duration_ms"].where(rows["duration_ms"] > 0)
    unknown = set(rows["user_id"]) - set(users.index)
    counts = {
        "read": read,
        "duplicates": sum(table.n_repeats for table in tables if table.table != USERS),
        "unknown_duration": int(rows["duration_ms"].isna().sum()),
        "users": rows["user_id"].nunique(),
        "users_without_features": len(unknown) if len(users) else 0,
        "blank_user_features": int(users.isna().sum().sum()),
    }
    return Raw(rows, users, counts, tuple(s for t in tables for s in t.reports()), left_out(*tables))


def _impression_columns(raw: RawTable, splitting: Splitting) -> Columns:
    if splitting.column and splitting.column not in raw.types:
        raise Refusal(
            f"{raw.file} has no column {splitting.column} to split by; name one of its own, or `day` or `user`"
        )
    columns = Columns(raw, {"split": splitting.column} if splitting.column else {}, None)
    if not splitting.kind:
        columns.add("split", "text", "optional")
    columns.require("video_id", "text", "key")
    for name in ("date", "time_ms"):
        columns.require(name, "long", "key")
    columns.require("user_id", "text", "key")
    columns.require("play_time_ms", "number")
    columns.require("duration_ms", "number", "optional")
    columns.add("hourmin", "integer", "optional")
    for source in FLAGS.values():
        columns.require(source, "number")
    columns.add("is_hate", "number")
    if not columns.add("is_like", "number"):
        columns.require("label", "number")
    return columns


def _type_impressions(con: duckdb.DuckDBPyConnection, columns: Columns) -> list[Defect]:
    """Returns what is wrong with the impressions; creates `typed_<table>` without exact duplicates."""
    table = f"typed_{columns.raw.table}"
    defects = columns.create(con, table)
    checks = [known_split()] if "split" in columns.names else []
    if "play_time_ms" in columns.names:
        con.execute(cut_to_range(table, "play_time_ms", 0, math.inf))
        checks.append(negative_watch_time("play_time_ms"))
    for flag in columns.names & {*FLAGS.values(), "is_hate", "is_like", "label"}:
        con.execute(cut_to_range(table, flag, 0, 1))
        checks.append(signal_in_range(flag, flag, "where it is 0 or 1 as published", ""))
    return defects + columns.check(con, table, checks)


def _read_users(
    con: duckdb.DuckDBPyConnection, path: Path | None, bad_rows: BadRows, tables: list[Columns]
) -> tuple[pd.DataFrame, list[Defect]]:
    """Returns features by user id, counts as log(1 + x), NaN where blank; and the defects of the file.

    Its columns are added to `tables`.
    """
    if path is None:
        return pd.DataFrame(index=pd.Index([], dtype="str")), []
    raw = load(con, path, "raw_users", bad_rows)
    if not isinstance(raw, RawTable):
        return pd.DataFrame(), raw
    columns = Columns(raw, {}, None)
    tables.append(columns)
    columns.require("user_id", "text", "key")
    for name in COUNTS:
        columns.add(name, "number", "optional")
    for name in CATEGORIES:
        columns.add(name, "text", "optional")
    defects = columns.create(con, USERS)
    if "user_id" in columns.names:
        defects += columns.check(con, numbered("users", "user_id"), [duplicate("user_id", "the user")])
    if defects:
        return pd.DataFrame(), defects
    users = con.sql("SELECT * EXCLUDE (row) FROM users ORDER BY user_id").df()
    counts = [name for name in COUNTS if name in users]
    users[counts] = np.log1p(users[counts].clip(lower=0))
    return users.set_index("user_id"), []
