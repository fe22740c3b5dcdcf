"""Slates: rows that hold a whole list of shown items, taken apart into a row an impression."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np

from mtf_engine.logs.files import PLACE, SLATE, RawTable, fetch, load, quoted, repeats
from mtf_engine.logs.mapping import Mapping, Slate, bad_mapping
from mtf_engine.logs.schema import IMPRESSION_FILE, REQUEST_FILE
from mtf_engine.logs.validation import (
    BadRows,
    Check,
    as_long_as,
    find_defects,
    leave_out,
    list_of_items,
    refuse_too_many,
    unknown_item,
)
from mtf_engine.spec import Defect

NAMES = {column.name for column in (*REQUEST_FILE, *IMPRESSION_FILE)}


def load_impressions(
    con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping, bad_rows: BadRows
) -> RawTable | list[Defect]:
    """Returns the file of impressions as the table `raw_impressions`, slates taken apart, or why it cannot be."""
    raw = load(con, path, "raw_impressions", bad_rows, mapping.columns)
    if mapping.slate is None or not isinstance(raw, RawTable):
        return raw
    with raw.reading():
        return explode(con, raw, mapping.slate, mapping.mentioned)


def explode(
    con: duckdb.DuckDBPyConnection, raw: RawTable, slate: Slate, wanted: set[str]
) -> RawTable | list[Defect]:
    """Returns the table with a row for each item of each row's slate, in the file's order, or what is wrong.

    Columns that are neither a log's own nor `wanted` are not taken along: a history would be written out once an
    item.
    """
    if lacking := _lacking(raw, slate):
        return lacking
    made = {*slate.chosen, *([slate.marks] if slate.marks else [])}
    if doubled := sorted(made & (set(raw.types) - set(slate.chosen.values()))):
        raise bad_mapping(f"slate: makes {doubled[0]}, and the file has a column of that name")
    kept = [c for c in raw.types if c not in slate.columns and _is_read(c, wanted)]
    columns = ", ".join((*_lists(raw, slate), *(f"{quoted(c)} AS kept{i}" for i, c in enumerate(kept))))
    again = repeats(raw.table, raw.types)
    con.execute(
        f"CREATE TABLE slates AS SELECT rowid + 1 AS row, {columns} FROM {raw.table} WHERE rowid + 1 NOT IN ({again})"
    )
    n_repeats = raw.n_rows - con.execute("SELECT count(*) FROM slates").fetchall()[0][0]
    checks = list(_checks(slate))
    gone = leave_out(con, "slates", "slates", checks) if raw.bad_rows == "drop" else {}
    refuse_too_many(raw.file, gone, raw.n_rows)
    defects = raw.placed(find_defects(con, "slates", raw.file, checks))
    if defects:
        return defects
    exploded = f"{raw.table}_exploded"
    values = (*(f"kept{i} AS {quoted(c)}" for i, c in enumerate(kept)), *_values(slate))
    con.execute(  # in the order of the rows and their lists, as the connection keeps it
        f"CREATE TABLE {exploded} AS SELECT {', '.join(values)}, "
        f"generate_subscripts(items, 1) - 1 AS {quoted(PLACE)}, row - 1 AS {quoted(SLATE)} FROM slates"
    )
    sizes = np.zeros(raw.n_rows, np.int64)
    counts = fetch(con, "SELECT row - 1 AS at, len(items) AS n FROM slates")
    sizes[counts["at"]] = counts["n"]
    con.execute("DROP TABLE slates")
    raw.drop(con)
    ends = np.cumsum(sizes)
    if not ends[-1]:
        remedy = "name the column of the items that were shown"
        return [
            Defect(
                code="empty_file", file=raw.file, column=slate.items, message="lists no item", remedy=remedy
            )
        ]
    types = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {exploded}").fetchall()}
    return replace(
        raw,
        table=exploded,
        paths=(),
        types=types,
        n_rows=int(ends[-1]),
        ends=ends,
        listed=(slate.items, *made, *slate.each),
        left_out=gone,
        n_repeats=n_repeats,
        unread=tuple(c for c in raw.types if c not in kept and c not in slate.columns),
    )


def _lacking(raw: RawTable, slate: Slate) -> list[Defect]:
    remedy = "name the file's column under slate: in the mapping"
    return [
        Defect(code="missing_column", file=raw.file, column=column, message="is missing", remedy=remedy)
        for column in slate.columns
        if column not in raw.types
    ]


def _is_read(column: str, wanted: set[str]) -> bool:
    return column in wanted or column in NAMES or column.startswith("prediction")


def _lists(raw: RawTable, slate: Slate) -> Iterator[str]:
    """Yields SQL for the lists of texts of a row, by their places in `slate`; of marked items without the marks."""
    items = _texts(slate.items, raw.types[slate.items])
    if slate.marks:
        marked = "right(t, 2) IN ('-0', '-1')"
        bare = f"CASE WHEN {marked} THEN left(t, length(t) - 2) ELSE t END"
        yield f"list_transform({items}, lambda t: {bare}) AS items"
        yield f"list_transform({items}, lambda t: CASE WHEN {marked} THEN right(t, 1) END) AS marks"
    else:
        yield f"{items} AS items"
    for i, column in enumerate(slate.chosen.values()):
        yield f"CASE WHEN {quoted(column)} IS NULL THEN [] ELSE {_texts(column, raw.types[column])} END AS chosen{i}"
    for i, column in enumerate(slate.each):
        yield f"{_texts(column, raw.types[column])} AS each{i}"


def _texts(column: str, kind: str) -> str:
    """Returns SQL for the entries of a list as texts: of a list, or of a text such as [1, 2], [1 2], 1 2 or 1, 2."""
    if kind.endswith("]"):
        return f"{quoted(column)}::VARCHAR[]"
    text = f"trim({quoted(column)}::VARCHAR)"
    bare = f"trim({text}, '[] ')"
    apart = rf"CASE {bare} WHEN '' THEN [] ELSE regexp_split_to_array({bare}, '\s*,\s*|\s+') END"
    return (
        f"CASE WHEN {text} LIKE '[%' AND ({text} LIKE '%,%' OR {text} LIKE '%''%') "
        f"THEN TRY_CAST({text} AS VARCHAR[]) WHEN {text} IS NOT NULL THEN {apart} END"
    )


def _checks(slate: Slate) -> Iterator[Check]:
    """Yields what must hold of each row's lists."""
    yield list_of_items(slate.items, "items", "marks" if slate.marks else None)
    for i, column in enumerate(slate.chosen.values()):
        yield list_of_items(column, f"chosen{i}", None)
        yield unknown_item(column, f"chosen{i}", "items", slate.items)
    for i, column in enumerate(slate.each):
        yield as_long_as(column, f"each{i}", "items", slate.items)


def _values(slate: Slate) -> Iterator[str]:
    """Yields SQL for the columns that the slates make, a value an item."""
    yield f"unnest(items) AS {quoted(slate.items)}"
    if slate.marks:
        yield f"unnest(marks) AS {quoted(slate.marks)}"
    for i, signal in enumerate(slate.chosen):
        happened = f"list_transform(items, lambda t: list_contains(chosen{i}, t)::INTEGER::VARCHAR)"
        yield f"unnest({happened}) AS {quoted(signal)}"
    for i, column in enumerate(slate.each):
        yield f"unnest(each{i}) AS {quoted(column)}"
