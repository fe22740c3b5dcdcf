"""The Poisson bootstrap: by hand, against resampling users one by one, and its coverage on simulated data."""

import numpy as np
import pytest

from mtf_engine.evaluation import weighted_gauc
from mtf_engine.evaluation.bootstrap import (
    bootstrap_by_part,
    by_key,
    in_turn,
    interval,
    poisson_bootstrap,
    probability_above_zero,
    probability_best,
    resolvable_gap,
    user_sums,
)


def test_draws_worked_by_hand():
    # Users of weight 2 and 1; the first policy scores 1 and .4, the second .5 and 1.
    numerators = np.array([[2.0, 0.4], [1.0, 1.0]])
    denominators = np.array([[2.0, 1.0], [2.0, 1.0]])
    by_counts = {
        (0, 0): (np.nan, np.nan),
        (1, 1): (2.4 / 3, 2 / 3),
        (0, 2): (0.8 / 2, 2 / 2),
        (2, 1): (4.4 / 5, 3 / 5),
    }
    counts = np.random.default_rng(3).poisson(1.0, (60, 2))
    draws = poisson_bootstrap(numerators, denominators, 60, np.random.default_rng(3))
    for seen, expected in by_counts.items():
        rows = (counts == seen).all(1)
        assert rows.any()
        np.testing.assert_allclose(draws[rows], np.tile(expected, (rows.sum(), 1)))


def test_the_interval_and_the_probability_worked_by_hand():
    draws = np.append(np.nan, np.arange(-1, 40)) / 10  # 41 numbers from -.1 to 3.9
    assert interval(draws) == pytest.approx((0.0, 3.8))
    assert probability_above_zero(draws) == (39 + 1 / 2) / 41


def test_requests_of_a_user_are_drawn_together():
    # Requests 0 and 1 are user 0's, 2 is user 1's, 3 has one class and is user 1's too.
    gauc = weighted_gauc(
        scores=[2, 1, 1, 2, 3, 1, 5],
        labels=[1, 0, 1, 0, 1, 0, 1],
        weights=[1] * 7,
        users=[0, 0, 1, 1, 2, 2, 3],
    )
    numerators, denominators = user_sums(gauc, np.array([0, 0, 1, 1]), n_users=2)
    np.testing.assert_array_equal(numerators, [2 * 1 + 2 * 0, 2 * 1])
    np.testing.assert_array_equal(denominators, [4, 2])


def test_counts_do_not_depend_on_the_ratios_nor_on_the_chunks(monkeypatch):
    generator = np.random.default_rng(0)
    denominators = generator.uniform(1, 2, (3, 50))
    numerators = denominators * generator.random((3, 50))
    all_three = poisson_bootstrap(numerators, denominators, 40, np.random.default_rng(1))
    monkeypatch.setattr("mtf_engine.evaluation.bootstrap.CHUNK", 170)
    last = poisson_bootstrap(numerators[2:], denominators[2:], 40, np.random.default_rng(1))
    np.testing.assert_allclose(all_three[:, 2:], last, rtol=1e-14)


def test_spread_is_that_of_resampling_users_one_by_one():
    generator = np.random.default_rng(0)
    weights, values = generator.uniform(1, 5, 300), generator.random(300)
    draws = poisson_bootstrap((weights * values)[None], weights[None], 4000, generator)[:, 0]
    picks = generator.integers(0, 300, (4000, 300))
    resampled = (weights * values)[picks].sum(1) / weights[picks].sum(1)
    assert draws.std() == pytest.approx(resampled.std(), rel=0.06)
    assert interval(draws) == pytest.approx(interval(resampled), abs=0.005)


def test_fewer_than_two_users_have_no_interval():
    draws = poisson_bootstrap(np.array([[0.7, 0.0]]), np.array([[1.0, 0.0]]), 100, np.random.default_rng(0))
    assert interval(draws[:, 0]) == (None, None)
    assert probability_above_zero(draws[:, 0]) is None


def test_parts_are_drawn_with_the_counts_that_everyone_is_drawn_with():
    generator = np.random.default_rng(0)
    part = np.array([1, 0, 2, 1, 0, 2, 2])
    denominators = generator.uniform(1, 2, (2, 7))
    numerators = denominators * generator.random((2, 7))
    draws = bootstrap_by_part(numerators, denominators, part, 4, 50, in_turn(np.random.default_rng(5)))
    by_part = np.argsort(part, kind="stable")
    counts = np.random.default_rng(5).poisson(1.0, (50, 7))
    for i, members in enumerate([by_part, *(by_part[part[by_part] == p] for p in range(3))]):
        c = counts[:, np.isin(by_part, members)].astype(float)
        drawn = c.sum(1) > 0
        expected = (c @ numerators[:, members].T)[drawn] / (c @ denominators[:, members].T)[drawn]
        np.testing.assert_allclose(draws[i, drawn], expected)
        assert np.isnan(draws[i, ~drawn]).all()
    assert np.isnan(draws[4]).all()  # nobody is of the last part


def test_counts_by_key_are_poisson_whoever_else_is_there_and_in_whichever_chunks():
    keys = np.random.default_rng(0).integers(0, 2**64, 5_000, np.uint64)
    counts, everyone = by_key(keys, 7), np.arange(5_000)
    drawn = counts(everyone, 0, 400).astype(float)
    assert drawn.mean() == pytest.approx(1, abs=0.003) and drawn.var() == pytest.approx(1, abs=0.005)
    shares = np.bincount(drawn.astype(int).ravel(), minlength=5)[:5] / drawn.size
    np.testing.assert_allclose(shares, np.exp(-1) / np.array([1, 1, 2, 6, 24]), atol=0.001)
    for some in (drawn[:40], drawn[:, :40].T):  # draws, and users
        between = np.corrcoef(some)[np.triu_indices(40, 1)]
        assert np.abs(between).max() < 4.5 / np.sqrt(some.shape[1])
    some = np.array([17, 3, 4_999])
    np.testing.assert_array_equal(counts(some, 5, 31), drawn[5:31, some])
    alone = by_key(keys[some], 7)(np.arange(3), 5, 31)
    np.testing.assert_array_equal(alone, drawn[5:31, some])
    assert (by_key(keys, 8)(some, 5, 31) != alone).any()


def test_the_probability_of_being_best_worked_by_hand():
    draws = np.array([[1.0, 2.0, 0.0], [3.0, 3.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, np.nan]])
    assert probability_best(draws) == pytest.approx([(1 / 2 + 1 / 3) / 3, (1 + 1 / 2 + 1 / 3) / 3, 1 / 9])
    assert probability_best(draws[3:]) is None
    assert probability_best(draws[:, :1]) == [1.0]


def test_a_true_difference_of_the_resolvable_gap_is_found_in_four_of_five_samples():
    """On 400 simulated samples whose true difference is the gap that a first sample says it can resolve."""
    generator = np.random.default_rng(0)

    def draws_of(differences):
        ones = np.ones((1, len(differences)))
        return poisson_bootstrap(differences[None], ones, 400, generator)[:, 0]

    gap = resolvable_gap(draws_of(generator.normal(0, 0.1, 3_000)))
    assert gap == pytest.approx(2.8016 * 0.1 / np.sqrt(3_000), rel=0.1)
    shift = 2.8016 * 0.1 / np.sqrt(200)
    found = [interval(draws_of(generator.normal(shift, 0.1, 200)))[0] > 0 for _ in range(400)]
    assert 0.74 < np.mean(found) < 0.86
    assert resolvable_gap(np.full(5, np.nan)) is None


def test_intervals_hold_the_true_value_as_often_as_they_say():
    """Values and paired differences of two policies on 400 simulated samples of 150 users."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        weights = generator.lognormal(0, 0.7, 150)
        shared = generator.normal(0, 0.2, 150)
        aucs = np.stack([0.65 + shared, 0.62 + shared]) + generator.normal(0, 0.1, (2, 150))
        keys, everyone = generator.integers(0, 2**64, 150, np.uint64), np.zeros(150, int)
        sums = weights * aucs, np.stack([weights, weights])
        draws = bootstrap_by_part(*sums, everyone, 1, 400, by_key(keys, 1))[0]
        value, difference = interval(draws[:, 0]), interval(draws[:, 0] - draws[:, 1])
        inside.append([value[0] <= 0.65 <= value[1], difference[0] <= 0.03 <= difference[1]])
    assert np.all((np.mean(inside, axis=0) > 0.91) & (np.mean(inside, axis=0) < 0.98))
