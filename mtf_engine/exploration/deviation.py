"""How far exploration moves an action: the chance to stay within a distance, and the largest deviation."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.spec import BoundsPlan

NODES = 4
PANELS = np.concatenate([np.arange(0, 0.6, 0.025), np.arange(0.6, 2, 0.2), [2.0]])
"""Deviations are integrated panel by panel; 2 is the width of the action space."""

Within = Callable[[float], NDArray[np.float64]]
"""The chance [r] that no component of a request's action moves further than a distance."""


def within_uniform(plan: BoundsPlan, baseline_actions: NDArray, segments: NDArray) -> Within:
    """Returns the chance [r] that uniform noise in the plan's boxes moves no component further than t."""
    lower, upper = (b.astype(np.float64) for b in plan.resolve(baseline_actions, segments))
    free = upper > lower
    width = np.where(free, upper - lower, 1)

    def within(t: float) -> NDArray[np.float64]:
        down, up = _limits(baseline_actions, t)
        overlap = np.minimum(upper, up) - np.maximum(lower, down)
        return np.where(free, np.clip(overlap / width, 0, 1), overlap >= 0).prod(axis=1)

    return within


def within_gaussian(sigma: float, plan: BoundsPlan, baseline_actions: NDArray, segments: NDArray) -> Within:
    """Returns the chance [r] that noise N(0, sigma^2) moves no component further than t.

    A dimension that the plan fixes stays where the plan puts it, as `explore` has it.
    """
    lower, upper = plan.resolve(baseline_actions, segments)
    free = upper > lower

    def within(t: float) -> NDArray[np.float64]:
        down, up = _limits(baseline_actions, t)
        mass = ndtr(up / sigma) - ndtr(down / sigma)
        return np.where(free, mass, (lower >= down) & (lower <= up)).prod(axis=1)

    return within


def within_mixture(
    mixture: Mixture, plan: BoundsPlan, baseline_actions: NDArray, segments: NDArray
) -> Within:
    """Returns the chance [r] that a draw of the mixture moves no component further than t."""
    lower, upper = plan.resolve(baseline_actions, segments)
    free = upper > lower
    noise = within_gaussian(mixture.sigma, plan, baseline_actions, segments)
    low, high = ndtr([-1 / mixture.random_sigma, 1 / mixture.random_sigma])

    def within(t: float) -> NDArray[np.float64]:
        ends = [np.clip(baseline_actions + end, -1, 1) / mixture.random_sigma for end in (-t, t)]
        mass = (ndtr(ends[1]) - ndtr(ends[0])) / (high - low)
        down, up = _limits(baseline_actions, t)
        at_random = np.where(free, mass, (lower >= down) & (lower <= up)).prod(axis=1)
        return noise(t) + mixture.random_share * (at_random - noise(t))

    return within


def _limits(baseline_actions: NDArray, t: float) -> tuple[NDArray, NDArray]:
    """Returns the noise [r, d] that moves an action t down and up; infinite where clipping stops it first."""
    return (
        np.where(baseline_actions - t <= -1, -np.inf, -t),
        np.where(baseline_actions + t >= 1, np.inf, t),
    )


def expected_largest(within: Within, plan: BoundsPlan) -> float:
    """Returns the mean over requests of E max |deviation|, the integral of 1 - `within`(t) over [0, 2].

    The chance has a kink or a jump where `t` is an offset of the plan's walls, so panels end there.
    """
    walls = [box.lower + box.upper for box in (plan, *plan.segments.values())]
    edges = np.unique(np.concatenate([PANELS, np.abs(walls).ravel()]))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges) / 2
    t = (edges[:-1] + half)[:, None] + half[:, None] * nodes
    chances = [1 - within(x).mean() for x in t.ravel()]
    return float((half[:, None] * weights).ravel() @ chances)
