"""Transitions as the networks read them: drawn at every step, and computed of what is drawn."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtf_engine.learning.config import OffPolicyConfig
from mtf_engine.logs.transitions import Requests as Logged
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import CriticEnsemble, box, relative_actions


class Requests(NamedTuple):
    """What critics are told of n requests, the action aside. A state is [standardised observation, baseline]."""

    state: Tensor  # [n, f + d]
    centre: Tensor  # [n, d]
    half_width: Tensor  # [n, d], infinite in fixed dimensions

    def q(self, critics: CriticEnsemble, actions: Tensor, learn: bool = False) -> Tensor:
        """Returns Q of actions [..., n, d], [n_critics, ..., n].

        Gradients reach the actions and, where the critics are to `learn`, their parameters.
        """
        seen = critics.action_inputs(
            actions.flatten(0, -2), relative_actions(actions, self.centre, self.half_width).flatten(0, -2)
        )
        state = self.state.expand(*actions.shape[:-1], -1).flatten(0, -2)
        return critics(state, seen, learn).unflatten(1, actions.shape[:-1])


@dataclass(frozen=True)
class Batch:
    """n transitions. A state is [standardised observation, baseline action]."""

    state: Tensor  # [n, f + d]
    action_inputs: Tensor  # [n, explored], what critics see of the logged action
    actions: Tensor  # [n, d], as logged
    centre: Tensor  # [n, d]
    half_width: Tensor  # [n, d], infinite in fixed dimensions
    rewards: Tensor  # [n], scaled; discounted sums where a method bootstraps after more than one
    discounts: Tensor  # [n], gamma to the power of how many they are, or 0 where the last step is terminal
    next_state: Tensor  # [n, f + d], after the last of them
    next_centre: Tensor  # [n, d]
    next_half_width: Tensor  # [n, d]

    @property
    def observations(self) -> Tensor:
        return self.state[:, : -self.centre.shape[1]]

    @property
    def next_observations(self) -> Tensor:
        return self.next_state[:, : -self.centre.shape[1]]

    @property
    def explored(self) -> Tensor:
        """Whether a dimension has a width: bool [n, d]."""
        return self.half_width.isfinite()

    @property
    def here(self) -> Requests:
        return Requests(self.state, self.centre, self.half_width)

    @property
    def following(self) -> Requests:
        return Requests(self.next_state, self.next_centre, self.next_half_width)

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Batches:
    """A log as critics read it: what is drawn comes to their device, the rest stays where it is."""

    transitions: Transitions
    critics: CriticEnsemble
    gamma: float
    reward_scale: float
    ahead: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = (
        None  # as of `Transitions.ahead`; None: one step
    )

    @classmethod
    def of(
        cls, transitions: Transitions, critics: CriticEnsemble, config: OffPolicyConfig, reward_scale: float
    ) -> "Batches":
        """Returns the log as the critics read it, with as many rewards a step as `config` asks for."""
        ahead = transitions.ahead(config.n_rewards, config.gamma) if config.n_rewards > 1 else None
        return cls(transitions, critics, config.gamma, reward_scale, ahead)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Returns n of the transitions, drawn with replacement."""
        return self.at(torch.randint(len(self.transitions), (n,), generator=generator))

    def at(self, steps: Tensor) -> Batch:
        """Returns the transitions with those numbers."""
        at = steps.numpy()
        here, last = self.transitions[at], at
        rewards, terminals = here.rewards, here.terminals
        discounts: float | Tensor = self.gamma
        if self.ahead:
            later = self.ahead[1][at]
            last = at + later
            rewards, terminals = self.ahead[0][at], self.transitions[last].terminals
            discounts = self._tensor(np.float32(self.gamma) ** (1 + later))
        state, centre, half_width = self._context(here)
        actions = self._tensor(here.actions)
        return Batch(
            state,
            self.critics.action_inputs(actions, relative_actions(actions, centre, half_width)),
            actions,
            centre,
            half_width,
            self._tensor(rewards) * self.reward_scale,
            discounts * (~self._tensor(terminals)).float(),
            *self._context(self.transitions.after(last)),
        )

    def _context(self, requests: Logged) -> tuple[Tensor, Tensor, Tensor]:
        baseline = self._tensor(requests.baseline_actions)
        state = torch.cat([self.critics.standardise(self._tensor(requests.observations)), baseline], dim=1)
        return state, *box(baseline, self._tensor(requests.lower), self._tensor(requests.upper))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.as_tensor(values, device=self.critics.explored.device)
