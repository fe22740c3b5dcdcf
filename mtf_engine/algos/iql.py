"""IQL: values by expectile regression on logged actions alone, an actor that imitates the better of them.

Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR 2022,
arXiv 2110.06169; the order of an update and the form of the policy are those of the authors' code. Departures:

- The std of the policy starts at that of the logged actions, not at 1, which is seven boxes wide here.
- The actor's learning rate stays as it is; the authors' falls to 0 along a cosine.
- Fixed dimensions have no density and leave the actor's loss.
- The temperature means something because rewards are scaled by 1 / std of the discounted return.
- Critic input, start and discount are those of all methods here, or they would be compared too. V sees what
  the critics see, the action aside.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.start import (
    RewardScale,
    logged_std,
    policy_in_training,
    starting_actor,
    starting_critics,
    starting_value,
)
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import soft_update
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Count

STATEFUL = (
    "value", "actor", "log_std", "critics", "target_critics",
    "value_optimiser", "actor_optimiser", "critic_optimiser",
)  # fmt: skip

LOG_STD = (-5.0, 2.0)
"""Ends of the policy's log std, as in the authors' code."""


class IQLConfig(OffPolicyConfig):
    """Settings of IQL."""

    n_critics: Count = Field(default=2, description="critics whose minimum counts (paper: 2)")
    expectile: float = Field(
        default=0.7, gt=0, lt=1, description="V is this expectile of Q over logged actions (paper: 0.7)"
    )
    temperature: float = Field(
        default=3.0, ge=0, description="a logged action weighs exp(temperature (Q - V)) (paper: beta 3)"
    )
    actor_learning_rate: float = Field(default=3e-4, gt=0, description="of Adam (paper: 3e-4)")
    largest_weight: float = Field(default=100.0, gt=0, description="weights are cut here (paper: 100)")


class IQL:
    """The trainer: `update` does one step on one batch: V, actor, Q, target."""

    Config: ClassVar[type[TrainerConfig]] = IQLConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"temperature": 100.0},
        "paper": {
            "n_steps": 300_000,
            "hidden": (256, 256),
            "critic_learning_rate": 3e-4,
        },
        "demo": {"n_steps": 1_000},
    }

    def __init__(self, config: IQLConfig, transitions: Transitions, baseline: Policy | None = None) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.reward_scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
        self.actor = starting_actor(transitions, config.hidden, baseline, self.generator).to(config.device)
        self.critics = starting_critics(
            config.n_critics, config, transitions, self.actor.standardise, self.reward_scale, self.generator
        )
        self.value = starting_value(config, transitions, self.reward_scale, self.generator)
        self.log_std = nn.ParameterList([logged_std(transitions).log()]).to(config.device)
        self.target_critics = target_of(self.critics)
        self.value_optimiser = adam(self.value.parameters(), config.critic_learning_rate)
        self.actor_optimiser = adam(
            [*self.actor.parameters(), *self.log_std.parameters()], config.actor_learning_rate
        )
        self.critic_optimiser = adam(self.critics.parameters(), config.critic_learning_rate)
        self.policy = policy_in_training("iql", self.actor, transitions, self.reward_scale)

    def prepare(self, transitions: Transitions) -> Batches:
        """Returns the transitions as `update` takes them, batch by batch."""
        return Batches.of(transitions, self.critics, self.config, self.reward_scale.scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`, each of which sees what the one before it learned."""
        value_loss = descend(self.value_optimiser, self._value_loss(batch))
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch))
        critic_loss = descend(self.critic_optimiser, self._critic_loss(batch))
        soft_update(self.target_critics, self.critics, self.config.tau)
        self.step += 1
        return {
            "critic_loss": critic_loss / self.config.n_critics,
            "actor_loss": actor_loss,
            "value_loss": value_loss,
        }

    def _value_loss(self, batch: Batch) -> Tensor:
        """Expectile regression of V on the targets' Q of the logged actions (paper, formula 5)."""
        error = self._q(batch) - self.value(batch.state)[:, 0]
        weight = torch.where(error < 0, 1 - self.config.expectile, self.config.expectile)
        return (weight * error.square()).mean()

    def _actor_loss(self, batch: Batch) -> Tensor:
        """Minus the log density of the logged actions, weighed by their advantage (paper, formula 7)."""
        return -(self._weights(batch) * self._log_density(batch)).mean()

    def _critic_loss(self, batch: Batch) -> Tensor:
        """Squared error of each critic to `r + gamma V(s')`, summed over critics (paper, formula 6)."""
        with torch.no_grad():
            targets = batch.rewards + batch.discounts * self.value(batch.next_state)[:, 0]
        return (self.critics(batch.state, batch.action_inputs) - targets).square().mean(dim=1).sum()

    @torch.no_grad()
    def _q(self, batch: Batch) -> Tensor:
        return self.target_critics(batch.state, batch.action_inputs).amin(dim=0)

    @torch.no_grad()
    def _weights(self, batch: Batch) -> Tensor:
        advantage = self._q(batch) - self.value(batch.state)[:, 0]
        return (self.config.temperature * advantage).exp().clamp(max=self.config.largest_weight)

    def _std(self) -> Tensor:
        """Returns the policy's standard deviation by dimension, the same for all requests: [d]."""
        return self.log_std[0].clamp(*LOG_STD).exp()

    def _log_density(self, batch: Batch) -> Tensor:
        """Returns the log density of the logged actions under N(mu(s), std), over explored dimensions: [n]."""
        density = torch.distributions.Normal(self.actor.head(batch.observations), self._std())
        return (density.log_prob(batch.actions) * batch.explored).sum(dim=1)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state.

        `effective_sample_size` is the share (sum w)^2 / (n sum w^2) of the batch that as many equal weights
        would be.
        """
        actions, weights = self.actor.head(batch.observations), self._weights(batch)
        return {
            **watched(self.critics, batch, actions, self.policy.fusion.names, self.reward_scale),
            "v_mean": self.value(batch.state).mean(),
            "share_capped": (weights >= self.config.largest_weight).float().mean(),
            "effective_sample_size": weights.mean().square() / weights.square().mean(),
            "policy_std": self._std()[self.critics.explored].mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)
