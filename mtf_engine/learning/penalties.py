"""How far an action is outside its bounds, and what that costs: the paper's formula 5 and its repairs."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

PenaltyForm = Literal["expm1", "exp", "linear", "printed"]
FORMS: tuple[PenaltyForm, ...] = get_args(PenaltyForm)
CriticPenaltyForm = Literal["target", "decay", "printed"]
CRITIC_FORMS: tuple[CriticPenaltyForm, ...] = get_args(CriticPenaltyForm)

LINEAR_FROM = 5.0
"""Beyond this exponent the exponential forms go on along their tangent, so gradients stay finite."""


def relative_excess(relative: Tensor, beta: float) -> Tensor:
    """Returns the distance outside the bounds in units of `beta` bound widths, [..., d]; 0 inside.

    `relative` are actions in half widths from the centre of their bounds, 0 in fixed dimensions.
    """
    return (relative.abs() - 1).clamp(min=0) / (2 * beta)


def penalty(excess: Tensor, form: PenaltyForm = "expm1") -> Tensor:
    """Returns the cost of each relative excess x, the same shape; 0 inside the bounds in every form.

    `expm1` is e^x - 1: continuous at the bound, and growing. `exp` is e^x, the same gradient with a jump
    of 1. `linear` is x. `printed` is e^-x, formula 5 as the paper prints it: it *falls* with the distance,
    so minimising it pushes an action that is outside farther out. Beyond x = 5 `expm1` and `exp` are linear.
    """
    if form == "linear":
        return excess
    if form == "printed":
        return torch.where(excess > 0, torch.exp(-excess), 0.0)
    exponent = excess.clamp(max=LINEAR_FROM)
    growth = torch.expm1(exponent) + math.exp(LINEAR_FROM) * (excess - exponent)
    return growth + (excess > 0) if form == "exp" else growth


def penalised_bootstrap(
    q: Tensor, excess: Tensor, form: CriticPenaltyForm, delta: float, of: PenaltyForm = "expm1"
) -> Tensor:
    """Returns what critics learn of the value q [..., batch] of actions: less, where those leave the bounds.

    `excess` [batch, d] is relative. `target` subtracts `delta` times the bounds penalty `of` the actions.
    `decay`, of the paper's v6, moves q down by 1 - phi of its size, phi = e^-x for the excess x over all
    dimensions, whatever the sign of q. `printed`, formula 6 as it stands, subtracts a term without a gradient
    in the critic: q is left as it is.
    """
    if form == "target":
        return q - delta * penalty(excess, of).sum(dim=-1)
    if form == "decay":
        return q + torch.expm1(-excess.sum(dim=-1)) * q.abs()
    return q
