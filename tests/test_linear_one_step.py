"""The linear step: whose slopes it finds, how far it moves by them, and what of the baseline it keeps."""

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.algos.linear_one_step import Explored
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.exploration import clustered
from mtf_engine.exploration.clustered import clustered_slopes
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs import transitions as logged
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import Actor, ConstantAction, LinearPolicy, OffsetPolicy
from mtf_engine.policies.policy import Policy
from mtf_engine.runs import estimates
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.workspace import Workspace
from tests.problems import N_FEATURES, held, one_step, sessions, transitions

SLOPES = np.array([3.0, -3.0, 0.0])
HALF = 0.15


def log(n=3_000, *, delayed=False, lower=-HALF, upper=HALF, control=0.0, seed=0) -> Transitions:
    """Sessions of three requests whose reward has SLOPES on the offset; where `delayed`, the next one's has."""
    generator = np.random.default_rng(seed)
    offsets = generator.uniform(lower, upper, (n, 3))
    offsets[np.repeat(generator.uniform(size=n // 3) < control, 3)] = 0
    observations = generator.normal(size=(n, N_FEATURES))
    observations[:, 1] = np.arange(n) % 3
    terminals = np.arange(n) % 3 == 2
    gained = offsets @ SLOPES
    if delayed:
        gained = np.where(np.arange(n) % 3 == 0, 0, np.roll(gained, 1))
    made = transitions(
        observations=observations,
        actions=offsets,
        rewards=gained + 0.2 * observations[:, 0] + generator.normal(2, 1, n),
        terminals=terminals,
        half_width=HALF,
    )
    return changed(made, lower=np.full((n, 3), lower), upper=np.full((n, 3), upper))


def changed(log: Transitions, **columns) -> Transitions:
    """Returns the log with other columns, of the numbers [n, width] that a request has."""
    every = log[:]
    own = {
        "session_id": every.sessions,
        "terminal": every.terminals,
        "observation": every.observations,
        "action": every.actions,
        "baseline_action": every.baseline_actions,
        "lower": every.lower,
        "upper": every.upper,
        "reward": every.rewards,
    }
    others = {name: np.asarray(values, np.float32) for name, values in columns.items()}
    return held(own | others, log.fusion, log.feature_names)


def step(rows: Transitions, baseline: Policy | None = None, **settings: str):
    """Returns the linear step after its training."""
    config = make_config("linear_one_step", "laptop", {"n_steps": "3"} | settings, seed=0)
    algo = ALGOS["linear_one_step"](config, rows, baseline)
    list(fit(algo, rows))
    return algo


@pytest.mark.parametrize("target", ["td_residual", "return"])
def test_the_slopes_are_those_of_the_reward_and_go_to_the_edge_by_their_signs(target) -> None:
    algo = step(log(), target=target)
    np.testing.assert_allclose(algo.slopes, SLOPES, atol=1)
    assert algo.t[0] > 5 and algo.t[1] < -5 and abs(algo.t[2]) < 3
    np.testing.assert_allclose(algo.network.offset[:2], [HALF, -HALF], atol=1e-6)
    assert algo.policy.info["slopes"] == dict(zip(algo.fusion.names, algo.slopes.tolist(), strict=True))
    assert algo.policy.info["target"] == target


def test_the_td_residual_is_surer_and_the_return_sees_what_the_observation_does_not_tell() -> None:
    sure, unsure = (step(log(), target=target).t for target in ("td_residual", "return"))
    assert sure[0] > 1.1 * unsure[0] and -sure[1] > -1.1 * unsure[1]
    late = log(delayed=True)
    blind, seeing = (step(late, target=target, gamma="0.9").t for target in ("td_residual", "return"))
    assert abs(blind[0]) < 3 < seeing[0]


def test_an_unsure_slope_moves_in_proportion_to_its_t_and_no_farther_than_the_box() -> None:
    rows = sessions(n_actions=3)
    algo = step(rows, full_t="4")
    share = np.clip(algo.t / 4, -1, 1)
    np.testing.assert_allclose(algo.network.offset, HALF * share, atol=1e-6)
    off_centre = step(log(lower=-0.05, upper=0.25))
    np.testing.assert_allclose(off_centre.network.offset[:2], [0.25, -0.05], atol=1e-6)


def test_what_never_moves_stays_and_dimensions_that_move_as_one_share_the_slope() -> None:
    actions = log()[:].actions
    actions[:, 2] = 0
    assert step(changed(log(), action=actions)).network.offset[2] == 0
    actions[:, 1] = actions[:, 0]
    together = step(changed(log(), action=actions, reward=log()[:].rewards + 6 * actions[:, 0])).slopes
    assert together[0] == pytest.approx(together[1], rel=1e-3)


@pytest.mark.parametrize("target", ["td_residual", "return"])
def test_where_nothing_can_be_learned_it_stays_at_the_baseline(target) -> None:
    one_shift = changed(log(), action=np.full((3_000, 3), 0.1))
    one_return = changed(one_step((0.1, 0.1), HALF, n=300), reward=np.full(300, 0.3))
    for rows in (one_shift, one_return):
        algo = step(rows, target=target)
        assert not algo.network.offset.any() and not algo.t.any()
        np.testing.assert_allclose(algo.policy.act(rows[:].observations), 0, atol=1e-6)


@pytest.mark.parametrize("target", ["td_residual", "return"])
def test_without_any_effect_t_is_that_of_noise(target) -> None:
    found = [step(sessions(600, 5, seed=seed), target=target, n_steps="1") for seed in range(40)]
    t = np.array([algo.t for algo in found])
    assert 0.8 < t.std() < 1.2 and abs(t.mean()) < 0.25
    moved = np.abs([algo.network.offset.numpy() for algo in found]).mean() / HALF
    assert 0.3 < moved < 0.5


def test_control_users_are_left_out() -> None:
    rows = log(control=0.3)
    explored = Explored.of(rows, gamma=0.9)
    assert 0.6 < len(explored.rewards) / len(rows) < 0.8 and explored.offsets.any(axis=1).all()
    assert set(explored.sessions) == set(range(explored.sessions.max() + 1))
    kept = np.isin(np.arange(len(rows)), explored.steps)
    assert not rows[~kept].actions.any()
    np.testing.assert_array_equal(explored.rewards, rows[:].rewards[kept])
    np.testing.assert_array_equal(explored.returns, rows.returns(0.9)[kept])
    with pytest.raises(Refusal, match="fewer than 5 sessions with explored actions"):
        step(changed(rows, action=rows[:].baseline_actions))


def test_a_drawn_part_of_the_sessions_is_whole_and_their_covariates_are_those_of_the_log() -> None:
    n = 3_000
    edges = np.full((n, 3), HALF)
    edges[: n // 2, 1] = 2 * HALF
    rows = changed(log(control=0.3), upper=edges)
    explored = Explored.of(rows, gamma=0.9)
    assert explored.varies.tolist() == [False, True, False]
    drawn = explored.draw(100, torch.Generator().manual_seed(0))
    assert np.bincount(drawn.sessions).tolist() == [3] * 100
    where = slice(3, 40)
    here, steps = drawn.covariates[where], drawn.steps[where]
    np.testing.assert_array_equal(here[:, :-1], rows[steps].observations)
    np.testing.assert_allclose(here[:, -1], np.where(steps < n // 2, HALF / 2, 0), atol=1e-6)
    later, ends = drawn.later[where], rows[steps].terminals
    np.testing.assert_array_equal(later[~ends, :-1], rows[steps[~ends] + 1].observations)
    assert not later[ends].any() and not drawn.discounts[where][ends].any()


def test_a_log_read_in_many_blocks_tells_the_same(monkeypatch) -> None:
    at_once = step(log(control=0.3))
    monkeypatch.setattr(logged, "BLOCK", 100)
    monkeypatch.setattr(clustered, "CHUNK", 70)
    in_blocks = step(log(control=0.3))
    np.testing.assert_allclose(in_blocks.slopes, at_once.slopes, rtol=1e-9)
    np.testing.assert_allclose(in_blocks.t, at_once.t, rtol=1e-9)


def test_a_ridge_pulls_the_slopes_to_nothing_and_none_leaves_them() -> None:
    generator = np.random.default_rng(0)
    x, clusters = generator.normal(size=(500, 2)), np.repeat(np.arange(100), 5)
    y = x @ [1.0, -2.0] + generator.normal(size=500)
    plain, pulled = (clustered_slopes(x, y, clusters, ridge)[0] for ridge in (0.0, 500.0))
    np.testing.assert_allclose(plain, [1, -2], atol=0.2)
    np.testing.assert_allclose(pulled, plain / 2, atol=0.1)


@pytest.mark.parametrize("kind", ["actor", "linear", "constant", "offset"])
def test_it_keeps_a_personalised_baseline_and_adds_the_same_offset_for_everybody(kind, tmp_path) -> None:
    rows = log()
    actor = Actor(N_FEATURES, 3, (8,))
    linear = LinearPolicy(N_FEATURES, 3, 2)
    generator = torch.Generator().manual_seed(0)
    for network in (actor, linear):
        for tensor in network.state_dict().values():
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        network.standardise.std.fill_(1)
        network.requires_grad_(False)
    constant = ConstantAction.of(N_FEATURES, np.array([0.2, 0, 0.95]))
    networks = {"actor": actor, "linear": linear, "constant": constant, "offset": OffsetPolicy(actor, 3)}
    baseline = Policy(networks[kind], rows.fusion, rows.feature_names, rows.numeric_mask)
    before = baseline.act(rows[:].observations)
    rows = changed(rows, baseline_action=before, action=before + rows[:].actions)
    algo = step(rows, baseline)
    algo.policy.save(tmp_path / "policy.safetensors")
    actions = Policy.load(tmp_path / "policy.safetensors").act(rows[:].observations)
    offset = algo.network.offset.numpy()
    assert np.abs(offset[:2]).min() > 0.1
    np.testing.assert_allclose(actions, np.clip(before + offset, -1, 1), atol=1e-6)
    np.testing.assert_array_equal(baseline.act(rows[:].observations), before)


def test_of_a_log_of_sessions_it_takes_what_was_explored_and_stays_in_the_box(tmp_path) -> None:
    env = SessionEnvironment()
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    plan = BoundsPlan.symmetric(HALF, env.fusion.n_actions)
    collection = Collection(plan=plan, n_sessions=1_000, control_share=0.1, seed=1)
    write_dataset(tmp_path, "log", collection.meta(env, "log", "session"), collect(env, baseline, collection))
    dataset = Dataset.open(tmp_path / "log.duckdb")
    rows = dataset.transitions()
    explored = Explored.of(rows, 0.9)
    with_pscore = dataset.query("SELECT avg((pscore IS NOT NULL)::DOUBLE) AS share FROM requests")["share"][0]
    assert len(explored.rewards) / len(rows) == pytest.approx(with_pscore, abs=0.02)
    offset = step(rows, baseline).network.offset.numpy()
    assert 0 < np.abs(offset).mean() < HALF and np.abs(offset).max() <= HALF + 1e-6


def test_a_step_over_the_whole_log_is_estimated_by_its_rows(small_workspace, tmp_path) -> None:
    row = small_workspace.dataset("explored")
    config = make_config("linear_one_step", "laptop", {}, seed=0).model_dump(mode="json")
    little, much, most = (
        estimates.estimate(
            Workspace(tmp_path), "linear_one_step", config, row.model_copy(update={"n_requests": n})
        )
        for n in (2_000, 200_000, 8_000_000)
    )
    assert little.seconds < 1 < much.seconds < 100
    assert little.memory_mb < much.memory_mb < 1_000 and 2_500 < most.memory_mb < 5_000
