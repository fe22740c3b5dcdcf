"""The A/B test promises: intervals that hold, pairing that pays, and the users that a live test does need."""

import numpy as np
import pytest
from scipy import stats

from mtf_engine.environments.names import FIRST_WORLD
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import World
from mtf_engine.evaluation.abtest import ABTest, Played, ab_test, arm_mean, relative_effect, users_live
from mtf_engine.evaluation.sequential import first_told

N_USERS = 400


class Constant:
    """A policy that always serves the same action."""

    def __init__(self, **weights):
        self.action = np.float32([weights.get(name, 0) for name in World.named(FIRST_WORLD).fusion.names])

    def act(self, observations):
        return np.tile(self.action, (len(observations), 1))


LIVE = Constant()
WORSE = Constant(**dict.fromkeys(World.named(FIRST_WORLD).fusion.names, -1.0) | {"pow_skip": 1.0})
"""All weights 0: it does not rank."""


@pytest.fixture(scope="module")
def env():
    return SessionEnvironment(SessionConfig(world=FIRST_WORLD))


@pytest.fixture(scope="module")
def result(env):
    return ab_test(env, {"live": LIVE, "same": Constant(), "worse": WORSE}, "live", N_USERS)


def draw(generator, shape, gain=0.0):
    """Returns what users bring in both arms: heavy-tailed, and alike within a user."""
    user = generator.gamma(1.5, 4.0, shape)
    noise = generator.normal(0, 1, (2, *shape))
    return user * (1 + gain) + noise[0], user + noise[1]


def test_a_worse_policy_is_found_and_the_same_policy_is_the_same(result):
    for metric in result.metrics:
        worse, same = result.effect("worse", metric), result.effect("same", metric)
        assert worse.ci_high < 0 and worse.p_value < 0.05 and worse.mean < worse.base_mean
        assert (same.relative, same.ci_low, same.ci_high, same.p_value) == (0, 0, 0, 1)
        assert same.users_live is None and same.mean == result.base_means[metric]
    assert result.metrics == ("valid_consumption", "duration_time", "session_reward") and result.synthetic


def test_the_result_survives_json(result):
    assert ABTest.model_validate_json(result.model_dump_json()) == result


def test_progress_counts_every_session_once(env):
    told = []
    ab_test(env, {"a": LIVE, "b": WORSE}, "a", 30, seeds=(1, 2), progress=lambda *at: told.append(at))
    assert told == [(30, 120), (60, 120), (90, 120), (120, 120)]


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    generator, gain = np.random.default_rng(0), 0.02
    found = [relative_effect(*draw(generator, (1, 400), gain)) for _ in range(2_000)]
    held = np.mean([effect["ci_low"] < gain < effect["ci_high"] for effect in found])
    assert 0.935 < held < 0.965


def test_a_p_value_is_below_five_per_cent_where_the_interval_leaves_out_zero():
    generator = np.random.default_rng(1)
    for n_seeds in (1, 4):
        found = [relative_effect(*draw(generator, (n_seeds, 100), 0.03)) for _ in range(200)]
        outside = [effect["ci_low"] > 0 or effect["ci_high"] < 0 for effect in found]
        assert 10 < sum(outside) < 190
        assert outside == [effect["p_value"] < 0.05 for effect in found]


def test_the_interval_is_the_bootstraps():
    generator = np.random.default_rng(2)
    ours, base = draw(generator, (1, 2_000), 0.01)
    picks = generator.integers(0, 2_000, (4_000, 2_000))
    draws = ours[0][picks].mean(axis=1) / base[0][picks].mean(axis=1) - 1
    effect = relative_effect(ours, base)
    expected = np.quantile(draws, [0.025, 0.975])
    assert [effect["ci_low"], effect["ci_high"]] == pytest.approx(expected, abs=0.05 * np.ptp(expected))


def test_pairing_by_user_narrows_the_interval(result, env):
    effect = result.effect("worse", "session_reward")
    live, worse = (ab_test(env, {"x": p}, "x", N_USERS) for p in (LIVE, WORSE))
    assert (live.base_means["session_reward"], worse.base_means["session_reward"]) == (
        effect.base_mean,
        effect.mean,
    )
    reach = (effect.ci_high - effect.ci_low) / 2
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    difference = effect.mean - effect.base_mean
    unpaired = 1.96 * abs(difference) * np.sqrt(effect.users_live / N_USERS) / z / effect.base_mean
    assert reach < 0.85 * unpaired


def test_a_live_test_of_that_many_users_finds_the_difference_four_times_in_five():
    generator, gain = np.random.default_rng(3), 0.15
    ours, base = draw(generator, (5, 100_000), gain)
    n = users_live(ours, base)
    assert 200 < n < 5_000
    tests = [
        stats.ttest_ind(draw(generator, (n,), gain)[0], draw(generator, (n,), gain)[1]).pvalue
        for _ in range(2_000)
    ]
    assert 0.77 < np.mean(np.array(tests) < 0.05) < 0.83


def test_several_seeds_are_the_unit(env):
    result = ab_test(env, {"live": LIVE, "worse": WORSE}, "live", 100, seeds=(3, 1, 4))
    effect = result.effect("worse", "duration_time")
    alone = [
        ab_test(env, {"live": LIVE, "worse": WORSE}, "live", 100, seeds=(seed,)).effect(
            "worse", "duration_time"
        )
        for seed in (3, 1, 4)
    ]
    assert effect.by_seed == tuple(one.relative for one in alone)
    expected = stats.ttest_1samp(effect.by_seed, 0)
    assert (effect.relative, effect.p_value) == pytest.approx((np.mean(effect.by_seed), expected.pvalue))
    interval = expected.confidence_interval()
    assert (effect.ci_low, effect.ci_high) == pytest.approx((interval.low, interval.high))


def test_each_arm_has_its_mean_with_students_interval_over_users_or_over_seeds(result, env, watched):
    assert [(m.policy, m.metric) for m in result.means] == [
        (policy, metric) for policy in ("live", "same", "worse") for metric in result.metrics
    ]
    generator = np.random.default_rng(5)
    for shape in ((1, 300), (6, 40)):
        values = generator.gamma(1.5, 4.0, shape)
        units = values[0] if len(values) == 1 else values.mean(axis=1)
        interval = stats.ttest_1samp(units, 0).confidence_interval()
        found = arm_mean(values)
        assert (found["ci_low"], found["mean"], found["ci_high"]) == pytest.approx(
            (interval.low, values.mean(), interval.high)
        )
    worse = next(m for m in result.means if (m.policy, m.metric) == ("worse", "session_reward"))
    assert worse.mean == pytest.approx(result.effect("worse", "session_reward").mean)
    assert worse.ci_low < worse.mean < worse.ci_high
    _, whole, *_ = watched
    assert {m.policy for m in whole.means} == {"live", "worse", "same"} and whole.means[0].policy == "live"


def test_a_gain_on_a_negative_mean_is_a_gain():
    base = -np.random.default_rng(4).gamma(4, 100, (1, 500))
    effect = relative_effect(0.8 * base, base)
    assert effect["relative"] == pytest.approx(0.2) and effect["ci_low"] > 0


def test_a_base_of_nothing_has_no_relative_difference():
    effect = relative_effect(np.ones((1, 5)), np.zeros((1, 5)))
    assert effect["relative"] is None and effect["p_value"] is None and effect["mean"] == 1


@pytest.fixture(scope="module")
def watched():
    """A test of two policies in batches that end between its looks, and all that was told of it meanwhile."""
    env = SessionEnvironment(SessionConfig(world=FIRST_WORLD))
    env.batch = 330
    told, at = [], []
    arms = {"live": LIVE, "worse": WORSE, "same": Constant()}
    result = ab_test(env, arms, "live", 800, progress=lambda *now: at.append(now), looked=told.append)
    return env, result, told, at


def test_interleaved_batches_are_one_policy_after_another_to_the_bit(watched):
    env, result, _, at = watched
    arms = {"live": LIVE, "worse": WORSE, "same": Constant()}
    played = Played(env, arms, 800, (0,), lambda done, of: None)
    for name in arms:
        for batch in played.batches():
            played.play(name, batch)
    assert played.result("live") == result.model_copy(update={"looks": ()})
    assert [done for done, _ in at] == [330, 660, 990, 1320, 1650, 1980, 2120, 2260, 2400]


def test_a_look_is_the_effect_on_its_users_within_a_wider_boundary(watched):
    env, result, told, _ = watched
    assert [look for looks in told for look in looks] == list(result.looks)
    users = sorted({look.users for look in result.looks})
    assert users == list(range(120, 801, 40)) and len(result.looks) == len(users) * 2 * 3
    first = [look for look in result.looks if (look.arm, look.users) == ("worse", 120)]
    alone = ab_test(env, {"live": LIVE, "worse": WORSE}, "live", 120)
    for look in first:
        effect = alone.effect("worse", look.metric)
        assert look.relative == effect.relative
        assert look.low < effect.ci_low < effect.ci_high < look.high
    assert {(look.low, look.relative, look.high) for look in result.looks if look.arm == "same"} == {
        (0, 0, 0)
    }


def test_a_test_stops_at_the_look_that_tells_the_reward_of_every_policy(watched):
    env, whole, _, _ = watched
    arms, at = {"live": LIVE, "worse": WORSE}, []
    result = ab_test(env, arms, "live", 800, progress=lambda *now: at.append(now), stop_early=True)
    told = first_told(whole.looks)["worse", "session_reward"]
    assert (result.n_users, result.n_planned) == (told.users, 800) and told.users < 800
    assert result.looks == tuple(k for k in whole.looks if k.arm == "worse" and k.users <= told.users)
    effect = result.effect("worse", "session_reward")
    assert (effect.ci_low, effect.ci_high) == (told.low, told.high) and effect.p_value < 0.05
    mean, whole_mean = (
        next(m for m in t.means if (m.policy, m.metric) == ("worse", "session_reward"))
        for t in (result, whole)
    )
    assert mean.ci_high - mean.ci_low > whole_mean.ci_high - whole_mean.ci_low, "it holds at every look"
    assert at[-1][0] < 1_600, "no user was played beyond the batch that told"
    unlike = ab_test(env, arms | {"same": Constant()}, "live", 800, stop_early=True)
    assert unlike.n_planned is None and unlike.n_users == 800, "no difference is never told"


def test_several_seeds_are_not_looked_at(env):
    assert ab_test(env, {"a": LIVE, "b": WORSE}, "a", 120, seeds=(1, 2)).looks == ()


def test_a_result_of_before_there_were_looks_opens(result):
    stored = result.model_dump(mode="json", exclude={"looks", "n_planned", "means"})
    assert ABTest.model_validate(stored).looks == ABTest.model_validate(stored).means == ()
