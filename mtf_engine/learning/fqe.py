"""Fitted Q evaluation: what a policy is worth at each state, by regression on a log that another one made.

Le, Voloshin and Yue, "Batch policy learning under constraints", ICML 2019, arXiv 1903.08738, by steps of gradient.
Three critics are fitted at once, on the same batches, as one stacked network:

- the policy's own Q;
- a conservative one: the loss has `alpha (Q(s, mu(s)) - Q(s, a))` more, the term of CQL (arXiv 2006.04779, equation
  2) with the evaluated policy's actions, as in the estimator of BatchRL-MTF (arXiv 2208.04560, alpha 5e-4);
- that of the smoothed policy (`evaluation.smoothing`), whose next actions are drawn anew at each step.

The target follows softly, and fast: at a rate of 0.005 the baseline's own value was 7 % off after 800 steps. The rate
of learning falls to 0, so that the last batch does not decide. Critic input, first value and reward scale are those of
all methods here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtf_engine.evaluation import smoothing
from mtf_engine.evaluation.off_policy import CONSERVATIVE
from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.config import OffPolicyConfig
from mtf_engine.learning.start import RewardScale, standardisation, starting_critics
from mtf_engine.learning.steps import adam, descend, target_of
from mtf_engine.logs.transitions import Requests, Transitions
from mtf_engine.policies.networks import CriticEnsemble, soft_update
from mtf_engine.policies.policy import Policy

N_CRITICS = 3
ACTIONS = (0, 0, 1)
"""Of the next actions that are asked about, the policy's and the smoothed one's: which a critic bootstraps from."""


class FQEConfig(OffPolicyConfig):
    """Settings of the fit."""

    tau: float = Field(default=0.1, gt=0, le=1, description="soft-update rate of the target at each step")
    alpha: float = Field(
        default=5e-4, ge=0, description="weight of the conservative term (BatchRL-MTF: 5e-4)"
    )
    smoothing: float = Field(
        default=2.0, gt=0, description="standard deviation of the smoothed policy, in half widths"
    )


@dataclass(frozen=True)
class FittedQ:
    """Critics of one policy, in units of the reward times `reward_scale`."""

    critics: CriticEnsemble
    reward_scale: float


def fitted_q(transitions: Transitions, policy: Policy, config: FQEConfig) -> FittedQ:
    """Returns the critics of `policy`, fitted to a log; the same seed gives the same bits.

    A Refusal where the policy takes other features or dimensions, or the log explores none.
    """
    policy.check(transitions.fusion, transitions.feature_names)
    generator = torch.Generator().manual_seed(config.seed)
    luck = np.random.default_rng(config.seed)
    scale = RewardScale.of(transitions, config.gamma, config.reward_scale)
    critics = starting_critics(N_CRITICS, config, transitions, standardisation(transitions), scale, generator)
    target = target_of(critics)
    n_steps = config.steps(len(transitions))
    optimiser = adam(critics.parameters(), config.critic_learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    batches = Batches.of(transitions, critics, config, scale.scale)
    for _ in range(n_steps):
        steps = torch.randint(len(transitions), (config.batch_size,), generator=generator)
        here, after = transitions[steps.numpy()], transitions.after(steps.numpy())
        batch, smoothed = batches.at(steps), luck.random(here.actions.shape)
        following = next_actions(after, policy, config.smoothing, smoothed)
        own = torch.as_tensor(policy.act(here.observations))
        descend(optimiser, loss(critics, target, batch, own, following, config.alpha))
        schedule.step()
        soft_update(target, critics, config.tau)
    return FittedQ(critics, scale.scale)


def next_actions(after: Requests, policy: Policy, tau: float, luck: np.ndarray) -> Tensor:
    """Returns the policy's actions and the smoothed one's at the requests `after`, [2, n, d]."""
    actions = policy.act(after.observations)
    low, high = smoothing.box_of(after.baseline_actions, after.lower, after.upper)
    return torch.as_tensor(np.stack([actions, smoothing.drawn(actions, low, high, tau, luck)]))


def loss(
    critics: CriticEnsemble,
    target: CriticEnsemble,
    batch: Batch,
    own: Tensor,
    following: Tensor,
    alpha: float,
) -> Tensor:
    """Returns the squared errors of all critics to `r + gamma Q'(s', a')`, and the conservative one's term.

    `own` [n, d] are the policy's actions here, `following` [2, n, d] what it and the smoothed one do next.
    """
    with torch.no_grad():
        bootstrap = batch.following.q(target, following)[range(N_CRITICS), list(ACTIONS)]
        targets = batch.rewards + batch.discounts * bootstrap  # [3, n]
    q, q_own = batch.here.q(critics, torch.stack([batch.actions, own]), learn=True).unbind(1)
    gap = (q_own - q)[CONSERVATIVE].mean()
    return (q - targets).square().mean(dim=1).sum() + alpha * gap
