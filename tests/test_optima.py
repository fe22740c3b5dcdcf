"""The session environment has the properties it was designed to, whoever learns in it."""

import numpy as np
import pytest

from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.study.optima import (
    NAMES,
    best_corner,
    effective_dimensions,
    find_optima,
    instant_reward,
    search,
    session_reward,
)
from mtf_engine.study.properties import STEPS, Properties, measure


def bowl(weights):
    """Largest at .5 in the first dimension and -.2 in the second; the third does not matter."""
    return -((weights[:, 0] - 0.5) ** 2) - 4 * (weights[:, 1] + 0.2) ** 2


def test_search_finds_an_optimum_inside_and_stops_at_a_wall():
    found = search(bowl, np.zeros(3), 1, 0.3, 40)
    np.testing.assert_allclose(found[:2], [0.5, -0.2], atol=0.02)
    walled = search(bowl, np.zeros(3), 0.1, 0.03, 40)
    np.testing.assert_allclose(walled[:2], [0.1, -0.1], atol=0.01)
    np.testing.assert_array_equal(search(bowl, np.zeros(3), 1, 0.3, 5), search(bowl, np.zeros(3), 1, 0.3, 5))


def test_the_best_corner_is_the_best_of_all():
    np.testing.assert_array_equal(best_corner(bowl, bowl, 3)[:2], [1, -1])


def test_effective_dimensions_are_the_participation_ratio():
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (200, 3))
    assert effective_dimensions(points, bowl(points)) == pytest.approx((2 + 8) ** 2 / (4 + 64))
    assert effective_dimensions(points, -(points**2).sum(axis=1)) == pytest.approx(3)


def test_weights_are_played_as_one_by_one():
    env = SessionEnvironment(SessionConfig(n_candidates=20, n_items=2_000))
    users, _ = env.visits(0, 40, 3)
    weights = np.float32(np.random.default_rng(1).uniform(-1, 1, (3, 10)))
    alone = [session_reward(env, users, w[None])[0] for w in weights]
    np.testing.assert_array_equal(session_reward(env, users, weights), alone)
    instant = instant_reward(env, users, weights)
    assert np.all(instant < alone) and np.all(instant > 0)


def test_a_small_search_finds_weights_for_everybody_and_for_each_segment():
    told: list[str] = []
    config = SessionConfig(n_candidates=10, n_items=200)
    optima = find_optima(config, 20, 2, told.append)
    assert len(told) == 4 + len(optima.segments)
    assert max(map(abs, optima.box)) <= 0.15
    assert set(map(abs, optima.corner)) == {1}
    properties = measure(optima, 50)
    assert [row.name for row in properties.standings] == list(NAMES)
    assert [(gain.name, gain.base) for gain in properties.gains] == list(STEPS)


def kept() -> Properties:
    """The stored properties of the world whose optima were searched."""
    found = Properties.stored("clickbait")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fresh() -> Properties:
    """The stored optima on users that neither the search nor the stored figures have seen."""
    return measure(kept().optima, 4_000, seed=99)


@pytest.mark.parametrize(("name", "base"), STEPS)
def test_each_step_gains_session_reward(fresh, name, base):
    gain = fresh.gain(name, base)
    stored = kept().gain(name, base)
    assert gain.ci_low > 0
    assert gain.ci_low < stored.ci_high and stored.ci_low < gain.ci_high


def test_the_stored_properties_are_what_the_environment_was_designed_to():
    stored = kept()
    assert stored.optima.config == SessionConfig(world="clickbait")
    assert stored.n_users >= 50_000
    for step in (("everywhere", "default"), ("segments", "everywhere"), ("everywhere", "corner")):
        assert stored.gain(*step).relative >= 0.03
    assert stored.gain("everywhere", "instant").relative >= 0.01
    assert stored.effective_dimensions and stored.effective_dimensions >= 2
