"""What is known before the first step: the scale of rewards and the largest return they allow."""

import numpy as np
import pytest

from mtf_engine.learning.start import RewardScale
from tests.problems import transitions


def log(rewards, terminals):
    n = len(rewards)
    return transitions(np.zeros((n, 2)), np.zeros((n, 1)), np.array(rewards), np.array(terminals), 0.1)


def test_the_largest_return_has_the_largest_reward_at_every_request_of_the_longest_session():
    ends = [False, False, True, True]
    found = RewardScale.of(log([1, -2, 1, 0.5], ends), gamma=0.5, scale=10.0)
    assert found.largest_return == pytest.approx(10 * 2 * (1 + 0.5 + 0.25))
    instant = RewardScale.of(log([1, -2, 1, 0.5], ends), gamma=0.0, scale=10.0)
    assert instant.largest_return == pytest.approx(20)


def test_a_session_cut_off_may_go_on_for_ever():
    found = RewardScale.of(log([1, 2, 1], [True, False, False]), gamma=0.5, scale=1.0)
    assert found.largest_return == pytest.approx(2 / (1 - 0.5))


def test_no_return_is_larger_than_the_largest():
    generator = np.random.default_rng(0)
    rows = log(generator.normal(size=300), np.arange(300) % 5 == 4)
    assert np.abs(rows.returns(0.9)).max() <= RewardScale.of(rows, 0.9, 1.0).largest_return


def test_returns_that_differ_by_rounding_alone_are_one_return():
    returns_of_1 = log([0.1, 1.0] * 20, [False, True] * 20)
    assert 0 < returns_of_1.returns(0.9).std() < 1e-8, "they do differ"
    assert RewardScale.of(returns_of_1, 0.9).scale == 1
    assert RewardScale.of(log([0.1, 1.001] * 20, [False, True] * 20), 0.9).scale > 1_000
