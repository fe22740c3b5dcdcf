"""Calibration of critics that know the return, that are off by a constant, and that know nothing."""

import numpy as np
import pytest

from mtf_engine.evaluation.calibration import calibration
from tests import problems

GAMMA, SCALE = 0.9, 0.25


class Told:
    """Critics that say `q` [n_critics, n], whatever they are asked; observations carry the row."""

    def __init__(self, q):
        self.values = q

    def q(self, observations, baseline_actions, lower, upper, actions):
        assert len(observations) == len(baseline_actions) == len(lower) == len(upper) == len(actions)
        return self.values[:, observations[:, 0].astype(int)]


@pytest.fixture(scope="module")
def log():
    generator = np.random.default_rng(0)
    n = 3_000
    observations = np.repeat(np.arange(n, dtype=float)[:, None], problems.N_FEATURES, axis=1)
    return problems.transitions(
        observations=observations,
        actions=generator.uniform(-0.1, 0.1, (n, 2)),
        rewards=generator.normal(2, 1, n),
        terminals=np.arange(n) % 3 == 2,
        half_width=0.15,
    )


def calibrated(q, log):
    return calibration(
        Told(q), log, dataset_id="dataset-1", split="validation", gamma=GAMMA, reward_scale=SCALE
    )


def test_critics_that_know_the_return_are_calibrated(log):
    returns = log.returns(GAMMA)
    result = calibrated(SCALE * np.stack([returns - 1, returns + 1]), log)
    assert result.correlation == pytest.approx(1)
    assert result.errors == pytest.approx((-1, 1))
    assert (result.n_steps, result.n_sessions) == (3_000, 1_000)
    assert [b.count for b in result.bins] == [300] * 10
    for b in result.bins:
        assert b.q_mean == pytest.approx(b.return_mean)
        assert b.q_low <= b.q_mean <= b.q_high
        assert b.ci_low < b.return_mean < b.ci_high


def test_the_bins_are_those_of_sorting_by_q(log):
    returns = log.returns(GAMMA)
    q = returns + np.random.default_rng(1).normal(0, 2, len(returns))
    result = calibrated(SCALE * q[None], log)
    fifth = np.argsort(q)[1200:1500]
    assert result.bins[4].q_mean == pytest.approx(q[fifth].mean())
    assert result.bins[4].return_mean == pytest.approx(returns[fifth].mean())
    assert 0 < result.correlation < 1


def test_critics_that_say_one_thing_have_no_correlation(log):
    result = calibrated(np.ones((3, len(log))), log)
    assert result.correlation is None
    assert result.q_mean == pytest.approx(1 / SCALE)


def test_a_large_log_is_sampled_whatever_its_rhythm(log, monkeypatch):
    monkeypatch.setattr("mtf_engine.evaluation.calibration.MAX_STEPS", 500)
    result = calibrated(SCALE * log.returns(GAMMA)[None], log)
    assert result.n_steps == 500
    assert result.q_mean == pytest.approx(result.return_mean)
    assert result.q_mean == pytest.approx(log.returns(GAMMA).mean(), rel=0.05)


def test_where_critics_disagree_they_are_off_only_if_their_spread_says_so(log):
    """Critics off by as much as they differ are ranked so; a spread that has nothing to do with the error is not."""
    generator = np.random.default_rng(2)
    returns = log.returns(GAMMA)
    spread = generator.uniform(0.1, 2, len(returns))
    off = spread * generator.normal(size=len(returns))
    honest = calibrated(SCALE * (returns + off + np.array([[-1], [1]]) * spread), log)
    assert [one.count for one in honest.by_disagreement] == [300] * 10
    for one in honest.by_disagreement:
        assert one.error == pytest.approx(one.std_mean, rel=0.2)
        assert one.ci_low < one.error < one.ci_high
    assert honest.rank_correlation > 0.4
    idle = calibrated(SCALE * (returns + off + np.array([[-1], [1]]) * generator.permutation(spread)), log)
    assert abs(idle.rank_correlation) < 0.1
    assert calibrated(SCALE * returns[None], log).by_disagreement == ()
