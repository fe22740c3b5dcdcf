"""Steps of training: descend, follow with a target, and be taken up again to the bit."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Returns Adam (Kingma and Ba, arXiv 1412.6980) with PyTorch's defaults, all parameters in one kernel.

    `weight_decay` times the parameter is added to its gradient, as of an L2 term in the loss.
    """
    return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay, fused=True)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Does one step down the gradient of `loss`; returns it as a number to log."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def target_of(network: Network) -> Network:
    """Returns a copy that no gradient reaches, to be moved by `soft_update`."""
    return copy.deepcopy(network).requires_grad_(False)


def state_of(trainer: Any, parts: Iterable[str]) -> dict[str, Any]:
    """Returns everything that a step changes: the states of its `parts`, of its generator, and its step."""
    states = {name: getattr(trainer, name).state_dict() for name in parts}
    return {**states, "generator": trainer.generator.get_state(), "step": trainer.step}


def restore(trainer: Any, parts: Iterable[str], state: Mapping[str, Any]) -> None:
    """Takes a trainer back to where `state_of` was called, to the bit."""
    for name in parts:
        getattr(trainer, name).load_state_dict(state[name])
    trainer.generator.set_state(state["generator"])
    trainer.step = state["step"]
