"""Off-policy evaluation: each estimator against plain loops, scope-rl and values that are known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from mtf_engine.evaluation import smoothing
from mtf_engine.evaluation.off_policy import (
    ESTIMATORS,
    OffPolicySettings,
    UserSums,
    effective_sample_size,
    log_ratios,
    off_policy,
    weighted_estimates,
)
from mtf_engine.learning.fqe import FQEConfig, fitted_q
from mtf_engine.logs.held_out import LoggedSessions, held_out_sessions
from mtf_engine.policies.networks import ConstantAction
from mtf_engine.policies.policy import Policy
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import FusionSpec, Refusal
from pages.shared.places import OFF_POLICY, TAB
from tests.problems import transitions
from tests.searching import examples
from tests.test_cli import Shell
from tests.test_pages import button, opened, tables, texts
from tests.workspaces import copy_workspace

FUSION = FusionSpec.default(("click", "like"))
SCOPE_RL = Path(__file__).parent / "oracles" / "scope_rl.npz"


def logged(lengths, users, half_width, seed=0, pscore=None, **columns) -> LoggedSessions:
    """Returns random sessions of `lengths` of `users`, uniform in +-half_width [d]; NaN pscores are control users."""
    generator = np.random.default_rng(seed)
    n, half_width = sum(lengths), np.broadcast_to(half_width, (sum(lengths), np.size(half_width)))
    values = {
        "observations": generator.normal(size=(n, 3)).astype(np.float32),
        "actions": generator.uniform(-half_width, half_width).astype(np.float32),
        "baseline_actions": np.zeros(half_width.shape, np.float32),
        "lower": -half_width.astype(np.float32),
        "upper": half_width.astype(np.float32),
        "pscore": 1 / np.prod(2 * half_width, axis=1, where=half_width > 0) if pscore is None else pscore,
        "clipped": np.zeros(n, np.int32),
        "rewards": generator.normal(2, 1, n),
        "ended": np.ones(len(lengths), bool),
        "starts": np.cumsum([0, *lengths[:-1]]),
        "users": np.array(users),
    } | columns
    names = tuple(f"feature_{i}" for i in range(3))
    return LoggedSessions(split="validation", fusion=FUSION, feature_names=names, **values)


def constant(action) -> Policy:
    network = ConstantAction.of(3, np.asarray(action))
    return Policy(network, FUSION, tuple(f"feature_{i}" for i in range(3)), (True,) * 3)


class NoCritics:
    """Critics of a policy that is worth 1, 2 and 3 to each of them, everywhere."""

    def q(self, observations, *others):
        return np.array([[1.0], [2.0], [3.0]]) * np.ones(len(observations))


def estimates(sessions, means, how, q=None, v=None):
    low, high = smoothing.box_of(sessions.baseline_actions, sessions.lower, sessions.upper)
    ratios = log_ratios(sessions, smoothing.log_density(sessions.actions, means, low, high, how.tau))
    nothing = np.zeros(len(sessions.rewards))
    return weighted_estimates(sessions, ratios, nothing if q is None else q, nothing if v is None else v, how)


def test_estimators_are_what_plain_loops_make_of_a_log():
    """Sessions of all lengths, two of one user, a control user, a clipped action and a dimension of width 0."""
    lengths, how = [3, 1, 4, 2, 2], OffPolicySettings(tau=0.8, cap=1.2, gamma=0.7)
    sessions = logged(lengths, [0, 0, 1, 2, 3], [0.2, 0.0])
    sessions.pscore[-2:] = np.nan
    sessions.clipped[9] = 1
    generator = np.random.default_rng(1)
    means, q, v = generator.normal(0, 0.2, (12, 2)), *generator.normal(2, 1, (2, 12))
    is_sums, dr_sums, weights, k = [], [], [], 0
    for length in lengths[:4]:
        weight, a_sum, dr, own = 1.0, 0.0, 0.0, []
        for t in range(length):
            sigma = 0.8 * 0.2
            edges = (-0.2 - means[k, 0]) / sigma, (0.2 - means[k, 0]) / sigma
            density = truncnorm.pdf(sessions.actions[k, 0], *edges, means[k, 0], sigma)
            before, weight = weight, weight * (0.0 if sessions.clipped[k] else density * 0.4)
            a_sum += 0.7**t * weight * sessions.rewards[k]
            dr += 0.7**t * (weight * (sessions.rewards[k] - q[k]) + before * v[k])
            own.append(weight)
            k += 1
        is_sums.append(a_sum)
        dr_sums.append(dr)
        weights.append(own)
    found = estimates(sessions, means, how, q, v)
    assert found["per_decision_is"].value == pytest.approx(np.mean(is_sums))
    assert found["doubly_robust"].value == pytest.approx(np.mean(dr_sums))
    ncis = 0.0
    for t in range(4):
        kept = [min(own[min(t, len(own) - 1)], 1.2) for own in weights]
        earned = [
            weight * sessions.rewards[start + t]
            for weight, own, start in zip(kept, weights, sessions.starts[:4], strict=True)
            if t < len(own)
        ]
        ncis += 0.7**t * sum(earned) / sum(kept)
    assert found["ncis"].value == pytest.approx(ncis)
    last = [own[-1] for own in weights]
    assert found["per_decision_is"].ess == pytest.approx(sum(last) ** 2 / sum(w * w for w in last))


def test_estimators_are_scope_rls_where_it_can_say_the_same():
    oracle = dict(np.load(SCOPE_RL))
    n_steps, half_width = int(oracle["n_steps"]), float(oracle["half_width"])
    n = len(oracle["reward"]) // n_steps
    sessions = logged(
        [n_steps] * n,
        range(n),
        [half_width],
        pscore=oracle["pscore"][:, 0],
        actions=oracle["action"],
        rewards=oracle["reward"],
    )
    how = OffPolicySettings(tau=float(oracle["tau"]) / half_width, cap=1e6, gamma=float(oracle["gamma"]))
    found = estimates(sessions, oracle["evaluation_policy_action"], how, *oracle["predicted"].T)
    for name, sums in found.items():
        assert sums.value == pytest.approx(float(oracle[name]), rel=1e-6), name


@examples(25)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    width=st.floats(0.01, 0.5),
    tau=st.floats(0.05, 100),
    mean=st.floats(-1, 1),
)
def test_a_policy_that_made_the_log_is_worth_what_the_log_earned(lengths, width, tau, mean):
    sessions = logged(lengths, range(len(lengths)), [width, width])
    low, high = smoothing.box_of(sessions.baseline_actions, sessions.lower, sessions.upper)
    means = np.full(sessions.actions.shape, mean)
    density = np.exp(smoothing.log_density(sessions.actions, means, low, high, tau))
    sessions.pscore[:] = np.maximum(density, 1e-300)
    how = OffPolicySettings(tau=tau, cap=1.5)
    earned = (sessions.by_step(sessions.rewards) * 0.9 ** np.arange(max(lengths))).sum(1).mean()
    if density.min() > 1e-200:
        for sums in estimates(sessions, means, how).values():
            assert sums.value == pytest.approx(earned, rel=1e-9)
            assert sums.ess == pytest.approx(len(lengths))


@pytest.mark.parametrize(
    ("mean", "tau"), [(0.0, 0.3), (0.1, 50.0), (0.9, 0.2), (-0.9, 0.2), (0.15, 0.01), (0.0, 100.0)]
)
def test_the_smoothed_policy_is_a_truncated_gaussian(mean, tau):
    low, high, sigma = np.full((4_000, 1), -0.15), np.full((4_000, 1), 0.15), tau * 0.15
    oracle = truncnorm((-0.15 - mean) / sigma, (0.15 - mean) / sigma, mean, sigma)
    luck = (np.arange(4_000)[:, None] + 0.5) / 4_000
    actions = smoothing.drawn(np.full((4_000, 1), mean), low, high, tau, luck)
    assert actions.min() >= np.float32(-0.15) and actions.max() <= np.float32(0.15)
    assert actions.mean() == pytest.approx(oracle.mean(), abs=2e-4)
    told = smoothing.log_density(actions, np.full((4_000, 1), mean), low, high, tau)
    inside = np.clip(actions[:, 0].astype(float), -0.15, 0.15)
    np.testing.assert_allclose(told, oracle.logpdf(inside), rtol=1e-6, atol=1e-6)
    assert smoothing.log_density(np.array([[0.2]]), np.array([[mean]]), low[:1], high[:1], tau) == -np.inf


def test_below_the_gate_nothing_is_told_and_the_rest_is():
    sessions = logged([2] * 60, np.arange(60) // 2, [0.2, 0.2], seed=3)
    outside = off_policy(
        constant([0.6, 0.6]), sessions, NoCritics(), OffPolicySettings(tau=0.2), reward_scale=0.5
    )
    told = {one.estimator: one for one in outside}
    assert tuple(told) == ESTIMATORS and {one.in_support for one in outside} == {0.0}
    for name in ("ncis", "per_decision_is", "doubly_robust"):
        assert 0 < told[name].ess < 50
        assert (told[name].value, told[name].ci_low, told[name].ci_high) == (None, None, None)
    assert told["fqe"].value == pytest.approx(2) and told["conservative_fqe"].value == pytest.approx(4)
    assert told["fqe"].ess == 60
    within = off_policy(constant([0.1, 0.1]), sessions, NoCritics(), OffPolicySettings(tau=2), reward_scale=1)
    again = off_policy(constant([0.1, 0.1]), sessions, NoCritics(), OffPolicySettings(tau=2), reward_scale=1)
    assert within == again
    for one in within[:3]:
        assert one.ess > 50 and one.in_support == 1 and one.ci_low < one.value < one.ci_high
    assert effective_sample_size(np.zeros(3)) == effective_sample_size(np.empty(0)) == 0
    control = logged([1] * 60, range(60), [0.2, 0.2], pscore=np.full(60, np.nan))
    for one in off_policy(constant([0, 0]), control, NoCritics(), OffPolicySettings(), reward_scale=1)[:3]:
        assert (one.value, one.ess) == (None, 0)


def test_an_interval_holds_two_users_apart_but_not_two_sessions_of_one():
    values, users = np.array([0.0, 0.0, 4.0, 4.0]), np.array([0, 0, 1, 1])
    by_user = UserSums.of_sessions(values, users, 4).told(2, 400, np.random.default_rng(0))
    assert (by_user["value"], by_user["ci_low"], by_user["ci_high"]) == (2, 0, 4)


def test_fitted_q_finds_a_value_that_is_known():
    """Three requests, each worth 1 + 10 times the first dimension of its action: V = (1 + 10 a)(1 + .9 + .81)."""
    generator = np.random.default_rng(0)
    n = 3_000
    actions = generator.uniform(-0.1, 0.1, (n, 2))
    step = np.arange(n) % 3
    log = transitions(
        np.stack([step == 0, step == 1, step == 2], axis=1).astype(float),
        actions,
        1 + 10 * actions[:, 0],
        step == 2,
        0.1,
    )
    policy = Policy(
        ConstantAction.of(3, np.array([0.08, 0.0])), log.fusion, log.feature_names, log.numeric_mask
    )
    how = FQEConfig(n_steps=150, hidden=(16,), critic_learning_rate=2e-2, smoothing=0.01, alpha=0.5)
    fitted = fitted_q(log, policy, how)
    at = log[log.session_starts]
    seen = at.observations, at.baseline_actions, at.lower, at.upper, policy.act(at.observations)
    q = fitted.critics.q(*seen) / fitted.reward_scale
    short = how.model_copy(update={"n_steps": 3})
    assert np.array_equal(*(fitted_q(log, policy, short).critics.q(*seen) for _ in range(2)))
    own, conservative, smoothed = q.mean(1)
    assert own == pytest.approx(1.8 * 2.71, rel=0.03)
    assert smoothed == pytest.approx(own, rel=0.03), "with a small tau it is the policy itself"
    assert conservative < own * 0.99, "beyond what the log has most of, its Q is pushed down"


def test_held_out_users_have_no_training_row(small_workspace):
    explored = open_dataset(small_workspace, "explored")
    sessions = held_out_sessions(explored)
    known = explored.query("SELECT DISTINCT user_id FROM requests WHERE split = 'train'")
    all_users = explored.query("SELECT count(DISTINCT user_id) AS n FROM requests")["n"][0]
    assert sessions.split == "validation" and sessions.n_users == all_users - len(known)
    rows = explored.query("SELECT sum(reward) AS r, count(*) AS n FROM requests WHERE split = 'validation'")
    assert (len(sessions.rewards), sessions.rewards.sum()) == (rows["n"][0], pytest.approx(rows["r"][0]))
    with pytest.raises(Refusal, match="collect one with --explore uniform"):
        held_out_sessions(open_dataset(small_workspace, "test"))


def test_the_command_tells_each_policy_off_policy_and_the_page_shows_it(
    small_workspace, tmp_path, monkeypatch
):
    shell = Shell(copy_workspace(small_workspace, tmp_path / "copy").path)
    monkeypatch.setenv("MTF_WORKSPACE", str(shell.workspace.path))
    (training,) = shell.workspace.registry.runs(kind="train")
    (log,) = (row.id for row in shell.workspace.registry.datasets() if row.name == "explored")
    page = {"policies": training.id, "on": log, TAB: OFF_POLICY}
    app = opened("policies", **page)
    assert button(app, "Evaluate off-policy")
    command = f"evaluate baseline {training.id} --on {log} --off-policy --tau=2 --min-ess=50"
    assert command in texts(app)

    assert "give that, too" in shell.refused("evaluate", "baseline", "--on", log, "--tau", "2")
    told = shell(*command.split(), "--fit-steps", "5")
    for row in told[:2]:
        estimates = {one["estimator"]: one for one in row["off_policy"]}
        assert tuple(estimates) == ESTIMATORS
        assert {*estimates["ncis"]} == {"estimator", "value", "ci_low", "ci_high", "ess", "in_support"}
        assert estimates["ncis"]["value"] is None and estimates["ncis"]["ess"] < 50
    assert [row["off_policy"] for row in told[2:]] == [[], []], "floors are not asked about"

    told = shell(*command.replace("=50", "=2").split(), "--no-floors", "--fit-steps", "5")
    app = opened("policies", **page)
    shown = next(table for table in tables(app) if "share in support" in table and "told" in table)
    assert set(shown["told"]) == {"not enough support"}
    ladder = next(table for table in tables(app) if "ncis" in table)
    assert list(ladder.columns) == ["policy", *ESTIMATORS] and "not enough support" in set(ladder["ncis"])
    app.number_input(key="min_ess").set_value(2.0).run()
    shown = next(table for table in tables(app) if "share in support" in table and "told" in table)
    values = dict(
        zip(zip(shown["run_id"], shown["estimator"], strict=True), shown["session value"], strict=True)
    )
    assert values == {
        (row["run_id"], one["estimator"]): one["value"] for row in told for one in row["off_policy"]
    }
    assert "none of whom has a training row" in texts(app)
