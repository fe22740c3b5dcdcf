"""Columns of a file as typed SQL, with every value that does not fit."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from mtf_engine.logs.files import RawTable, quoted
from mtf_engine.logs.validation import Check, find_defects, nan_or_inf, null_key, wrong_type
from mtf_engine.spec import Defect

Kind = Literal["text", "integer", "number", "real", "flag", "time", "list"]
Need = Literal["key", "value", "optional"]
EPOCH_MILLISECONDS = 1e11
"""A number at least this large is a time in milliseconds since 1970, a smaller one in seconds."""
SQL_TYPES: dict[Kind, str] = {
    "text": "VARCHAR", "integer": "BIGINT", "number": "FLOAT", "real": "DOUBLE", "flag": "BOOLEAN",
    "time": "TIMESTAMP", "list": "FLOAT[]",
}  # fmt: skip
WHAT = {
    "text": "a text without NUL bytes",
    "integer": "a whole number",
    "number": "a number",
    "real": "a number",
    "flag": "true or false",
    "time": "a time such as 2026-11-22 09:30:00, or seconds or milliseconds since 1970",
    "list": "a list of numbers such as [0.1, 0.2]",
}


@dataclass(frozen=True)
class Column:
    """A column as the log calls it, and the column of the file (for a list: columns) that it is read from.

    A blank is refused in a key and in a value, and is NULL in an optional column.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    need: Need = "value"


def list_sources(types: Iterable[str], name: str) -> tuple[str, ...]:
    """Returns the columns that make list column `name`: itself, or `name_0`, `name_1`, ... in order."""
    if name in types:
        return (name,)
    numbered = {int(c[len(name) + 1 :]): c for c in types if re.fullmatch(rf"{re.escape(name)}_\d+", c)}
    return tuple(numbered[i] for i in sorted(numbered))


def type_columns(
    con: duckdb.DuckDBPyConnection, raw: RawTable, columns: Sequence[Column], table: str
) -> list[Defect]:
    """Returns the values that do not fit or are blank; creates `table` with typed columns and `row`.

    `row` counts data rows from 1. Values that do not fit become NULL. A text "true" counts as the number 1.
    """
    typed = [(c, _typed(c, raw.types)) for c in columns]
    selected = ", ".join(f"{sql} AS {quoted(c.name)}" for c, sql in typed)
    con.execute(f"CREATE TABLE {table} AS SELECT rowid + 1 AS row, {selected} FROM {raw.table}")
    checks = [check for c, _ in typed for check in _type_checks(c, raw.types)]
    return find_defects(con, f"SELECT *, rowid + 1 AS row FROM {raw.table}", raw.file, checks)


def _typed(column: Column, types: dict[str, str]) -> str:
    if column.kind != "list":
        return _scalar(quoted(column.sources[0]), types[column.sources[0]], column.kind)
    if len(column.sources) == 1 and _is_list(column, types):
        return f"list_transform({_texts(column.sources[0])}, lambda v: TRY_CAST(v AS FLOAT))"
    return f"[{', '.join(_scalar(quoted(s), types[s], 'number') for s in column.sources)}]"


def _is_list(column: Column, types: dict[str, str]) -> bool:
    kind = types[column.sources[0]]
    return kind == "VARCHAR" or kind.endswith("]")


def _texts(source: str) -> str:
    return f"TRY_CAST({quoted(source)} AS VARCHAR[])"


def _scalar(source: str, kind: str, wanted: Kind) -> str:
    text = f"CAST({source} AS VARCHAR)"
    match wanted:
        case "text":
            return text
        case "integer":
            whole = f"TRY_CAST({text} AS BIGINT)"
            return f"CASE WHEN {whole} = TRY_CAST({text} AS DOUBLE) THEN {whole} END"
        case "real":
            return f"TRY_CAST({text} AS DOUBLE)"
        case "number" if kind == "VARCHAR":
            flags = f"CASE lower({text}) WHEN 'true' THEN 1 WHEN 'false' THEN 0"
            return f"{flags} ELSE TRY_CAST({text} AS FLOAT) END"
        case "number" if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE") or kind.endswith("]"):
            return f"TRY_CAST({text} AS FLOAT)"
        case "number":
            return f"TRY_CAST({source} AS FLOAT)"
        case "flag":
            return f"TRY_CAST({text} AS BOOLEAN)"
    epoch = f"TRY_CAST({text} AS DOUBLE)"
    micros = (
        f"TRY_CAST({epoch} * CASE WHEN abs({epoch}) >= {EPOCH_MILLISECONDS} THEN 1e3 ELSE 1e6 END AS BIGINT)"
    )
    return f"coalesce(make_timestamp({micros}), TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC')"


def _type_checks(column: Column, types: dict[str, str]) -> list[Check]:
    if column.kind == "list" and len(column.sources) == 1 and _is_list(column, types):
        return _list_checks(column)
    kind: Kind = "number" if column.kind == "list" else column.kind
    return [check for s in column.sources for check in _scalar_checks(s, kind, column.need, types[s])]


def _list_checks(column: Column) -> list[Check]:
    source, texts = quoted(column.sources[0]), _texts(column.sources[0])
    unfit = f"len(list_filter({texts}, lambda v: v IS NOT NULL AND TRY_CAST(v AS FLOAT) IS NULL)) > 0"
    endless = f"len(list_filter({texts}, lambda v: v IS NULL OR NOT isfinite(TRY_CAST(v AS FLOAT)))) > 0"
    wrong = f"{source} IS NOT NULL AND ({texts} IS NULL OR {unfit})"
    blank = f"{source} IS NULL OR {endless}" if column.need == "value" else endless
    return [
        wrong_type(column.sources[0], wrong, "numbers", WHAT["list"], source),
        nan_or_inf(column.sources[0], blank, source),
    ]


def _scalar_checks(name: str, kind: Kind, need: Need, source_type: str) -> list[Check]:
    source, typed = quoted(name), _scalar(quoted(name), source_type, kind)
    unfit = f"contains({typed}, chr(0))" if kind == "text" else f"{source} IS NOT NULL AND ({typed}) IS NULL"
    checks = [wrong_type(name, unfit, WHAT[kind], WHAT[kind], source)]
    if need == "key":
        checks.append(null_key(name, f"{source} IS NULL"))
    elif kind in ("number", "real"):
        missing = f"{source} IS NULL OR NOT isfinite({typed})" if need == "value" else f"isinf({typed})"
        checks.append(nan_or_inf(name, missing, source))
    return checks
