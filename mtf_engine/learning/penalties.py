"""How far an action is outside its bounds, and what that costs: the paper's formula 5 and its repairs."""

from typing import Literal, get_args

import torch
from torch import Tensor

PenaltyForm = Literal["expm1", "exp", "linear", "printed"]
FORMS: tuple[PenaltyForm, ...] = get_args(PenaltyForm)

LINEAR_FROM = 5.0
"""Beyond this exponent the exponential forms go on along their tangent, so gradients stay finite."""


def relative_excess(deviations: Tensor, beta: float) -> Tensor:
    """Returns the distance outside the bounds in units of `beta` bound widths, [..., d]; 0 inside.

    `deviations` are actions in half widths from the centre of their bounds, 0 in fixed dimensions.
    """
    return (deviations.abs() - 1).clamp(min=0) / (2 * beta)


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
    growth = torch.expm1(exponent) + torch.exp(exponent) * (excess - exponent)
    return growth + (excess > 0) if form == "exp" else growth
