"""The smoothed policy: a truncated Gaussian about the policy's action, inside the logged box.

A deterministic policy has no density, so importance weights are those of a policy that draws each explored dimension
about its action, with a standard deviation of `tau` half widths of the request's own box, until it is inside. With a
large `tau` it is the uniform exploration of that box, with a small one the policy itself, its action cut to the box.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp

from mtf_engine.spec import MIN_WIDTH

Floats = NDArray[np.float64]
ROUNDING = 1e-6
"""By which a float32 action may lie outside of the box that it was drawn from."""


def box_of(
    baseline_actions: NDArray[np.floating], lower: NDArray[np.floating], upper: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Returns the ends [n, d] of the box about baseline actions, cut at [-1, 1]; bounds are offsets."""
    baseline = baseline_actions.astype(np.float64)
    return np.clip(baseline + lower, -1, 1), np.clip(baseline + upper, -1, 1)


def log_density(
    actions: NDArray[np.floating], means: NDArray[np.floating], low: Floats, high: Floats, tau: float
) -> Floats:
    """Returns the log density [n] of actions [n, d] under the smoothed policy; -inf outside of the box.

    Dimensions without a width have no density and are left out.
    """
    free, sigma = _free(low, high, tau)
    inside = (actions >= low - ROUNDING) & (actions <= high + ROUNDING)
    z = (np.clip(actions, low, high) - means) / sigma
    mass = _log_mass((low - means) / sigma, (high - means) / sigma)
    density = -np.square(z) / 2 - np.log(np.sqrt(2 * np.pi) * sigma) - mass
    return np.where(inside, density, -np.inf).sum(axis=1, where=free)


def drawn(
    means: NDArray[np.floating], low: Floats, high: Floats, tau: float, luck: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Returns actions [..., d] of the smoothed policy for uniform draws `luck` [..., d] from (0, 1).

    Dimensions without a width are at their one value.
    """
    free, sigma = _free(low, high, tau)
    a, b = (low - means) / sigma, (high - means) / sigma
    flipped, left, right = _in_left_tail(a, b)
    share = np.exp(left - right)
    z = np.where(flipped, -1, 1) * ndtri_exp(right + np.log(share + luck * (1 - share)))
    return np.where(free, np.clip(means + sigma * z, low, high), low).astype(np.float32)


def _free(low: Floats, high: Floats, tau: float) -> tuple[NDArray[np.bool_], Floats]:
    """Returns which dimensions have a width, and the standard deviation in action units, 1 in the others."""
    free = high - low > MIN_WIDTH / 2
    return free, np.where(free, tau * (high - low) / 2, 1.0)


def _log_mass(a: Floats, b: Floats) -> Floats:
    """Returns log(Phi(b) - Phi(a)) for a <= b, exact in both tails; 0 where they are equal."""
    _, left, right = _in_left_tail(a, b)
    same = left >= right
    return np.where(same, 0.0, right + np.log(-np.expm1(np.where(same, -1.0, left - right))))


def _in_left_tail(a: Floats, b: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Returns whether [a, b] is mirrored, and the logs of Phi at its two ends as they then are.

    Most of what is inside then lies left of 0, where the logs tell numbers apart.
    """
    mirrored = a + b > 0
    return mirrored, log_ndtr(np.where(mirrored, -b, a)), log_ndtr(np.where(mirrored, -a, b))
