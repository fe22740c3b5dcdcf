"""Several logs as one: every row keeps the baseline action and the bounds of its own log."""

from collections.abc import Iterator, Sequence

import numpy as np

from mtf_engine.logs.datasets import TABLES, Dataset
from mtf_engine.logs.schema import Columns, DatasetMeta, Tables
from mtf_engine.spec import Refusal

CHUNK = 50_000
"""Requests read at once."""
SAME = ("fusion", "reward", "signals", "feature_names", "numeric_mask", "item_features", "encoder")
"""What must be alike in logs that are joined."""


def joined_meta(name: str, dataset_ids: Sequence[str], metas: Sequence[DatasetMeta]) -> DatasetMeta:
    """Returns the meta data of the joined logs: that of the last, whose baseline a training starts from.

    Logs that differ in what their columns mean are refused, and those of which some alone have actions.
    """
    last = metas[-1]
    for meta in metas:
        different = next((what for what in SAME if getattr(meta, what) != getattr(last, what)), None)
        if different:
            raise Refusal(
                f"{meta.name} and {last.name} differ in their {different}; join logs of one environment"
            )
    acting, without = ([m.name for m in metas if (m.exploration is None) == none] for none in (False, True))
    if acting and without:
        raise Refusal(f"{acting[0]} has actions and {without[0]} has none; join logs that are alike in this")
    own = {
        "name": name,
        "synthetic": any(meta.synthetic for meta in metas),
        "passes": max(meta.passes for meta in metas),
        "details": {**last.details, "joins": list(dataset_ids)},
    }
    return last.model_copy(update=own)


def joined(logs: Sequence[Dataset]) -> Iterator[Tables]:
    """Yields the rows of the logs, oldest first; requests and sessions are numbered on from log to log.

    What not every log tells of its impressions, such as propensities of items, is left out.
    """
    requests = sessions = 0
    shared = set.intersection(*(set(log.arrays("SELECT * FROM impressions LIMIT 0")) for log in logs))
    for log in logs:
        ends = log.arrays("SELECT max(request_id) AS request, max(session_id) AS session FROM requests")
        n = int(ends["request"][0]) + 1
        for start in range(0, n, CHUNK):
            read = [table_rows(log, table, start) for table in TABLES]
            request_rows, impressions, candidates = (_renumbered(rows, requests, sessions) for rows in read)
            if request_rows and impressions:
                told = {name: values for name, values in impressions.items() if name in shared}
                yield Tables(request_rows, told, candidates)
        requests += n
        sessions += int(ends["session"][0]) + 1


def table_rows(log: Dataset, table: str, start: int) -> Columns | None:
    """Returns the rows of `CHUNK` requests from `start` on; None where the log has no such table, or no request."""
    if table not in log.tables:
        return None
    rows = log.arrays(
        f"SELECT * FROM {table} WHERE request_id >= ? AND request_id < ?", [start, start + CHUNK]
    )
    return rows if len(rows["request_id"]) or table == "impressions" else None


def _renumbered(rows: Columns | None, requests: int, sessions: int) -> Columns | None:
    if rows is None:
        return None
    moved = {"request_id": rows["request_id"] + np.int64(requests)}
    if "session_id" in rows:
        moved["session_id"] = rows["session_id"] + np.int64(sessions)
    return {**rows, **moved}
