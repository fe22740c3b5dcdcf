"""UnifiedRL: IntegratedRL-MTF as its authors have it later, with a group of critics for each part of the reward.

Liu et al., "UnifiedRL: A Reinforcement Learning Algorithm Tailored for Multi-Task Fusion in Large-Scale Recommender
Systems", arXiv 2404.17589 v6. Of `integrated_rl`, their v5, two things are changed: one group of critics learns what
watch time brings, the other what all other feedback brings, and the actor climbs the weighted sum of both; and what
critics bootstrap is multiplied by phi, 1 inside the bounds and decaying outside, instead of losing a penalty.
Departures, and what v6 leaves open, each with its switch or its reason:

- `phi` times a negative Q would make leaving the bounds pay: `phi="sign_safe"` takes 1 - phi of its size off Q
  whatever its sign; `"product"` is the paper's. Over several dimensions phi is e^-x of the sum of their excesses x,
  and its softness is the penalty's own `beta`: v6 gives neither.
- Which feedback is whose: `groups="watch_time"` is the paper's two. Where the reward is not of watch time and
  others, as in a log of steps alone, there is one group; metrics tell the loss of each group that there is.
- The weights of the groups are not printed: at 1 and 1 the actor climbs the reward that every method here climbs.
- Formula 5 falls with the distance as printed; `penalty` has its forms, as in `integrated_rl`.
- Its evaluation by importance sampling is not a matter of training: policies of all methods are evaluated alike.
- Rewards are scaled by 1 / std of the discounted return, one scale for both groups. The actor starts as the
  baseline policy, each group's critics at the mean return of their part, and critics see the action relative to its
  logged bounds. Learning rates and layer sizes are not in the paper; each field below says where its default is from.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.penalties import PenaltyForm, penalty, relative_excess
from mtf_engine.learning.start import RewardScale, policy_in_training, starting_actor, starting_critics
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import CriticEnsemble, relative_actions, soft_update
from mtf_engine.policies.policy import Policy
from mtf_engine.reward import discounted_returns
from mtf_engine.spec import MOST, Count

VARIANCE_FLOOR = 1e-6
"""Added to the critics' variance: the gradient of a square root is infinite at 0."""

GROUPS = ("watch_time", "other_feedback")
STATEFUL = ("actor", "ensemble", "target_actor", "target_ensemble", "actor_optimiser", "critic_optimiser")


class UnifiedRLConfig(OffPolicyConfig):
    """Settings of UnifiedRL."""

    groups: Literal["watch_time", "one"] = Field(
        default="watch_time",
        description="watch time and other feedback have critics each, where rewards have both (paper), or one group",
    )
    n_critics: int = Field(
        default=24, ge=2, le=MOST // 2, description="independent critics a group (paper: 24)"
    )
    watch_weight: float = Field(
        default=1.0, ge=0, description="weight of the critics of watch time in the actor's loss (ours)"
    )
    other_weight: float = Field(
        default=1.0, ge=0, description="weight of the critics of other feedback in the actor's loss (ours)"
    )
    eta: float = Field(
        default=1.2, ge=0, description="weight of the bounds penalty in the actor's loss (paper: 1.2)"
    )
    beta: float = Field(
        default=0.3, gt=0, description="softness of penalty and phi, in widths of the bounds (paper: 0.3)"
    )
    lambda_std: float = Field(
        default=0.2, ge=0, description="weight of the critics' disagreement (paper: lambda 0.2)"
    )
    tau: float = Field(default=0.08, gt=0, le=1, description="soft-update rate of the targets (paper: 0.08)")
    target_update_interval: Count = Field(default=15, description="steps between soft updates (paper: 15)")
    penalty: PenaltyForm = Field(default="expm1", description="form of formula 5; printed is the paper's")
    phi: Literal["sign_safe", "product"] = Field(
        default="sign_safe",
        description="what is bootstrapped outside the bounds: Q less 1 - phi of its size, or phi times Q (paper)",
    )


@dataclass(frozen=True)
class GroupedBatch(Batch):
    """n transitions, and what each group's critics learn of their rewards."""

    group_rewards: Tensor  # [groups, n], scaled


@dataclass(frozen=True)
class GroupedBatches:
    """A log as two groups of critics read it, or one where `watch_rewards` [steps], scaled, are None."""

    batches: Batches
    watch_rewards: Tensor | None

    def draw(self, n: int, generator: torch.Generator) -> GroupedBatch:
        """Returns n of the transitions, drawn with replacement."""
        return self.at(torch.randint(len(self.batches.transitions), (n,), generator=generator))

    def at(self, steps: Tensor) -> GroupedBatch:
        """Returns the transitions with those numbers."""
        batch = self.batches.at(steps)
        if self.watch_rewards is None:
            return GroupedBatch(**vars(batch), group_rewards=batch.rewards[None])
        watching = self.watch_rewards[steps].to(batch.rewards.device)
        return GroupedBatch(**vars(batch), group_rewards=torch.stack([watching, batch.rewards - watching]))


class UnifiedRL:
    """The trainer: `update` does one step of both losses on one batch. Critics are ordered by group."""

    Config: ClassVar[type[TrainerConfig]] = UnifiedRLConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {},
        "paper": {"n_steps": 300_000, "hidden": (256, 256), "critic_learning_rate": 2e-4},
        "demo": {"n_steps": 500},
    }

    def __init__(
        self, config: UnifiedRLConfig, transitions: Transitions, baseline: Policy | None = None
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
        apart = config.groups == "watch_time" and transitions.watch_rewards is not None
        self.groups = GROUPS if apart else ("all_feedback",)
        self.weights = torch.tensor(
            [config.watch_weight, config.other_weight] if apart else [1.0], device=config.device
        )[:, None]  # [groups, 1]
        self.ensemble = starting_critics(
            len(self.groups) * config.n_critics,
            config,
            transitions,
            self.actor.standardise,
            self.reward_scale,
            self.generator,
        )
        if apart:
            self._start_apart(transitions)
        self.target_actor, self.target_ensemble = target_of(self.actor), target_of(self.ensemble)
        self.actor_optimiser = adam(self.actor.parameters(), config.actor_learning_rate)
        self.critic_optimiser = adam(self.ensemble.parameters(), config.critic_learning_rate)
        self.policy = policy_in_training("unified_rl", self.actor, transitions, self.reward_scale)

    @torch.no_grad()
    def _start_apart(self, transitions: Transitions) -> None:
        """Lets each group's critics predict around the mean return of their part of the reward."""
        assert transitions.watch_rewards is not None
        returns = discounted_returns(transitions.watch_rewards, transitions.session_starts, self.config.gamma)
        watching = self.reward_scale.scale * float(returns.mean())
        of_watching, of_others = self.ensemble.biases[-1].chunk(2)
        of_watching.fill_(watching)
        of_others.fill_(self.reward_scale.mean_return - watching)

    @property
    def critics(self) -> CriticEnsemble:
        """`n_critics` critics of the whole reward: a critic of each group, added up."""
        return self.ensemble.summed(len(self.groups)) if len(self.groups) > 1 else self.ensemble

    def prepare(self, transitions: Transitions) -> GroupedBatches:
        """Returns the transitions as `update` takes them, batch by batch."""
        c, scale = self.config, self.reward_scale.scale
        batches = Batches.of(transitions, self.ensemble, c, scale)
        if len(self.groups) == 1:
            return GroupedBatches(batches, None)
        watching, _ = transitions.ahead(c.n_rewards, c.gamma, transitions.watch_rewards)
        return GroupedBatches(batches, scale * torch.as_tensor(watching))

    def update(self, batch: GroupedBatch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`: critics, actor, and every few steps the targets."""
        of_groups = self._critic_losses(batch)
        critic_loss = descend(self.critic_optimiser, of_groups.sum())
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch))
        self.step += 1
        if self.step % self.config.target_update_interval == 0:
            soft_update(self.target_ensemble, self.ensemble, self.config.tau)
            soft_update(self.target_actor, self.actor, self.config.tau)
        each = zip(self.groups, of_groups.detach() / self.config.n_critics, strict=True)
        return {
            "critic_loss": critic_loss / self.ensemble.n_critics,
            "actor_loss": actor_loss,
            **{f"critic_loss_{group}": loss for group, loss in each},
        }

    def _critic_losses(self, batch: GroupedBatch) -> Tensor:
        """Squared error of each critic to its own target, summed over the critics of each group: [groups]."""
        q = self._by_group(self.ensemble(batch.state, batch.action_inputs))
        return (q - self._targets(batch)).square().sum(dim=(1, 2)) / len(batch)

    @torch.no_grad()
    def _targets(self, batch: GroupedBatch) -> Tensor:
        """A group's rewards plus what each critic bootstraps, less outside the bounds: [groups, n_critics, n]."""
        actions = self.target_actor.head(batch.next_observations)
        relative = relative_actions(actions, batch.next_centre, batch.next_half_width)
        seen = self.target_ensemble.action_inputs(actions, relative)
        q = self._by_group(self.target_ensemble(batch.next_state, seen))
        less = -torch.expm1(-relative_excess(relative, self.config.beta).sum(dim=1))  # 1 - phi
        bootstrap = q - less * (q.abs() if self.config.phi == "sign_safe" else q)
        return batch.group_rewards[:, None] + batch.discounts * bootstrap

    def _actor_loss(self, batch: GroupedBatch) -> Tensor:
        """Minus the groups' mean critics, plus the bounds penalty, plus the groups' disagreement; groups weighted."""
        actions = self.actor.head(batch.observations)
        relative = relative_actions(actions, batch.centre, batch.half_width)
        seen = self.ensemble.action_inputs(actions, relative)
        q = self._by_group(self.ensemble(batch.state, seen, learn=False))
        mean = q.mean(dim=1)  # [groups, n]
        disagreement = ((q - mean[:, None]).square().mean(dim=1) + VARIANCE_FLOOR).sqrt()
        value = (self.weights * (mean - self.config.lambda_std * disagreement)).sum(dim=0)
        return (self.config.eta * self._penalty(relative) - value).mean()

    def _by_group(self, q: Tensor) -> Tensor:
        return q.unflatten(0, (len(self.groups), -1))  # [groups, n_critics, n]

    def _penalty(self, relative: Tensor) -> Tensor:
        return penalty(relative_excess(relative, self.config.beta), self.config.penalty).sum(dim=1)

    @torch.no_grad()
    def diagnose(self, batch: GroupedBatch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state.

        Q is of the whole reward. `q_std_inside` and `q_std_outside` are its standard deviation over critics at the
        logged action, moved into its bounds where it is outside, and at that action one half width farther out in
        every dimension.
        """
        critics = self.critics
        actions = self.actor.head(batch.observations)
        relative = relative_actions(actions, batch.centre, batch.half_width)
        half_width = batch.half_width.nan_to_num(posinf=0)
        logged = relative_actions(batch.actions, batch.centre, batch.half_width).clamp(-1, 1)
        farther = logged + torch.where(logged < 0, -1, 1) * batch.explored
        inside, outside = (
            batch.here.q(critics, batch.centre + place * half_width).std(dim=0, correction=0).mean()
            for place in (logged, farther)
        )
        return {
            **watched(critics, batch, actions, self.policy.fusion.names, self.reward_scale),
            "q_std_inside": inside,
            "q_std_outside": outside,
            "penalty": self._penalty(relative).mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)
