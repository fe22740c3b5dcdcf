"""Signals are judged by the user's next day, as pandas would, and a log that cannot tell says so."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.logs import aggregates
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.next_day import next_day
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec

SIGNALS = ("like", "click", "never", "watch_time")
START = np.datetime64("2026-03-01T12:00:00", "us")


def log(folder, users, days, signals, *, split=None, names=SIGNALS) -> Dataset:
    """A log of one request a row, with one impression each; `signals` are columns in the order of `names`."""
    n = len(users)
    ids, lists = np.arange(n), np.zeros((n, 1), np.float32)
    user_ids = np.array([f"u{u:03}" for u in users], object)
    meta = DatasetMeta(
        name="planted", source="csv", fusion=FusionSpec.default(("click",)), signals=names,
        reward=RewardSpec(weights={names[0]: 1.0}), feature_names=("age",), numeric_mask=(True,),
    )  # fmt: skip
    requests = {
        "request_id": ids, "session_id": ids, "user_id": user_ids, "step": np.zeros(n, np.int32),
        "timestamp": START + np.asarray(days) * np.timedelta64(1, "D"),
        "split": np.full(n, "train", object) if split is None else split,
        "segment": np.full(n, "all", object), "observation": lists,
        **dict.fromkeys(("baseline_action", "action", "lower", "upper"), lists),
        "pscore": np.full(n, np.nan), "clipped": np.zeros(n, np.int32), "reward": np.zeros(n),
        "terminal": np.ones(n, bool), "truncated": np.zeros(n, bool),
    }  # fmt: skip
    impressions = {
        "request_id": ids, "user_id": user_ids, "item_id": ids, "position": np.zeros(n, np.int32),
        "predictions": lists, "reward": np.zeros(n), "label": np.zeros(n, bool),
        **{name: np.asarray(signals)[:, i].astype(np.float32) for i, name in enumerate(names)},
    }  # fmt: skip
    write_dataset(folder, "planted", meta, [Tables(requests, impressions)])
    return Dataset.open(folder / "planted.duckdb")


def planted(folder, n_users=300, n_days=9) -> Dataset:
    """User u watches as long on a day as she liked on the day before; today's clicks say nothing."""
    generator = np.random.default_rng(0)
    like, click = generator.poisson(2.0, (2, n_users, n_days))
    watch = np.column_stack([np.ones(n_users), 10.0 * like[:, :-1]])
    user, day = np.divmod(np.arange(n_users * n_days), n_days)
    signals = np.column_stack([like[user, day], click[user, day], 0 * user, watch[user, day]])
    return log(folder, user, day, signals)


def by_pandas(dataset: Dataset) -> pd.Series:
    rows = dataset.query(
        "SELECT i.*, r.timestamp, r.split FROM impressions i JOIN requests r USING (request_id)"
    )
    rows = rows[rows["split"] != "test"]
    sums = (
        rows.groupby(["user_id", rows["timestamp"].dt.floor("D").rename("day")])[list(SIGNALS)]
        .sum()
        .reset_index()
    )
    tomorrow = sums[["user_id", "day", "watch_time"]].assign(day=sums["day"] - pd.Timedelta(days=1))
    pairs = sums.merge(tomorrow, on=["user_id", "day"], suffixes=("", "_next_day"))
    return pairs[list(SIGNALS)].corrwith(pairs["watch_time_next_day"])


def test_correlations_are_those_of_pandas_and_weights_follow(tmp_path):
    dataset = planted(tmp_path)
    found = next_day(dataset)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = by_pandas(dataset).dropna()
    assert {name: c.value for name, c in found.correlations.items()} == pytest.approx(expected.to_dict())
    assert found.correlations["like"].value == pytest.approx(1)
    assert found.correlations["click"].low < 0 < found.correlations["click"].high
    assert found.suggested.weights["like"] == 0.5 and found.suggested.weights["click"] == 0
    assert (found.n_pairs, found.n_days, found.warnings) == (300 * 8, 8, ())
    drawn = found.model_copy(update={"collected": True})
    assert drawn.warnings and drawn.suggested is None, "what cannot be trusted is not offered"


def test_intervals_hold_the_truth_as_often_as_they_say(tmp_path):
    """A user's days are alike, so users are the unit: intervals over days would hold half as often."""
    generator = np.random.default_rng(1)
    user, day = np.divmod(np.arange(120 * 6), 6)
    names = (*(f"like_{i}" for i in range(60)), "watch_time")
    signals = generator.normal(5, 1, (120, 61))[user]  # tastes that have nothing to do with each other
    found = next_day(log(tmp_path, user, day, signals + generator.normal(0, 0.1, signals.shape), names=names))
    held = [c.low < 0 < c.high for name, c in found.correlations.items() if name != "watch_time"]
    assert 0.85 < np.mean(held) <= 1


def test_days_that_do_not_follow_each_other_do_not_count(tmp_path):
    users, days = [1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 0, 4]
    likes, watched = [1, 0, 3, 0, 100, 0], [0, 1, 0, 3, 0, 0]
    found = next_day(log(tmp_path, users, days, np.column_stack([likes, likes, likes, watched])))
    assert found.n_pairs == 2


def test_test_rows_are_left_out(tmp_path):
    split = np.array(["train", "train", "test"], object)
    found = next_day(log(tmp_path, [1, 1, 1], [0, 1, 2], np.ones((3, 4)), split=split))
    assert found.n_pairs == 1


def test_a_log_of_one_day_or_without_watch_time_cannot_tell(tmp_path, small_workspace):
    found = next_day(log(tmp_path, [1, 2], [0, 0], np.ones((2, 4))))
    assert found.correlations == {} and found.suggested is None
    assert "two days in a row" in found.warnings[0]
    (other := tmp_path / "other").mkdir()
    with pytest.raises(Refusal, match="has no watch_time"):
        next_day(log(other, [1, 2], [0, 0], np.ones((2, 1)), names=("like",)))
    assert "environment" in " ".join(next_day(open_dataset(small_workspace, "explored")).warnings)


def test_the_next_day_is_computed_once(tmp_path):
    dataset = planted(tmp_path, n_users=20)
    first = aggregates.next_day(dataset)
    assert aggregates.next_day(dataset, lambda done, of: pytest.fail("computed again")) == first
    assert aggregates.stored_next_day(dataset.path, dataset.content_hash) == first
