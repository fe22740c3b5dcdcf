"""Units of times and watch times that a log gives as numbers: stated in the mapping, or judged by the values."""

from typing import Literal

import duckdb

TimeUnit = Literal["s", "ms", "us", "ns", "date"]
WatchTimeUnit = Literal["s", "ms", "min"]

TIME_UNITS: dict[TimeUnit, str] = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "date": "dates such as 20261122 or 20261122093000",
}
"""What a number may be as a time."""
MICROSECONDS: dict[str, str] = {"s": "* 1e6", "ms": "* 1e3", "us": "* 1", "ns": "/ 1e3"}
"""What makes microseconds of a number since 1970."""
OTHER_UNITS: dict[WatchTimeUnit, str] = {"ms": "milliseconds", "min": "minutes"}
"""What a watch time may be in but seconds, which it is in where nothing is stated."""
SECONDS: dict[WatchTimeUnit, str] = {"s": "* 1", "ms": "/ 1e3", "min": "* 60"}
"""What makes seconds of a watch time."""

PLAUSIBLE = "BETWEEN TIMESTAMP '1990-01-01' AND now()::TIMESTAMP + INTERVAL 1 YEAR"
"""SQL behind a time: a number that is no such time is in another unit."""
STORABLE = "BETWEEN -2208988800000000 AND 4133980799999999"
"""Microseconds since 1970 of the years 1900 to 2100, which any time must be of."""


def time_of(text: str, unit: TimeUnit) -> str:
    """Returns SQL for the time that the number in `text` is in `unit`, NULL where it is none."""
    number = f"TRY_CAST({text} AS DOUBLE)"
    if unit == "date":
        whole = f"{number} = trunc({number}) AND floor(log10({number})) IN (7, 13)"
        digits = (
            f"CASE WHEN {number} > 0 AND {number} < 1e14 THEN CASE WHEN {whole} THEN {number}::BIGINT END END"
        )
        return f"try_strptime(({digits})::VARCHAR, ['%Y%m%d%H%M%S', '%Y%m%d'])"
    micros = f"{number} {MICROSECONDS[unit]}"
    return f"make_timestamp(CASE WHEN {micros} {STORABLE} THEN ({micros})::BIGINT END)"


def possible(time: str) -> str:
    """Returns SQL for `time`, NULL where it is of no year from 1900 to 2100: a typing error, or another unit."""
    return f"CASE WHEN year({time}) BETWEEN 1900 AND 2100 THEN {time} END"


def time_sql(text: str, stated: TimeUnit | None, judged: TimeUnit | None) -> str:
    """Returns SQL for the time in `text`: a number in the stated unit, or in the judged one if plausible."""
    counted = "NULL"
    if stated:
        counted = time_of(text, stated)
    elif judged:
        counted = f"CASE WHEN {time_of(text, judged)} {PLAUSIBLE} THEN {time_of(text, judged)} END"
    is_written = f"{text} LIKE '____-__-%' OR TRY_CAST({text} AS DOUBLE) IS NULL"  # what costs little first
    return possible(
        f"CASE WHEN {is_written} THEN TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' ELSE {counted} END"
    )


def judge(con: duckdb.DuckDBPyConnection, table: str, text: str) -> TimeUnit | None:
    """Returns the unit in which most numbers of a column are times from 1990 to a year from now, if one is.

    The units' plausible numbers do not overlap, so a number is a time in one of them at most.
    """
    fits = ", ".join(f"count(*) FILTER ({time_of(text, unit)} {PLAUSIBLE})" for unit in TIME_UNITS)
    numbers, *fitting = con.execute(
        f"SELECT count(TRY_CAST({text} AS DOUBLE)), {fits} FROM {table}"
    ).fetchall()[0]
    return next((u for u, n in zip(TIME_UNITS, fitting, strict=True) if 2 * n > numbers), None)


def needed_time(judged: TimeUnit | None) -> str:
    """Returns what a value of a time must be."""
    unit = f"{TIME_UNITS[judged]}, as most of the column," if judged else "a number"
    return f"a time such as 2026-11-22 09:30:00 of the years 1900 to 2100, or {unit} from 1990 to a year from now"


WRITE_TIME = (
    "a time such as 2026-11-22 09:30:00, or state what its numbers are as time_unit in the mapping "
    f"({', '.join(TIME_UNITS)})"
)
"""What to put where a time is none."""
