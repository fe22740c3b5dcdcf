"""The penalties as curves: what training computes on a one-dimensional box, with its gradient."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtf_engine.learning.penalties import (
    CRITIC_FORMS,
    FORMS,
    CriticPenaltyForm,
    PenaltyForm,
    penalised_bootstrap,
    penalty,
    relative_excess,
)
from mtf_engine.policies.networks import relative_actions
from mtf_engine.spec import Refusal


class Curve(NamedTuple):
    """Values at some offsets from the baseline action, and their gradient with respect to the offset."""

    value: NDArray[np.float64]  # [n]
    gradient: NDArray[np.float64]  # [n]


def actor_curves(
    offsets: NDArray[np.float64], lower: float, upper: float, *, beta: float, eta: float
) -> dict[str, Curve]:
    """Returns eta times the bounds penalty in the actor's loss, by form, at offsets [n]."""

    def cost(form: PenaltyForm) -> Callable[[Tensor], Tensor]:
        return lambda excess: eta * penalty(excess, form).sum(dim=1)

    return {form: _curve(cost(form), offsets, lower, upper, beta) for form in FORMS}


def critic_curves(
    offsets: NDArray[np.float64],
    lower: float,
    upper: float,
    *,
    beta: float,
    delta: float,
    q: float,
    of: PenaltyForm = "expm1",
) -> dict[str, Curve]:
    """Returns, by form, what critics learn of next actions at offsets [n] whose value is `q`."""

    def bootstrap(form: CriticPenaltyForm) -> Callable[[Tensor], Tensor]:
        values = torch.full((len(offsets),), q, dtype=torch.float64)
        return lambda excess: penalised_bootstrap(values, excess, form, delta, of)

    return {form: _curve(bootstrap(form), offsets, lower, upper, beta) for form in CRITIC_FORMS}


def _curve(
    of: Callable[[Tensor], Tensor], offsets: NDArray[np.float64], lower: float, upper: float, beta: float
) -> Curve:
    if not lower < upper:
        raise Refusal(
            f"a box from {lower:g} to {upper:g} has no width: its dimension is fixed and has no penalty"
        )
    x = torch.tensor(offsets, dtype=torch.float64, requires_grad=True)
    centre, half_width = torch.tensor([lower + upper, upper - lower], dtype=torch.float64) / 2
    value = of(relative_excess(relative_actions(x[:, None], centre, half_width), beta))
    (gradient,) = torch.autograd.grad(value.sum() + 0 * x.sum(), x)
    return Curve(value.detach().numpy(), gradient.numpy())
