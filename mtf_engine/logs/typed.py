"""Columns of a file as typed SQL, with every value that does not fit."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb

from mtf_engine.logs.files import ROW, RawTable, literal, quoted
from mtf_engine.logs.mapping import bad_mapping
from mtf_engine.logs.schema import Kind
from mtf_engine.logs.units import (
    SECONDS,
    WRITE_TIME,
    TimeUnit,
    WatchTimeUnit,
    judge,
    needed_time,
    possible,
    time_sql,
)
from mtf_engine.logs.validation import Check, nan_or_inf, null_key, wrong_type
from mtf_engine.spec import MOST

Need = Literal["key", "value", "optional"]
SQL_TYPES: dict[Kind, str] = {
    "text": "VARCHAR", "integer": "BIGINT", "long": "BIGINT", "number": "FLOAT", "real": "DOUBLE", "flag": "BOOLEAN",
    "time": "TIMESTAMP", "list": "FLOAT[]",
}  # fmt: skip
NUMBERS = frozenset(
    f"{sign}{width}"
    for sign in ("", "U")
    for width in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
) | {"FLOAT", "DOUBLE", "BOOLEAN"}
"""Types of a file's column that are cast to a number as they are; others by way of their text."""
WHOLE = frozenset(
    f"{sign}{width}" for sign in ("", "U") for width in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
) - {"UBIGINT"}
"""Types of a file's column whose values all are BIGINTs."""
OF_WHOLE: dict[Kind, str] = {
    "long": "{0}", "integer": f"CASE WHEN {{0}} BETWEEN -{MOST} AND {MOST} THEN {{0}} END", "real": "{0}::DOUBLE",
    "flag": "CASE {0} WHEN 1 THEN true WHEN 0 THEN false END",
}  # fmt: skip
"""SQL that makes a value of such a number as its text would make it."""
INSTANTS = {
    "TIMESTAMP_S": "{}::TIMESTAMP", "TIMESTAMP_MS": "{}::TIMESTAMP", "TIMESTAMP": "{}",
    "TIMESTAMP WITH TIME ZONE": "{} AT TIME ZONE 'UTC'",
}  # fmt: skip
"""SQL that makes the time in UTC of a column that holds times; one of nanoseconds is cut off as its text is."""
BROKEN = '"breaks a check"'
"""A column of a typed table while it is made."""
TRUTHS = {1: ("true", "t", "yes", "y"), 0: ("false", "f", "no", "n")}
"""Words, in any case, for 1 and 0: a flag may be a number, a number a flag."""
WHAT = {
    "text": "a text without NUL bytes",
    "integer": f"a whole number of at most {MOST:,}",
    "long": "a whole number",
    "number": "a number",
    "real": "a number",
    "flag": "true or false (or yes or no, 1 or 0)",
    "list": "a list of numbers such as [0.1, 0.2]",
}


@dataclass(frozen=True)
class Column:
    """A column as the log calls it, and the column of the file (for a list: columns) that it is read from.

    A blank is refused in a key and in a value, and is NULL in an optional column. The units are those that
    the mapping states of a time's and of a watch time's numbers; `judged` is what a time's own numbers tell.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    need: Need = "value"
    time_unit: TimeUnit | None = None
    watch_unit: WatchTimeUnit | None = None
    judged: TimeUnit | None = None
    time_format: str | None = None


def list_sources(types: Iterable[str], name: str) -> tuple[str, ...]:
    """Returns the columns that make list column `name`: itself, or `name_0`, `name_1`, ... in order."""
    if name in types:
        return (name,)
    numbered = {int(c[len(name) + 1 :]): c for c in types if re.fullmatch(rf"{re.escape(name)}_\d+", c)}
    return tuple(numbered[i] for i in sorted(numbered))


def judged(con: duckdb.DuckDBPyConnection, raw: RawTable, column: Column) -> Column:
    """Returns the column with the unit of its numbers, if it holds times whose unit nobody stated."""
    source = column.sources[0]
    if column.time_format:
        try:
            con.execute("SELECT try_strptime('', ?)", [column.time_format])
        except duckdb.Error as error:
            reason = str(error).splitlines()[0].partition(": ")[2]
            raise bad_mapping(f"time_format: {reason}; it is written as strptime takes it") from None
    stated = column.time_unit or column.time_format
    if column.kind != "time" or stated or raw.types[source].startswith("TIMESTAMP"):
        return column
    return replace(column, judged=judge(con, raw.table, f"CAST({quoted(source)} AS VARCHAR)"))


def type_columns(
    con: duckdb.DuckDBPyConnection, raw: RawTable, columns: Sequence[Column], table: str
) -> tuple[str, list[Check]]:
    """Returns what must hold of the values, and of which relation; creates `table` with typed columns and `row`.

    `row` counts data rows from 1. Values that do not fit become NULL. A text "true" counts as the number 1. Which
    rows may break a check is told as the table is made: the relation has them alone, and where none may, there are no
    checks to look at.
    """
    checks = [check for c in columns for check in _checks(c, raw.types)]
    sources = {source: None for c in columns for source in c.sources}
    read = [f"{quoted(s)} AS {_raw(s)}" for s in sources]
    made = [f"{_typed(c, raw.types)} AS {_ours(c.name)}" for c in columns]
    named = [f"{_ours(c.name)} AS {quoted(c.name)}" for c in columns]
    broken = _may_break(columns, raw.types)
    con.execute(
        f"CREATE TABLE {table} AS SELECT {', '.join(('row', *named))}, {broken} AS {BROKEN} "
        f"FROM (SELECT {', '.join((f'{ROW} + 1 AS row', *read, *made))} FROM {raw.table})"
    )
    broken_rows = f"broken_{table}"
    con.execute(f"CREATE TABLE {broken_rows} AS SELECT row FROM {table} WHERE {BROKEN}")
    con.execute(f"ALTER TABLE {table} DROP COLUMN {BROKEN}")
    (is_broken,) = con.execute(f"SELECT count(*) > 0 FROM {broken_rows}").fetchall()[0]
    read = [f"raw.{quoted(s)} AS {_raw(s)}" for s in sources]
    made = [f"typed.{quoted(c.name)} AS {_ours(c.name)}" for c in columns]
    few = f"(SELECT * FROM {table} SEMI JOIN {broken_rows} USING (row))"
    both = f"{raw.table} AS raw JOIN {few} AS typed ON typed.row = raw.{ROW} + 1"
    relation = f"(SELECT {', '.join(('typed.row AS row', *read, *made))} FROM {both})"
    return relation, checks if is_broken else []


def _may_break(columns: Sequence[Column], types: dict[str, str]) -> str:
    """Returns SQL over what `_checks` look at that is true of all rows that break one, and hardly of others.

    Numbers that must be there are looked at all at once: their sum is finite where each of them is.
    """
    parts = []
    numbers = ["0"]
    for column in columns:
        if column.need == "value" and column.kind in ("number", "real"):
            numbers.append(_ours(column.name))
        elif column.need == "value" and column.kind == "list" and not _is_list(column, types):
            numbers += [_entry(source, types) for source in column.sources]
        else:
            parts += [f"coalesce({check.broken}, false)" for check in _checks(column, types)]
    total = " + ".join(f"{number}::DOUBLE" for number in numbers)
    return " OR ".join([*parts, f"NOT coalesce(isfinite({total}), false)"])


def _entry(source: str, types: dict[str, str]) -> str:
    """Returns SQL for an entry of a list, out of its own column beside the typed ones."""
    return _scalar(_raw(source), types[source], "list")


def _raw(name: str) -> str:
    """Returns SQL for a column of the file beside the typed ones."""
    return quoted(f"raw {name}")


def _ours(name: str) -> str:
    """Returns SQL for a typed column beside those of the file."""
    return quoted(f"typed {name}")


def _typed(column: Column, types: dict[str, str]) -> str:
    source = quoted(column.sources[0])
    if column.kind == "time":
        text = f"CAST({source} AS VARCHAR)"
        if column.time_format:
            return possible(f"TRY_CAST(try_strptime({text}, {literal(column.time_format)}) AS TIMESTAMP)")
        if instant := INSTANTS.get(types[column.sources[0]]):
            return possible(instant.format(source))
        return time_sql(text, column.time_unit, column.judged)
    if column.watch_unit:
        return f"TRY_CAST(TRY_CAST({source}::VARCHAR AS DOUBLE) {SECONDS[column.watch_unit]} AS FLOAT)"
    if not _is_list(column, types):
        scalars = [_scalar(quoted(s), types[s], column.kind) for s in column.sources]
        return f"[{', '.join(scalars)}]" if column.kind == "list" else " || '/' || ".join(scalars)
    kind = types[column.sources[0]]
    if kind.partition("[")[0] in NUMBERS and kind.count("[") == 1:
        return f"TRY_CAST({source} AS FLOAT[])"
    return f"list_transform({_entries(source)}, lambda v: {_scalar('v', 'VARCHAR', 'list')})"


def _entries(source: str) -> str:
    """Returns SQL for the entries of a list as texts, `[0.1, 0.2]` or `0.1 0.2`; of a text, it is the one entry."""
    apart = f"string_split(trim({source}::VARCHAR), ' ')"
    entries = f"coalesce(TRY_CAST({source} AS VARCHAR[]), {apart})"
    return f"CASE WHEN {source} IS NOT NULL THEN {entries} END"


def _is_list(column: Column, types: dict[str, str]) -> bool:
    """Returns whether the entries stand together in one column of the file."""
    kind = types[column.sources[0]]
    return column.kind == "list" and len(column.sources) == 1 and (kind == "VARCHAR" or kind.endswith("]"))


def _scalar(source: str, kind: str, wanted: Kind) -> str:
    """Returns SQL for the value that the text of `source`, a column of `kind`, says."""
    if kind in WHOLE and wanted in OF_WHOLE:
        return OF_WHOLE[wanted].format(f"{source}::BIGINT")
    if (kind, wanted) in (("DOUBLE", "real"), ("BOOLEAN", "flag")):
        return source
    text = f"CAST({source} AS VARCHAR)"
    match wanted:
        case "text":
            return text
        case "integer" | "long":
            whole = f"TRY_CAST({text} AS BIGINT)"
            fits = f"{whole} = TRY_CAST({text} AS DOUBLE)"
            if wanted == "integer":
                fits += f" AND {whole} BETWEEN -{MOST} AND {MOST}"
            return f"CASE WHEN {fits} THEN {whole} END"
        case "real":
            return f"TRY_CAST({text} AS DOUBLE)"
        case "number" | "list" if kind == "VARCHAR":
            return _number(text, "FLOAT")
        case "number" | "list":
            return f"TRY_CAST({source if kind in NUMBERS else text} AS FLOAT)"
    return f"CASE {_number(text, 'DOUBLE')} WHEN 1 THEN true WHEN 0 THEN false END"


def _number(text: str, kind: str) -> str:
    """Returns SQL for the number in `text`; a word for true or false is 1 or 0."""
    words = " ".join(f"WHEN lower(trim({text})) IN {said} THEN {value}" for value, said in TRUTHS.items())
    number = f"TRY_CAST({text} AS DOUBLE)"
    return f"CASE WHEN {number} IS NULL THEN CASE {words} END ELSE TRY_CAST({number} AS {kind}) END"


def _checks(column: Column, types: dict[str, str]) -> list[Check]:
    """Returns the checks of a column over those of the file beside ours."""
    typed = _ours(column.name)
    if _is_list(column, types):
        return _list_checks(column.sources[0], column.need, typed)
    if column.kind != "list":
        needed = WHAT[column.kind] if column.kind != "time" else needed_time(column.judged)
        if column.time_format:
            needed = f"a time written as {column.time_format}, of the years 1900 to 2100"
        return [
            check
            for source in column.sources
            for check in _scalar_checks(source, column.kind, column.need, typed, needed)
        ]
    return [
        check
        for s in column.sources
        for check in _scalar_checks(s, "number", column.need, _entry(s, types), WHAT["number"])
    ]


def _list_checks(name: str, need: Need, typed: str) -> list[Check]:
    """Returns the checks of a column of lists; entries are looked at one by one where a sum says so."""
    source = _raw(name)
    entries = f"list_zip({_entries(source)}, {typed})"
    gaps = f"list_count({typed}) < len({typed})"
    unfit = f"len(list_filter({entries}, lambda z: z[1] IS NOT NULL AND z[2] IS NULL)) > 0"
    endless = f"len(list_filter({entries}, lambda z: z[1] IS NULL OR NOT isfinite(z[2]))) > 0"
    wrong = f"{source} IS NOT NULL AND ({typed} IS NULL OR CASE WHEN {gaps} THEN {unfit} END)"
    broken = f"CASE WHEN {gaps} OR NOT isfinite(list_sum({typed})) THEN {endless} END"
    if need == "value":
        broken = f"{source} IS NULL OR {broken}"
    return [
        wrong_type(name, wrong, "numbers", WHAT["list"], source),
        nan_or_inf(name, broken, source),
    ]


def _scalar_checks(name: str, kind: Kind, need: Need, typed: str, needed: str) -> list[Check]:
    source = _raw(name)
    unfit = f"contains({typed}, chr(0))" if kind == "text" else f"{source} IS NOT NULL AND {typed} IS NULL"
    checks = [wrong_type(name, unfit, needed, WRITE_TIME if kind == "time" else needed, source)]
    is_number = kind in ("number", "real")
    if need == "key":
        checks.append(null_key(name, f"{source} IS NULL"))
    elif need == "value":
        endless = f" OR NOT isfinite({typed})" if is_number else ""
        checks.append(nan_or_inf(name, f"{source} IS NULL{endless}", source))
    elif is_number:
        checks.append(nan_or_inf(name, f"isinf({typed})", source))
    return checks
