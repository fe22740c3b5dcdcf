"""Exploration promises: actions inside the bounds, a pscore that is the density, control users left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest, norm, truncnorm, uniform

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.exploration.policies import explore
from mtf_engine.spec import BoundsPlan, Box
from tests.searching import examples

N, D = 4, 3
baselines = arrays(np.float32, (N, D), elements=st.floats(-1, 1, width=32))
luck = arrays(np.float64, (N, D), elements=st.floats(1e-6, 1 - 1e-6))
vectors = st.lists(st.sampled_from([0.0, 0.05, 0.15, 0.4, 1.0]), min_size=D, max_size=D)
SEGMENTS = np.array(["a", "b", "a", "b"])
NOBODY = np.zeros(N, bool)


@st.composite
def plans(draw, edge):
    lower, upper, width = draw(vectors), draw(vectors), draw(vectors)
    narrow = Box(lower=tuple(-w for w in width), upper=(0.0,) * D)
    return BoundsPlan(lower=tuple(-x for x in lower), upper=tuple(upper), segments={"b": narrow}, edge=edge)


@given(baselines, plans("truncate"), luck)
def test_uniform_actions_stay_in_their_box_and_pscore_is_their_density(baseline, plan, luck):
    explored = explore("uniform", baseline, plan, SEGMENTS, sigma=0.2, control=NOBODY, luck=luck)
    assert (np.abs(explored.actions) <= 1).all() and (explored.clipped == 0).all()
    lower, upper = baseline + explored.lower, baseline + explored.upper
    assert (explored.actions >= lower).all() and (explored.actions <= upper).all()
    free = explored.upper > explored.lower
    width = np.where(free, explored.upper.astype(float) - explored.lower, 1)
    assert np.allclose(
        explored.pscore, np.prod(uniform.pdf(luck * width, scale=width), axis=1, where=free), rtol=1e-9
    )
    fixed = baseline + np.where(free, np.nan, explored.lower)
    assert (explored.actions[~free] == fixed[~free]).all()


@given(baselines, plans("clip"), luck)
def test_clipping_keeps_the_density_before_it_and_counts_what_it_moved(baseline, plan, luck):
    explored = explore("uniform", baseline, plan, SEGMENTS, sigma=0.2, control=NOBODY, luck=luck)
    width = explored.upper.astype(float) - explored.lower
    moved = baseline + explored.lower + luck * width
    assert np.allclose(explored.actions, np.clip(moved, -1, 1), atol=1e-6)
    surely, perhaps = np.abs(moved) > 1 + 1e-6, np.abs(moved) > 1 - 1e-6
    assert (surely.sum(axis=1) <= explored.clipped).all() and (explored.clipped <= perhaps.sum(axis=1)).all()
    assert np.allclose(explored.pscore, np.prod(1 / np.where(width > 0, width, 1), axis=1), rtol=1e-9)


@given(baselines, luck, st.floats(0.01, 1))
def test_gaussian_pscore_is_the_density_of_the_noise_and_bounds_are_the_plan(baseline, luck, sigma):
    plan = BoundsPlan.symmetric(0.15, D)
    explored = explore("gaussian", baseline, plan, SEGMENTS, sigma=sigma, control=NOBODY, luck=luck)
    noise = norm.ppf(luck, scale=sigma)
    assert np.allclose(explored.pscore, norm.pdf(noise, scale=sigma).prod(axis=1))
    assert np.allclose(explored.actions, np.clip(baseline + noise, -1, 1), atol=1e-6)
    assert (np.abs(explored.actions) <= 1).all()
    assert (explored.clipped >= (np.abs(baseline + noise) > 1 + 1e-6).sum(axis=1)).all()
    assert np.array_equal(explored.lower, plan.resolve(baseline, SEGMENTS)[0])


mixtures = st.builds(
    Mixture,
    sigma=st.floats(0.05, 1),
    random_share=st.floats(0.05, 0.95),
    random_sigma=st.sampled_from([0.1, 0.5, 3.0]),
)
parts = arrays(np.float64, N, elements=st.floats(1e-6, 1 - 1e-6))


def slow_density(mixture: Mixture, baseline, offset, free) -> float:
    """Returns the mixture's density of one request's offsets [d], part by part and dimension by dimension."""
    noise = at_random = 1.0
    for b, x in zip(baseline[free], offset[free], strict=True):
        noise *= norm.pdf(x, scale=mixture.sigma)
        s = mixture.random_sigma
        at_random *= truncnorm.pdf(np.clip(b + x, -1, 1), -1 / s, 1 / s, scale=s) * (abs(b + x) < 1 + 1e-6)
    return (1 - mixture.random_share) * noise + mixture.random_share * at_random


@examples(50)
@given(baselines, luck, parts, mixtures)
def test_a_mixture_draws_each_request_of_one_part_and_pscore_is_the_density_of_both(
    baseline, luck, part, mixture
):
    plan = BoundsPlan(lower=(-0.2, 0.0, -0.1), upper=(0.2, 0.0, 0.3))
    explored = explore(
        "mixed", baseline, plan, SEGMENTS, sigma=9, control=NOBODY, luck=luck, mixture=mixture, part=part
    )  # fmt: skip
    s, free = mixture.random_sigma, explored.upper > explored.lower
    at_random = truncnorm.ppf(luck, -1 / s, 1 / s, scale=s) - baseline
    offsets = np.where((part < mixture.random_share)[:, None], at_random, norm.ppf(luck, scale=mixture.sigma))
    expected = np.where(free, baseline + offsets, baseline + explored.lower)
    np.testing.assert_allclose(explored.actions, np.clip(expected, -1, 1), atol=1e-6)
    found = [slow_density(mixture, *row) for row in zip(baseline.astype(float), offsets, free, strict=True)]
    np.testing.assert_allclose(explored.pscore, found, rtol=1e-5)


def quadrature(edges) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nodes and weights of Gauss and Legendre on each stretch between the edges, one after the other."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:, None] + edges[:-1, None]) / 2
    return (middle + half * nodes).ravel(), (half * weights).ravel()


@examples(20)
@given(mixtures, st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-0.5, 0.5), st.floats(-0.9, 0.9))
def test_the_density_of_a_mixture_integrates_to_1_and_to_its_quantiles(mixture, one, other, at, below):
    """Over two dimensions to 1; over the second up to `below`, given the first at `at`, to its quantile there."""
    baseline = np.array([[one, other]])

    def density(x, y):
        grid = np.stack(np.broadcast_arrays(x, y), axis=-1).reshape(-1, 2)
        return mixture.density(baseline, grid, np.ones(grid.shape, bool))

    ends = [np.unique([-8 * mixture.sigma, 0, 8 * mixture.sigma, -1 - b, -b, 1 - b]) for b in (one, other)]
    (x, of_x), (y, of_y) = map(quadrature, ends)
    assert of_x @ density(x[:, None], y).reshape(len(x), -1) @ of_y == pytest.approx(1, abs=1e-5)
    upto, of_upto = quadrature(np.append(ends[1][ends[1] < below], below))
    if (whole := density(at, y) @ of_y) > 1e-200:
        expected = density(at, upto) @ of_upto / whole
        found = mixture.quantiles(baseline, np.array([[at, below]]), np.ones((1, 2), bool))
        assert found[0, 1] == pytest.approx(expected, abs=1e-5)


@given(baselines, luck, st.sampled_from(["uniform", "gaussian"]))
def test_control_users_and_the_bare_baseline_are_not_moved_and_have_no_density(baseline, luck, kind):
    control = np.array([True, False, False, True])
    plan = BoundsPlan.symmetric(0.15, D)
    explored = explore(kind, baseline, plan, SEGMENTS, sigma=0.2, control=control, luck=luck)
    assert (explored.actions[control] == baseline[control]).all()
    assert (np.isnan(explored.pscore) == control).all() and (explored.clipped[control] == 0).all()
    bare = explore("baseline", baseline, plan, SEGMENTS, sigma=0.2, control=control, luck=luck)
    assert (bare.actions == baseline).all() and np.isnan(bare.pscore).all()


def test_noise_has_the_distribution_it_says():
    rng, zeros = np.random.default_rng(0), np.zeros((20_000, 2), np.float32)
    plan, segments = BoundsPlan.symmetric(0.15, 2), np.repeat("a", 20_000)

    def offsets(kind):
        chance = rng.uniform(size=zeros.shape)
        control = np.zeros(len(zeros), bool)
        return explore(kind, zeros, plan, segments, sigma=0.2, control=control, luck=chance).actions.ravel()

    assert kstest(offsets("uniform"), uniform(-0.15, 0.3).cdf).pvalue > 1e-3
    assert kstest(offsets("gaussian"), norm(scale=0.2).cdf).pvalue > 1e-3


@given(luck)
def test_a_fixed_dimension_leaves_the_density_of_either_noise(luck):
    """Its weight is where the plan puts it, whatever was drawn for it."""
    plan = BoundsPlan(lower=(-0.2, 0.1, -0.3), upper=(0.2, 0.1, 0.3), edge="truncate")
    free = np.array([True, False, True])
    baseline, sigma = np.zeros((N, D), np.float32), 0.15
    for kind in ("uniform", "gaussian"):
        found = explore(kind, baseline, plan, np.full(N, "all"), sigma=sigma, control=NOBODY, luck=luck)
        np.testing.assert_allclose(found.actions[:, ~free], 0.1, rtol=1e-6)
        densities = uniform.pdf(0, -0.2, 0.4) * uniform.pdf(0, -0.3, 0.6)
        if kind == "gaussian":
            densities = norm.pdf(norm.ppf(luck[:, free]) * sigma, scale=sigma).prod(axis=1)
        np.testing.assert_allclose(found.pscore, densities, rtol=1e-5)
