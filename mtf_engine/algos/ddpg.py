"""DDPG: a deterministic actor that climbs one critic, and nothing that holds it to the data.

Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016, arXiv 1509.02971.
Departures, each with its reason:

- It learns from a log, without exploring on its own: that is the comparison. The actor drifts to where the
  critic has seen nothing; `distance_from_data` tells how far. The published weight decay and slow targets keep
  Q finite there: with `critic_weight_decay=0` and `tau=0.005` it grows to 100 times what can be earned.
- No batch normalisation: observations are standardised already.
- Critic input, start, reward scale and discount are those of all methods here, or they would be compared too.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.start import RewardScale, policy_in_training, starting_actor, starting_critics
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import soft_update
from mtf_engine.policies.policy import Policy

STATEFUL = ("actor", "critics", "target_actor", "target_critics", "actor_optimiser", "critic_optimiser")


class DDPGConfig(OffPolicyConfig):
    """Settings of DDPG."""

    tau: float = Field(
        default=0.001, gt=0, le=1, description="soft-update rate of the targets at each step (paper: 0.001)"
    )
    critic_weight_decay: float = Field(
        default=0.01, ge=0, description="of the critic's parameters, in its gradient (paper: 0.01)"
    )


class DDPG:
    """The trainer: `update` does one step on one batch."""

    Config: ClassVar[type[TrainerConfig]] = DDPGConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"passes": 1.0, "actor_learning_rate": 3.33e-5, "critic_learning_rate": 3.33e-4},
        "paper": {"n_steps": 300_000, "batch_size": 64, "hidden": (400, 300)},
        "demo": {"n_steps": 1_000},
    }

    def __init__(self, config: DDPGConfig, transitions: Transitions, baseline: Policy | None = None) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.reward_scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
        self.actor = starting_actor(transitions, config.hidden, baseline, self.generator).to(config.device)
        self.critics = starting_critics(
            1, config, transitions, self.actor.standardise, self.reward_scale, self.generator
        )
        self.target_actor, self.target_critics = target_of(self.actor), target_of(self.critics)
        self.actor_optimiser = adam(self.actor.parameters(), config.actor_learning_rate)
        self.critic_optimiser = adam(
            self.critics.parameters(), config.critic_learning_rate, config.critic_weight_decay
        )
        self.policy = policy_in_training("ddpg", self.actor, transitions, self.reward_scale)

    def prepare(self, transitions: Transitions) -> Batches:
        """Returns the transitions as `update` takes them, batch by batch."""
        return Batches.of(transitions, self.critics, self.config, self.reward_scale.scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`: critic, actor, targets."""
        critic_loss = descend(self.critic_optimiser, self._critic_loss(batch))
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch))
        soft_update(self.target_critics, self.critics, self.config.tau)
        soft_update(self.target_actor, self.actor, self.config.tau)
        self.step += 1
        return {"critic_loss": critic_loss, "actor_loss": actor_loss}

    def _critic_loss(self, batch: Batch) -> Tensor:
        """Squared error of Q to `r + gamma Q'(s', mu'(s'))`."""
        with torch.no_grad():
            actions = self.target_actor.head(batch.next_observations)
            targets = batch.rewards + batch.discounts * batch.following.q(self.target_critics, actions)
        return (self.critics(batch.state, batch.action_inputs) - targets).square().mean()

    def _actor_loss(self, batch: Batch) -> Tensor:
        return -batch.here.q(self.critics, self.actor.head(batch.observations)).mean()

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state."""
        actions = self.actor.head(batch.observations)
        return watched(self.critics, batch, actions, self.policy.fusion.names, self.reward_scale)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)
