"""Splits promise: one user in ten for validation, the last days for test, and each as it was written down."""

import numpy as np
import pytest

from mtf_engine.logs.splits import (
    UNASKED,
    Splitting,
    split_by_day,
    split_by_draw,
    split_by_user,
    split_log,
)
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import ImportConfig


def test_one_user_in_ten_is_for_validation_always_the_same():
    users = np.array([f"user {i}" for i in range(5_000)], object)
    split = split_by_user(users)
    assert 0.08 < (split == "validation").mean() < 0.12 and set(split) == {"train", "validation"}
    assert (split_by_user(users[::-1])[::-1] == split).all()
    drawn = split_by_draw(np.linspace(0.001, 0.999, 1_000, dtype=np.float32))
    assert (drawn == "validation").sum() == 100


def test_the_last_days_are_for_test_and_those_before_for_validation():
    days = np.repeat(np.arange(8), 2)
    expected = ["train"] * 6 + ["validation"] * 4 + ["test"] * 6
    assert split_by_day(days).tolist() == expected


def test_a_short_log_is_not_split_by_day():
    days = np.arange(5).astype("datetime64[D]").astype("datetime64[us]")
    user = np.array(["a"] * 5, object)
    split, why = split_log(user, days, False, UNASKED)
    assert split.tolist() == [None] * 5 and "too short" in why
    with pytest.raises(
        Refusal, match="covers 5 days and 6 are needed: 3 to test, 2 to validate and one to train"
    ):
        split_log(user, days, False, Splitting(by="day"))
    split, why = split_log(user, days, False, Splitting(test_days=1, validation_days=0))
    assert split.tolist() == ["train"] * 4 + ["test"] and why == "the last 1 days (UTC) are for test"


def test_users_are_held_out_by_a_hash_of_their_own():
    users = np.array([f"user {i}" for i in range(5_000)], object)
    split, why = split_log(users, np.arange(5_000), True, Splitting(hold_out=0.3))
    assert 0.27 < (split == "test").mean() < 0.33 and "30% of the users are for test" in why
    others = split != "test"
    assert 0.08 < (split[others] == "validation").mean() < 0.12
    assert (split[others] == split_by_user(users)[others]).all()
    assert 0.18 < (split_log(users, np.arange(5_000), False, Splitting(by="user"))[0] == "test").mean() < 0.22


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"by": "user", "test_days": 3}, "go with a split by day alone"),
        ({"by": "fold", "validation_days": 1}, "go with a split by day alone"),
        ({"by": "day", "hold_out": 0.2}, "goes with a split by user alone"),
        ({"test_days": 2, "hold_out": 0.2}, "go with a split by day alone"),
        ({"hold_out": 1.5}, "less than 1"),
    ],
)
def test_a_split_of_two_kinds_is_refused(asked, problem):
    with pytest.raises(Refusal, match=problem):
        ImportConfig.asked("the import", {"source": "/log", "name": "log", "splitting": asked})
