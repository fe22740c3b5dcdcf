"""Files of CSV, JSON lines or Parquet as DuckDB tables, with every line that does not fit."""

import csv
import glob
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path, PurePath

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtf_engine.disk import is_full
from mtf_engine.logs.endings import READ, Ending, Kind, decompressed, ending_of, parts_of
from mtf_engine.logs.validation import BadRows, DefectCode
from mtf_engine.spec import Defect, Refusal

DELIMITERS = ("\t", ",", ";", "::")
"""What may part the values of a line."""
RECBOLE = re.compile(r":(token|token_seq|float|float_seq)$")
"""What RecBole's files say behind a column's name of what it holds."""
CONTENTS = {
    b"\x1f\x8b": ("is packed by gzip", ".gz behind its ending"),
    b"\x28\xb5\x2f\xfd": ("is packed by zstd", ".zst behind its ending"),
    b"PAR1": ("is a Parquet file", ".parquet"),
    b"\xff\xfe": ("is UTF-16", ""),
    b"\xfe\xff": ("is UTF-16", ""),
}
"""How files begin that are no plain text: what they are, and the ending that says so."""
LONGEST_HEADER = 1 << 20
LOAD_MB, LOAD_THREADS = 800, 2
"""Memory of a log being read, whatever its size; each thread needs a part of it."""
FILE_OF_ROW = "the file of this row"
PART = f'"{FILE_OF_ROW}"'
"""A column of a table while it is loaded."""
ROW = "rowid"
"""What DuckDB calls the number of a row, unless the table has a column of that name; a view of a file has one."""
ROW_OF_FILE = "file_row_number"
"""What DuckDB calls the number of a row in its Parquet file."""
MOST_IN_VIEW = 32
"""Files whose rows are read where they lie: to number those of more costs more than to copy them."""
OF_FILES = duckdb.IOException, duckdb.InvalidInputException, UnicodeDecodeError
"""What is raised where a file is not what it seemed to be; of some damage it is a bare duckdb.Error."""
SLATE, PLACE = "the row of the file", "the place in the list"
"""Columns of a table of slates taken apart: which row of the file a row is of, and where in its list, from 0."""


@dataclass(frozen=True)
class RawTable:
    """A file in DuckDB before its columns are typed: the table's name, the file's, and its column types.

    Of a folder of parts, `parts` tells each file's name and how many rows come before it. `rejected` are the
    lines of CSV that are no rows and were left out, as `bad_rows` wants it: each with its file, by number. Of Parquet
    it is a view: each query reads `paths`, its files, and of them what it asks for.
    """

    table: str
    file: str
    types: dict[str, str]
    kind: Kind
    n_rows: int
    parts: tuple[tuple[str, int], ...] = ()
    bad_rows: BadRows = "refuse"
    rejected: tuple[tuple[str, int], ...] = ()
    ends: NDArray[np.int64] | None = None
    listed: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    n_repeats: int = 0
    unread: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()

    def drop(self, con: duckdb.DuckDBPyConnection) -> None:
        """Forgets what was read of the file."""
        con.execute(f"DROP {'VIEW' if self.paths else 'TABLE'} {self.table}")

    def as_table(self, con: duckdb.DuckDBPyConnection) -> "RawTable":
        """Returns the file as a table that can be changed."""
        if not self.paths:
            return self
        table = f"{self.table}_held"
        columns = ", ".join(map(quoted, self.types))
        con.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM {self.table}")
        self.drop(con)
        return replace(self, table=table, paths=())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raises a Refusal where a query cannot read the file, if it is one that each query reads."""
        try:
            yield
        except (duckdb.Error, UnicodeDecodeError) as error:
            is_of_files = isinstance(error, OF_FILES) or type(error) is duckdb.Error
            if not self.paths or is_full(error) or not is_of_files:
                raise
            raise Refusal.of([_unreadable(self.file, error, self.paths)]) from None

    @property
    def n_rejected(self) -> int:
        return len(self.rejected)

    def placed(self, defects: Iterable[Defect]) -> list[Defect]:
        """Returns defects of rows of the table as those of rows of the file that holds them."""
        return [self._placed(defect) for defect in defects]

    def _placed(self, defect: Defect) -> Defect:
        if defect.row is None:
            return defect
        if self.ends is not None:
            defect = self._of_its_list(defect, defect.row, self.ends)
        assert defect.row is not None
        parts = self.parts or ((self.file, 0),)
        file, before = next(part for part in reversed(parts) if part[1] < defect.row)
        row = defect.row - before
        for _, gone in filter(lambda line: line[0] == PurePath(file).name, self.rejected):
            row += gone <= row
        return defect.model_copy(update={"file": file, "row": row})

    def _of_its_list(self, defect: Defect, nth: int, ends: NDArray[np.int64]) -> Defect:
        """Returns a defect of the `nth` exploded row as that of the row, saying which entry of its list it is."""
        row = int(np.searchsorted(ends, nth))
        entry = nth - (int(ends[row - 1]) if row else 0)
        said = f"entry {entry} {defect.message}" if defect.column in self.listed else defect.message
        return defect.model_copy(update={"row": row + 1, "message": said})


def connect() -> duckdb.DuckDBPyConnection:
    """Returns an in-memory DuckDB that keeps rows in file order and takes times without a zone as UTC.

    What is beyond its memory waits on disk.
    """
    con = duckdb.connect()
    con.execute(f"SET memory_limit = '{LOAD_MB}MB'; SET threads = {LOAD_THREADS}")
    con.execute("SET preserve_insertion_order = true")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET temp_directory = ?", [tempfile.gettempdir()])
    return con


def quoted(name: str) -> str:
    """Returns a column name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def load(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    table: str,
    bad_rows: BadRows = "refuse",
    columns: Sequence[str] = (),
) -> RawTable | list[Defect]:
    """Returns the file, or folder of parts, as table `table`, or why it cannot be read. CSV values are texts.

    `columns` are the names of those of a CSV file that has no header.
    """
    parts = parts_of(path)
    if not parts:
        return [_whole_file("empty_file", path, "holds no file", f"put the log's parts there: {READ}")]
    problems = [problem for part in parts if (problem := _unfit(part))]
    endings = [ending for part in parts if (ending := ending_of(part))]
    if problems:
        return problems
    if len({(ending.kind, ending.compression) for ending in endings}) > 1:
        remedy = "keep the parts of one table alike"
        return [_whole_file("unreadable_file", path, "holds files of several kinds", remedy)]
    kind = endings[0].kind
    if columns and kind != "csv":
        remedy = "leave columns: out of the mapping"
        return [_whole_file("bad_mapping", path, "has names of its own for its columns", remedy)]
    try:
        if kind == "csv":
            defects = _load_csv(con, parts, table, columns)
        else:
            defects = {"parquet": _load_parquet, "json": _load_json}[kind](con, parts, table)
    except (duckdb.Error, UnicodeDecodeError) as error:
        return [_unreadable(path.name, error, parts)]
    droppable = bad_rows == "drop" and all(defect.row for defect in defects)
    rejected = _single_lines(con, table, header_lines(columns)) if defects and droppable else ()
    if defects and not rejected:
        return defects
    raw = RawTable(table, path.name, {}, kind, 0, (), bad_rows, rejected)
    is_view = con.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = ?", [table]).fetchall()
    return _described(con, path, replace(raw, paths=tuple(parts) if is_view[0][0] else ()))


def _described(con: duckdb.DuckDBPyConnection, path: Path, raw: RawTable) -> RawTable | list[Defect]:
    """Returns `raw`, which is loaded, with its columns but that of files, its rows and parts; or why it is no log's."""
    types: dict[str, str] = {name: of for name, of, *_ in con.execute(f"DESCRIBE {raw.table}").fetchall()}
    del types[FILE_OF_ROW]
    if raw.paths:
        del types[ROW]
    elif taken := _taken(path, types):
        return taken
    sql = f"SELECT {PART}, min({ROW}), count(*) FROM {raw.table} GROUP BY {PART} ORDER BY 2"
    found = con.execute(sql).fetchall()
    if not raw.paths:
        con.execute(f"ALTER TABLE {raw.table} DROP COLUMN {PART}")
    if not found:
        return [_whole_file("empty_file", path, "holds no rows", "export the log again")]
    parts = ((str(Path(part).relative_to(path)), first) for part, first, _ in found) if path.is_dir() else ()
    return replace(raw, types=types, n_rows=sum(n for *_, n in found), parts=tuple(parts))


def _taken(path: Path, names: Iterable[str]) -> list[Defect]:
    """Returns a defect where a column is called as DuckDB calls the numbers of a table's rows."""
    taken = [name for name in names if name.lower() == ROW]
    problem = "is what an import calls the numbers of rows"
    return [_whole_file("doubled_column", path, problem, "rename the column", name) for name in taken[:1]]


def _unreadable(file: str, error: Exception, parts: Sequence[Path]) -> Defect:
    """Returns that a file, or folder of `parts`, cannot be read, and why."""
    what = f"cannot be read: {_reason(error, parts)}"
    return Defect(code="unreadable_file", file=file, message=what, remedy="write the file again")


def _reason(error: Exception, parts: Sequence[Path]) -> str:
    """Returns what DuckDB says, in one line, without where on this machine the files lie."""
    reason = str(error).splitlines()[0]
    for part in parts:
        reason = reason.replace(str(part), part.name)
    if "state machine reached an invalid state" in reason:
        return "its lines end in different ways, or a quote does not close"
    return reason


def _unfit(path: Path) -> Defect | None:
    """Returns what is wrong with the file by its name or as bytes, before anything is parsed."""
    ending = ending_of(path)
    if ending is None:
        what = f"ends in {path.suffix}" if path.suffix else "has no ending"
        return _whole_file(
            "unreadable_file", path, f"{what}, which is not read", f"a log is read from {READ}"
        )
    if not path.stat().st_size:
        return _whole_file("empty_file", path, "holds no bytes", "export the log again")
    if ending.kind != "parquet":
        return _unfit_text(path, ending)
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


def _unfit_text(path: Path, ending: Ending) -> Defect | None:
    try:
        line = _first_line(path)
        if problem := _other_content(path, line, ending):
            return problem
        line.decode("utf-8-sig")
        if ending.compression:  # DuckDB takes what is there of a file that was cut off
            with path.open("rb") as file:
                stream = decompressed(file, ending)
                while stream.read(1 << 20):
                    pass
    except OSError:
        reason = f"is no {ending.compression} file, or a damaged one"
        return _whole_file("unreadable_file", path, reason, "write or copy the file again")
    except UnicodeDecodeError:
        reason = "has a header that is not UTF-8"
        return _whole_file("unreadable_file", path, reason, "export the log as UTF-8")
    return None


def _other_content(path: Path, line: bytes, ending: Ending) -> Defect | None:
    """Returns what a text begins with that its name does not say."""
    for mark, (what, suffix) in CONTENTS.items():
        if line.startswith(mark):
            remedy = f"name it with {suffix}" if suffix else "export the log as UTF-8"
            return _whole_file("unreadable_file", path, what, remedy)
    if b"\0" in line:
        return _whole_file("unreadable_file", path, "is UTF-16 or no text", "export the log as UTF-8")
    if ending.kind == "csv" and not line.strip(b"\xef\xbb\xbf \r\n"):
        return _whole_file(
            "unreadable_file", path, "has a blank first line", "put the names of the columns there"
        )
    if ending.kind == "json" and line.startswith(b"\xef\xbb\xbf"):
        return _whole_file("unreadable_file", path, "starts with a byte order mark", "export it without one")
    return None


def _whole_file(code: DefectCode, path: Path, message: str, remedy: str, column: str | None = None) -> Defect:
    return Defect(code=code, file=path.name, column=column, message=message, remedy=remedy)


def _escaped(parts: Sequence[Path]) -> list[str]:
    return [glob.escape(str(part)) for part in parts]


def _options(parts: Sequence[Path]) -> str:
    """Returns options of every reader, with a name for each row's file; folders such as day=2026-05-04 are columns."""
    ending = ending_of(parts[0])
    compression = f", compression = '{ending.compression}'" if ending and ending.compression else ""
    return f"filename = '{FILE_OF_ROW}', hive_partitioning = true, hive_types_autocast = false{compression}"


def _load_parquet(con: duckdb.DuckDBPyConnection, parts: Sequence[Path], table: str) -> list[Defect]:
    """Creates the view `table` of the files, whose rows are numbered on from one to the next.

    It is a table where they are many, or have a column that is called as DuckDB calls the numbers of a file's rows.
    """
    try:
        files = [(pq.read_schema(part).names, pq.read_metadata(part).num_rows) for part in parts]
    except (pa.ArrowException, OSError) as error:
        return [_unreadable(parts[0].name, error, parts)]
    names = [columns for columns, _ in files]
    if defects := _doubled(parts[0], names[0]) or _other_columns(parts, names):
        return defects
    paths = ", ".join(map(literal, _escaped(parts)))
    plain = f"read_parquet([{paths}], union_by_name = true, {_options(parts)})"
    columns = {name.lower() for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {plain}").fetchall()}
    if len(parts) > MOST_IN_VIEW or columns & {ROW, ROW_OF_FILE}:
        con.execute(f"CREATE TABLE {table} AS SELECT {_all(con, plain)} FROM {plain}")
        return []
    reader = f"read_parquet([{paths}], union_by_name = true, {ROW_OF_FILE} = true, {_options(parts)})"
    starts = accumulate((n for _, n in files), initial=0)
    before = " ".join(f"WHEN {literal(str(part))} THEN {n}" for part, n in zip(parts, starts, strict=False))
    number = f"{ROW_OF_FILE} + CASE {PART} {before} END AS {ROW}"
    con.execute(f"CREATE VIEW {table} AS SELECT {_all(con, reader, ROW_OF_FILE)}, {number} FROM {reader}")
    return []


def _all(con: duckdb.DuckDBPyConnection, reader: str, but: str = "") -> str:
    """Returns SQL for all columns of a `reader` but one; an empty text is blank, as it is in CSV."""
    described = con.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
    texts = [quoted(name) for name, kind, *_ in described if kind == "VARCHAR" and name != FILE_OF_ROW]
    blanks = ", ".join(f"nullif({text}, '') AS {text}" for text in texts)
    return f"*{f' EXCLUDE ({but})' if but else ''}{f' REPLACE ({blanks})' if texts else ''}"


def _doubled(path: Path, names: Sequence[str]) -> list[Defect]:
    """Returns a defect for each name that stands among `names` twice, in capitals or not."""
    folded = [name.lower() for name in names]
    doubled = [name for i, name in enumerate(names) if name.lower() in folded[:i]]
    remedy = "rename or remove one of the columns"
    return [_whole_file("doubled_column", path, "is in the header twice", remedy, name) for name in doubled]


def _other_columns(parts: Sequence[Path], names: Sequence[list[str]]) -> list[Defect]:
    """Returns a defect for each part whose columns `names` are not those of the first, in this order."""
    remedy = "export all parts of a table alike"
    return [
        _whole_file("unreadable_file", part, f"has other columns than {parts[0].name}", remedy)
        for part, columns in zip(parts, names, strict=True)
        if columns != names[0]
    ]


def _load_json(con: duckdb.DuckDBPyConnection, parts: Sequence[Path], table: str) -> list[Defect]:
    paths = ", ".join(map(literal, _escaped(parts)))
    options = f"format = 'newline_delimited', records = true, sample_size = -1, union_by_name = true, {_options(parts)}"
    reader = f"read_json([{paths}], {options})"
    con.execute(f"CREATE TABLE {table} AS SELECT {_all(con, reader)} FROM {reader}")
    return []


def header(path: Path) -> list[str]:
    """Returns the column names of a CSV file; of another one, or of one that cannot be read, none."""
    ending = ending_of(path)
    if ending is None or ending.kind != "csv":
        return []
    try:
        return csv_header(_first_line(path).decode("utf-8-sig"), path)[0]
    except (UnicodeDecodeError, OSError):
        return []


def _first_line(path: Path) -> bytes:
    """Returns the first line with its end, a carriage return where no line feed follows."""
    ending = ending_of(path)
    assert ending is not None
    with path.open("rb") as file:
        head = decompressed(file, ending).read(LONGEST_HEADER)
    found = re.match(rb"[^\r\n]*(\r\n|\r|\n)?", head)
    assert found is not None
    return found[0]


def csv_header(line: str, path: PurePath, columns: Sequence[str] = ()) -> tuple[list[str], str]:
    """Returns the names of a CSV file's columns, as its first `line` or else `columns` say, and what parts them.

    Of RecBole's `.inter` files the names come without what is said of their type.
    """
    text = line.rstrip("\r\n")
    delimiter = max(DELIMITERS, key=text.count)
    if columns:  # of the first row there are as many values, lists with commas among them
        fitting = (d for d in DELIMITERS if len(_values(text, d)) == len(columns))
        return list(columns), next(fitting, delimiter)
    names = _values(text, delimiter)
    if (ending := ending_of(path)) and ending.is_recbole:
        names = [RECBOLE.sub("", name) for name in names]
    return [name or f"column{i}" for i, name in enumerate(names)], delimiter


def _values(line: str, delimiter: str) -> list[str]:
    """Returns the values of a line of CSV; where two characters part them, there are no quotes."""
    return next(csv.reader([line], delimiter=delimiter), []) if len(delimiter) == 1 else line.split(delimiter)


def header_lines(columns: Sequence[str]) -> int:
    """Returns how many lines of a CSV file come before its rows, where the mapping names `columns`."""
    return 0 if columns else 1


def _load_csv(
    con: duckdb.DuckDBPyConnection, parts: Sequence[Path], table: str, given: Sequence[str]
) -> list[Defect]:
    lines = [_first_line(part).decode("utf-8-sig") for part in parts]
    headers = [csv_header(line, part, given) for line, part in zip(lines, parts, strict=True)]
    names, delimiter = headers[0]
    if defects := _doubled(parts[0], names) or _other_columns(parts, [columns for columns, _ in headers]):
        return defects
    n = len(_values(lines[0].rstrip("\r\n"), delimiter))
    if n != len(names):
        problem = f"has {n} columns, and the mapping names {len(names)} under columns:"
        return [_whole_file("bad_mapping", parts[0], problem, "name every column of the file, in its order")]
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    line_end = lines[0][len(lines[0].rstrip("\r\n")) :] or "\n"
    con.execute(
        f"CREATE TABLE {table} AS SELECT * FROM read_csv(?, columns = {{{columns}}}, "
        f"auto_detect = false, header = {not given}, delim = {literal(delimiter)}, new_line = {_escape(line_end)}, "
        f"quote = '\"', escape = '\"', {_options(parts)}, "
        f"store_rejects = true, rejects_table = '{table}_rejects', rejects_scan = '{table}_scan')",
        [_escaped(parts)],
    )
    return _rejected_lines(con, table, header_lines(given))


def _rejected_lines(con: duckdb.DuckDBPyConnection, table: str, before: int) -> list[Defect]:
    """Returns one defect per file and kind of line that is not CSV of its columns; `before` lines are a header."""
    kinds = con.execute(
        f"SELECT any_value(file_path), error_type, arg_min(error_message, line), min(line) - {before}, "
        f"count(DISTINCT line) FROM {table}_rejects JOIN {table}_scan USING (scan_id, file_id) "
        "GROUP BY file_id, error_type ORDER BY file_id, min(line)"
    ).fetchall()
    return [
        Defect(
            code="unreadable_file",
            file=Path(path).name,
            row=row,
            count=count,
            message=f"{kind.lower()}: {message.splitlines()[0]}",
            remedy="export the log again as UTF-8 CSV with every text in quotes",
        )
        for path, kind, message, row, count in kinds
    ]


def _single_lines(con: duckdb.DuckDBPyConnection, table: str, before: int) -> tuple[tuple[str, int], ...]:
    """Returns the rejected lines, each with its file, by data row; none if one of them holds others.

    A text whose quotes do not close takes the lines behind it along, and is no defect of one row.
    """
    several = "bool_or(regexp_matches(trim(csv_line, chr(13) || chr(10)), '[\\r\\n]'))"
    if con.execute(f"SELECT {several} FROM {table}_rejects").fetchall()[0][0]:
        return ()
    lines = con.execute(
        f"SELECT DISTINCT file_path, line - {before} AS row FROM {table}_rejects "
        f"JOIN {table}_scan USING (scan_id, file_id) ORDER BY ALL"
    ).fetchall()
    return tuple((Path(path).name, row) for path, row in lines)


def _escape(line_end: str) -> str:
    """Returns how DuckDB calls the end of a line."""
    return {"\r\n": r"'\r\n'", "\r": r"'\r'", "\n": r"'\n'"}[line_end]


def alike(con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], place: str | None) -> bool:
    """Returns whether two rows of a table may be equal in all `columns`: whether their hash is the same.

    Of whole numbers in the column `place`, one of these, 32 share a hash and have a bit each.
    """
    hashed = [quoted(c) if c != place else f"{quoted(c)} >> 5" for c in columns]
    bit = f"1 << ({quoted(place)} & 31)" if place else "1"
    rows = f"SELECT hash({', '.join(hashed)}) AS h, {bit} AS bit FROM {table}"
    several = f"SELECT h FROM ({rows}) GROUP BY h HAVING bit_count(bit_or(bit)) < count(*) LIMIT 1"
    return bool(con.execute(several).fetchall())


def repeats(table: str, columns: Iterable[str]) -> str:
    """Returns SQL for the rows of a table, from 1, that equal an earlier one in all `columns`.

    Only rows whose hash is not their own alone are compared.
    """
    everything = ", ".join(map(quoted, columns))
    alike = f"SELECT hash({everything}) AS h FROM {table} GROUP BY h HAVING count(*) > 1"
    return (
        f"SELECT {ROW} + 1 FROM {table} WHERE hash({everything}) IN ({alike}) "
        f"QUALIFY row_number() OVER (PARTITION BY {everything} ORDER BY {ROW}) > 1"
    )


def literal(text: str) -> str:
    """Returns a text quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


def fetch(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, NDArray]:
    """Returns the columns of a query as arrays; lists of a fixed length become [n, length]."""
    table = con.sql(sql).to_arrow_table()
    return {name: array(table[name].combine_chunks()) for name in table.column_names}


def array(column: pa.Array) -> NDArray:
    """Returns a column of Arrow as an array; lists of a fixed length become [n, length]."""
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)
