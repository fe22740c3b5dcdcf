"""UnifiedRL: both losses against loops over groups, critics and transitions; its critics are of parts of the reward."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtf_engine.algos.unified_rl import UnifiedRL, UnifiedRLConfig
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.spec import RewardSpec
from tests.problems import sessions, transitions
from tests.test_datasets import META, tables
from tests.test_integrated_rl import SMALL, distance, moved_out, q_of


def trainer(log=None, **changes) -> UnifiedRL:
    return UnifiedRL(UnifiedRLConfig(**(SMALL | changes)), log or sessions())


def slow_losses(algo: UnifiedRL, batch, watching: np.ndarray | None) -> tuple[float, float]:
    """Returns the critics' and the actor's loss, by loops; `watching` [n] is what watch time is of the rewards."""
    c, n_groups = algo.config, len(algo.groups)
    weights = [c.watch_weight, c.other_weight] if n_groups == 2 else [1]
    critic_loss, actor_loss = 0.0, 0.0
    for row in range(len(batch)):
        reward = float(batch.rewards[row])
        parts = [reward] if watching is None else [watching[row], reward - watching[row]]
        following = algo.target_actor.head(batch.next_observations[row])
        outside = distance(following, batch.next_centre[row], batch.next_half_width[row], "linear")
        action = algo.actor.head(batch.observations[row])
        value = 0.0
        for group in range(n_groups):
            of_group = range(group * c.n_critics, (group + 1) * c.n_critics)
            for i in of_group:
                later = float(q_of(algo.target_ensemble, i, algo, batch, row, following, "next_"))
                phi = np.exp(-outside)
                later = later * phi if c.phi == "product" else later - (1 - phi) * abs(later)
                target = parts[group] + float(batch.discounts[row]) * later
                now = float(q_of(algo.ensemble, i, algo, batch, row, batch.actions[row]))
                critic_loss += (now - target) ** 2
            q = np.array([float(q_of(algo.ensemble, i, algo, batch, row, action)) for i in of_group])
            value += weights[group] * (q.mean() - c.lambda_std * np.sqrt(q.var() + 1e-6))
        cost = c.eta * distance(action, batch.centre[row], batch.half_width[row], c.penalty)
        actor_loss += cost - value
    return critic_loss / len(batch), actor_loss / len(batch)


@pytest.mark.parametrize(
    "switches",
    [
        {"watch_weight": 0.3, "other_weight": 1.7},
        {"phi": "product", "penalty": "exp"},
        {"action_input": "raw", "groups": "one"},
    ],
)
@torch.no_grad()
def test_both_losses_equal_loops_over_groups_critics_and_transitions(switches):
    share = np.random.default_rng(1).uniform(size=600)
    log = sessions(watch_share=share)
    algo = moved_out(trainer(log, eta=0.7, lambda_std=0.4, **switches))
    steps = torch.arange(20, 36)
    batch = algo.prepare(log).at(steps)
    watching = None if len(algo.groups) == 1 else share[20:36] * batch.rewards.numpy()
    for bias in (algo.target_ensemble.biases[-1][::2], algo.target_ensemble.biases[-1][1::2]):
        bias.sub_(3)  # values of either sign
    found = float(algo._critic_losses(batch).sum()), float(algo._actor_loss(batch))
    assert found == pytest.approx(slow_losses(algo, batch, watching), rel=1e-4)


def test_a_negative_value_outside_the_bounds_is_worth_no_more_than_inside_unless_phi_is_a_product():
    log = sessions()
    targets = {}
    for phi in ("sign_safe", "product"):
        algo = trainer(log, phi=phi)
        torch.nn.init.constant_(algo.target_ensemble.biases[-1], -9)
        batch = algo.prepare(log).at(torch.arange(0, 600, 3))
        inside = algo._targets(batch)
        targets[phi] = (moved_out(algo)._targets(batch) - inside).max()
    assert targets["sign_safe"] < 0 < targets["product"]


@torch.no_grad()
def test_its_critics_are_the_groups_added_up():
    algo = trainer(hidden=(8, 5))
    batch = algo.prepare(sessions()).at(torch.arange(9))
    apart = algo.ensemble(batch.state, batch.action_inputs)
    assert apart.shape == (6, 9) and algo.critics.n_critics == 3
    torch.testing.assert_close(algo.critics(batch.state, batch.action_inputs), apart[:3] + apart[3:])


def test_each_group_starts_at_the_mean_return_of_its_part_and_learns_it_alone():
    log = sessions(watch_share=0.2)
    algo = trainer(log)
    mean = log.returns(0.9).mean() * algo.reward_scale.scale
    starts = algo.ensemble.biases[-1].detach()[:, 0, 0]
    np.testing.assert_allclose(starts, np.repeat([0.2 * mean, 0.8 * mean], 3), rtol=1e-5)
    losses = algo.update(algo.prepare(log).draw(16, algo.generator))
    both = losses["critic_loss_watch_time"] + losses["critic_loss_other_feedback"]
    assert float(losses["critic_loss"]) == pytest.approx(float(both) / 2)


def test_rewards_without_parts_have_one_group_of_critics():
    algo = trainer(sessions(watch_share=None))
    assert algo.groups == ("all_feedback",) and algo.critics is algo.ensemble


def test_parts_of_several_rewards_are_summed_as_the_whole():
    generator, n, share = np.random.default_rng(2), 60, np.random.default_rng(3).uniform(size=60)
    log = transitions(
        observations=generator.normal(size=(n, 4)), actions=generator.uniform(-0.1, 0.1, (n, 2)),
        rewards=generator.normal(size=n), terminals=np.arange(n) % 4 == 3, half_width=0.1, watch_share=share,
    )  # fmt: skip
    algo = trainer(log, n_rewards=3, gamma=0.5)
    batch = algo.prepare(log).at(torch.arange(n))
    parts = log[:].rewards * np.stack([share, 1 - share]) * algo.reward_scale.scale
    for i in range(n):
        ends = i - i % 4 + 4
        expected = sum(0.5**k * parts[:, i + k] for k in range(min(3, ends - i)))
        np.testing.assert_allclose(batch.group_rewards[:, i], expected, rtol=1e-4, atol=1e-6)


def test_a_log_tells_what_watch_time_is_of_its_rewards(tmp_path):
    """Where the reward has a weight for it and for something else."""
    rows = tables([3, 1, 4, 2])
    seconds = np.random.default_rng(0).gamma(1, 20, len(rows.impressions["like"])).astype(np.float32)
    rows = replace(rows, impressions={**rows.impressions, "watch_time": seconds})
    for name, weights in (
        ("both", {"watch_time": 0.02, "like": 0.5}),
        ("watched", {"watch_time": 0.02, "like": 0.0}),
        ("rest", {"like": 0.5}),
    ):
        own = {"reward": RewardSpec(weights=weights), "signals": ("watch_time", "like")}
        write_dataset(tmp_path, name, META.model_copy(update=own), [rows])
        log = Dataset.open(tmp_path / f"{name}.duckdb")
        found = log.transitions().watch_rewards
        assert (found is not None) == (name == "both")
        if found is not None:
            shown = log.query("SELECT * FROM impressions JOIN requests USING (request_id)")
            expected = 0.02 * shown.groupby(["session_id", "step"])["watch_time"].sum()
            np.testing.assert_allclose(found, expected, rtol=1e-6)
