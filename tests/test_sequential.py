"""The boundary allows looks: five of a hundred tests without a difference ever leave it, however often one looks."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from mtf_engine.evaluation.sequential import FEWEST, Look, first_told, look_at, p_value, reach, tuned

N, N_TESTS = 3_000, 800


@pytest.fixture(scope="module")
def paths():
    """Running means and standard errors of users alike in both arms, heavy-tailed, [2, tests, users]."""
    values = np.random.default_rng(0).gamma(0.7, 1.0, (N_TESTS, N)) - 0.7
    n = np.arange(1, N + 1)
    means = np.cumsum(values, axis=1) / n
    variances = (np.cumsum(values**2, axis=1) - n * means**2) / np.maximum(n - 1, 1)
    return np.stack([means, np.sqrt(variances / n)])[..., FEWEST - 1 :]


def ever_outside(paths, errors):
    means, error = paths
    return float(np.mean((np.abs(means) > errors * error).any(axis=1)))


def test_the_boundary_holds_at_every_look_where_a_plain_interval_does_not(paths):
    """Looking after every user from the hundredth on; four standard errors of a share of 5 % are 3 %."""
    rho2 = tuned(N)
    errors = np.array([reach(n, rho2) for n in range(FEWEST, N + 1)])
    assert ever_outside(paths, errors) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / N_TESTS)
    assert ever_outside(paths, 1.96) > 0.3
    assert ever_outside(paths[..., -1:], 1.96) < 0.08


def test_the_reach_is_the_published_formula():
    for n, rho, alpha in ((100, 0.1, 0.05), (7_000, 0.01, 0.1), (1, 2.0, 0.01)):
        published = math.sqrt(
            (2 * (n * rho**2 + 1) / (n**2 * rho**2)) * math.log(math.sqrt(n * rho**2 + 1) / alpha)
        )
        assert reach(n, rho**2, alpha) / math.sqrt(n) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("n_planned", [200, 20_000, 10**7])
def test_it_is_tightest_after_half_of_what_was_planned(n_planned):
    found = optimize.minimize_scalar(lambda log: reach(n_planned // 2, math.exp(log)), (-20.0, 0.0), tol=1e-9)
    assert tuned(n_planned) == pytest.approx(math.exp(found.x), rel=1e-3)
    assert reach(n_planned // 2, tuned(n_planned)) == pytest.approx(3.0351, abs=1e-4)
    assert reach(n_planned, tuned(n_planned)) == pytest.approx(3.0640, abs=1e-4)


def test_the_p_value_is_where_the_boundary_begins_to_leave_out_zero():
    rho2 = tuned(1_000)
    for n, alpha in ((100, 0.05), (900, 0.001), (500, 0.3)):
        assert p_value(reach(n, rho2, alpha), n, rho2) == pytest.approx(alpha)
    assert p_value(0.0, 500, rho2) == 1
    assert p_value(3.0, 500, rho2) > 2 * stats.norm.sf(3.0)


def test_one_looks_twenty_times_and_at_the_end_but_never_at_few_users():
    assert look_at(10_000) == list(range(500, 10_001, 500))
    assert look_at(1_003)[0] >= FEWEST and look_at(1_003)[-1] == 1_003
    assert look_at(FEWEST) == [FEWEST] and look_at(FEWEST - 1) == []


def test_the_first_look_that_told_is_found_by_arm_and_metric():
    seen = [(100, -0.1, 0.3), (200, 0.01, 0.2), (300, 0.02, 0.2), (400, None, None)]
    looks = [Look(arm="a", metric="m", users=n, relative=0.1, low=low, high=high) for n, low, high in seen]
    assert {key: look.users for key, look in first_told(looks).items()} == {("a", "m"): 200}
    assert first_told(looks[:1]) == {}
