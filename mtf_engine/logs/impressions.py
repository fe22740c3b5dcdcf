"""A log of impressions alone: predictions and feedback of what users were shown, no actions.

Needed are user_id, timestamp, predictions and feedback signals; request_id, session_id, item_id and position
are used where they are there. A request is of one session, and sessions of a user, say of two devices, may go on
at the same time. Without ids, impressions of a user at one time are a request, and 30 minutes of silence end a
session.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtf_engine.logs.columns import Columns, Feedback, left_out, refuse_unread
from mtf_engine.logs.files import SLATE, RawTable, connect
from mtf_engine.logs.like import Encoded, Like, encode, fused
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.ordered import SILENCE, Ordered, Part, SplitOf
from mtf_engine.logs.schema import IMPRESSION_COLUMNS, DatasetMeta, Tables
from mtf_engine.logs.sessions import (
    BATCH_REQUESTS,
    ImportedLog,
    batches,
    encoder_meta,
    observe_log,
    steps_of,
    within,
    without_actions,
)
from mtf_engine.logs.slates import load_impressions
from mtf_engine.logs.splits import UNASKED, WARM_UP, Splitting
from mtf_engine.logs.suspicions import suspicions
from mtf_engine.logs.validation import BadRows, duplicate, known_split
from mtf_engine.spec import FusionSpec, Refusal

IDS = ("request_id", "session_id", "item_id")
OPTIONAL = ("split", "segment")


def read_impressions(
    path: Path,
    mapping: Mapping,
    name: str,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
) -> ImportedLog:
    """Returns the log in the file; a Refusal lists everything that is wrong with it.

    Its batches are made as they are asked for, so memory does not grow with the log but by the profiles of its
    requests; a log whose predictions are made here is held whole.
    """
    with ExitStack() as opened:
        con = opened.enter_context(connect())
        feedback, columns = _checked(con, path, mapping, bad_rows)
        log = Ordered.of(con, columns, feedback)
        warnings = [*columns.warnings(), *mapping.without_actions()]
        split_of, how = log.split_of(splitting)
        warnings += how
        parts: Iterable[Part] = log.parts(BATCH_REQUESTS)
        predicted = None
        if mapping.predict:
            from mtf_engine.logs.predicted import predict_log  # loads torch, which other logs do not need

            (whole,) = parts = [*log.parts(log.n + 1, mapping.predict.names)]
            split = split_of(whole.requests)
            predicted = predict_log(whole.rows(), whole.first, split, mapping.predict, like)
            split_of, whole.impressions["predictions"] = (lambda _: predicted.split), predicted.values
            feedback = replace(feedback, predictions=predicted.heads)
            warnings += predicted.warnings
        length = len(predicted.heads) if predicted else columns.length(con, "predictions")
        fuse = partial(fused, like, mapping, feedback, n_actions=None)
        fusion, _, told = fuse(np.empty((0, length), np.float32))
        warnings += told
        encoded = encode(
            like, *log.profiles(mapping.profile.names, split_of), feedback.signals, mapping.profile
        )
        warnings += encoded.warnings
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

        read = partial(_tables, end=log.end, meta=meta, encoded=encoded)
        tables = _batches(opened.pop_all(), parts, fuse, split_of, read)
    return ImportedLog(meta, tables, tuple(warnings), predicted.model if predicted else None)


def _batches(
    opened: ExitStack,
    parts: Iterable[Part],
    fuse: Callable[[NDArray], tuple[FusionSpec, NDArray, tuple[str, ...]]],
    split_of: SplitOf,
    read: Callable[[Part, NDArray[np.object_]], Iterator[Tables]],
) -> Iterator[Tables]:
    """Yields what is `read` of the parts of a log, and closes what is `opened` behind the last one."""
    with opened:
        for part in parts:
            _, part.impressions["predictions"], _ = fuse(part.impressions["predictions"])
            yield from read(part, split_of(part.requests))


def _tables(
    part: Part, split: NDArray[np.object_], end: np.datetime64, meta: DatasetMeta, encoded: Encoded
) -> Iterator[Tables]:
    """Yields the request and impression columns of a part for the dataset, out of a log that ends at `end`."""
    asked, shown = part.requests, part.impressions
    (step, left), n = steps_of(part.session), len(part.user)
    number = part.start + np.arange(n)
    truncated = (left == 0) & (end - asked["last_time"] <= SILENCE)
    requests = {
        "request_id": number,
        "session_id": part.n_sessions + part.session,
        "user_id": asked["user_id"],
        "step": step,
        "timestamp": asked["request_time"],
        "split": split,
        "segment": asked["segment"],
        **without_actions(n, meta.fusion.n_actions),
        "reward": np.bincount(part.request, shown["reward"], minlength=n),
        "terminal": (left == 0) & ~truncated,
        "truncated": truncated,
    }
    impressions = {
        "request_id": part.number,
        "user_id": asked["user_id"].take(pa.array(part.request)),
        "position": within(part.request),
        **{c: shown[c] for c in (*IMPRESSION_COLUMNS, *meta.signals) if c in shown},
    }
    profiles = encoded.profiles.iloc[part.start : part.start + n]
    observe = observe_log(
        encoded.encoder, profiles, {**requests, "user_id": part.user}, impressions, part.first
    )
    yield from batches(requests, impressions, part.first, observe, np.flatnonzero(split != WARM_UP))


def _checked(
    con: duckdb.DuckDBPyConnection, path: Path, mapping: Mapping, bad_rows: BadRows
) -> tuple[Feedback, Columns]:
    """Returns what the log holds and its columns; creates its table `impressions`. A Refusal lists every defect."""
    raw = load_impressions(con, path, mapping, bad_rows)
    if not isinstance(raw, RawTable):
        raise Refusal.of(raw)
    columns = Columns.impressions(raw, mapping)
    if mapping.slate and "request_id" not in raw.types:
        columns.renames.setdefault("request_id", SLATE)
    columns.require("user_id", "text", "key")
    columns.require("timestamp", "time", "key")
    for name in IDS:
        columns.add_id(name)
    columns.add("position", "integer", "key")
    columns.add("reward", "real")
    for name in OPTIONAL:
        columns.add(name, "text", "optional")
    columns.add_profile(mapping)
    columns.add_features(mapping)
    feedback = Feedback.find(columns, mapping)
    has = columns.names
    keys = [name for name in ("user_id", "session_id", "request_id", "position") if name in has]
    keys = keys if {"user_id", "request_id", "position"} <= has else []
    defects = columns.create(con, "impressions", keys=keys)
    columns.raw.drop(con)
    defects += columns.check(
        con, "impressions", [*feedback.checks(con, columns), *([known_split()] if "split" in has else [])]
    )
    if keys:
        repeated = duplicate("position", "within its request the position")
        defects += columns.check_keys(con, keys, repeated)
    if defects:
        raise Refusal.of(defects)
    refuse_unread(mapping, columns)
    columns.told += suspicions(con, columns, feedback)
    return feedback, columns
