"""Variances of deviations that tell slopes best for what they cost, in closed form: Lagrange multipliers with caps.

A deviation of variance v_i tells the slope of dimension i with precision `r_i v_i` and costs `k_i v_i / 2`; v_i is
at most m_i, above 0. The mean squared error of the slopes, mean_i `1 / (r_i v_i)`, is least for its cost where

    v_i = min(m_i, t / sqrt(k_i r_i)):

at the least of `1 / (r_i v_i) + mu k_i v_i / 2` the derivative is 0, or v_i at its cap. `t` is one number for all
dimensions. While no cap is met both information and cost are in proportion to it. Dimension i meets its cap at
`t_i = m_i sqrt(k_i r_i)`; with those of the smallest t_i held at their caps, t follows from the error wished, or
from the cost allowed, by one division. A dimension that costs nothing is at its cap.

With `each` the slopes are all to have one error: `v_i = P / r_i`, for a precision P.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mtf_engine.spec import Refusal

Array = NDArray[np.float64]
SLACK = 1e-9
"""That a wish may exceed what the caps allow, relatively."""


def information(rates: Array, variances: Array, each: bool = False) -> float:
    """Returns 1 / mean_i `1 / (r_i v_i)`: the precision of an average slope; with `each` of the worst one."""
    precisions = rates * variances
    return float(precisions.min() if each else 1 / np.mean(1 / precisions))


def cost(curvatures: Array, variances: Array) -> float:
    """Returns what a request loses on average, `sum_i k_i v_i / 2`."""
    return float(curvatures @ variances) / 2


def cheapest(rates: Array, curvatures: Array, most: Array, wished: float, each: bool = False) -> Array:
    """Returns the variances [d] of least cost with the `wished` information; refuses one that caps do not allow."""
    there = information(rates, most, each)
    if wished > there * (1 + SLACK):
        raise Refusal(
            f"teach: the widest box allowed tells {there / wished:.2g} times what is wished; "
            f"give {wished / there:.3g} times the sessions, or wish for less"
        )
    if each:
        return np.minimum(wished / rates, most)
    error, each_error = len(rates) / wished, np.sqrt(curvatures / rates)

    def reach(held: NDArray[np.int64], free: NDArray[np.int64]) -> float:
        left = error - (1 / (rates[held] * most[held])).sum()
        return float(each_error[free].sum() / left) if left > 0 else np.inf

    return _up_to(reach, rates, curvatures, most)


def most_telling(rates: Array, curvatures: Array, most: Array, allowed: float, each: bool = False) -> Array:
    """Returns the variances [d] of most information that cost what is `allowed`, or the caps where those cost less."""
    if each:
        total = float((curvatures / rates).sum())
        precision = min(2 * allowed / total if total else np.inf, float((rates * most).min()))
        return precision / rates
    if cost(curvatures, most) <= allowed:
        return most.copy()
    each_cost = np.sqrt(curvatures / rates) / 2

    def reach(held: NDArray[np.int64], free: NDArray[np.int64]) -> float:
        left = allowed - cost(curvatures[held], most[held])
        return float(left / each_cost[free].sum())

    return _up_to(reach, rates, curvatures, most)


def _up_to(
    reach: Callable[[NDArray[np.int64], NDArray[np.int64]], float],
    rates: Array,
    curvatures: Array,
    most: Array,
) -> Array:
    """Returns `min(m, t / sqrt(k r))` for the t that `reach` tells of the dimensions held at their caps and not.

    The first number of held ones with which t does not exceed the next cap's is the right one, for t grows with
    each that is held.
    """
    caps = most * np.sqrt(curvatures * rates)
    order, costly = np.argsort(caps, kind="stable"), int((caps > 0).sum())
    for held in range(len(caps) - costly, len(caps)):
        t = reach(order[:held], order[held:])
        if t <= caps[order[held]]:
            return most * np.minimum(1, np.divide(t, caps, out=np.ones_like(caps), where=caps > 0))
    return most.copy()
