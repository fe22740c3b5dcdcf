"""CSV and Parquet files as typed DuckDB tables, with every line and value that does not fit."""

import csv
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
from numpy.typing import NDArray

from mtf_engine.logs.validation import Check, DefectCode, find_defects, nan_or_inf, null_key, wrong_type
from mtf_engine.spec import Defect

Kind = Literal["text", "integer", "number", "real", "flag", "time", "list"]
Need = Literal["key", "value", "optional"]
DELIMITERS = "\t,;"
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


@dataclass(frozen=True)
class RawTable:
    """A file in DuckDB before its columns are typed: the table's name, the file's, and its column types."""

    table: str
    file: str
    types: dict[str, str]


def connect() -> duckdb.DuckDBPyConnection:
    """Returns an in-memory DuckDB that keeps rows in file order and reads local times as UTC."""
    con = duckdb.connect()
    con.execute("SET preserve_insertion_order = true")
    con.execute("SET TimeZone = 'UTC'")
    return con


def quoted(name: str) -> str:
    """Returns a column name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def load(con: duckdb.DuckDBPyConnection, path: Path, table: str) -> RawTable | list[Defect]:
    """Returns the file as table `table`, or why it cannot be read. CSV values are read as text."""
    problem = _unfit(path)
    if problem:
        return [problem]
    read = _load_parquet if path.suffix == ".parquet" else _load_csv
    defects = read(con, path, table)
    if defects:
        return defects
    if not con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]:
        return [_whole_file("empty_file", path, "holds no rows", "export the log again")]
    described = con.execute(f"DESCRIBE {table}").fetchall()
    return RawTable(table, path.name, {name: kind for name, kind, *_ in described})


def _unfit(path: Path) -> Defect | None:
    """Returns what is wrong with the file as bytes, before anything is parsed."""
    if not path.stat().st_size:
        return _whole_file("empty_file", path, "holds no bytes", "export the log again")
    if path.suffix != ".parquet":
        return None
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(4, path.stat().st_size), 2)
        tail = file.read()
    if head != b"PAR1":
        return _whole_file(
            "unreadable_file", path, "is not a Parquet file", "export the log again or rename it .csv"
        )
    if tail != b"PAR1" or path.stat().st_size < 12:
        return _whole_file("truncated_parquet", path, "lacks its end", "write or copy the file again")
    return None


def _whole_file(code: DefectCode, path: Path, message: str, remedy: str, column: str | None = None) -> Defect:
    return Defect(code=code, file=path.name, column=column, message=message, remedy=remedy)


def _load_parquet(con: duckdb.DuckDBPyConnection, path: Path, table: str) -> list[Defect]:
    try:
        con.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet(?)", [glob.escape(str(path))])
    except (duckdb.Error, UnicodeDecodeError) as error:
        reason = f"cannot be read: {str(error).splitlines()[0]}"
        return [_whole_file("unreadable_file", path, reason, "write or copy the file again")]
    return []


def header(path: Path) -> list[str]:
    """Returns the column names of a CSV file, of a Parquet file or of one that is not UTF-8 none."""
    if path.suffix == ".parquet":
        return []
    try:
        return _csv_header(path)[0]
    except UnicodeDecodeError:
        return []


def _csv_header(path: Path) -> tuple[list[str], str]:
    """Returns the names in the first line and what parts them."""
    with path.open("rb") as file:
        text = file.readline().decode("utf-8-sig")
    delimiter = max(DELIMITERS, key=text.count)
    names = next(csv.reader([text], delimiter=delimiter), [])
    return [name or f"column{i}" for i, name in enumerate(names)], delimiter


def _load_csv(con: duckdb.DuckDBPyConnection, path: Path, table: str) -> list[Defect]:
    try:
        names, delimiter = _csv_header(path)
    except UnicodeDecodeError:
        return [
            _whole_file("unreadable_file", path, "has a header that is not UTF-8", "export the log as UTF-8")
        ]
    folded = [name.lower() for name in names]
    doubled = [name for i, name in enumerate(names) if name.lower() in folded[:i]]
    if doubled:
        remedy = "rename or remove one of the columns"
        return [
            _whole_file("doubled_column", path, "is in the header twice", remedy, name) for name in doubled
        ]
    columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in names)
    try:
        con.execute(
            f"CREATE TABLE {table} AS SELECT * FROM read_csv(?, columns = {{{columns}}}, auto_detect = false, "
            f"header = true, delim = {_literal(delimiter)}, quote = '\"', escape = '\"', store_rejects = true, "
            f"rejects_table = '{table}_rejects', rejects_scan = '{table}_scan')",
            [glob.escape(str(path))],
        )
    except (duckdb.Error, UnicodeDecodeError) as error:
        reason = f"cannot be read: {str(error).splitlines()[0]}"
        return [_whole_file("unreadable_file", path, reason, "export the log again as CSV")]
    return _rejected_lines(con, path, table)


def _rejected_lines(con: duckdb.DuckDBPyConnection, path: Path, table: str) -> list[Defect]:
    """Returns one defect per kind of line that is not CSV of the header's columns."""
    kinds = con.execute(
        f"SELECT error_type, arg_min(error_message, line), min(line) - 1, count(DISTINCT line) "
        f"FROM {table}_rejects GROUP BY error_type ORDER BY min(line)"
    ).fetchall()
    return [
        Defect(
            code="unreadable_file",
            file=path.name,
            row=row,
            count=count,
            message=f"{kind.lower()}: {message.splitlines()[0]}",
            remedy="export the log again as UTF-8 CSV with every text in quotes",
        )
        for kind, message, row, count in kinds
    ]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def list_sources(types: Sequence[str] | dict[str, str], name: str) -> tuple[str, ...]:
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
            return f"CASE WHEN TRY_CAST({text} AS BIGINT) = TRY_CAST({text} AS DOUBLE) THEN TRY_CAST({text} AS BIGINT) END"
        case "real":
            return f"TRY_CAST({text} AS DOUBLE)"
        case "number" if kind == "VARCHAR":
            return f"CASE lower({text}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE TRY_CAST({text} AS FLOAT) END"
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


def fetch(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, NDArray]:
    """Returns the columns of a query as arrays; a column of lists must be of fixed length and is [n, length]."""
    table = con.sql(sql).to_arrow_table()
    return {name: _array(table[name].combine_chunks()) for name in table.column_names}


def _array(column: pa.Array) -> NDArray:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)
