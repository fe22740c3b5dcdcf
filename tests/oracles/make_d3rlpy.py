"""Writes d3rlpy.npz: one update of d3rlpy's methods on one batch, which tests hold ours against.

Run it with the Python of an environment that has d3rlpy (CONTRIBUTING.md tells how to make one):

    .venv-d3rlpy/bin/python tests/oracles/make_d3rlpy.py

Under `<case>/` there are the batch, all weights before the update, every random number that it drew in order,
the losses it reports, and what networks answer on the batch after it. Targets get weights of their own first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import BCQConfig, CQLConfig, DDPGConfig, IQLConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor

N_FEATURES, N_ACTIONS, BATCH, HIDDEN = 4, 2, 16, (8, 8)
GAMMA, TAU = 0.9, 0.3
LEARNING_RATE = 1e-2
"""Large, so that what an update changes is seen."""

ENCODERS = ("actor_encoder_factory", "critic_encoder_factory")
CASES = {
    "ddpg": (DDPGConfig, ENCODERS, {}),
    "iql": (IQLConfig, (*ENCODERS, "value_encoder_factory"), {"max_weight": 1.5}),
    "cql_fixed": (CQLConfig, ENCODERS, {"alpha_learning_rate": 0.0, "conservative_weight": 0.7}),
    "cql_lagrange": (
        CQLConfig,
        ENCODERS,
        {
            "alpha_learning_rate": 1e-2,
            "alpha_threshold": 0.5,
            "initial_temperature": 0.3,
            "soft_q_backup": True,
        },
    ),
    "bcq": (
        BCQConfig,
        (*ENCODERS, "imitator_encoder_factory"),
        {"lam": 1.0, "beta": 1.0, "n_action_samples": 10, "action_flexibility": 0.15},
    ),
}
"""Config, the networks whose size is set, and settings other than d3rlpy's; beta 1 is our kl_weight .5."""
RATES = ("actor_learning_rate", "critic_learning_rate", "temp_learning_rate", "imitator_learning_rate")


def batch(generator: np.random.Generator) -> TorchMiniBatch:
    """Returns random transitions whose every fourth is terminal."""

    def normal(*shape: int) -> Tensor:
        return torch.tensor(generator.normal(size=shape), dtype=torch.float32)

    actions = torch.tensor(generator.uniform(-0.9, 0.9, (BATCH, N_ACTIONS)), dtype=torch.float32)
    terminals = torch.zeros(BATCH, 1)
    terminals[::4] = 1
    return TorchMiniBatch(
        observations=normal(BATCH, N_FEATURES),
        actions=actions,
        rewards=normal(BATCH, 1),
        next_observations=normal(BATCH, N_FEATURES),
        next_actions=actions,
        returns_to_go=torch.zeros(BATCH, 1),
        terminals=terminals,
        intervals=torch.ones(BATCH, 1),
        device="cpu",
    )


def create(
    config: type, encoders: tuple[str, ...], settings: dict[str, float]
) -> d3rlpy.algos.QLearningAlgoBase:
    """Returns a method whose targets differ from the networks they follow."""
    rates = {name: LEARNING_RATE for name in RATES if name in config.__dataclass_fields__}
    sizes = {name: VectorEncoderFactory(list(HIDDEN)) for name in encoders}
    algo = config(gamma=GAMMA, tau=TAU, **{**rates, **settings}, **sizes).create(device=False)
    algo.create_impl((N_FEATURES,), N_ACTIONS)
    for name, module in networks(algo).items():
        if name.startswith("targ_"):
            for parameter in module.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
    return algo


def networks(algo: d3rlpy.algos.QLearningAlgoBase) -> dict[str, torch.nn.Module]:
    return {k: v for k, v in vars(algo.impl._modules).items() if isinstance(v, torch.nn.Module)}


@contextmanager
def recorded(noise: list[Tensor]) -> Iterator[None]:
    """Appends every random number that is drawn inside to `noise`, in order."""

    def keep(function):
        def drawn(*args, **kwargs):
            noise.append(function(*args, **kwargs).clone())
            return noise[-1]

        return drawn

    with (
        mock.patch(
            "torch.distributions.normal._standard_normal", keep(torch.distributions.utils._standard_normal)
        ),
        mock.patch.object(torch.Tensor, "uniform_", keep(torch.Tensor.uniform_)),
        mock.patch("torch.randn", keep(torch.randn)),
    ):
        yield


@torch.no_grad()
def answers(algo: d3rlpy.algos.QLearningAlgoBase, data: TorchMiniBatch) -> dict[str, Tensor]:
    """Returns what the networks say of the batch."""
    impl, modules = algo.impl, algo.impl._modules
    extra = (data.actions,) if "targ_policy" in vars(modules) and "vae_decoder" in vars(modules) else ()
    found = {
        "actions": modules.policy(data.observations, *extra).squashed_mu,
        "q": impl._q_func_forwarder.compute_expected_q(data.observations, data.actions, "none"),
        "target_q": impl._targ_q_func_forwarder.compute_expected_q(data.observations, data.actions, "none"),
    }
    if "value_func" in vars(modules):
        found["v"] = modules.value_func(data.observations)
    if "targ_policy" in vars(modules):
        found["target_actions"] = modules.targ_policy(data.observations, *extra).squashed_mu
    return found


def case(name: str, seed: int) -> dict[str, np.ndarray]:
    """Returns all numbers of one case."""
    torch.manual_seed(seed)
    algo, data = create(*CASES[name]), batch(np.random.default_rng(seed))
    before = {
        f"before/{module}.{key}": tensor.clone()
        for module, network in networks(algo).items()
        for key, tensor in network.state_dict().items()
    }
    noise: list[Tensor] = []
    with recorded(noise):
        losses = algo.impl.inner_update(data, 0)
    columns = ("observations", "actions", "rewards", "next_observations", "terminals")
    found = {
        **{f"batch/{column}": getattr(data, column) for column in columns},
        **before,
        **{f"noise/{i}": drawn for i, drawn in enumerate(noise)},
        **{f"losses/{key}": torch.tensor(value, dtype=torch.float64) for key, value in losses.items()},
        **{f"after/{key}": tensor for key, tensor in answers(algo, data).items()},
    }
    return {f"{name}/{key}": tensor.detach().numpy() for key, tensor in found.items()}


if __name__ == "__main__":
    numbers = {}
    for number, name in enumerate(CASES):
        numbers |= case(name, seed=number)
    np.savez_compressed(Path(__file__).with_name("d3rlpy.npz"), **numbers)
