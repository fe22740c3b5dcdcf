"""Rewards promise the weighted sum of the signals; suggested weights promise to be a reward."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.reward import Correlation, impression_rewards, suggest_weights
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


def sure(value: float) -> Correlation:
    return Correlation(value=value, low=value - 0.01, high=value + 0.01)


def test_weights_are_in_proportion_to_the_correlations():
    spec = suggest_weights({"watch_time": sure(0.4), "like": sure(0.2), "skip": sure(-0.1)}, 20.0)
    assert spec.weights == {"watch_time": 0.025, "like": 0.25, "skip": -0.12}


def test_what_may_as_well_be_0_gets_no_weight():
    vague = Correlation(value=0.3, low=-0.1, high=0.7)
    assert suggest_weights({"like": vague}, 20.0) is None
    assert suggest_weights({"like": vague, "click": sure(0.1)}, 20.0).weights == {"like": 0, "click": 0.5}


@given(st.dictionaries(st.sampled_from(("watch_time", *"abcdef")), st.floats(-1, 1), min_size=1))
def test_suggested_weights_are_always_a_reward(values):
    spec = suggest_weights({name: sure(value) for name, value in values.items()}, 20.0)
    assert spec is None or sum(w for w in spec.weights.values() if w < 0) > -1
