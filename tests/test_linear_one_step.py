"""The linear step: whose slopes it finds, how far it moves by them, and what of the baseline it keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.algos.linear_one_step import Explored
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.exploration.clustered import clustered_slopes
from mtf_engine.jobs import estimates
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import Transitions
from mtf_engine.networks import Actor, ConstantAction, LinearPolicy, OffsetPolicy
from mtf_engine.policy import Policy
from mtf_engine.registry import Workspace
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.training import fit, make_config
from tests.problems import N_FEATURES, sessions, transitions

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
    box = {"lower": lower, "upper": upper, "next_lower": lower, "next_upper": upper}
    return replace(made, **{name: np.full((n, 3), edge, np.float32) for name, edge in box.items()})


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
    rows = log()
    rows.actions[:, 2] = rows.baseline_actions[:, 2]
    assert step(rows).network.offset[2] == 0
    rows.actions[:, 1] = rows.actions[:, 0]
    rows = replace(rows, rewards=rows.rewards + 6 * rows.actions[:, 0])
    together = step(rows).slopes
    assert together[0] == pytest.approx(together[1], rel=1e-3)


def test_control_users_are_left_out() -> None:
    rows = log(control=0.3)
    explored = Explored.of(rows, gamma=0.9)
    assert 0.6 < len(explored.rewards) / len(rows) < 0.8 and explored.offsets.any(axis=1).all()
    assert set(explored.sessions) == set(range(explored.sessions.max() + 1))
    kept = np.isin(rows.rewards, explored.rewards.astype(np.float32))
    np.testing.assert_array_equal(explored.returns, rows.returns(0.9)[kept])
    none = replace(rows, actions=rows.baseline_actions)
    with pytest.raises(Refusal, match="fewer than 5 sessions with explored actions"):
        step(none)


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
    before = baseline.act(rows.observations)
    moved = rows.actions - rows.baseline_actions
    rows = replace(rows, baseline_actions=before, actions=before + moved)
    algo = step(rows, baseline)
    algo.policy.save(tmp_path / "policy.safetensors")
    actions = Policy.load(tmp_path / "policy.safetensors").act(rows.observations)
    offset = algo.network.offset.numpy()
    assert np.abs(offset[:2]).min() > 0.1
    np.testing.assert_allclose(actions, np.clip(before + offset, -1, 1), atol=1e-6)
    np.testing.assert_array_equal(baseline.act(rows.observations), before)


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
    little, much = (
        estimates.estimate(
            Workspace(tmp_path), "linear_one_step", config, row.model_copy(update={"n_requests": n})
        )
        for n in (2_000, 200_000)
    )
    assert little.seconds < 1 < much.seconds < 100
