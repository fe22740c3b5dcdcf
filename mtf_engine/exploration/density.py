"""Exploration-density efficiency: how many samples Gaussian noise needs for one of uniform exploration."""

import math
import sys
from typing import Any

import numpy as np
from scipy.special import erf, log_ndtr

from mtf_engine.exploration.mixture import Mixture, log_mass_in_range
from mtf_engine.spec import Refusal

CELLS = 5
RANGE = 1.5
MOST_DIMENSIONS = 1_000
LARGEST_LOG = math.log(sys.float_info.max)


def density_efficiency(
    half_width: float = 0.15,
    sigma: float = 0.2,
    dims: int = 10,
    *,
    cells: int = CELLS,
    z: float = RANGE,
    mixture: Mixture | None = None,
) -> dict[str, float]:
    """Returns samples of `N(0, sigma^2)` noise for one sample of `U(-half_width, half_width)`, by definition.

    Both are drawn in `dims` dimensions around the baseline action. "For the same density" has no single
    meaning; the keys `centre`, `mean`, `min`, `cells(5)` and `range(1.5)` name the five of
    `density_efficiency_box`. The "2^10 times" of IntegratedRL-MTF (arXiv 2404.17589) names none; its 10
    dimensions are the default here. With `mixture`, of its samples instead: `log_mixture_efficiency_box`.
    """
    if not 1 <= dims <= MOST_DIMENSIONS:
        raise Refusal(f"density: {dims} dimensions cannot be explored; give 1 to {MOST_DIMENSIONS}")
    if not 0 < half_width < math.inf:
        raise Refusal(f"density: a half width of {half_width:g} is no box; give a number above 0")
    box = np.full(dims, float(half_width))
    if mixture is not None:
        return _told(log_mixture_efficiency_box(-box, box, mixture, cells=cells, z=z))
    return density_efficiency_box(-box, box, sigma, cells=cells, z=z)


def density_efficiency_box(
    lower: Any, upper: Any, sigma: Any, *, cells: int = CELLS, z: float = RANGE
) -> dict[str, float]:
    """Returns samples of Gaussian noise for one uniform sample in the box, by each definition.

    `lower` and `upper` [d] are offsets from the baseline action, symmetric or not, as they are after a cut at
    the edge of the action space; `sigma` is a number or [d]. The Gaussian is `N(0, sigma^2)` around the
    baseline action and is not cut. Each definition is a product over dimensions, exact for any box:

    - `centre`: the two densities compared where the Gaussian is densest in the box: at the baseline action,
      or at the point of the box nearest to it where the box leaves it out.
    - `mean`: the two mean densities in the box: 1 / (the Gaussian's mass in the box).
    - `min`: the two densities where the Gaussian is thinnest in the box: its corner farthest from the
      baseline action, so in an asymmetric box the longer side of each dimension.
    - `cells(c)`: samples until each cell of an even grid of c cells a dimension holds k, for large k: the
      share of a cell / (the Gaussian's mass in the emptiest cell), which lies at that same corner.
    - `range(z)`: the volume of +-z sigma over that of the box, wherever the box lies.

    Always `centre <= mean <= cells(c) <= min`, and `cells(1) = mean`. A dimension of width 0 is fixed and
    does not count. An empty box, a sigma that is not above 0, and an efficiency beyond float64 are refused.
    """
    return _told(log_density_efficiency_box(lower, upper, sigma, cells=cells, z=z))


def _told(logs: dict[str, float]) -> dict[str, float]:
    beyond = [name for name, log in logs.items() if log > LARGEST_LOG]
    if beyond:
        raise Refusal(f"density: {beyond[0]} exceeds 1e308; give a larger sigma or a narrower box")
    return {name: math.exp(log) for name, log in logs.items()}


def log_mixture_efficiency_box(
    lower: Any, upper: Any, mixture: Mixture, *, cells: int = CELLS, z: float = RANGE
) -> dict[str, float]:
    """Returns the natural logarithms of how many samples of a mixture replace a uniform one in the box.

    The box is around a baseline action in the middle of its range, where the random draws are centred too. Both
    parts are then thickest and thinnest at the same points of the box and in the same cells, so by each definition
    the samples are the harmonic mean of the parts' own, weighed by their shares. The random part is cut at the ends
    of the range, at 1 from the baseline action: its density is the higher for it, and its `range(z)` ends there.
    """
    noise = log_density_efficiency_box(lower, upper, mixture.sigma, cells=cells, z=z)
    at_random = log_density_efficiency_box(lower, upper, mixture.random_sigma, cells=cells, z=z)
    n_free = np.count_nonzero(np.subtract(upper, lower))
    cut = n_free * log_mass_in_range(mixture.random_sigma)
    beyond = n_free * min(0.0, -math.log(z * mixture.random_sigma))
    shares = math.log1p(-mixture.random_share), math.log(mixture.random_share)
    return {
        name: float(
            -np.logaddexp(shares[0] - noise[name], shares[1] - log - (beyond if "range" in name else cut))
        )
        for name, log in at_random.items()
    }


def log_density_efficiency_box(
    lower: Any, upper: Any, sigma: Any, *, cells: int = CELLS, z: float = RANGE
) -> dict[str, float]:
    """Returns the natural logarithms of `density_efficiency_box`, which exist where the numbers overflow."""
    lower, upper, sigma = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (lower, upper, sigma)))
    _refuse_bad_box(lower, upper, sigma, cells, z)
    free = upper > lower
    low, high = lower[free] / sigma[free], upper[free] / sigma[free]
    width, reach = high - low, np.maximum(-low, high)
    log_uniform_over_peak = math.log(2 * math.pi) / 2 - np.log(width)
    nearest = np.clip(0, low, high)
    edge = reach - width / cells  # the emptiest cell spans [edge, reach] on the longer side
    return {
        "centre": float((log_uniform_over_peak + nearest**2 / 2).sum()),
        "mean": float(-_log_mass(low, high).sum()),
        "min": float((log_uniform_over_peak + reach**2 / 2).sum()),
        f"cells({cells})": float((-math.log(cells) - _log_mass(edge, reach)).sum()),
        f"range({z:g})": float((math.log(2 * z) - np.log(width)).sum()),
    }


def _log_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns log(Phi(high) - Phi(low)) of the standard normal for low < high, to the last digits everywhere.

    Near 0 by erf, which is exact there; in a tail by its logarithm, which does not underflow.
    """
    low, high = np.where(low > 0, -high, low), np.where(low > 0, -low, high)  # the tail is on the left
    tail = high < -1
    inner_low, inner_high = np.where(tail, -1, low), np.where(tail, 1, high)
    tail_low, tail_high = np.where(tail, low, -2), np.where(tail, high, -1)
    inner = np.log((erf(inner_high / math.sqrt(2)) - erf(inner_low / math.sqrt(2))) / 2)
    outer = log_ndtr(tail_high) + np.log(-np.expm1(log_ndtr(tail_low) - log_ndtr(tail_high)))
    return np.where(tail, outer, inner)


def _refuse_bad_box(lower: np.ndarray, upper: np.ndarray, sigma: np.ndarray, cells: int, z: float) -> None:
    good = np.isfinite(upper - lower) & (lower <= upper)
    if not good.all():
        i = int(good.argmin())
        raise Refusal(f"density: dimension {i} runs from {lower[i]:g} to {upper[i]:g}; give lower <= upper")
    good = (sigma > 0) & np.isfinite(sigma)
    if not good.all():
        raise Refusal(f"density: a sigma of {sigma[good.argmin()]:g} is no noise; give a number above 0")
    if cells < 1 or not 0 < z < math.inf:
        raise Refusal(f"density: cells({cells}) and range({z:g}) need at least 1 cell and a z above 0")
