"""Splits promise: one user in ten for validation, the last days for test, and each as it was written down."""

import numpy as np

from mtf_engine.logs.splits import split_by_day, split_by_draw, split_by_user, split_log


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
    split, why = split_log(np.array(["a"] * 5, object), days, explored=False)
    assert split.tolist() == [None] * 5 and "too short" in why
