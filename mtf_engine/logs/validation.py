"""Everything that can be wrong with a log, found in one pass over each table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import duckdb

from mtf_engine.spec import Defect, Refusal, one_line

DefectCode = Literal[
    "missing_column", "wrong_type", "null_key", "nan_or_inf", "negative_watch_time", "action_outside_bounds",
    "wrong_length", "duplicate_request", "unknown_request", "session_order_broken",
    "reward_contradicts_components", "empty_file", "truncated_parquet", "unreadable_file", "doubled_column",
    "bad_mapping", "prediction_below_zero", "signal_out_of_range", "unknown_item",
]  # fmt: skip

DEFECT_CODES: dict[DefectCode, str] = {
    "missing_column": "a column that the log needs is not in the file",
    "wrong_type": "a value is not what its column holds: no number, no time or a time in another unit, a NUL "
    "byte in a text",
    "null_key": "a column that identifies a row is blank",
    "nan_or_inf": "a number is blank, NaN or infinite where one is needed",
    "negative_watch_time": "a watch time is below 0",
    "action_outside_bounds": "an action lies outside [-1, 1] or, in a uniform log, outside its logged bounds",
    "wrong_length": "an action, an observation, the predictions or a slate's values have more or fewer entries than "
    "the others",
    "duplicate_request": "a request, a position within one or a user's features appear twice, with a difference",
    "unknown_request": "an impression belongs to a request that is not in the log",
    "session_order_broken": "requests of a session are not numbered 0, 1, 2, ... in time order by one user",
    "reward_contradicts_components": "a reward is not what its parts give",
    "empty_file": "a file holds no rows",
    "truncated_parquet": "a Parquet file lacks its end: it was cut off while being written or copied",
    "unreadable_file": "a file, or a line of it, is not what its name says",
    "doubled_column": "a header names one column twice",
    "bad_mapping": "the mapping is not YAML or names something that does not exist",
    "prediction_below_zero": "most values of a prediction are below 0, as logits are: the fusion takes logarithms",
    "signal_out_of_range": "a signal that counts in the reward, or teaches a prediction, lies outside [0, 1]",
    "unknown_item": "a slate's feedback names an item that the slate does not show",
}
"""The closed list of what validation refuses; every defect carries one of these codes."""

assert set(DEFECT_CODES) == set(get_args(DefectCode))

TOLERANCE = 1e-6
"""What lies beyond a range or a box by no more than this is cut to it, since files round and float32 does."""
REWARD_TOLERANCE = 1e-4
"""A reward may differ from its parts by this share of 1 + |reward|, since signals are stored as float32."""


SHOWN = 40
"""At most this many characters of a value are shown."""


@dataclass(frozen=True)
class Check:
    """A rule and how to say that it is broken.

    `broken` is SQL over a relation with the data row of the file in `row`, true of the rows that break it;
    `value` is SQL for what stands there, put in place of `{value}` in the message. `of_one_row` tells whether a
    row breaks it all by itself, so that the log may be good without it.
    """

    code: DefectCode
    column: str | None
    broken: str
    message: str
    remedy: str
    value: str = "NULL"
    of_one_row: bool = True


BadRows = Literal["refuse", "drop"]
"""What becomes of a log with rows that have a defect of their own: it is refused, or they are left out."""


def leave_out(
    con: duckdb.DuckDBPyConnection, table: str, relation: str, checks: Sequence[Check]
) -> dict[str, int]:
    """Moves the rows of `table` that break a check to the table `left_out_<table>`; returns how many by code.

    `relation` has these rows as in `find_defects`; one that breaks several checks counts for the first.
    """
    if not checks:
        return {}
    codes = " ".join(f"WHEN {check.broken} THEN '{check.code}'" for check in checks)
    judged = f"SELECT row, CASE {codes} END AS code FROM {relation}"
    con.execute(f"CREATE OR REPLACE TABLE broken AS SELECT * FROM ({judged}) WHERE code IS NOT NULL")
    con.execute(f"CREATE TABLE IF NOT EXISTS left_out_{table} AS SELECT * FROM {table} LIMIT 0")
    con.execute(f"INSERT INTO left_out_{table} SELECT * FROM {table} SEMI JOIN broken USING (row)")
    con.execute(f"DELETE FROM {table} WHERE row IN (SELECT row FROM broken)")
    return dict(con.execute("SELECT code, count(*) FROM broken GROUP BY code ORDER BY code").fetchall())


def refuse_too_many(file: str, counts: Mapping[str, int], n_rows: int) -> None:
    """Raises a Refusal where rows left out, by the code of their defect, are more than half of a file's."""
    n = sum(counts.values())
    if 2 * n > n_rows:
        raise Refusal(
            f"{file}: {n:,} of {n_rows:,} rows have a defect ({told(counts)}), too many to leave out; "
            "without `--bad-rows drop` the import says what is wrong"
        )


def told(counts: Mapping[str, int]) -> str:
    """Returns how many rows have a defect, by its code, as it stands in a sentence."""
    return ", ".join(f"{n:,} {code}" for code, n in sorted(counts.items()))


def find_defects(
    con: duckdb.DuckDBPyConnection, relation: str, file: str, checks: Iterable[Check]
) -> list[Defect]:
    """Returns one defect per broken check: its first row and how many rows break it.

    `relation` is what may stand behind FROM: a table, a join, or a query in parentheses. One scan tells which checks
    are broken; rows and values are looked for of those alone, so that a sound log pays for no texts.
    """
    checks = list(checks)
    if not checks:
        return []
    any_broken = ", ".join(f"bool_or({c.broken})" for c in checks)
    (are_broken,) = con.execute(f"SELECT {any_broken} FROM {relation}").fetchall()
    checks = [check for check, is_broken in zip(checks, are_broken, strict=True) if is_broken]
    if not checks:
        return []
    judged = ", ".join(f"({c.broken}) AS b{i}, ({c.value})::VARCHAR AS v{i}" for i, c in enumerate(checks))
    measures = ", ".join(
        f"count(*) FILTER (b{i}), min(row) FILTER (b{i}), arg_min_null(v{i}, row) FILTER (b{i})"
        for i in range(len(checks))
    )
    sql = f"SELECT {measures} FROM (SELECT row, {judged} FROM {relation})"
    (found,) = con.execute(sql).fetchall()
    triples = zip(found[0::3], found[1::3], found[2::3], strict=True)
    return [
        Defect(
            code=c.code, file=file, column=c.column, row=row, count=count,
            message=c.message.replace("{value}", _short(value)), remedy=c.remedy,
        )
        for c, (count, row, value) in zip(checks, triples, strict=True)
        if count
    ]  # fmt: skip


def _short(value: str | None) -> str:
    """Returns a value as it may stand in a sentence."""
    if value is None:
        return "blank"
    text = one_line(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def wrong_type(column: str, broken: str, needed: str, write: str, value: str) -> Check:
    """Returns the check that a value is `needed`; `write` tells the user what to put there."""
    return Check(
        "wrong_type",
        column,
        broken,
        f"is {{value}}, not {needed}",
        f"write {write}, or leave the row out",
        value,
    )


def null_key(column: str, broken: str) -> Check:
    """Returns the check that a key is there."""
    return Check("null_key", column, broken, "is blank", "give every row its value, or leave the row out")


def nan_or_inf(column: str, broken: str, value: str) -> Check:
    """Returns the check that a number is finite."""
    remedy = "write finite numbers (0 where nothing happened), or leave the row out"
    return Check("nan_or_inf", column, broken, "is {value}, not finite", remedy, value)


def list_length(column: str, length: int) -> Check:
    """Returns the check that a list has as many entries as the others."""
    return Check(
        "wrong_length",
        column,
        f"len({column}) <> {length}",
        f"has {{value}} entries, not {length}",
        f"give every row {length} entries, or leave the row out",
        f"len({column})",
    )


def negative_watch_time(column: str) -> Check:
    """Returns the check that a watch time is at least 0."""
    remedy = "correct the value or leave the row out"
    return Check(
        "negative_watch_time", column, f"{column} < 0", "is {value}, a negative watch time", remedy, column
    )


def cut_to_range(table: str, column: str, low: float, high: float) -> str:
    """Returns the SQL that cuts what lies just beyond the range [low, high] to it."""
    value, top = f"{column}::DOUBLE", f"'{high}'::DOUBLE"
    below = f"{value} < {low} AND {value} >= {low} - {TOLERANCE}"
    above = f"{value} > {top} AND {value} <= {top} + {TOLERANCE}"
    cut = f"CASE WHEN {below} THEN {low} ELSE {top} END"
    return f"UPDATE {table} SET {column} = {cut} WHERE ({below}) OR ({above})"


def cut_action_to_range(column: str) -> str:
    """Returns the SQL that cuts dimensions of an action just beyond [-1, 1] to it."""
    beyond = f"abs(a) > 1 AND abs(a)::DOUBLE <= 1 + {TOLERANCE}"
    cut = f"list_transform({column}, lambda a: CASE WHEN {beyond} THEN sign(a)::FLOAT ELSE a END)"
    return f"UPDATE requests SET {column} = {cut} WHERE len(list_filter({column}, lambda a: {beyond})) > 0"


def action_in_range(column: str) -> Check:
    """Returns the check that all dimensions of an action lie in [-1, 1]."""
    return Check(
        "action_outside_bounds",
        column,
        f"len(list_filter({column}, lambda a: isfinite(a) AND abs(a) > 1)) > 0",
        "lies outside [-1, 1]: {value}",
        "scale each dimension to [-1, 1], the range of the fusion weight that it stands for",
        column,
    )


BOUND = "coalesce(clipped, 0) = 0 AND NOT (pscore IS NULL AND action = baseline_action)"
"""Rows of a uniform log whose action is bound by its box: clipped ones and control users are not."""
BOXED = "list_zip(action, baseline_action, lower, upper)"
LEAST, MOST = "(z[2] + z[3])", "(z[2] + z[4])"
"""The walls of the box of z, an entry of BOXED, in float32 as actions are drawn and stored."""


def cut_action_to_bounds() -> str:
    """Returns the SQL that cuts dimensions of a uniform log's actions just beyond their box to its wall."""
    below = f"z[1] < {LEAST} AND z[1]::DOUBLE >= {LEAST}::DOUBLE - {TOLERANCE}"
    above = f"z[1] > {MOST} AND z[1]::DOUBLE <= {MOST}::DOUBLE + {TOLERANCE}"
    cut = f"CASE WHEN {below} THEN {LEAST} WHEN {above} THEN {MOST} ELSE z[1] END"
    return (
        f"UPDATE requests SET action = list_transform({BOXED}, lambda z: {cut}) "
        f"WHERE {BOUND} AND len(list_filter({BOXED}, lambda z: ({below}) OR ({above}))) > 0"
    )


def action_in_bounds() -> Check:
    """Returns the check that the actions of a uniform log lie in their boxes."""
    below, above = f"z[1] < {LEAST} AND isfinite({LEAST})", f"z[1] > {MOST} AND isfinite({MOST})"
    beyond = f"({below}) OR ({above})"  # a wall that is no number is a defect of its own
    return Check(
        "action_outside_bounds",
        "action",
        f"{BOUND} AND "
        f"len(list_filter({BOXED}, lambda z: isfinite(z[1]) AND abs(z[1]) <= 1 AND ({beyond}))) > 0",
        "lies outside the row's own bounds around its baseline action: {value}",
        "correct the row, or say `exploration: gaussian` in the mapping if the log is not uniform",
        "action",
    )


def numbered(table: str, *keys: str) -> str:
    """Returns a query in parentheses of the rows that have `keys`, with `nth` counting those of equal keys."""
    there = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    window = f"PARTITION BY {', '.join(keys)} ORDER BY row"
    return f"(SELECT row, {', '.join(keys)}, row_number() OVER ({window}) AS nth FROM {table} WHERE {there})"


def duplicate(column: str, what: str) -> Check:
    """Returns the check of a relation where `nth` counts the rows of equal keys."""
    remedy = "keep one row of those that repeat"
    return Check("duplicate_request", column, "nth > 1", f"repeats {what} {{value}}", remedy, column)


def session_order() -> list[Check]:
    """Returns the checks of a relation where `previous_*` is the session's request before by step, if any."""
    remedy = "number the requests of a session 0, 1, 2, ... in time order, all of one user"
    starts = "CASE WHEN is_first THEN step <> 0 ELSE step <> previous_step + 1 END"
    rules = (
        ("user_id", "user_id <> previous_user_id", "changes to {value} within a session"),
        ("step", starts, "is {value}, not the next of its session"),
        ("timestamp", "timestamp < previous_timestamp", "goes back to {value} within a session"),
        ("terminal", "terminal AND NOT is_last", "is {value} though its session goes on"),
    )
    return [
        Check("session_order_broken", c, broken, message, remedy, c, of_one_row=False)
        for c, broken, message in rules
    ]


def unknown_request(requests: str) -> Check:
    """Returns the check that an impression's request is in the table `requests`."""
    return Check(
        "unknown_request",
        "request_id",
        f"request_id NOT IN (SELECT request_id FROM {requests} WHERE request_id IS NOT NULL)",
        "names the request {value}, which is not in the log",
        "add the request, or leave its impressions out",
        "request_id",
    )


def prediction_above_zero(column: str, value: str) -> Check:
    """Returns the check that the prediction `value` (SQL), which stands in `column`, is above 0."""
    return Check(
        "prediction_below_zero",
        column,
        f"{value} <= 0",
        "is {value}, not above 0: the fusion takes its logarithm",
        "write probabilities, which are a sigmoid of logits (e.g. 0.02), or leave the row out",
        value,
        of_one_row=False,  # of most of the column
    )


def signal_in_range(column: str, value: str, effect: str, remedy: str) -> Check:
    """Returns the check that the signal `value` (SQL) lies in [0, 1], as it has to for its `effect`."""
    return Check(
        "signal_out_of_range",
        column,
        f"isfinite({value}) AND ({value} < 0 OR {value} > 1)",
        f"is {{value}}, outside [0, 1], {effect}",
        f"write 1 where it happened and 0 where not{remedy}",
        value,
    )


def list_of_items(column: str, items: str, marks: str | None) -> Check:
    """Returns the check that `column` holds the items of a slate, with the SQL of their `marks` if they have any."""
    broken = f"{items} IS NULL OR list_count({items}) < len({items})"
    if marks is None:
        return wrong_type(column, broken, "a list of items", "a list such as [11, 12] or 11 12", items)
    broken += f" OR list_count({marks}) < len({marks})"
    return wrong_type(column, broken, "a list of marked items", "a list such as N11-1 N12-0", items)


def as_long_as(column: str, values: str, items: str, of: str) -> Check:
    """Returns the check that the list `values` (SQL) of `column` has a value for each of the slate's `items`."""
    return Check(
        "wrong_length",
        column,
        f"len({items}) <> coalesce(len({values}), 0)",
        f"has {{value}} entries, not as many as {of}",
        "give every item its value, or leave the row out",
        f"coalesce(len({values}), 0)",
    )


def unknown_item(column: str, chosen: str, items: str, of: str) -> Check:
    """Returns the check that what was `chosen` (SQL) is among the slate's `items`."""
    return Check(
        "unknown_item",
        column,
        f"NOT list_has_all({items}, {chosen})",
        f"names {{value}}, which {of} does not show",
        "correct the list, or leave the row out",
        f"list_filter({chosen}, lambda t: NOT list_contains({items}, t))[1]",
    )


def probability(column: str) -> Check:
    """Returns the check that a probability is above 0 and at most 1."""
    needed = "a probability above 0 and at most 1"
    return wrong_type(column, f"{column} <= 0 OR {column} > 1", needed, needed, column)


def known_split() -> Check:
    """Returns the check that a split has one of the three names."""
    splits = "train, validation or test"
    broken = "split NOT IN ('train', 'validation', 'test')"
    return wrong_type("split", broken, splits, splits, "split")


def reward_is(expected: str, parts: str, remedy: str) -> Check:
    """Returns the check that the column `reward` is the SQL `expected`, where that is not NULL."""
    return Check(
        "reward_contradicts_components",
        "reward",
        f"isfinite(reward) AND abs(reward - {expected}) > {REWARD_TOLERANCE} * (1 + abs(reward))",
        f"is {{value}}, {parts}",
        remedy,
        f"printf('%.6g, not %.6g', reward::DOUBLE, ({expected})::DOUBLE)",
    )
