"""Rewards promise the weighted sum of the signals; weights are suggested by the next day, not the same."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.reward import impression_rewards, next_day_correlations
from mtf_engine.spec import RewardSpec


def test_a_hand_worked_reward():
    spec = RewardSpec(weights={"watch_time": 0.01, "like": 0.5, "hate": -0.3})
    signals = {"watch_time": np.array([20.0, 0.0]), "like": np.array([1, 0]), "hate": np.array([0, 1])}
    np.testing.assert_allclose(impression_rewards(spec, signals), [0.7, -0.3])


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(-5, 5), min_size=1),
    st.integers(0, 2**32 - 1),
)
def test_no_signal_in_zero_to_one_takes_an_accepted_reward_to_minus_one(weights, seed):
    if sum(w for w in weights.values() if w < 0) <= -1:
        return
    generator = np.random.default_rng(seed)
    signals = {name: generator.integers(0, 2, 50) for name in weights}
    assert (impression_rewards(RewardSpec(weights=weights), signals) > -1).all()


def test_weights_come_from_the_next_days_watch_time():
    """User u watches as long on a day as she liked on the day before; today's clicks say nothing."""
    generator = np.random.default_rng(0)
    n_users, n_days = 300, 4
    like = generator.poisson(2.0, (n_users, n_days))
    rows = [
        {
            "user_id": u,
            "timestamp": pd.Timestamp("2026-03-01") + pd.Timedelta(days=d, hours=12),
            "like": like[u, d],
            "click": generator.poisson(2.0),
            "watch_time": 10.0 * like[u, d - 1] if d else 1.0,
        }
        for u in range(n_users)
        for d in range(n_days)
    ]
    found = next_day_correlations(pd.DataFrame(rows), ("like", "click"))
    assert found["like"] == pytest.approx(1.0)
    assert abs(found["click"]) < 0.15


def test_days_that_do_not_follow_each_other_do_not_count():
    rows = pd.DataFrame(
        {
            "user_id": [1, 1, 2, 2, 3, 3],
            "timestamp": pd.to_datetime(["2026-03-01", "2026-03-02"] * 2 + ["2026-03-01", "2026-03-05"]),
            "like": [1, 0, 3, 0, 100, 0],
            "watch_time": [0.0, 1.0, 0.0, 3.0, 0.0, 0.0],
        }
    )
    assert next_day_correlations(rows, ("like",))["like"] == pytest.approx(1.0)
