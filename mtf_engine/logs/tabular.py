"""A log of requests with their impressions, two files of CSV or Parquet: actions, bounds and feedback.

The files have the columns of `mtf_engine.logs.schema`. Needed are request_id, session_id, user_id, step and
timestamp of each request; request_id, predictions and feedback signals of each impression. All else is
optional: without `action` it is a log without actions; without `observation`, the log itself makes them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.columns import left_out, usual_length, whole_or_text
from mtf_engine.logs.files import connect, fetch
from mtf_engine.logs.like import Encoded, Like, encode, fused
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.schema import ACTION_COLUMNS, REQUEST_COLUMNS, DatasetMeta
from mtf_engine.logs.sessions import (
    Arrays,
    ImportedLog,
    batches,
    changes,
    drawn_uniformly,
    encoder_meta,
    observe_log,
    within,
    without_actions,
)
from mtf_engine.logs.splits import UNASKED, Splitting, split_log
from mtf_engine.logs.tables import Checked, check_tables
from mtf_engine.logs.validation import BadRows

LISTS = (*ACTION_COLUMNS, "observation")

ACTIONS = ("action", "baseline_action", "lower", "upper")
MOST_IDS = 10**18
"""Larger ids are numbered anew: several logs of them could not be numbered on."""

ORDER = """
    CREATE TABLE places AS
    SELECT row, request_id, user_id,
        row_number() OVER (ORDER BY user_id, timestamp, session_id, step) - 1 AS place,
        row_number() OVER (PARTITION BY session_id ORDER BY step DESC) = 1 AS is_last
    FROM requests
"""
"""The place of each request by user and time, and whether it is the last of its session."""
FILLED = """
    coalesce(segment, 'all') AS segment, step::INTEGER AS step, coalesce(clipped, 0)::INTEGER AS clipped,
    coalesce(truncated, false) AS truncated,
    coalesce(terminal, is_last AND NOT coalesce(truncated, false)) AS terminal
"""
"""Columns of the requests with what stands where the log has nothing."""


def read_tabular(
    requests: Path,
    impressions: Path,
    mapping: Mapping,
    name: str,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
) -> ImportedLog:
    """Returns the log of the two files; a Refusal lists everything that is wrong with both."""
    with connect() as con:
        log = check_tables(con, requests, impressions, mapping, bad_rows)
        asked, shown = _fetch(con, log)
    n, explored = len(asked["user_id"]), "action" in asked
    first = np.searchsorted(shown["request_id"], np.arange(n + 1))
    filled = [*_fill(asked, shown, explored, splitting), *_believed(asked, mapping)]
    n_actions = asked["action"].shape[1] if explored else None
    fusion, shown["predictions"], told = fused(like, mapping, log.feedback, shown["predictions"], n_actions)
    warnings = [*filled, *log.requests.warnings(), *log.impressions.warnings(), *told]
    if not explored:
        asked |= without_actions(n, fusion.n_actions)
    seen, observe, encoded = _observations(log, asked, shown, first, mapping, like)
    warnings += encoded.warnings if encoded else ()
    meta = DatasetMeta(
        name=name,
        source=log.requests.raw.kind,
        fusion=fusion,
        reward=log.feedback.reward,
        signals=log.feedback.signals,
        exploration=(mapping.exploration or "uniform") if explored else None,
        mixture=mapping.mixture if explored else None,
        details={
            "warnings": warnings,
            **left_out(log.requests, log.impressions),
            **(like.told(encoded) if like else {}),
        },
        **seen,
    )
    kept = {column: asked[column] for column in REQUEST_COLUMNS if column != "observation"}
    return ImportedLog(meta, batches(kept, shown, first, observe, np.arange(n)), tuple(warnings))


def _fetch(con: duckdb.DuckDBPyConnection, log: Checked) -> tuple[Arrays, Arrays]:
    """Returns requests by user and time, and impressions by request, whose request_id counts from 0."""
    con.execute(ORDER)
    lists = [name for name in LISTS if name in log.requests.names]
    sized = [f"{name}::FLOAT[{usual_length(con, 'requests', name)}] AS {name}" for name in lists]
    ids = [whole_or_text(con, "requests", name) for name in ("request_id", "session_id")]
    asked = fetch(
        con,
        f"SELECT r.* EXCLUDE (row) REPLACE ({', '.join((FILLED, *sized, *ids))}) "
        "FROM requests r JOIN (SELECT row, place, is_last FROM places) USING (row) ORDER BY place",
    )
    order = "position, row" if "position" in log.impressions.names else "row"
    shown = fetch(
        con,
        "SELECT place AS request_id, user_id, i.* EXCLUDE (key, nth) FROM places JOIN ("
        f"SELECT request_id AS key, row_number() OVER (ORDER BY {order}) AS nth, "
        f"{log.feedback.select(con, log.impressions)} FROM impressions"
        ") i ON request_id = key ORDER BY place, nth",
    )
    return asked, shown


def _fill(asked: Arrays, shown: Arrays, explored: bool, splitting: Splitting) -> list[str]:
    """Returns what a user should know; makes ids integers and fills in what the log does not say."""
    warnings = []
    request, user_id = shown["request_id"], asked["user_id"]
    ids = asked["request_id"]
    if not _countable(ids) or not ((np.diff(ids) > 0) | changes(user_id)[1:]).all():
        warnings.append("requests are numbered anew, by user and time: their ids are no growing integers")
        ids = np.arange(len(user_id))
    asked["request_id"], shown["request_id"] = ids, ids[request]
    if not _countable(asked["session_id"]):
        asked["session_id"] = pd.factorize(asked["session_id"])[0]
    shown.setdefault("position", within(request))
    asked["reward"] = np.bincount(request, shown["reward"], minlength=len(user_id))
    if splitting.kind or pd.isna(asked["split"]).all():
        asked["split"], how = split_log(user_id, asked["timestamp"], explored, splitting)
        warnings.append(how)
    return warnings


def _believed(asked: Arrays, mapping: Mapping) -> list[str]:
    """Returns a sentence where the mapping alone says that actions are uniform in their bounds; fills in `pscore`."""
    if "action" not in asked:
        return mapping.without_actions()
    if mapping.exploration != "uniform" or not np.isnan(asked["pscore"]).all():
        return []
    asked["pscore"], told = drawn_uniformly(*(asked[name] for name in ACTIONS))
    return [told]


def _countable(ids: NDArray) -> bool:
    """Returns whether `ids` are integers from 0 on that a joined log can go on counting from."""
    return ids.dtype != object and 0 <= ids.min() <= ids.max() < MOST_IDS


def _observations(
    log: Checked,
    asked: Arrays,
    shown: Arrays,
    first: NDArray[np.int64],
    mapping: Mapping,
    like: Like | None,
) -> tuple[dict[str, Any], Callable[[NDArray[np.int64]], NDArray[np.float32]], Encoded | None]:
    """Returns what the meta data says of observations, what makes those of some requests, and their encoder."""
    if "observation" in asked:
        width = asked["observation"].shape[1]
        names = mapping.features or tuple(f"feature_{i}" for i in range(width))
        mask = tuple(name not in mapping.binary_features for name in names)
        if like:
            names, mask = like.features(width, mapping.features)
        return {"feature_names": names, "numeric_mask": mask}, asked["observation"].__getitem__, None
    profiles = pd.DataFrame(
        {name: asked[name] for name in mapping.profile.names if name in asked}, index=range(len(first) - 1)
    )
    encoded = encode(like, profiles, asked["split"], log.feedback.signals, mapping.profile)
    observe = observe_log(encoded.encoder, encoded.profiles, asked, shown, first)
    return encoder_meta(encoded.encoder), observe, encoded
