"""What is watched of every actor in training: its Q, and where its actions lie in the bounds and the data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtf_engine.exploration.walls import AT_WALL
from mtf_engine.learning.batches import Batch
from mtf_engine.learning.start import RewardScale
from mtf_engine.policies.networks import CriticEnsemble, relative_actions

FLOAT_ERROR = 1e-4
"""An action on a bound is inside, whatever float32 made of it; half widths."""


@torch.no_grad()
def watched(
    critics: CriticEnsemble, batch: Batch, actions: Tensor, names: Sequence[str], scale: RewardScale
) -> dict[str, Tensor | float]:
    """Returns, of an actor's `actions` [n, d] for `batch`, what every method logs.

    `q_mean` is the mean over critics and requests, `largest_return` what it can be at most. Shares are of
    requests, by dimension; at the wall is as `at_wall` has it, in half widths. `distance_from_data` is
    the mean distance from the centre of the bounds, in standard deviations of the logged actions about it,
    over the dimensions in which those vary: a policy at all walls of a uniform log has 1.73.
    """
    relative = relative_actions(actions, batch.centre, batch.half_width)
    beyond = relative.abs() - 1
    return {
        "q_mean": batch.here.q(critics, actions).mean(),
        "reward_scale": scale.scale,
        "largest_return": scale.largest_return,
        "distance_from_data": _distance(batch, relative),
        **_shares("share_outside", beyond > FLOAT_ERROR, batch.explored, names),
        **_shares("share_at_wall", is_at_wall(relative), batch.explored, names),
    }


def is_at_wall(relative: Tensor) -> Tensor:
    """Returns whether relative actions are at a wall, as `exploration.walls.at_wall` has it in half widths."""
    return relative.abs() >= 1 - 2 * AT_WALL


def _distance(batch: Batch, relative: Tensor) -> Tensor:
    logged = relative_actions(batch.actions, batch.centre, batch.half_width)
    spread = logged.square().mean(dim=0).sqrt()
    varies = spread > 0
    return (relative[:, varies].abs().mean(dim=0) / spread[varies]).mean().nan_to_num()


def _shares(name: str, found: Tensor, explored: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    shares = (found & explored).sum(dim=0) / explored.sum(dim=0).clamp(min=1)
    return {f"{name}/{dimension}": share for dimension, share in zip(names, shares, strict=True)}
