"""A table of transitions, CSV, JSON lines or Parquet: a row a step, with its observation, action, reward and end.

Needed are `observation`, `action` and `reward`, and what tells where sessions end: `session_id`, `terminal` or
`truncated`. Names that other libraries use are known. Without `session_id` a session goes on from row to row until it
ends, or until `next_observation` is not what the next row observed. `next_observation`, or a last row without an
action, says where a session led that was cut off.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.columns import Columns, refuse_unread, usual_length
from mtf_engine.logs.files import RawTable, connect, fetch, load
from mtf_engine.logs.mapping import Mapping, bad_mapping
from mtf_engine.logs.schema import Exploration, Kind
from mtf_engine.logs.sessions import Arrays, ImportedLog, changes
from mtf_engine.logs.steps import BOX, Kept, Steps, as_log
from mtf_engine.logs.typed import Need, list_sources
from mtf_engine.logs.validation import BadRows, Check, known_split, list_length
from mtf_engine.spec import FusionSpec, Refusal

ALIASES = {
    "observation": ("obs", "observations", "state", "states"),
    "action": ("actions", "act"),
    "reward": ("rewards",),
    "terminal": ("terminals", "terminated", "terminations", "done", "dones"),
    "truncated": ("timeout", "timeouts", "truncations"),
    "next_observation": ("next_obs", "next_observations", "next_state", "next_states"),
    "session_id": ("episode_id", "episode", "trajectory_id", "trajectory"),
}
"""What others call our columns."""
LISTS: dict[str, Need] = {
    "observation": "value", "action": "optional", "next_observation": "optional", "baseline_action": "optional",
    "lower": "optional", "upper": "optional",
}  # fmt: skip
SCALARS: dict[str, Kind] = {
    "reward": "real", "terminal": "flag", "truncated": "flag", "session_id": "text", "user_id": "text",
    "step": "integer", "timestamp": "time", "split": "text", "segment": "text", "pscore": "real", "clipped": "integer",
}  # fmt: skip
KEYS = ("session_id", "user_id")
"""Not blank in any row, where the file has them."""
NEEDED = ("observation", "action", "reward")
ENDS = ("session_id", "terminal", "truncated", "next_observation")
READ = (
    "requests", "columns", "fill", "categories", "features", "binary_features", "fusion: dimensions", "exploration",
    "mixture",
)  # fmt: skip
"""What a mapping says of transitions; with dimensions also FUSED, with a timestamp TIMES."""
FUSED, TIMES = ("predictions", "fusion: on_unit"), ("time_unit", "time_format")
SAME = 1e-5
"""By which an observation may differ from the one that the row before says it led to."""
KNOWN = (
    "user_id", "segment", "split", "step", "timestamp", "pscore", "clipped", "baseline_action", "lower", "upper",
)  # fmt: skip
"""Columns that are kept as the file has them."""


def are_transitions(columns: Iterable[str]) -> bool:
    """Returns whether a table has all that transitions need, and nothing that is predicted."""
    names = dict.fromkeys(columns, "")
    found = all(_sources(names, name) for name in NEEDED)
    return found and not any(name.startswith("prediction") for name in names)


def read_transitions(path: Path, mapping: Mapping, name: str, bad_rows: BadRows = "refuse") -> ImportedLog:
    """Returns the log in the file; a Refusal lists everything that is wrong with it."""
    if bad_rows == "drop":
        raise Refusal("steps follow each other, so no row of transitions can be left out; correct those rows")
    with connect() as con:
        columns = _typed(con, path, mapping)
        rows = _fetch(con, columns)
    steps = _steps(rows, columns)
    drawn = "pscore" in steps.known
    explored: Exploration = "uniform" if drawn and set(BOX) <= set(steps.known) else "unknown"
    kept = Kept(
        fusion=_fusion(mapping, steps.action.shape[1]),
        features=mapping.features,
        binary_features=mapping.binary_features,
        exploration=mapping.exploration or explored,
        mixture=mapping.mixture,
        on_unit=mapping.fusion.on_unit,
    )
    believed = mapping.exploration == "uniform" and not drawn
    return as_log(steps, name, "transitions", kept, tuple(columns.warnings()), believed)


def _refuse_unread(mapping: Mapping, columns: Columns) -> None:
    """Raises a Refusal where the mapping says what is not read of this file."""
    fused = dict.fromkeys(FUSED, mapping.fusion.dimensions)
    beside = fused | dict.fromkeys(TIMES, "timestamp" in columns.names)
    read = {*READ, *(name for name, holds in beside.items() if holds)}
    mapping.refuse_said(mapping.said - read, "transitions")
    if unknown := sorted(set(mapping.requests) - {*LISTS, *SCALARS}):
        raise bad_mapping(
            f"requests: names {', '.join(unknown)}, and the columns of transitions are {', '.join((*LISTS, *SCALARS))}"
        )
    refuse_unread(mapping, columns)


def _fusion(mapping: Mapping, n_actions: int) -> FusionSpec | None:
    """Returns the ranges of the actions that the mapping states; None where it states none."""
    if not mapping.fusion.dimensions:
        return None
    named = tuple(dict.fromkeys(d.prediction for d in mapping.fusion.dimensions))
    return mapping.fusion_of(mapping.predictions or named, n_actions)


def _sources(types: dict[str, str], name: str) -> str | tuple[str, ...] | None:
    """Returns what the file calls a column: our name or one that others use; None where it is not there."""
    for alias in (name, *ALIASES.get(name, ())):
        if name in LISTS and (sources := list_sources(types, alias)):
            return sources
        if name not in LISTS and alias in types:
            return alias
    return None


def _typed(con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping) -> Columns:
    """Returns the columns of the file, typed and checked in the table `requests`."""
    raw = load(con, path, "raw_requests", columns=mapping.columns)
    if not isinstance(raw, RawTable):
        raise Refusal.of(raw)
    found = {name: sources for name in (*LISTS, *SCALARS) if (sources := _sources(raw.types, name))}
    columns = Columns(raw, found | mapping.requests, "requests", mapping)
    for name in NEEDED:
        columns.require(name, "list" if name in LISTS else "real", LISTS.get(name, "optional"))
    for name, need in LISTS.items():
        if name not in NEEDED:
            columns.add(name, "list", need)
    for name, kind in SCALARS.items():
        if name not in NEEDED:
            columns.add(name, kind, "key" if name in KEYS else "optional")
    if not set(ENDS) & columns.names:
        columns.require("terminal", "flag")
    defects = columns.create(con, "requests", {"reward": "real"})
    if not defects:
        defects = columns.check(con, "requests", _checks(con, columns))
    if defects:
        raise Refusal.of(defects)
    _refuse_unread(mapping, columns)
    return columns


def _checks(con: duckdb.DuckDBPyConnection, columns: Columns) -> list[Check]:
    """Returns what must hold of each row; one without an action needs no reward."""
    lists = [name for name in LISTS if name in columns.names]
    same = dict.fromkeys(("baseline_action", "lower", "upper"), "action") | {
        "next_observation": "observation"
    }
    checks = [list_length(name, _length(con, same.get(name, name))) for name in lists]
    gaps = "list_count({0}) NOT IN (0, len({0}))"
    checks += [
        Check("nan_or_inf", name, gaps.format(name), "has a blank: {value}", "fill it in", f"{name}::VARCHAR")
        for name in lists
    ]
    checks.append(
        Check(
            "nan_or_inf", "reward", "list_count(action) > 0 AND NOT coalesce(isfinite(reward), false)",
            "is {value}, and its row has an action", "write a finite number",
        )
    )  # fmt: skip
    return [*checks, *([known_split()] if "split" in columns.names else [])]


def _length(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Returns how many entries most rows of a list have, at least one."""
    return usual_length(con, "requests", name) or 1


def _fetch(con: duckdb.DuckDBPyConnection, columns: Columns) -> Arrays:
    """Returns the rows of the file: by session and step where it has them, else as they come."""
    sized = []
    for name in LISTS:
        if name in columns.names:
            length = _length(con, name)
            blank = f"[{', '.join(['NULL'] * length)}]"
            sized.append(f"coalesce({name}, {blank})::FLOAT[{length}] AS {name}")
    order = "row"
    if "session_id" in columns.names:
        order = f"min(row) OVER (PARTITION BY session_id), {'step, ' if 'step' in columns.names else ''}row"
    return fetch(con, f"SELECT * REPLACE ({', '.join(sized)}) FROM requests ORDER BY {order}")


def _steps(rows: Arrays, columns: Columns) -> Steps:
    """Returns the rows as steps, with where cut sessions led behind them; as the file has them."""
    n, action = len(rows["row"]), rows["action"].astype(np.float64)
    acted = np.asarray(~np.isnan(action).any(axis=1))
    terminal, truncated = _flags(rows, "terminal", n), _flags(rows, "truncated", n)
    if "session_id" in rows:
        session = pd.factorize(rows["session_id"])[0]
    else:
        leads_on = _leads_on(rows) & ~(terminal | truncated)[:-1]
        session = np.cumsum(np.append(True, ~leads_on & acted[1:]))
    last = np.append(changes(session)[1:], True)
    closing = last | np.append(~last[:-1] & ~acted[1:], False)
    known: dict[str, Any] = {
        name: rows[name] for name in KNOWN if name in rows and not pd.isna(rows[name]).all()
    }
    for name, filling in (("segment", "all"), ("clipped", 0)):
        if name in known:
            known[name] = np.where(pd.isna(known[name]), filling, known[name])
    found = Steps(
        columns.raw.file,
        session,
        rows["observation"],
        action,
        rows["reward"],
        terminal,
        (truncated | closing) & acted & ~terminal,
        known,
        row=rows["row"],
        called={name: columns.source(name) for name in columns.names},
    )
    return _followed(found, rows.get("next_observation"), last & acted & ~terminal)


def _leads_on(rows: Arrays) -> NDArray[np.bool_]:
    """Returns whether each row but the last led to the next one, [n - 1], as far as the file tells."""
    if "next_observation" not in rows:
        return np.ones(len(rows["row"]) - 1, bool)
    after, following = rows["next_observation"][:-1], rows["observation"][1:]
    return (np.isclose(after, following, rtol=SAME, atol=SAME) | np.isnan(after)).all(axis=1)


def _flags(rows: Arrays, name: str, n: int) -> NDArray[np.bool_]:
    return pd.Series(rows[name]).eq(True).to_numpy() if name in rows else np.zeros(n, bool)


def _followed(steps: Steps, after: NDArray[np.float32] | None, cut: NDArray[np.bool_]) -> Steps:
    """Returns the steps with a row behind each that is `cut` [n], of what it led to where `after` [n, f] tells."""
    if after is None:
        return steps
    cut = cut & ~np.isnan(after).any(axis=1)
    n = len(cut)
    place = np.argsort(np.concatenate([np.arange(n), np.flatnonzero(cut)]), kind="stable")

    def behind(values: NDArray, more: NDArray) -> NDArray:
        return np.concatenate([values, more])[place]

    nothing = np.full((int(cut.sum()), steps.action.shape[1]), np.nan)
    no = np.zeros(len(nothing), bool)
    known = {name: behind(values, values[cut]) for name, values in steps.known.items()}
    if "pscore" in known:
        known["pscore"] = behind(steps.known["pscore"], np.full(len(nothing), np.nan))
    if "step" in known:
        known["step"] = behind(steps.known["step"], steps.known["step"][cut] + 1)
    assert steps.row is not None
    return replace(
        steps,
        row=behind(steps.row, steps.row[cut]),
        session=behind(steps.session, steps.session[cut]),
        observation=behind(steps.observation, after[cut]),
        action=behind(steps.action, nothing),
        reward=behind(steps.reward, np.zeros(len(nothing))),
        terminal=behind(steps.terminal, no),
        truncated=behind(steps.truncated, no),
        known=known,
    )
