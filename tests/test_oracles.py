"""One update on one batch equals d3rlpy 2.8.1's, weights copied over: losses, and all networks after it.

Its numbers are in tests/oracles/d3rlpy.npz, written by make_d3rlpy.py beside it. The box is [-1, 1] around a
baseline of 0, so that critics see the action as d3rlpy's do. Where definitions differ, a test says how.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.learning.batches import Batch
from mtf_engine.learning.training import make_config
from tests.problems import transitions

FILE = Path(__file__).parent / "oracles" / "d3rlpy.npz"
SETTINGS = {
    "hidden": "8,8", "gamma": "0.9", "tau": "0.3",
    "actor_learning_rate": "0.01", "critic_learning_rate": "0.01",
}  # fmt: skip
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Oracle:
    """The numbers of one case of make_d3rlpy.py, as tensors."""

    def __init__(self, case: str) -> None:
        with np.load(FILE) as numbers:
            self.numbers = {
                key.removeprefix(f"{case}/"): torch.as_tensor(numbers[key])
                for key in numbers
                if key.startswith(f"{case}/")
            }

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.numbers[key]

    def noise(self) -> list[torch.Tensor]:
        return [self[f"noise/{i}"] for i in range(sum(key.startswith("noise/") for key in self.numbers))]

    def layers(self, module: str, last: str = "_fc") -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns weight [out, in] and bias [out] of each layer of a network."""
        names = (f"{module}._encoder._layers.0", f"{module}._encoder._layers.2", f"{module}.{last}")
        return [(self[f"before/{name}.weight"], self[f"before/{name}.bias"]) for name in names]

    def batch(self) -> Batch:
        observations, actions, rewards, following, terminals = (
            self[f"batch/{c}"]
            for c in ("observations", "actions", "rewards", "next_observations", "terminals")
        )
        nothing, ones = torch.zeros_like(actions), torch.ones_like(actions)
        return Batch(
            state=torch.cat([observations, nothing], dim=1),
            action_inputs=actions,
            actions=actions,
            centre=nothing,
            half_width=ones,
            rewards=rewards[:, 0],
            discounts=0.9 * (1 - terminals[:, 0]),
            next_state=torch.cat([following, nothing], dim=1),
            next_centre=nothing,
            next_half_width=ones,
        )


def trainer(name: str, **settings: str):
    generator = np.random.default_rng(0)
    log = transitions(
        observations=generator.normal(size=(12, 4)),
        actions=generator.uniform(-1, 1, (12, 2)),
        rewards=generator.normal(size=12),
        terminals=np.arange(12) % 3 == 2,
        half_width=1.0,
    )
    return ALGOS[name](make_config(name, "laptop", SETTINGS | settings, seed=0), log)


@torch.no_grad()
def copy_mlp(network: Iterable[torch.nn.Module], layers) -> None:
    """Sets the linear layers of `network`, which may see the baseline action behind the observation."""
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    for own, (weight, bias) in zip(linear, layers, strict=True):
        own.weight.copy_(weight if weight.shape == own.weight.shape else with_baseline(weight))
        own.bias.copy_(bias)


def with_baseline(weight: torch.Tensor) -> torch.Tensor:
    return torch.cat([weight[:, :4], torch.zeros(len(weight), 2), weight[:, 4:]], dim=1)


@torch.no_grad()
def copy_critics(critics, oracle: Oracle, module: str) -> None:
    every = [oracle.layers(f"{module}.{i}") for i in range(critics.n_critics)]
    for layer, (weights, biases) in enumerate(zip(critics.weights, critics.biases, strict=True)):
        own = [(one[layer][0], one[layer][1]) for one in every]
        if layer == 0:
            weights.copy_(torch.cat([with_baseline(weight).T for weight, _ in own], dim=1))
            biases.copy_(torch.cat([bias for _, bias in own])[:, None])
        else:
            weights.copy_(torch.stack([weight.T for weight, _ in own]))
            biases.copy_(torch.stack([bias[:, None] for _, bias in own]))


def assert_networks_follow(algo, oracle: Oracle, batch: Batch) -> None:
    """The critics and their targets after the update are d3rlpy's."""
    for name, critics in (("q", algo.critics), ("target_q", algo.target_critics)):
        found = critics(batch.state, batch.action_inputs)
        torch.testing.assert_close(found, oracle[f"after/{name}"][..., 0], **TOLERANCE)


def test_ddpg():
    """d3rlpy's critic has no weight decay."""
    oracle, algo = Oracle("ddpg"), trainer("ddpg", critic_weight_decay="0")
    copy_mlp(algo.actor.head, oracle.layers("policy"))
    copy_mlp(algo.target_actor.head, oracle.layers("targ_policy"))
    copy_critics(algo.critics, oracle, "q_funcs")
    copy_critics(algo.target_critics, oracle, "targ_q_funcs")
    batch = oracle.batch()
    losses = algo.update(batch)
    for name in ("critic_loss", "actor_loss"):
        assert float(losses[name]) == pytest.approx(float(oracle[f"losses/{name}"]), abs=1e-5)
    assert_networks_follow(algo, oracle, batch)
    for name, actor in (("actions", algo.actor), ("target_actions", algo.target_actor)):
        torch.testing.assert_close(actor.head(batch.observations), oracle[f"after/{name}"], **TOLERANCE)


def test_iql():
    """The std is a parameter itself, not d3rlpy's sigmoid of one, and Q learns of the V just updated.

    d3rlpy updates V and Q together: its Q loss is ours before the step, and Q after it is not compared. Our
    step's own is that of the critics before it to the V after it.
    """
    oracle, algo = Oracle("iql"), trainer("iql", temperature="3", largest_weight="1.5")
    copy_mlp(algo.actor.head, oracle.layers("policy", "_mu"))
    copy_mlp(algo.value, oracle.layers("value_func"))
    copy_critics(algo.critics, oracle, "q_funcs")
    copy_critics(algo.target_critics, oracle, "targ_q_funcs")
    torch.nn.init.constant_(algo.log_std[0], float(-5 + 7 * oracle["before/policy._logstd"].sigmoid()[0, 0]))
    batch = oracle.batch()
    before, q = (
        float(algo._critic_loss(batch).detach()),
        algo.critics(batch.state, batch.action_inputs).detach(),
    )
    losses = algo.update(batch)
    errors = q - batch.rewards - batch.discounts * algo.value(batch.next_state)[:, 0].detach()
    assert float(losses["critic_loss"]) == pytest.approx(float(errors.square().mean()), abs=1e-6)
    assert before != pytest.approx(2 * float(losses["critic_loss"]), abs=1e-4)
    assert before == pytest.approx(float(oracle["losses/q_loss"]), abs=1e-5)
    assert float(losses["value_loss"]) == pytest.approx(float(oracle["losses/v_loss"]), abs=1e-5)
    assert float(losses["actor_loss"]) == pytest.approx(float(oracle["losses/actor_loss"]), abs=1e-5)
    torch.testing.assert_close(algo.value(batch.state), oracle["after/v"], **TOLERANCE)
    torch.testing.assert_close(algo.actor.head(batch.observations), oracle["after/actions"], **TOLERANCE)


CQL_SETTINGS = {
    "cql_fixed": {"alpha": "0.7", "initial_temperature": "1"},
    "cql_lagrange": {
        "alpha": "5", "lagrange_threshold": "0.5", "multiplier_learning_rate": "0.01",
        "initial_temperature": "0.3", "soft_q_backup": "true",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CQL_SETTINGS)
def test_cql(case):
    """With alpha fixed there is no threshold here: d3rlpy takes 10 times the weight off each critic's loss."""
    oracle = Oracle(case)
    algo = trainer("cql_sac", temperature_learning_rate="0.01", **CQL_SETTINGS[case])
    copy_mlp(algo.actor.head, oracle.layers("policy", "_mu"))
    copy_mlp([algo.log_std], oracle.layers("policy", "_logstd")[-1:])
    copy_critics(algo.critics, oracle, "q_funcs")
    copy_critics(algo.target_critics, oracle, "targ_q_funcs")
    *normal, uniform, last = oracle.noise()
    drawn = iter([*normal, last])
    algo._normal = lambda *shape: next(drawn).view(shape)
    algo._uniform = lambda *shape: (uniform.view(16, 10, 2).transpose(0, 1) + 1) / 2

    batch = oracle.batch()
    losses = {name: float(loss) for name, loss in algo.update(batch).items()}
    threshold = 2 * 10 * 0.7 if case == "cql_fixed" else 0
    conservative = losses["conservative_loss"] - threshold
    assert conservative == pytest.approx(float(oracle["losses/conservative_loss"]), abs=1e-5, rel=1e-6)
    together = 2 * losses["critic_loss"] + conservative
    assert together == pytest.approx(float(oracle["losses/critic_loss"]), abs=1e-5, rel=1e-6)
    assert losses["actor_loss"] == pytest.approx(float(oracle["losses/actor_loss"]), abs=1e-5)
    assert losses["temperature_loss"] == pytest.approx(float(oracle["losses/temp_loss"]), abs=1e-5)
    found = algo.diagnose(batch)
    assert float(found["temperature"]) == pytest.approx(float(oracle["losses/temp"]), abs=1e-5)
    assert float(found["cql_alpha"] / algo.config.alpha) == pytest.approx(
        float(oracle["losses/alpha"]), abs=1e-5
    )
    assert_networks_follow(algo, oracle, batch)
    torch.testing.assert_close(algo.actor.head(batch.observations), oracle["after/actions"], **TOLERANCE)


def test_bcq():
    """Error and KL of the autoencoder are summed over d = 2 dimensions, so its loss is twice d3rlpy's."""
    oracle, algo = Oracle("bcq"), trainer("batchrl_mtf", kl_weight="0.5", vae_learning_rate="0.01")
    copy_mlp(algo.actor.decoder, oracle.layers("vae_decoder"))
    copy_mlp(algo.actor.shift, oracle.layers("policy"))
    copy_mlp(algo.target_shift, oracle.layers("targ_policy"))
    *first, mean = oracle.layers("vae_encoder", "_mu")
    log_std = oracle.layers("vae_encoder", "_logstd")[-1]
    copy_mlp(algo.encoder, [*first, tuple(map(torch.cat, zip(mean, log_std, strict=True)))])
    copy_critics(algo.critics, oracle, "q_funcs")
    copy_critics(algo.target_critics, oracle, "targ_q_funcs")
    of_vae, of_targets, of_actor = oracle.noise()
    drawn = iter([of_vae, of_targets.view(16, 10, 4).transpose(0, 1), of_actor])
    algo._normal = lambda *shape: next(drawn).reshape(shape)

    batch = oracle.batch()
    losses = algo.update(batch)
    for name, times in (("vae_loss", 2), ("critic_loss", 0.5), ("actor_loss", 1)):
        assert float(losses[name]) == pytest.approx(times * float(oracle[f"losses/{name}"]), abs=1e-5)
    assert_networks_follow(algo, oracle, batch)
    for name, shift in (("actions", algo.actor.shift), ("target_actions", algo.target_shift)):
        found = algo.actor.perturbed(batch.state, batch.actions, shift)
        torch.testing.assert_close(found, oracle[f"after/{name}"], **TOLERANCE)
