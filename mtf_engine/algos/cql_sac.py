"""CQL(H) on SAC: Q of actions that the log does not have is pushed down, of logged ones up.

Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020, arXiv 2006.04779, on
Haarnoja et al., "Soft Actor-Critic", arXiv 1812.05905; order and details as in d3rlpy. Departures:

- Random actions are drawn in a box `cql_random_range` half widths about the centre of the logged bounds, cut at
  [-1, 1], and their density is that box's: over all of [-1, 1] next to none would fall where the log is.
- The policy's std starts at that of the logged actions, which lie within 0.15 where SAC's would span everything.
- The temperature starts low: rewards are scaled by 1 / std of the return, and entropy would drown them.
- `alpha` is fixed; a number in `lagrange_threshold` has it learned, and the conservative loss then is negative
  wherever the gap is below the threshold. The gap holds the log densities, so only its changes mean something.
- Fixed dimensions have no density: they leave entropy and gap.
- Critic input, start and discount are those of all methods here, or they would be compared too.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.start import (
    RewardScale,
    logged_std,
    policy_in_training,
    starting_actor,
    starting_critics,
)
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import soft_update
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Count

STATEFUL = (
    "actor", "log_std", "critics", "target_critics", "log_temperature", "log_multiplier",
    "actor_optimiser", "critic_optimiser", "temperature_optimiser", "multiplier_optimiser",
)  # fmt: skip

LOG_STD = (-20.0, 2.0)
"""Ends of the policy's log std, as in d3rlpy."""
LEAST_SLOPE = 0.1
"""Of tanh, where the policy starts; a baseline action beyond 0.95 has less."""
LARGEST_MULTIPLIER = 1e6


class CQLSACConfig(OffPolicyConfig):
    """Settings of CQL+SAC."""

    n_critics: Count = Field(default=2, description="critics whose minimum counts (paper: 2)")
    alpha: float = Field(
        default=1.0, ge=0, description="weight of the conservative loss (paper: 5; ours, for scaled rewards)"
    )
    lagrange_threshold: float | None = Field(
        default=None, description="gap at which alpha's multiplier rests; empty: alpha is fixed (paper: both)"
    )
    multiplier_learning_rate: float = Field(
        default=1e-4, gt=0, description="of Adam, for alpha's multiplier (d3rlpy: 1e-4)"
    )
    n_action_samples: Count = Field(default=10, description="actions of each of three kinds (paper: 10)")
    cql_random_range: float = Field(
        default=2.0, gt=0, description="half widths about the centre where random actions are drawn (ours)"
    )
    soft_q_backup: bool = Field(
        default=False, description="entropy counts in the critics' target (d3rlpy: no)"
    )
    initial_temperature: float = Field(
        default=0.01, gt=0, description="weight of the entropy at first (SAC: 1; ours, for scaled rewards)"
    )
    temperature_learning_rate: float = Field(default=1e-4, gt=0, description="of Adam (d3rlpy: 1e-4)")


class CQLSAC:
    """The trainer: `update` does one step on one batch."""

    Config: ClassVar[type[TrainerConfig]] = CQLSACConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {},
        "paper": {
            "n_steps": 300_000,
            "hidden": (256, 256, 256),
            "critic_learning_rate": 3e-4,
            "alpha": 5.0,
            "initial_temperature": 1.0,
        },
        "demo": {"n_steps": 1_000},
    }

    def __init__(
        self, config: CQLSACConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.reward_scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
        self.actor = starting_actor(transitions, config.hidden, baseline, self.generator).to(config.device)
        self.log_std = self._starting_std(transitions)
        self.critics = starting_critics(
            config.n_critics, config, transitions, self.actor.standardise, self.reward_scale, self.generator
        )
        self.target_critics = target_of(self.critics)
        self.log_temperature = _scalar(math.log(config.initial_temperature)).to(config.device)
        self.log_multiplier = _scalar(0.0).to(config.device)
        self.actor_optimiser = adam(
            [*self.actor.parameters(), *self.log_std.parameters()], config.actor_learning_rate
        )
        self.critic_optimiser = adam(self.critics.parameters(), config.critic_learning_rate)
        self.temperature_optimiser = adam(self.log_temperature, config.temperature_learning_rate)
        self.multiplier_optimiser = adam(self.log_multiplier, config.multiplier_learning_rate)
        self.policy = policy_in_training("cql_sac", self.actor, transitions, self.reward_scale)

    @torch.no_grad()
    def _starting_std(self, transitions: Transitions) -> nn.Linear:
        """Returns the layer beside the actor's last one: log std [n, d], before tanh, of its features.

        It starts at the logged std over the mean slope of tanh at the baseline action: so after tanh, where
        actions are, the std is the logged one.
        """
        layer = nn.Linear(self.config.hidden[-1], transitions.fusion.n_actions, device="meta")
        layer.to_empty(device=self.config.device)
        nn.init.zeros_(layer.weight)
        squares = transitions.mean(lambda block: torch.as_tensor(block.baseline_actions).square())
        slope = 1 - torch.as_tensor(squares, dtype=torch.float32)  # [d]
        layer.bias.copy_((logged_std(transitions) / slope.clamp(min=LEAST_SLOPE)).log())
        return layer

    def prepare(self, transitions: Transitions) -> Batches:
        """Returns the transitions as `update` takes them, batch by batch."""
        return Batches.of(transitions, self.critics, self.config, self.reward_scale.scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`: multiplier, critics, temperature, actor, targets."""
        critic_loss, gap = self._critic_loss(batch), self._gap(batch)
        if self.config.lagrange_threshold is not None:
            descend(self.multiplier_optimiser, -self._conservative(gap.detach()).mean())
        conservative_loss = self._conservative(gap).sum()
        descend(self.critic_optimiser, critic_loss + conservative_loss)

        actions, log_density = self._sample(batch.observations, batch.explored)
        temperature_loss = descend(self.temperature_optimiser, self._temperature_loss(log_density))
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch, actions, log_density))
        soft_update(self.target_critics, self.critics, self.config.tau)
        self.step += 1
        return {
            "critic_loss": critic_loss.detach() / self.config.n_critics,
            "conservative_loss": conservative_loss.detach(),
            "actor_loss": actor_loss,
            "temperature_loss": temperature_loss,
        }

    def _critic_loss(self, batch: Batch) -> Tensor:
        """Squared error to the targets' minimum at the policy's next action, summed over critics."""
        with torch.no_grad():
            value = self._next_value(batch)
        targets = batch.rewards + batch.discounts * value
        return (self.critics(batch.state, batch.action_inputs) - targets).square().mean(dim=1).sum()

    def _next_value(self, batch: Batch) -> Tensor:
        if not self.config.soft_q_backup:
            return batch.following.q(self.target_critics, self.actor.head(batch.next_observations)).amin(0)
        explored = batch.next_half_width.isfinite()
        actions, log_density = self._sample(batch.next_observations, explored)
        q = batch.following.q(self.target_critics, actions).amin(dim=0)
        return q - self._temperature() * log_density

    def _gap(self, batch: Batch) -> Tensor:
        """Returns logsumexp of Q over actions less Q of the logged one, the batch's mean: [n_critics].

        Actions are `n_action_samples` each of pi(s), of pi(s') and random in the box, all of them scored at
        s; each counts with 1 / its density, so that the sum estimates an integral.
        """
        with torch.no_grad():
            n, explored = self.config.n_action_samples, batch.explored
            drawn = [
                self._sample(batch.observations, explored, n),
                self._sample(batch.next_observations, explored, n),
                self._random(batch, n),
            ]
            actions = torch.cat([actions for actions, _ in drawn])  # [3 n, batch, d]
            log_density = torch.cat([log_density for _, log_density in drawn])  # [3 n, batch]
        q = batch.here.q(self.critics, actions, learn=True)  # [n_critics, 3 n, batch]
        logged = self.critics(batch.state, batch.action_inputs)
        return ((q - log_density).logsumexp(dim=1) - logged).mean(dim=1)

    def _conservative(self, gap: Tensor) -> Tensor:
        """Returns the conservative loss [n_critics]: the gap beyond its threshold, weighed by alpha."""
        multiplier = self.log_multiplier[0].exp().clamp(max=LARGEST_MULTIPLIER)
        return self.config.alpha * multiplier * (gap - (self.config.lagrange_threshold or 0.0))

    def _temperature_loss(self, log_density: Tensor) -> Tensor:
        """SAC's: the entropy is led to minus the number of explored dimensions."""
        missing = (log_density - len(self.critics.explored)).detach()
        return -(self._temperature() * missing).mean()

    def _actor_loss(self, batch: Batch, actions: Tensor, log_density: Tensor) -> Tensor:
        """SAC's: the smallest critic of sampled actions, and their entropy."""
        q = batch.here.q(self.critics, actions).amin(dim=0)
        return (self._temperature().detach() * log_density - q).mean()

    def _temperature(self) -> Tensor:
        return self.log_temperature[0].exp()

    def _sample(self, observations: Tensor, explored: Tensor, *times: int) -> tuple[Tensor, Tensor]:
        """Returns actions [*times, n, d] of the policy and their log density over explored dimensions."""
        features = self.actor.head[:-2](observations)
        mean, std = self.actor.last(features), self.log_std(features).clamp(*LOG_STD).exp()
        raw = mean + std * self._normal(*times, *mean.shape)
        stretch = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))  # log of tanh's slope
        density = torch.distributions.Normal(mean, std).log_prob(raw) - stretch
        return raw.tanh(), (density * explored).sum(dim=-1)

    def _random(self, batch: Batch, times: int) -> tuple[Tensor, Tensor]:
        """Returns uniform actions [times, n, d] in the box about the bounds, cut at [-1, 1], and log density."""
        reach = self.config.cql_random_range * batch.half_width
        low, high = (batch.centre - reach).clamp(-1, 1), (batch.centre + reach).clamp(-1, 1)
        actions = low + (high - low) * self._uniform(times, *low.shape)
        log_density = -((high - low).log() * batch.explored).sum(dim=1)
        return actions, log_density.expand(times, -1)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.config.device)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator).to(self.config.device)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state.

        `cql_gap` is Q of the policy's actions less Q of the logged ones: below 0 where Q is conservative.
        """
        actions = self.actor.head(batch.observations)
        std = self.log_std(self.actor.head[:-2](batch.observations)).clamp(*LOG_STD).exp()
        found = watched(self.critics, batch, actions, self.policy.fusion.names, self.reward_scale)
        return {
            **found,
            "cql_gap": found["q_mean"] - self.critics(batch.state, batch.action_inputs).mean(),
            "cql_alpha": self.config.alpha * self.log_multiplier[0].exp(),
            "temperature": self._temperature(),
            "policy_std": std[:, self.critics.explored].mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)


def _scalar(value: float) -> nn.ParameterList:
    """Returns one number that learns."""
    return nn.ParameterList([torch.tensor(value)])
