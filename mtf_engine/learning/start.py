"""Where training starts: the actor as the baseline policy, the critics at the mean return, rewards scaled."""

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mtf_engine.learning.config import OffPolicyConfig
from mtf_engine.logs.transitions import Requests, Transitions
from mtf_engine.policies.networks import Actor, CriticEnsemble, Standardise, initialise, mlp
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Refusal

CONSTANT = 1e-6
"""Baseline actions that differ by no more are one action."""

ROUNDING = 1e-6
"""Of a return, by which float32 rewards alone may change it."""
FIT_ERROR = 1e-3
FIT_STEPS = 2_000
FIT_BATCH = 256


@dataclass(frozen=True)
class RewardScale:
    """What rewards are multiplied by, and in those units the mean discounted return and the largest possible.

    The largest possible, in size, has the log's largest reward at every request of its longest session;
    of an endless one where a session of the log is cut off.
    """

    scale: float
    mean_return: float
    largest_return: float

    @classmethod
    def of(cls, transitions: Transitions, gamma: float, scale: float | None = None) -> "RewardScale":
        """Returns `scale`, or 1 / std of the discounted return (1 where the return never varies).

        Returns that differ by no more than float32 rewards are rounded are the same.
        """
        n = len(transitions)
        mean = sum(returns.sum() for returns in transitions.returns_backwards(gamma)) / n
        squares = sum(np.square(returns - mean).sum() for returns in transitions.returns_backwards(gamma))
        std = math.sqrt(squares / n)
        varies = std > ROUNDING * abs(mean)
        scale = scale or (1 / std if varies else 1.0)
        starts = np.append(transitions.session_starts, n)
        whole = all(block.terminals.all() for block in transitions.blocks(starts[1:] - 1))
        longest = np.diff(starts).max() if whole else np.inf
        reward = max(np.abs(block.rewards).max() for block in transitions.blocks())
        return cls(scale, scale * float(mean), scale * float(reward * (1 - gamma**longest) / (1 - gamma)))


def standardisation(transitions: Transitions, numeric: Sequence[bool] | None = None) -> Standardise:
    """Returns the scaling of the `numeric` features (those of the log) to mean 0, std 1."""
    mean = transitions.mean(lambda block: block.observations, np.float64)
    variance = transitions.mean(lambda block: np.square(block.observations - mean))
    return Standardise.of(mean, np.sqrt(variance), numeric or transitions.numeric_mask)


def explored_dimensions(transitions: Transitions) -> list[int]:
    """Returns the action dimensions whose bounds have a width somewhere in the log; a Refusal if none has."""
    wide = [(block.upper > block.lower).any(axis=0) for block in transitions.blocks()]
    explored = np.flatnonzero(np.any(wide, axis=0)).tolist()
    if not explored:
        raise Refusal("the log explores no dimension of the action: collect it with bounds wider than 0")
    return explored


def starting_critics(
    n_critics: int,
    config: OffPolicyConfig,
    transitions: Transitions,
    standardise: Standardise,
    reward_scale: RewardScale,
    generator: torch.Generator,
) -> CriticEnsemble:
    """Returns fresh critics of the log's explored dimensions that predict around its mean return."""
    critics = CriticEnsemble(
        n_critics,
        len(transitions.feature_names),
        transitions.fusion.n_actions,
        config.hidden,
        config.action_input,
        explored_dimensions(transitions),
    )
    return critics.initialise(standardise, reward_scale.mean_return, generator).to(config.device)


def starting_value(
    config: OffPolicyConfig, transitions: Transitions, reward_scale: RewardScale, generator: torch.Generator
) -> nn.Sequential:
    """Returns a fresh network of states [n, f + d] -> V [n, 1] that predicts around the log's mean return."""
    n_inputs = len(transitions.feature_names) + transitions.fusion.n_actions
    value = initialise(mlp([n_inputs, *config.hidden, 1]), generator)
    nn.init.constant_(value[-1].bias, reward_scale.mean_return)  # type: ignore[arg-type]
    return value.to(config.device)


def starting_encoder(
    config: OffPolicyConfig, transitions: Transitions, n_latents: int, generator: torch.Generator
) -> nn.Sequential:
    """Returns a fresh network of states and actions [n, f + 2 d] -> mean and log std of latents, [n, 2 l]."""
    n_inputs = len(transitions.feature_names) + 2 * transitions.fusion.n_actions
    return initialise(mlp([n_inputs, *config.hidden, 2 * n_latents]), generator).to(config.device)


def mean_bounds(transitions: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns centre, as offset from the baseline action, and half width of the log's mean bounds, [d] each."""
    edges = transitions.mean(lambda block: block.lower), transitions.mean(lambda block: block.upper)
    lower, upper = (torch.as_tensor(edge, dtype=torch.float32) for edge in edges)
    return (lower + upper) / 2, (upper - lower) / 2


def baseline_actions(requests: Requests, baseline: Policy | None) -> NDArray[np.float32]:
    """Returns the actions [n, d] of the baseline policy, those logged where no policy is given."""
    return requests.baseline_actions if baseline is None else baseline.act(requests.observations)


def baseline_network(
    transitions: Transitions, hidden: tuple[int, ...], baseline: Policy | None, generator: torch.Generator
) -> nn.Module:
    """Returns a network that acts as the baseline did in the log: its own, or one as of `starting_actor`."""
    if baseline is None or len(baseline.item_names) != len(transitions.item_names):
        return starting_actor(transitions, hidden, None, generator).requires_grad_(False)
    baseline.check(transitions.fusion, transitions.observed_names)
    return copy.deepcopy(baseline.network).requires_grad_(False)


def logged_std(transitions: Transitions) -> torch.Tensor:
    """Returns the std [d] of the logged actions about the centre of their bounds; 1 where they never vary."""

    def squares(block: Requests) -> NDArray[np.float32]:
        return np.square(block.actions - (block.baseline_actions + (block.lower + block.upper) / 2))

    std = np.sqrt(transitions.mean(squares).astype(np.float32))
    return torch.as_tensor(np.where(std > 0, std, 1), dtype=torch.float32)


def starting_actor(
    transitions: Transitions, hidden: tuple[int, ...], baseline: Policy | None, generator: torch.Generator
) -> Actor:
    """Returns an actor that acts as the baseline did in the log; in a joined one, as that of its last part.

    Weights and standardisation are copied from `baseline` where it is an actor of the same shape. A constant
    baseline action is met exactly. Else the actor is fitted to the logged baseline actions until the root mean
    square of the errors is 1e-3, with a warning where that is not reached in 2,000 steps.
    """
    standardise = standardisation(transitions)
    actor = Actor(len(transitions.feature_names), transitions.fusion.n_actions, hidden)
    actor.initialise(standardise, generator)
    if baseline is not None:
        baseline.check(transitions.fusion, transitions.observed_names)
        if isinstance(baseline.network, Actor) and baseline.network.architecture == actor.architecture:
            actor.load_state_dict(baseline.network.state_dict())
            return actor
    low = np.min([block.baseline_actions.min(axis=0) for block in transitions.blocks()], axis=0)
    high = np.max([block.baseline_actions.max(axis=0) for block in transitions.blocks()], axis=0)
    if (high - low).max() <= CONSTANT:
        mean = transitions.mean(lambda block: block.baseline_actions)
        _make_constant(actor, mean.astype(np.float32))
    else:
        _fit(actor, transitions, generator)
    return actor


def policy_in_training(
    algo: str, network: nn.Module, transitions: Transitions, reward_scale: RewardScale
) -> Policy:
    """Returns the policy that `network` is at any moment of its training by `algo`."""
    return Policy(
        network=network,
        fusion=transitions.fusion,
        feature_names=transitions.observed_names,
        numeric_mask=transitions.numeric_mask,
        info={"algo": algo, "reward_scale": reward_scale.scale},
        item_names=transitions.item_names,
        typical_predictions=transitions.typical,
    )


@torch.no_grad()
def _make_constant(actor: Actor, action: np.ndarray) -> None:
    actor.last.weight.zero_()
    actor.last.bias.copy_(torch.atanh(torch.as_tensor(action).clamp(-1 + CONSTANT, 1 - CONSTANT)))


def _fit(actor: Actor, transitions: Transitions, generator: torch.Generator) -> None:
    """Regresses the actor onto the logged baseline actions, with a learning rate that falls to 0."""
    optimiser = torch.optim.Adam(actor.head.parameters(), lr=3e-3, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, FIT_STEPS)
    for step in range(1, FIT_STEPS + 1):
        rows = torch.randint(len(transitions), (FIT_BATCH,), generator=generator)
        loss = functional.mse_loss(*_acted(actor, transitions[rows.numpy()]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 and (error := _error(actor, transitions)) <= FIT_ERROR:
            return
    warnings.warn(f"the actor starts {error:.1e} from the baseline policy, root mean square", stacklevel=2)


@torch.no_grad()
def _error(actor: Actor, transitions: Transitions) -> float:
    """Returns the root mean square difference of the actor's actions from the baseline's."""

    def squares(block: Requests) -> NDArray[np.float32]:
        acted, logged = _acted(actor, block)
        return (acted - logged).square().numpy()

    return math.sqrt(transitions.mean(squares).mean())


def _acted(actor: Actor, requests: Requests) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the actor's and the baseline's actions."""
    return actor(torch.as_tensor(requests.observations)), torch.as_tensor(requests.baseline_actions)
