"""The session environment promises one world for all policies, feedback as predicted, later costs."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kstest

from mtf_engine.environments import best, draws, world
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.reward import impression_rewards

DEFAULT = np.zeros(10, np.float32)


@pytest.fixture(scope="module", params=["feed", "clickbait"])
def env(request):
    return SessionEnvironment(SessionConfig(world=request.param))


def weights(env, **actions):
    """Returns the action that is 0 but for the named dimensions."""
    return np.float32([actions.get(name, 0) for name in env.fusion.names])


def play(env, action, n=500, seed=0, first=0):
    """Returns one record per request: active sessions, observations, candidates, step."""
    env.reset(*env.visits(first, n, seed))
    records = []
    while len(active := env.active):
        observations, offered = env.observe(), env.candidates(slice(None))
        records.append((active, observations, offered, env.step(np.tile(action, (len(active), 1)))))
    return records


def total(records, n=500):
    """Returns reward and number of requests of each session."""
    rewards, lengths = np.zeros(n), np.zeros(n)
    for active, _, _, step in records:
        rewards[active.sessions] += step.rewards
        lengths[active.sessions] += 1
    return rewards, lengths


def test_child_keys_are_the_outputs_of_splitmix64():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draws.child(np.uint64([1234567]), np.arange(4)).tolist() == expected


def test_draws_have_their_distributions_and_do_not_correlate_between_neighbours():
    keys = draws.child(draws.child(draws.root(3), np.arange(200))[:, None], np.arange(500))
    assert kstest(draws.uniform(keys).ravel(), "uniform").pvalue > 1e-3
    normals = draws.four_normals(keys).reshape(4, -1)
    assert kstest(normals.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(normals) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(draws.uniform(keys)[:-1].ravel(), draws.uniform(keys)[1:].ravel())[0, 1]) < 0.02
    assert np.bincount(draws.below(keys, 7).ravel(), minlength=7).min() > 13_500


def test_best_returns_the_highest_scores_in_order():
    scores = np.random.default_rng(0).normal(size=(50, 30))
    assert (best(scores, 4) == np.argsort(-scores, axis=1)[:, :4]).all()


def test_two_policies_meet_the_same_world(env):
    """Users, candidates and predictions agree as long as a session lasts under both; so does its luck."""
    one, other = play(env, DEFAULT), play(env, weights(env, pow_click=1, pow_share=-1))
    for step, ((active, _, offered, _), (active2, _, offered2, _)) in enumerate(
        zip(one, other, strict=False)
    ):
        _, rows, rows2 = np.intersect1d(active.sessions, active2.sessions, return_indices=True)
        assert len(rows) > 0, step
        assert (offered.item_id[rows] == offered2.item_id[rows2]).all()
        assert (offered.predictions[rows] == offered2.predictions[rows2]).all()
        assert (active.segments[rows] == active2.segments[rows2]).all()
    shown, shown2 = one[0][3].impressions, other[0][3].impressions
    same = shown.item_id == shown2.item_id
    assert same.any() and not same.all()
    assert (shown.signals[same] == shown2.signals[same]).all()


def test_a_session_goes_the_same_way_in_any_batch_and_on_any_number_of_threads(env):
    whole = play(env, DEFAULT)
    alone = play(SessionEnvironment(env.config, n_threads=2), DEFAULT, n=7, first=300)
    for (active, observations, _, step), (few, observed, _, small) in zip(whole, alone, strict=False):
        rows = np.flatnonzero(np.isin(active.sessions, few.sessions + 300))
        assert (active.sessions[rows] == few.sessions + 300).all()
        assert (observations[rows] == observed).all()
        assert (step.rewards[rows] == small.rewards).all()
        assert (step.impressions.signals[rows] == small.impressions.signals).all()


def test_another_seed_brings_other_users_and_another_world(env):
    reward = total(play(env, DEFAULT))[0]
    assert (reward == total(play(env, DEFAULT))[0]).all()
    assert (reward != total(play(env, DEFAULT, seed=1))[0]).mean() > 0.9
    assert (
        reward != total(play(SessionEnvironment(SessionConfig(world=env.config.world, seed=1)), DEFAULT))[0]
    ).mean() > 0.9


def test_feedback_is_consistent_and_adds_up_to_the_reward(env):
    for active, _, _, step in play(env, DEFAULT):
        shown = step.impressions
        signals = dict(zip(env.signals, np.moveaxis(shown.signals, -1, 0), strict=True))
        duration = np.exp(env.catalogue.log_duration[shown.item_id])
        assert (signals["valid"] == (signals["watch_time"] > 10)).all() and (
            shown.label == signals["valid"]
        ).all()
        assert np.allclose(signals["watch_time"][signals["finish"] == 1], duration[signals["finish"] == 1])
        assert (signals["watch_time"] <= duration * (1 + 1e-6)).all()
        assert (signals["skip"] == (signals["watch_time"] < world.SKIP_SECONDS)).all()
        assert np.allclose(shown.reward, impression_rewards(env.reward, signals)) and shown.reward.min() > -1
        assert np.allclose(step.rewards, shown.reward.sum(axis=1)) and len(active) == len(step.rewards)


def test_predictions_without_error_are_the_frequencies_of_what_happens(env):
    """For a fresh user in the first position, sigmoid(true logits) is the probability of each behaviour."""
    users, _ = env.world.draw_users(np.zeros(4000, np.int64) + 7, env.catalogue, 0)
    items = np.tile(np.arange(0, 6000, 400), (4000, 1))
    pairs = world.Pairs.of(users, env.catalogue, items)
    keys = draws.child(draws.child(draws.root(1), np.arange(4000))[:, None], items)
    signals = env.world.feedback(users, pairs, np.zeros_like(pairs.affinity), keys)
    happened = dict(zip(env.signals, signals.mean(axis=0).T, strict=True))
    any_reaction = signals[..., 4:7].any(axis=-1).mean(axis=0)
    logits = env.world.true_logits(users, pairs)[:, 0]
    for i, name in ((0, "valid"), (2, "finish"), (4, "click"), (5, "like"), (6, "share"), (7, "skip")):
        assert np.allclose(happened[name], 1 / (1 + np.exp(-logits[i])), atol=0.035), name
    assert np.allclose(any_reaction, 1 / (1 + np.exp(-logits[3])), atol=0.035)
    assert np.allclose(happened["watch_time"] / 60, np.exp(logits[1]), rtol=0.06)


def test_lower_positions_and_repetition_are_watched_less(env):
    users, _ = env.world.draw_users(np.arange(2000), env.catalogue, 0)
    items = np.tile(np.arange(0, 6000, 600), (2000, 1))
    pairs = world.Pairs.of(users, env.catalogue, items)
    keys = draws.child(draws.child(draws.root(1), np.arange(2000))[:, None], items)
    fresh, tired = (env.world.feedback(users, pairs, np.full_like(pairs.bait, f), keys) for f in (0, 0.5))
    assert (tired[..., 0] <= fresh[..., 0]).all() and tired[..., 0].mean() < 0.9 * fresh[..., 0].mean()


def test_click_bait_pays_now_and_costs_later(env):
    """Weights that favour clicks win more clicks at the first request, and lose the users sooner."""
    n = 2000
    bait = play(env, weights(env, pow_click=1, pow_like=-1, pow_share=-1, pow_positive_behaviour_rate=-1), n)
    care = play(env, weights(env, pow_click=-1, pow_like=1), n)
    clicks = [records[0][3].impressions.signals[..., 3].mean() for records in (bait, care)]
    assert clicks[0] > clicks[1]
    assert total(bait, n)[1].mean() < 0.9 * total(care, n)[1].mean()


def test_sessions_end_at_the_cap_as_terminal_and_meet_no_item_twice(env):
    records = play(env, DEFAULT)
    assert len(records) == env.config.n_requests and records[-1][3].terminals.all()
    assert not any(step.truncated.any() for *_, step in records)
    stayer = records[-1][0].sessions[0]
    offered = [o.item_id[active.sessions == stayer][0] for active, _, o, _ in records]
    assert len(np.unique(offered)) == len(records) * 60
    assert not np.isin(np.arange(500), records[-1][0].sessions).all()


def test_observations_tell_segments_apart_but_not_users(env):
    active, observations, _, _ = play(env, DEFAULT)[0]
    assert observations.dtype == np.float32 and observations.shape == (500, len(env.feature_names))
    profile = observations[:, env.feature_names.index("age_band=under_25")]
    assert (profile == np.char.startswith(active.segments, "under_25")).all()
    assert set(active.segments) == set(world.SEGMENTS)


def test_a_wrong_size_is_refused():
    with pytest.raises(ValidationError, match="shows 70 of 60"):
        SessionConfig(n_shown=70)
    with pytest.raises(ValidationError, match="meet items twice"):
        SessionConfig(n_items=600)


@pytest.mark.parametrize(("n_candidates", "n_shown"), [(7, 1), (250, 12)])
def test_any_number_of_candidates_and_shown_items(n_candidates, n_shown):
    env = SessionEnvironment(SessionConfig(n_candidates=n_candidates, n_shown=n_shown))
    records = play(env, DEFAULT, n=30)
    assert records[0][2].predictions.shape == (30, n_candidates, 8)
    assert records[0][3].impressions.item_id.shape == (30, n_shown)
