"""CSV and Parquet files as DuckDB tables, with every line that does not fit."""

import csv
import glob
import tempfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from numpy.typing import NDArray

from mtf_engine.logs.validation import DefectCode
from mtf_engine.spec import Defect

DELIMITERS = "\t,;"


@dataclass(frozen=True)
class RawTable:
    """A file in DuckDB before its columns are typed: the table's name, the file's, and its column types."""

    table: str
    file: str
    types: dict[str, str]


def connect() -> duckdb.DuckDBPyConnection:
    """Returns an in-memory DuckDB that keeps rows in file order and takes times without a zone as UTC."""
    con = duckdb.connect()
    con.execute("SET preserve_insertion_order = true")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET temp_directory = ?", [tempfile.gettempdir()])
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
            f"CREATE TABLE {table} AS SELECT * FROM read_csv(?, columns = {{{columns}}}, "
            f"auto_detect = false, header = true, delim = {_literal(delimiter)}, "
            "quote = '\"', escape = '\"', "
            f"store_rejects = true, rejects_table = '{table}_rejects', rejects_scan = '{table}_scan')",
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


def fetch(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, NDArray]:
    """Returns the columns of a query as arrays; lists of a fixed length become [n, length]."""
    table = con.sql(sql).to_arrow_table()
    return {name: _array(table[name].combine_chunks()) for name in table.column_names}


def _array(column: pa.Array) -> NDArray:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)
