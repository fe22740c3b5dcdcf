"""What a log holds: sessions, days, signals, missing values, and how features and predictions are distributed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.distributions import Distribution, Kind, describe
from mtf_engine.logs.files import quoted
from mtf_engine.spec import Spec

SAMPLE_REQUESTS = 50_000
"""Distributions are those of as many users as have about so many requests; all in a log with fewer."""
LONGEST = 50
"""Sessions of this many requests and more are counted together."""
PARTS = 5
"""Steps that a progress counts."""

Progress = Callable[[int, int], None]


class Day(Spec):
    """One calendar day (UTC) of a log."""

    day: str
    requests: int
    users: int


class Signal(Spec):
    """A feedback signal over all impressions."""

    name: str
    mean: float | None = Field(description="rate of a 0/1 signal; seconds of watch_time")
    largest: float | None
    missing: int


class Quality(Spec):
    """What a log holds; counts are of all rows, distributions of a sample of users."""

    n_requests: int
    n_impressions: int
    n_users: int
    n_sessions: int
    without_action: int = Field(description="requests that carry no action")
    unlabelled_split: int = Field(description="requests that belong to no split")
    splits: dict[str, int] = Field(description="requests of each split")
    days: tuple[Day, ...]
    session_lengths: dict[int, int] = Field(
        description="sessions by their requests; 50 stands for 50 and more"
    )
    signals: tuple[Signal, ...]
    predictor_auc: dict[str, float] = Field(
        description="on the test days, where the log's predictions were made here"
    )
    sampled_users: int
    sampled_requests: int
    distributions: tuple[Distribution, ...]

    def public(self) -> dict[str, Any]:
        """Returns what the command line shows: means and spreads of the distributions, not their quantiles."""
        quantiles = {"points", "below", "upto"}
        return self.model_dump(mode="json", exclude={"distributions": {"__all__": quantiles}})


def measure(dataset: Dataset, progress: Progress = lambda done, of: None) -> Quality:
    """Returns the quality of `dataset`: one pass over each table in SQL, and a sample of bounded size."""
    parts = (_totals, _days, _sessions, _signals, _sampled)
    found: dict[str, Any] = {}
    for done, part in enumerate(parts):
        progress(done, PARTS)
        found |= part(dataset)
    progress(PARTS, PARTS)
    predictors = dataset.meta.details.get("predictor", {})
    return Quality(predictor_auc={name: auc["auc"] for name, auc in predictors.items()}, **found)


def _totals(dataset: Dataset) -> dict[str, Any]:
    splits = dataset.query(
        "SELECT split, count(*) AS n FROM requests GROUP BY split ORDER BY split NULLS LAST"
    )
    known = splits.dropna(subset="split")
    counted = dataset.query("SELECT count(*) FILTER (isnan(action[1])) AS without_action FROM requests")
    return {
        "n_requests": dataset.n_requests,
        "n_impressions": dataset.n_impressions,
        "n_users": dataset.n_users,
        "without_action": int(counted["without_action"][0]),
        "unlabelled_split": int(splits["n"].sum() - known["n"].sum()),
        "splits": {str(split): int(n) for split, n in zip(known["split"], known["n"], strict=True)},
    }


def _days(dataset: Dataset) -> dict[str, Any]:
    rows = dataset.query(
        "SELECT strftime(timestamp, '%Y-%m-%d') AS day, count(*) AS requests, "
        "count(DISTINCT user_id) AS users FROM requests WHERE timestamp IS NOT NULL GROUP BY day ORDER BY day"
    )
    return {"days": tuple(Day(**row) for row in rows.to_dict("records"))}


def _sessions(dataset: Dataset) -> dict[str, Any]:
    rows = dataset.query(
        "SELECT length, count(*) AS sessions FROM ("
        f"SELECT least(count(*), {LONGEST}) AS length FROM requests GROUP BY session_id) "
        "GROUP BY length ORDER BY length"
    )
    lengths = {int(n): int(k) for n, k in zip(rows["length"], rows["sessions"], strict=True)}
    return {"session_lengths": lengths, "n_sessions": sum(lengths.values())}


def _signals(dataset: Dataset) -> dict[str, Any]:
    if not dataset.meta.signals:
        return {"signals": ()}
    parts = [
        f"avg({name}) AS mean_{i}, max({name}) AS largest_{i}, count(*) - count({name}) AS missing_{i}"
        for i, name in enumerate(map(quoted, dataset.meta.signals))
    ]
    row = dataset.query(f"SELECT {', '.join(parts)} FROM impressions").to_dict("records")[0]
    signals = (
        Signal(
            name=name,
            mean=_known(row[f"mean_{i}"]),
            largest=_known(row[f"largest_{i}"]),
            missing=int(row[f"missing_{i}"]),
        )
        for i, name in enumerate(dataset.meta.signals)
    )
    return {"signals": tuple(signals)}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _sampled(dataset: Dataset) -> dict[str, Any]:
    """Returns the distributions of the columns of some users, the same ones at every call."""
    share = min(1.0, SAMPLE_REQUESTS / max(dataset.n_requests, 1))
    n_users = int(np.ceil(share * dataset.n_users))
    users = "SELECT user_id FROM requests GROUP BY user_id ORDER BY md5(user_id), user_id LIMIT ?"
    asked = dataset.arrays(
        f"SELECT user_id, observation FROM requests WHERE user_id IN ({users}) ORDER BY user_id", [n_users]
    )
    columns = ", ".join(["user_id", "predictions", *map(quoted, dataset.meta.signals)])
    shown = dataset.arrays(
        f"SELECT {columns} FROM impressions WHERE user_id IN ({users}) ORDER BY user_id",
        [n_users],
    )
    return {
        "sampled_users": n_users,
        "sampled_requests": len(asked["user_id"]),
        "distributions": tuple(filter(None, _distributions(dataset, asked, shown))),
    }


def _distributions(
    dataset: Dataset, asked: dict[str, NDArray], shown: dict[str, NDArray]
) -> Iterator[Distribution | None]:
    meta = dataset.meta
    kinds: tuple[tuple[Kind, dict[str, NDArray], dict[str, NDArray]], ...] = (
        ("signal", shown, {name: shown[name] for name in meta.signals}),
        ("prediction", shown, dict(zip(meta.fusion.predictions, shown["predictions"].T, strict=True))),
        ("feature", asked, dict(zip(meta.feature_names, asked["observation"].T, strict=True))),
    )
    for kind, rows, columns in kinds:
        first = np.flatnonzero(np.append(True, rows["user_id"][1:] != rows["user_id"][:-1]))
        for name, values in columns.items():
            yield describe(name, kind, values, first)
