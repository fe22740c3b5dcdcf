"""The two files of a log of requests and impressions as checked DuckDB tables."""

from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from mtf_engine.logs.columns import Columns, Feedback, refuse_unread, usual_length
from mtf_engine.logs.files import RawTable, load
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.schema import ACTION_COLUMNS, REQUEST_FILE, Kind
from mtf_engine.logs.slates import load_impressions
from mtf_engine.logs.suspicions import suspicions
from mtf_engine.logs.validation import (
    BadRows,
    Check,
    action_in_bounds,
    action_in_range,
    cut_action_to_bounds,
    cut_action_to_range,
    duplicate,
    known_split,
    list_length,
    reward_is,
    session_order,
    unknown_request,
)
from mtf_engine.spec import Defect, Refusal

IDS = ("request_id", "session_id")
"""Those of KEYS that stay whole numbers where the file has such."""
KEYS = {column.name: column.kind for column in REQUEST_FILE if column.need == "needed"}
TABLES = ("requests", "impressions")
OPTIONAL: dict[str, Kind] = {
    column.name: column.kind for column in REQUEST_FILE if column.need == "optional" and column.kind != "list"
}
"""Columns of the requests that are NULL where a log has none."""

SESSIONS = """(
    SELECT *, row_number() OVER w = 1 AS is_first, lead(row) OVER w IS NULL AS is_last,
           lag(user_id) OVER w AS previous_user_id, lag(step) OVER w AS previous_step,
           lag(timestamp) OVER w AS previous_timestamp
    FROM (
        SELECT row, request_id, session_id, user_id, step, timestamp, terminal,
               count(*) FILTER (step IS NULL) OVER (PARTITION BY session_id) > 0 AS is_unreadable
        FROM requests WHERE session_id IS NOT NULL
        QUALIFY request_id IS NULL OR row_number() OVER (PARTITION BY request_id ORDER BY row) = 1
    ) WHERE NOT is_unreadable
    WINDOW w AS (PARTITION BY session_id ORDER BY step, row)
)"""
"""Requests with the one before in their session; none repeated, no session with an unreadable step."""


@dataclass(frozen=True)
class Checked:
    """A log that passed validation: the tables `requests` and `impressions` have its columns."""

    requests: Columns
    impressions: Columns
    feedback: Feedback


def check_tables(
    con: duckdb.DuckDBPyConnection, requests: Path, impressions: Path, mapping: Mapping, bad_rows: BadRows
) -> Checked:
    """Returns the typed log in `con`; a Refusal with every defect of either file and between the two."""
    defects: list[Defect] = []
    asked = shown = feedback = None
    raw = load(con, requests, "raw_requests", bad_rows)
    if isinstance(raw, RawTable):
        asked = _requests(con, Columns.requests(raw, mapping), mapping, defects)
        asked.raw.drop(con)
    else:
        defects += raw
    raw = load_impressions(con, impressions, mapping, bad_rows)
    if isinstance(raw, RawTable):
        shown = Columns.impressions(raw, mapping)
        feedback = _impressions(con, shown, mapping, defects)
        shown.raw.drop(con)
    else:
        defects += raw
    if asked and shown and feedback and "request_id" in asked.names & shown.names:
        _compare_as_texts(con)
        defects += _between(con, asked, shown, feedback)
    if defects:
        raise Refusal.of(defects)
    assert asked and shown and feedback
    refuse_unread(mapping, asked, shown)
    shown.told += suspicions(con, shown, feedback)
    return Checked(asked, shown, feedback)


def _compare_as_texts(con: duckdb.DuckDBPyConnection) -> None:
    """Makes the ids of requests texts wherever they are, unless they are whole numbers in both tables."""
    named = "SELECT table_name, data_type FROM duckdb_columns() WHERE column_name = 'request_id' AND table_name IN "
    kinds = dict(
        con.execute(f"{named} ?", [[*TABLES, *(f"left_out_{table}" for table in TABLES)]]).fetchall()
    )
    if len(set(kinds.values())) > 1:
        for table in kinds:
            con.execute(f"ALTER TABLE {table} ALTER request_id TYPE VARCHAR")


def _requests(
    con: duckdb.DuckDBPyConnection, columns: Columns, mapping: Mapping, defects: list[Defect]
) -> Columns:
    """Returns the columns of the requests; creates their table and adds to `defects`."""
    _require_keys(columns)
    for name, kind in OPTIONAL.items():
        columns.add(name, kind, "optional")
    if columns.add("action", "list"):
        for name in ACTION_COLUMNS:
            if name != "action":
                columns.require(name, "list")
    if not columns.add("observation", "list"):
        columns.add_profile(mapping)
    keys = [name for name in ("request_id",) if name in columns.names]
    defects += columns.create(con, "requests", OPTIONAL, keys)
    defects += columns.check(con, "requests", _request_checks(con, columns, mapping))
    if keys:
        defects += columns.check_keys(con, keys, duplicate("request_id", "the request"))
    if columns.left_out and set(KEYS) <= columns.names:
        n_cut = _cut_sessions(con, unknown="unreadable_file" in columns.left_out)
        columns.leave_out({"session_order_broken": n_cut} if n_cut else {})
    if set(KEYS) <= columns.names:
        defects += columns.check(con, SESSIONS, session_order())
    return columns


def _require_keys(columns: Columns) -> None:
    for name, kind in KEYS.items():
        if name in IDS:
            columns.require_id(name)
        else:
            columns.require(name, kind, "key")


def _cut_sessions(con: duckdb.DuckDBPyConnection, unknown: bool) -> int:
    """Cuts sessions where a request is left out; returns how many requests after it go with it.

    What remains is truncated: it went on, and nobody knows how. `unknown`, requests of any session are left out.
    """
    lost = (
        "SELECT session_id FROM left_out_requests l WHERE NOT EXISTS ("
        "FROM requests r WHERE r.session_id = l.session_id AND r.step = l.step)"
    )
    con.execute(f"CREATE TABLE lost AS {lost}{' UNION ALL SELECT NULL' if unknown else ''}")
    places = "row_number() OVER (PARTITION BY session_id ORDER BY step, row) - 1 AS place"
    con.execute(
        "CREATE TABLE cut AS FROM (SELECT *, bool_or(step <> place) OVER "
        "(PARTITION BY session_id ORDER BY step, row) AS is_behind "
        f"FROM (SELECT row, step, session_id, {places} FROM requests)) WHERE is_behind "
        "AND (session_id IN (SELECT session_id FROM lost) OR EXISTS (FROM lost WHERE session_id IS NULL))"
    )
    con.execute("DELETE FROM requests WHERE row IN (SELECT row FROM cut)")
    con.execute(
        "UPDATE requests SET truncated = true WHERE NOT coalesce(terminal, false) AND row IN ("
        "SELECT arg_max(row, step) FROM requests WHERE session_id IN (SELECT session_id FROM lost UNION ALL "
        "SELECT session_id FROM cut) GROUP BY session_id)"
    )
    return int(con.execute("SELECT count(*) FROM cut").fetchall()[0][0])


def _request_checks(con: duckdb.DuckDBPyConnection, columns: Columns, mapping: Mapping) -> list[Check]:
    """Returns what must hold of each request; cuts its actions to their ranges first."""
    checks = [known_split()]
    if "action" in columns.names:
        length = len(mapping.fusion.dimensions) or usual_length(con, "requests", "action")
        vectors = [name for name in ACTION_COLUMNS if name in columns.names]
        checks += [list_length(name, length) for name in vectors]
        for name in {"action", "baseline_action"} & set(vectors):
            con.execute(cut_action_to_range(name))
        checks += [action_in_range(name) for name in ("action", "baseline_action") if name in vectors]
        if mapping.exploration in (None, "uniform") and len(vectors) == len(ACTION_COLUMNS):
            con.execute(cut_action_to_bounds())
            checks.append(action_in_bounds())
    if "observation" in columns.names:
        length = len(mapping.features) or usual_length(con, "requests", "observation")
        checks.append(list_length("observation", length))
    return checks


def _impressions(
    con: duckdb.DuckDBPyConnection, columns: Columns, mapping: Mapping, defects: list[Defect]
) -> Feedback:
    """Returns what the impressions hold; creates their table and adds to `defects`."""
    columns.require_id("request_id")
    columns.add_id("item_id")
    columns.add("position", "integer", "key")
    columns.add("reward", "real")
    feedback = Feedback.find(columns, mapping)
    keys = ["request_id", "position"] if {"request_id", "position"} <= columns.names else []
    defects += columns.create(con, "impressions", keys=keys)
    if keys:
        repeated = duplicate("position", "within its request the position")
        defects += columns.check_keys(con, keys, repeated)
    defects += columns.check(con, "impressions", feedback.checks(con, columns))
    return feedback


def _between(
    con: duckdb.DuckDBPyConnection, asked: Columns, shown: Columns, feedback: Feedback
) -> list[Defect]:
    """Returns impressions of unknown requests; if there are none, rewards that are not their sum.

    A request one of whose impressions is left out has the reward of the others, whatever it states.
    """
    strays = shown.check(con, "impressions", [unknown_request("requests")])
    blank = con.execute("SELECT count(*) FROM impressions WHERE request_id IS NULL").fetchall()[0][0]
    if strays or blank or not feedback.is_complete or shown.raw.n_rejected:
        return strays
    left_out = "SELECT request_id FROM left_out_impressions"
    whole = f" WHERE request_id NOT IN ({left_out})" if shown.left_out else ""  # of none, if one is blank
    part = f"coalesce(reward, {feedback.reward_sql})" if "reward" in shown.names else feedback.reward_sql
    sums = (
        "SELECT request_id, sum(part) AS total, count(*) = count(part) AS is_sound "
        f"FROM (SELECT request_id, CASE WHEN isfinite({part}) THEN {part} END AS part FROM impressions) GROUP BY ALL"
    )
    relation = (
        "(SELECT row, reward, CASE WHEN coalesce(is_sound, true) THEN coalesce(total, 0) END AS expected "
        f"FROM requests r LEFT JOIN ({sums}) USING (request_id){whole})"
    )
    remedy = "correct the request's reward or those of its impressions"
    of_the_sum = replace(reward_is("expected", "the sum of its impressions", remedy), of_one_row=False)
    return asked.check(con, relation, [of_the_sum])
