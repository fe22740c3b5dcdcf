"""IntegratedRL-MTF: an actor that knows its exploration bounds, against an ensemble of independent critics.

Liu et al., "An Off-Policy Reinforcement Learning Algorithm Customized for Multi-Task Fusion in Large-Scale
Recommender Systems", arXiv 2404.17589 v5, formulas 4 to 6. Departures, each with its switch or its reason:

- Formula 5 as printed falls with the distance outside the bounds and would push the actor out:
  `penalty="expm1"` grows instead; `"printed"` is the paper's.
- The second term of formula 6 has no gradient in the critic as printed: `critic_penalty="target"` subtracts
  it from the bootstrap; `"decay"` is the form of the paper's v6; `"printed"` leaves it out.
- Critics see the action relative to its logged bounds: `action_input="deviation"`; `"raw"` is the action.
- Each critic has its own target network and bootstrap, no minimum is taken: their disagreement is the signal.
- Rewards are scaled by 1 / std of the discounted return, so that eta, lambda and delta have a meaning.
- The actor starts as the baseline policy, the critics at the mean return.
- Learning rates, layer sizes and delta are not in the paper; each field below says where its default is from.
"""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.penalties import (
    CriticPenaltyForm,
    PenaltyForm,
    penalised_bootstrap,
    penalty,
    relative_excess,
)
from mtf_engine.learning.start import RewardScale, policy_in_training, starting_actor, starting_critics
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import relative_actions, soft_update
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import MOST, Count

VARIANCE_FLOOR = 1e-6
"""Added to the critics' variance: the gradient of a square root is infinite at 0."""

STATEFUL = ("actor", "critics", "target_actor", "target_critics", "actor_optimiser", "critic_optimiser")


class IntegratedRLConfig(OffPolicyConfig):
    """Settings of IntegratedRL-MTF."""

    n_critics: int = Field(default=24, ge=2, le=MOST, description="independent critics (paper: 24)")
    eta: float = Field(
        default=1.2, ge=0, description="weight of the bounds penalty in the actor's loss (paper: 1.2)"
    )
    beta: float = Field(
        default=0.3, gt=0, description="softness of the penalty, in widths of the bounds (paper: 0.3)"
    )
    lambda_std: float = Field(
        default=0.2, ge=0, description="weight of the critics' disagreement (paper: lambda 0.2)"
    )
    delta: float = Field(default=1.0, ge=0, description="weight of the penalty in the critics' target (ours)")
    tau: float = Field(default=0.08, gt=0, le=1, description="soft-update rate of the targets (paper: 0.08)")
    target_update_interval: Count = Field(default=15, description="steps between soft updates (paper: 15)")
    penalty: PenaltyForm = Field(default="expm1", description="form of formula 5; printed is the paper's")
    critic_penalty: CriticPenaltyForm = Field(
        default="target",
        description="form of formula 6; printed, the paper's, has no effect; decay is its v6",
    )


class IntegratedRL:
    """The trainer: `update` does one step of formulas 4 to 6 on one batch."""

    Config: ClassVar[type[TrainerConfig]] = IntegratedRLConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {},
        "paper": {"n_steps": 300_000, "hidden": (256, 256), "critic_learning_rate": 2e-4},
        "demo": {"n_steps": 500},
    }

    def __init__(
        self, config: IntegratedRLConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        if config.penalty == "printed":
            warnings.warn(
                "penalty=printed falls with the distance and pushes the actor out of its bounds", stacklevel=2
            )
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.reward_scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
        self.actor = starting_actor(transitions, config.hidden, baseline, self.generator).to(config.device)
        self.critics = starting_critics(
            config.n_critics, config, transitions, self.actor.standardise, self.reward_scale, self.generator
        )
        self.target_actor, self.target_critics = target_of(self.actor), target_of(self.critics)
        self.actor_optimiser = adam(self.actor.parameters(), config.actor_learning_rate)
        self.critic_optimiser = adam(self.critics.parameters(), config.critic_learning_rate)
        self.policy = policy_in_training("integrated_rl", self.actor, transitions, self.reward_scale)

    def prepare(self, transitions: Transitions) -> Batches:
        """Returns the transitions as `update` takes them, batch by batch."""
        return Batches.of(transitions, self.critics, self.config, self.reward_scale.scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`: critics, actor, and every few steps the targets."""
        critic_loss = descend(self.critic_optimiser, self._critic_loss(batch))
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch))
        self.step += 1
        if self.step % self.config.target_update_interval == 0:
            soft_update(self.target_critics, self.critics, self.config.tau)
            soft_update(self.target_actor, self.actor, self.config.tau)
        return {"critic_loss": critic_loss / self.config.n_critics, "actor_loss": actor_loss}

    def _critic_loss(self, batch: Batch) -> Tensor:
        """Formula 6: squared error of each critic to its own target, summed, so that none slows another."""
        q = self.critics(batch.state, batch.action_inputs)  # [n_critics, batch]
        return (q - self._targets(batch)).square().sum() / len(batch)

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Tensor:
        actions = self.target_actor.head(batch.next_observations)
        relative = relative_actions(actions, batch.next_centre, batch.next_half_width)
        seen = self.target_critics.action_inputs(actions, relative)
        q = self.target_critics(batch.next_state, seen)  # [n_critics, batch]
        excess = relative_excess(relative, self.config.beta)
        form, of = self.config.critic_penalty, self.config.penalty
        return batch.rewards + batch.discounts * penalised_bootstrap(q, excess, form, self.config.delta, of)

    def _actor_loss(self, batch: Batch) -> Tensor:
        """Formula 4: minus the mean critic, plus the bounds penalty, plus the critics' disagreement."""
        actions = self.actor.head(batch.observations)
        relative = relative_actions(actions, batch.centre, batch.half_width)
        q = self._q(batch, actions, relative)  # [n_critics, batch]
        mean = q.mean(dim=0)
        disagreement = ((q - mean).square().mean(dim=0) + VARIANCE_FLOOR).sqrt()
        cost = self.config.eta * self._penalty(relative) + self.config.lambda_std * disagreement
        return (cost - mean).mean()

    def _q(self, batch: Batch, actions: Tensor, relative: Tensor) -> Tensor:
        return self.critics(batch.state, self.critics.action_inputs(actions, relative), learn=False)

    def _penalty(self, relative: Tensor) -> Tensor:
        return penalty(relative_excess(relative, self.config.beta), self.config.penalty).sum(dim=1)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state.

        `q_std_inside` and `q_std_outside` are the critics' standard deviation at the logged action, moved
        into its bounds where it is outside, and at that action one half width farther out in every dimension.
        """
        actions = self.actor.head(batch.observations)
        relative = relative_actions(actions, batch.centre, batch.half_width)
        inside = relative_actions(batch.actions, batch.centre, batch.half_width).clamp(-1, 1)
        return {
            **watched(self.critics, batch, actions, self.policy.fusion.names, self.reward_scale),
            "q_std_inside": self._disagreement(batch, inside),
            "q_std_outside": self._disagreement(
                batch, inside + torch.where(inside < 0, -1, 1) * batch.explored
            ),
            "penalty": self._penalty(relative).mean(),
        }

    def _disagreement(self, batch: Batch, relative: Tensor) -> Tensor:
        actions = batch.centre + relative * batch.half_width.nan_to_num(posinf=0)
        return self._q(batch, actions, relative).std(dim=0, correction=0).mean()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)
