"""A log of impressions alone: predictions and feedback of what users were shown, no actions.

Needed are user_id, timestamp, predictions and feedback signals; request_id, session_id, item_id and position
are used where they are there. A request is of one session, and sessions of a user, say of two devices, may go on
at the same time. Without ids, impressions of a user at one time are a request, and 30 minutes of silence end a
session.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.columns import Columns, Feedback, left_out, refuse_unread
from mtf_engine.logs.files import SLATE, RawTable, connect, fetch, quoted
from mtf_engine.logs.like import Like, encode, fused
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.schema import IMPRESSION_COLUMNS, DatasetMeta, Kind
from mtf_engine.logs.sessions import (
    Arrays,
    Cut,
    ImportedLog,
    batches,
    changes,
    encoder_meta,
    observe_log,
    within,
    without_actions,
)
from mtf_engine.logs.slates import load_impressions
from mtf_engine.logs.splits import UNASKED, WARM_UP, Splitting, split_log
from mtf_engine.logs.suspicions import suspicions
from mtf_engine.logs.validation import BadRows, duplicate, known_split, numbered
from mtf_engine.spec import Refusal

SILENCE = np.timedelta64(30, "m")
"""A session ends when a user is not seen for longer."""

OPTIONAL: dict[str, Kind] = {"split": "text", "segment": "text"}


def read_impressions(
    path: Path,
    mapping: Mapping,
    name: str,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
) -> ImportedLog:
    """Returns the log in the file; a Refusal lists everything that is wrong with it."""
    rows, feedback, columns = _read(path, mapping, bad_rows)
    warnings, cut = [*columns.warnings(), *mapping.without_actions()], _cut(rows)
    opening, n = cut.first[:-1], len(cut.step)
    split = rows["split"][opening]
    if splitting.kind or pd.isna(split).all():
        split, how = split_log(rows["user_id"][opening], rows["request_time"][opening], False, splitting)
        warnings.append(how)
    predicted = None
    if mapping.predict:
        from mtf_engine.logs.predicted import predict_log  # loads torch, which other logs do not need

        predicted = predict_log(rows, cut, split, mapping.predict, like)
        split, rows["predictions"] = predicted.split, predicted.values
        feedback = replace(feedback, predictions=predicted.heads)
        warnings += predicted.warnings
    fusion, rows["predictions"], told = fused(like, mapping, feedback, rows["predictions"], None)
    warnings += told
    requests, impressions = _columns(rows, cut, split, feedback.signals, fusion.n_actions)
    profiles = pd.DataFrame(
        {column: rows[column][opening] for column in mapping.profile.names if column in rows}, index=range(n)
    )
    encoded = encode(like, profiles, split, feedback.signals, mapping.profile)
    warnings += encoded.warnings
    observe = observe_log(encoded.encoder, encoded.profiles, requests, impressions, cut.first)
    meta = DatasetMeta(
        name=name,
        source="impressions",
        fusion=fusion,
        reward=feedback.reward,
        signals=feedback.signals,
        details={
            "warnings": warnings,
            **left_out(columns),
            **(like.told(encoded) if like else {}),
            **(predicted.details if predicted else {}),
        },
        **encoder_meta(encoded.encoder),
        **(predicted.meta if predicted else {}),
    )
    tables = batches(requests, impressions, cut.first, observe, np.flatnonzero(split != WARM_UP))
    return ImportedLog(meta, tables, tuple(warnings), predicted.model if predicted else None)


def _columns(
    rows: Arrays, cut: Cut, split: NDArray[np.object_], signals: tuple[str, ...], n_actions: int
) -> tuple[Arrays, Arrays]:
    """Returns the request and impression columns of the dataset, observations aside."""
    opening, n = cut.first[:-1], len(cut.step)
    ends = cut.left == 0
    truncated = ends & _is_open(rows, cut)
    requests = {
        "request_id": np.arange(n),
        "session_id": cut.session,
        "user_id": rows["user_id"][opening],
        "step": cut.step,
        "timestamp": rows["request_time"][opening],
        "split": split,
        "segment": rows["segment"][opening],
        **without_actions(n, n_actions),
        "reward": np.bincount(cut.request, rows["reward"], minlength=n),
        "terminal": ends & ~truncated,
        "truncated": truncated,
    }
    impressions = {
        "request_id": cut.request,
        "position": within(cut.request),
        **{c: rows[c] for c in (*IMPRESSION_COLUMNS, *signals) if c in rows},
    }
    return requests, impressions


def _read(path: Path, mapping: Mapping, bad_rows: BadRows) -> tuple[Arrays, Feedback, Columns]:
    """Returns impressions by user and time, what they hold, and the columns they are read from."""
    with connect() as con:
        raw = load_impressions(con, path, mapping, bad_rows)
        if not isinstance(raw, RawTable):
            raise Refusal.of(raw)
        columns = Columns.impressions(raw, mapping)
        if mapping.slate and "request_id" not in raw.types:
            columns.renames.setdefault("request_id", SLATE)
        columns.require("user_id", "text", "key")
        columns.require("timestamp", "time", "key")
        for name in ("request_id", "session_id", "item_id"):
            columns.add(name, "text", "key")
        columns.add("position", "integer", "key")
        columns.add("reward", "real")
        for name in OPTIONAL:
            columns.add(name, "text", "optional")
        columns.add_profile(mapping)
        columns.add_features(mapping)
        feedback = Feedback.find(columns, mapping)
        defects = columns.create(con, "impressions", OPTIONAL)
        checks = [*feedback.checks(con, columns), known_split()]
        defects += columns.check(con, "impressions", checks)
        has = columns.names
        if {"user_id", "request_id", "position"} <= has:
            keys = [name for name in ("user_id", "session_id", "request_id", "position") if name in has]
            repeated = duplicate("position", "within its request the position")
            defects += columns.check(con, numbered("impressions", *keys), [repeated])
        if defects:
            raise Refusal.of(defects)
        refuse_unread(mapping, columns)
        columns.told += suspicions(con, columns, feedback)
        key = "request_id" if "request_id" in has else "timestamp"
        request = f"session_id, {key}" if "session_id" in has else key
        place = "position, row" if "position" in has else "row"
        named = (*mapping.profile.names, *(mapping.predict.names if mapping.predict else ()))
        kept = dict.fromkeys(name for name in ("session_id", *named) if name in has)
        rows = fetch(
            con,
            "SELECT user_id, timestamp, "
            f"min(timestamp) OVER (PARTITION BY user_id, {request}) AS request_time, "
            f"{key} AS request_key, split, coalesce(segment, 'all') AS segment, "
            f"{''.join(f'{quoted(name)}, ' for name in kept)}{feedback.select(con, columns)} "
            f"FROM impressions ORDER BY user_id, request_time, {request}, {place}",
        )
    return rows, feedback, columns


def _cut(rows: Arrays) -> Cut:
    """Returns the requests and sessions of impressions by user and time."""
    user = pd.factorize(rows["user_id"])[0]
    request = pd.factorize(rows["request_key"])[0]
    if "session_id" in rows:
        named = pd.factorize(rows["session_id"])[0]
        session = pd.factorize(user * (named.max(initial=0) + 1) + named)[0]
        return Cut(user, changes(session, request), session)
    opens_request = changes(user, request)
    silence = np.diff(rows["timestamp"], prepend=rows["timestamp"][:1])
    return Cut(user, opens_request, np.cumsum(changes(user) | (opens_request & (silence > SILENCE))))


def _is_open(rows: Arrays, cut: Cut) -> NDArray[np.bool_]:
    """Returns whether a request [r] ends so near the end of the log that its session may go on."""
    last = rows["timestamp"][cut.first[1:] - 1]
    return rows["timestamp"].max() - last <= SILENCE
