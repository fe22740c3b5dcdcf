"""Transitions as the networks read them: computed once, drawn from at every step."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from mtf_engine.logs.schema import Transitions
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

    def draw(self, n: int, generator: torch.Generator) -> "Batch":
        """Returns n of the transitions, drawn with replacement."""
        indices = torch.randint(len(self), (n,), generator=generator).to(self.rewards.device)
        return Batch(*(getattr(self, field.name).index_select(0, indices) for field in fields(self)))

    def __len__(self) -> int:
        return len(self.rewards)


def prepare(transitions: Transitions, critics: CriticEnsemble, gamma: float, reward_scale: float) -> Batch:
    """Returns all transitions as one batch, on the device of the critics that will read it."""
    device = critics.explored.device

    def tensor(name: str) -> Tensor:
        return torch.as_tensor(getattr(transitions, name), device=device)

    def context(prefix: str) -> tuple[Tensor, Tensor, Tensor]:
        baseline = tensor(f"{prefix}baseline_actions")
        state = torch.cat([critics.standardise(tensor(f"{prefix}observations")), baseline], dim=1)
        return state, *box(baseline, tensor(f"{prefix}lower"), tensor(f"{prefix}upper"))

    state, centre, half_width = context("")
    return Batch(
        state,
        critics.action_inputs(tensor("actions"), deviation(tensor("actions"), centre, half_width)),
        tensor("actions"),
        centre,
        half_width,
        tensor("rewards") * reward_scale,
        gamma * (~tensor("terminals")).float(),
        *context("next_"),
    )
