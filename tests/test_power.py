"""What test users can tell before there is a policy: less with fewer of them, and said where it is too little."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.evaluation.power import resolvable
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log


def judged(
    tmp_path, n_users: int, split: str | None = "test", n_shown: int = 8, second: str = "worse"
) -> Dataset:
    """Returns a log whose users are all for test, with two predictions: the second is worse, the same or none."""
    generator = np.random.default_rng(0)
    n = n_users * n_shown
    label = generator.random(n) < 0.4
    near, far = (1 / (1 + np.exp(-(label + generator.normal(0, width, n)))) for width in (2, 4))
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(n_users), n_shown),
            "timestamp": 1_700_000_000 + np.arange(n),
            "prediction_click": near,
            "prediction_like": far if second == "worse" else near,
            "watch_time": np.where(label, 20, 1),
            "split": split,
        }
    )
    if second == "none":
        del frame["prediction_like"]
    frame.to_parquet(tmp_path / f"log{n_users}.parquet")
    log = read_log(tmp_path / f"log{n_users}.parquet")
    write_dataset(tmp_path, f"d{n_users}", log.meta, log.batches)
    return Dataset.open(tmp_path / f"d{n_users}.duckdb")


def test_more_users_tell_smaller_gaps_and_few_are_warned_of(tmp_path, monkeypatch):
    few, many = (resolvable(judged(tmp_path, n)) for n in (10, 640))
    assert few and many and few.in_bounds and many.in_bounds and many.single_prediction
    assert (few.test_users, many.test_users) == (10, 640) and many.with_both_classes > 600
    assert few.in_bounds > 4 * many.in_bounds and many.warnings == ()
    assert many.single_prediction > 2 * many.in_bounds
    asked = resolvable(Dataset.open(tmp_path / "d640.duckdb"), users=2_560)
    assert asked and asked.test_users == 2_560 and asked.in_bounds == pytest.approx(many.in_bounds / 2)
    (sentence,) = few.warnings
    assert sentence.startswith(
        f"test users with both valid and other impressions: {few.with_both_classes} of 10; a policy"
    )
    assert f"must differ from it by {few.in_bounds:.3f} of weighted GAUC" in sentence
    monkeypatch.setattr("mtf_engine.evaluation.power.MOST_USERS", 160)
    fewer_looked_at = resolvable(Dataset.open(tmp_path / "d640.duckdb"))
    assert fewer_looked_at and fewer_looked_at.in_bounds == pytest.approx(many.in_bounds, rel=0.5)


def test_a_log_without_test_users_or_with_one_tells_nothing(tmp_path):
    assert resolvable(judged(tmp_path, 3, split="train")) is None
    one = resolvable(judged(tmp_path, 1))
    assert one and one.in_bounds is None
    assert one.warnings == (
        "test users with both valid and other impressions: 1 of 1; too few to tell policies apart: "
        "bring more, or hold out more (--hold-out)",
    )


@pytest.mark.parametrize("second", ["none", "same"])
def test_predictions_that_rank_alike_tell_no_policies_apart_and_that_is_said(second, tmp_path):
    told = resolvable(judged(tmp_path, 40, second=second))
    assert told and (told.in_bounds, told.single_prediction, told.ranks_alike) == (None, None, True)
    assert told.with_both_classes >= 2, "users are not what is lacking"
    (sentence,) = told.warnings
    assert "rank the impressions of the test users alike" in sentence
    assert sentence.endswith("bring another prediction for every impression")
