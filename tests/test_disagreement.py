"""Disagreement of critics whose Q is known in closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.evaluation.critic_pairs import LEVELS, critic_pairs
from mtf_engine.evaluation.disagreement import disagreement, distance_from_bounds
from mtf_engine.evaluation.segments import Segments
from tests.searching import examples


class LinearCritics:
    """Three critics with Q = slope * sum |offset|, so their spread grows with the distance travelled."""

    slopes = np.array([1.0, 2.0, 3.0])

    def q(self, observations, baseline_actions, lower, upper, actions):
        assert len(observations) == len(baseline_actions) == len(lower) == len(upper) == len(actions)
        assert actions.dtype == np.float32
        return self.slopes[:, None] * np.abs(actions - baseline_actions).sum(1)


STD = np.sqrt(2 / 3)  # population standard deviation of the slopes


def situation(offsets, half_width=0.2):
    offsets = np.float32(offsets)
    baseline = np.full_like(offsets, 0.1)
    return {
        "observations": np.zeros((len(offsets), 3), np.float32),
        "baseline_actions": baseline,
        "lower": np.full_like(offsets, -half_width),
        "upper": np.full_like(offsets, half_width),
        "actions": baseline + offsets,
    }


def test_distance_worked_by_hand():
    # Half widths .2 and .1; excess .1 over the first upper bound, .2 below the second lower bound.
    offsets = np.array([[0.3, 0.1], [0.3, -0.2], [0.2, 0.2]])
    lower, upper = np.array([[-0.2, 0.0]] * 3), np.array([[0.2, 0.2]] * 3)
    np.testing.assert_allclose(distance_from_bounds(offsets, lower, upper), [0.5, 2.0, 0.0])


def test_a_fixed_dimension_has_no_distance():
    offsets, zero, box = np.array([[0.1, 0.7]]), np.zeros((1, 2)), np.array([0.2, 0.0])
    assert distance_from_bounds(offsets, lower=zero - box, upper=zero + box) == 0


def test_own_actions_are_split_by_their_bounds():
    result = disagreement(LinearCritics(), **situation([[0.1, 0.0], [0.2, 0.2], [0.5, 0.0]]))
    assert (result.inside.count, result.outside.count) == (2, 1)
    assert result.inside.std_mean == pytest.approx(STD * (0.1 + 0.4) / 2, rel=1e-6)
    assert result.inside.q_mean == pytest.approx(2 * (0.1 + 0.4) / 2, rel=1e-6)
    assert result.outside.std_mean == pytest.approx(STD * 0.5, rel=1e-6)


def test_rays_reach_three_half_widths_beyond_the_wall():
    result = disagreement(LinearCritics(), **situation([[0.05, 0.0], [0.0, -0.1]]))
    assert result.n_rays == 2
    assert result.outside is None
    assert result.ray_inside.count == 2 * 5  # 0, 1/4, ... 1 half width
    assert result.ray_inside.std_mean == pytest.approx(STD * 0.2 * 0.5, rel=1e-6)
    assert [(bin.above + bin.up_to) / 2 for bin in result.profile] == pytest.approx(np.arange(1, 13) / 4)
    for bin in result.profile:
        travelled = 0.2 * (1 + (bin.above + bin.up_to) / 2)
        assert bin.spread.count == 2
        assert bin.spread.std_mean == pytest.approx(STD * travelled, rel=1e-5)


def test_the_baseline_s_own_actions_have_no_ray():
    result = disagreement(LinearCritics(), **situation(np.zeros((4, 2))))
    assert (result.n_requests, result.n_rays, result.profile, result.ray_inside) == (4, 0, (), None)
    assert result.inside.count == 4


def test_a_large_log_is_sampled_evenly():
    offsets = np.linspace(0.01, 0.19, 9_000)[:, None]
    result = disagreement(LinearCritics(), **situation(offsets))
    assert result.n_requests == 2_000
    assert result.inside.std_mean == pytest.approx(STD * 0.1, rel=1e-3)


@examples(100)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 1))
def test_every_point_is_counted_once(seed, scale):
    generator = np.random.default_rng(seed)
    baseline = generator.uniform(-1, 1, (6, 3)).astype(np.float32)
    lower, upper = np.sort(generator.uniform(-0.5, 0.5, (2, 6, 3)).astype(np.float32), axis=0)
    actions = np.clip(baseline + scale * generator.normal(size=(6, 3)), -1, 1).astype(np.float32)
    result = disagreement(LinearCritics(), np.zeros((6, 1), np.float32), baseline, lower, upper, actions)
    parts = [result.ray_inside, *(bin.spread for bin in result.profile)]
    assert sum(part.count for part in parts if part) == 17 * result.n_rays
    assert all(a.up_to <= b.above for a, b in zip(result.profile, result.profile[1:], strict=False))
    assert sum(part.count for part in (result.inside, result.outside) if part) == 6
    if result.n_rays:
        found, within = result.histograms, result.ray_inside.count if result.ray_inside else 0
        assert [sum(counts) for counts in (found.inside, *found.critic_inside)] == [within] * 4
        beyond = 17 * result.n_rays - within
        assert [sum(counts) for counts in (found.outside, *found.critic_outside)] == [beyond] * 4


def test_histograms_tell_how_much_more_critics_differ_outside():
    found = disagreement(LinearCritics(), **situation([[0.1, 0.0]])).histograms
    middles = np.add(found.edges[:-1], found.edges[1:]) / 2
    inside, outside = (np.average(middles, weights=counts) for counts in (found.inside, found.outside))
    assert inside < 0.3 * outside and found.edges[-1] == pytest.approx(STD * 0.8, rel=1e-5)
    assert found.critic_inside[1][0] == sum(found.inside), "the middle critic is the mean of all"


def test_each_critic_is_told_against_the_mean_of_all():
    result = disagreement(LinearCritics(), **situation([[0.1, 0.0], [0.2, 0.2], [0.5, 0.0]]))
    # Slopes 1, 2, 3: the critics lie -1, 0 and 1 times the distance travelled from their mean.
    assert result.inside.biases == pytest.approx((-(0.1 + 0.4) / 2, 0, (0.1 + 0.4) / 2), abs=1e-6)
    rms = np.sqrt((0.1**2 + 0.4**2) / 2)
    assert result.inside.deviations == pytest.approx((rms, 0, rms), abs=1e-6)
    assert result.outside.biases == pytest.approx((-0.5, 0, 0.5), abs=1e-6)


def test_what_the_critics_differ_by_is_what_they_differ_by_together():
    q = np.random.default_rng(0).normal(size=(5, 400))

    class RandomCritics:
        def q(self, observations, *_):
            return q[:, : len(observations)]

    spread = disagreement(RandomCritics(), **situation(np.zeros((400, 2)))).inside
    assert np.mean(np.square(spread.deviations)) == pytest.approx(q.var(0).mean())
    assert sum(spread.biases) == pytest.approx(0, abs=1e-12)


def test_segments_are_told_apart_and_rewards_unscaled():
    offsets = [[0.1, 0.0], [0.3, 0.0], [0.0, 0.2], [0.0, 0.1]]
    segments = Segments(("new", "old"), np.array([0, 0, 1, 1]), np.array([0, 1]))
    result = disagreement(LinearCritics(), **situation(offsets), segments=segments, reward_scale=0.5)
    new, old = (result.by_segment[name] for name in ("new", "old"))
    assert new.inside.std_mean == pytest.approx(STD * 0.1 / 0.5, rel=1e-6)
    assert new.outside.std_mean == pytest.approx(STD * 0.3 / 0.5, rel=1e-6)
    assert (old.inside.count, old.outside) == (2, None)
    for whole, ours, theirs in zip(result.profile, new.profile, old.profile, strict=True):
        assert whole.spread.count == ours.spread.count + theirs.spread.count


def test_two_critics_against_each_other_are_counted_as_numpy_counts_them():
    q = np.random.default_rng(0).normal(size=(3, 500)).cumsum(0)
    pairs = critic_pairs(q)
    expected, _, _ = np.histogram2d(q[0], q[2], bins=[pairs.edges, pairs.edges])
    np.testing.assert_array_equal(pairs.counts(0, 2), expected)
    assert pairs.counts(0, 2).size == LEVELS**2 <= 5_000
    np.testing.assert_allclose(pairs.correlation, np.corrcoef(q))


def test_a_critic_that_always_says_the_same_correlates_with_none():
    pairs = critic_pairs(np.stack([np.ones(4), np.arange(4.0)]))
    assert pairs.correlation == ((None, None), (None, pytest.approx(1.0)))
    assert critic_pairs(np.ones((2, 4))).counts(0, 1).sum() == 4


def test_one_critic_agrees_with_itself():
    class OneCritic(LinearCritics):
        slopes = np.array([2.0])

    found = disagreement(OneCritic(), **situation([[0.1, 0.1], [0.1, 0.3]]))
    assert (found.inside.std_mean, found.outside.std_mean) == (0, 0)
    assert found.inside.biases == (0,)
    assert len(found.pairs.levels) == 1
