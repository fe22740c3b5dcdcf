"""BatchRL-MTF: actions that a generative model holds near the log, moved a little towards a higher Q (BCQ).

Zhang et al., "Multi-Task Fusion via Reinforcement Learning for Long-Term User Satisfaction in Recommender
Systems", KDD 2022, arXiv 2208.04560; its learner is BCQ, Fujimoto et al., ICML 2019, arXiv 1812.02900, whose
order and details are as in d3rlpy. Departures:

- The variational autoencoder learns offsets from the baseline action in half widths of the bounds: all that a
  log explores lies within 0.15, which its KL would swallow. So the policy starts as the baseline, and holds it.
  No tanh cuts what it decodes, as the authors' does: actions are cut at [-1, 1] after their perturbation.
- Reconstruction and KL are both summed over dimensions, as in the likelihood they come from: BCQ's 0.5 of means
  over d dimensions and 2 d latents is `kl_weight` 0.25 here.
- The target takes the minimum of the critics; BCQ's mix of minimum and maximum has weight 1.
- Candidates of the served policy come from latents drawn once, so that it is deterministic, and its first critic
  judges them by the mean bounds of the log: a server does not know a request's own.
- Critic input, reward scale and discount are those of all methods here, or they would be compared too.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig, TrainerConfig
from mtf_engine.learning.start import (
    RewardScale,
    baseline_network,
    mean_bounds,
    policy_in_training,
    standardisation,
    starting_critics,
    starting_encoder,
)
from mtf_engine.learning.steps import adam, descend, restore, state_of, target_of
from mtf_engine.learning.watch import watched
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.candidates import LATENT_CLIP, CandidatePolicy
from mtf_engine.policies.networks import relative_actions, soft_update
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import MOST, Count

STATEFUL = (
    "encoder", "actor", "target_critics", "target_shift",
    "vae_optimiser", "critic_optimiser", "actor_optimiser",
)  # fmt: skip

LOG_STD = (-4.0, 15.0)
"""Ends of the encoder's log std, as in the authors' code."""
SATURATED = 0.95
"""A perturbation beyond this share of its largest is at its limit."""


class BatchRLMTFConfig(OffPolicyConfig):
    """Settings of BatchRL-MTF."""

    n_critics: Count = Field(default=2, description="critics whose minimum counts (BCQ: 2)")
    n_candidates: int = Field(
        default=10, ge=2, le=MOST, description="actions of which the best is taken (BCQ: 10)"
    )
    perturbation: float = Field(
        default=0.15,
        ge=0,
        description="largest move of a candidate, on the scale of actions (BCQ: 0.05; ours)",
    )
    kl_weight: float = Field(
        default=0.25, gt=0, description="of the KL, summed over latents, beside the squared error (BCQ: 0.25)"
    )
    vae_learning_rate: float = Field(default=1e-3, gt=0, description="of Adam (BCQ: 1e-3)")


class BatchRLMTF:
    """The trainer: `update` does one step on one batch."""

    Config: ClassVar[type[TrainerConfig]] = BatchRLMTFConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {
            "passes": 2.0,
            "actor_learning_rate": 3e-4,
            "critic_learning_rate": 3e-3,
            "vae_learning_rate": 3e-3,
        },
        "paper": {"n_steps": 300_000, "hidden": (256, 256), "critic_learning_rate": 2e-4},
        "demo": {"n_steps": 1_000},
    }

    def __init__(
        self, config: BatchRLMTFConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.reward_scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
        network = baseline_network(transitions, config.hidden, baseline, self.generator)
        standardise = standardisation(transitions)
        self.critics = starting_critics(
            config.n_critics, config, transitions, standardise, self.reward_scale, self.generator
        )
        self.actor = CandidatePolicy(
            network, self.critics, config.hidden, config.n_candidates, config.perturbation
        ).initialise(*mean_bounds(transitions), self.generator)
        self.actor.to(config.device)
        self.encoder = starting_encoder(config, transitions, self.actor.n_latents, self.generator)
        self.target_critics, self.target_shift = target_of(self.critics), target_of(self.actor.shift)
        self.vae_optimiser = adam(
            [*self.encoder.parameters(), *self.actor.decoder.parameters()], config.vae_learning_rate
        )
        self.critic_optimiser = adam(self.critics.parameters(), config.critic_learning_rate)
        self.actor_optimiser = adam(self.actor.shift.parameters(), config.actor_learning_rate)
        self.policy = policy_in_training("batchrl_mtf", self.actor, transitions, self.reward_scale)

    def prepare(self, transitions: Transitions) -> Batches:
        """Returns the transitions as `update` takes them, batch by batch."""
        return Batches.of(transitions, self.critics, self.config, self.reward_scale.scale)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of one step on `batch`: autoencoder, critics, perturbation, targets."""
        vae_loss = descend(self.vae_optimiser, self._vae_loss(batch))
        critic_loss = descend(self.critic_optimiser, self._critic_loss(batch))
        actor_loss = descend(self.actor_optimiser, self._actor_loss(batch))
        soft_update(self.target_critics, self.critics, self.config.tau)
        soft_update(self.target_shift, self.actor.shift, self.config.tau)
        self.step += 1
        return {
            "critic_loss": critic_loss / self.config.n_critics,
            "actor_loss": actor_loss,
            "vae_loss": vae_loss,
        }

    def _vae_loss(self, batch: Batch) -> Tensor:
        """Minus the evidence lower bound of the logged offsets: squared error and KL, summed over dimensions."""
        offsets = self.actor.offsets(batch.state, batch.actions)
        mean, log_std = self.encoder(torch.cat([batch.state, offsets], dim=1)).chunk(2, dim=1)
        log_std = log_std.clamp(*LOG_STD)
        decoded = self.actor.decode(batch.state, mean + log_std.exp() * self._normal(*mean.shape))
        error = (decoded - offsets).square().sum(dim=1)
        divergence = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(dim=1) / 2
        return (error + self.config.kl_weight * divergence).mean()

    def _critic_loss(self, batch: Batch) -> Tensor:
        """Squared error to the best of some next candidates by the targets' minimum, summed over critics."""
        with torch.no_grad():
            candidates = self.actor.perturbed(
                batch.next_state, self._decoded(batch.next_state, self.config.n_candidates), self.target_shift
            )
            value = batch.following.q(self.target_critics, candidates).amin(dim=0).amax(dim=0)
        targets = batch.rewards + batch.discounts * value
        return (self.critics(batch.state, batch.action_inputs) - targets).square().mean(dim=1).sum()

    def _actor_loss(self, batch: Batch) -> Tensor:
        """Minus the first critic of one candidate each; the perturbation alone learns."""
        actions = self.actor.perturbed(batch.state, self._decoded(batch.state))
        return -batch.here.q(self.critics, actions)[0].mean()

    @torch.no_grad()
    def _decoded(self, state: Tensor, *times: int) -> Tensor:
        """Returns offsets [*times, n, d] of latents drawn anew, cut as those of the policy are."""
        latents = self._normal(*times, len(state), self.actor.n_latents).clamp(-LATENT_CLIP, LATENT_CLIP)
        return self.actor.decode(state, latents)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.config.device)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor | float]:
        """Returns what is watched during training, on one batch, without touching any state.

        `candidate_spread` is the standard deviation of the policy's candidates in half widths, over explored
        dimensions; `share_saturated` the share of their perturbations at the limit.
        """
        offsets = self.actor.decode(batch.state, self.actor.latents[:, None].expand(-1, len(batch), -1))
        candidates = self.actor.perturbed(batch.state, offsets)
        spread = relative_actions(candidates, batch.centre, batch.half_width).std(dim=0, correction=0)
        at_limit = self.actor.push(batch.state, offsets).abs() > SATURATED
        actions = self.actor.best(batch.state, candidates)
        explored = batch.explored.sum().clamp(min=1)
        return {
            **watched(self.critics, batch, actions, self.policy.fusion.names, self.reward_scale),
            "candidate_spread": spread.sum() / explored,
            "share_saturated": (at_limit & batch.explored).sum() / (len(offsets) * explored),
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return state_of(self, STATEFUL)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        restore(self, STATEFUL, state)
