"""Transitions as the networks read them: drawn at every step, and computed of what is drawn."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from mtf_engine.logs.transitions import Requests as Logged
from mtf_engine.logs.transitions import Transitions
from mtf_engine.networks import CriticEnsemble, box, deviation


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
            actions.flatten(0, -2), deviation(actions, self.centre, self.half_width).flatten(0, -2)
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
    rewards: Tensor  # [n], scaled
    discounts: Tensor  # [n], gamma, or 0 where the step is terminal
    next_state: Tensor  # [n, f + d]
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

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Returns n of the transitions, drawn with replacement."""
        return self.at(torch.randint(len(self.transitions), (n,), generator=generator))

    def at(self, steps: Tensor) -> Batch:
        """Returns the transitions with those numbers."""
        here, after = self.transitions[steps.numpy()], self.transitions.after(steps.numpy())
        state, centre, half_width = self._context(here)
        actions = self._tensor(here.actions)
        return Batch(
            state,
            self.critics.action_inputs(actions, deviation(actions, centre, half_width)),
            actions,
            centre,
            half_width,
            self._tensor(here.rewards) * self.reward_scale,
            self.gamma * (~self._tensor(here.terminals)).float(),
            *self._context(after),
        )

    def _context(self, requests: Logged) -> tuple[Tensor, Tensor, Tensor]:
        baseline = self._tensor(requests.baseline_actions)
        state = torch.cat([self.critics.standardise(self._tensor(requests.observations)), baseline], dim=1)
        return state, *box(baseline, self._tensor(requests.lower), self._tensor(requests.upper))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.as_tensor(values, device=self.critics.explored.device)
