"""Exploration around the baseline action: formula 3, the Gaussian noise and the mixture beside it, and none."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.spec import BoundsPlan

Kind = Literal["uniform", "gaussian", "mixed", "baseline"]
EXPLORED: tuple[Kind, ...] = ("uniform", "gaussian", "mixed")
"""Kinds that move actions; their density is known."""


@dataclass(frozen=True)
class Exploration:
    """What n requests are served with, and how likely that was."""

    actions: NDArray[np.float32]  # [n, d], in [-1, 1]
    lower: NDArray[np.float32]  # [n, d], the plan's offsets from the baseline action
    upper: NDArray[np.float32]  # [n, d]
    pscore: NDArray[np.float64]  # [n], density of the noise; NaN where there was none
    clipped: NDArray[np.int32]  # [n], dimensions that clipping at [-1, 1] moved


def explore(
    kind: Kind,
    baseline_actions: NDArray[np.float32],
    plan: BoundsPlan,
    segments: NDArray[np.str_],
    *,
    sigma: float,
    control: NDArray[np.bool_],
    luck: NDArray[np.floating],
    mixture: Mixture | None = None,
    part: NDArray[np.floating] | None = None,
) -> Exploration:
    """Returns baseline actions [n, d] with noise: uniform in the plan's box, Gaussian of `sigma`, or of `mixture`.

    `luck` [n, d] are uniform draws in (0, 1), and so are `part` [n], by which a mixture chooses. Requests in `control`
    [n], and all of kind "baseline", stay at the baseline action and have no density. The density is that before any
    clipping; a dimension whose box has width 0 is fixed, for any noise, and leaves the density.

    Source: IntegratedRL-MTF (arXiv 2404.17589), formula 3.
    """
    lower, upper = plan.resolve(baseline_actions, segments)
    free = upper > lower
    if kind == "mixed":
        assert mixture is not None and part is not None
        noise = mixture.draw(baseline_actions, luck, part)
        density = mixture.density(baseline_actions, noise, free)
    else:
        noise, each = _uniform(lower, upper, luck) if kind == "uniform" else _gaussian(sigma, luck)
        density = np.prod(each, axis=1, where=free)
    still = control | (kind == "baseline")
    moved = baseline_actions + np.where(still[:, None], 0, np.where(free, noise, lower)).astype(np.float32)
    actions = np.clip(moved, -1, 1)
    return Exploration(
        actions=actions,
        lower=lower,
        upper=upper,
        pscore=np.where(still, np.nan, density),
        clipped=(actions != moved).sum(axis=1, dtype=np.int32),
    )


def _uniform(lower: NDArray, upper: NDArray, luck: NDArray) -> tuple[NDArray, NDArray]:
    """Returns noise uniform in [lower, upper] and its density, each [n, d]; NaN density at width 0."""
    width = upper.astype(np.float64) - lower
    density = np.divide(1, width, where=width > 0, out=np.full(width.shape, np.nan))
    return lower + luck * width, density


def _gaussian(sigma: float, luck: NDArray) -> tuple[NDArray, NDArray]:
    """Returns noise of standard deviation `sigma` and its density, each [n, d]."""
    noise = sigma * ndtri(luck)
    return noise, np.exp(-np.square(noise / sigma) / 2) / np.sqrt(2 * np.pi) / sigma
