"""How far a policy's actions are from the baseline actions in each dimension, and from the bounds."""

import numpy as np

from mtf_engine.exploration.walls import at_wall
from mtf_engine.spec import Spec

WIDEST = 2.0
"""The largest deviation there is: actions lie in [-1, 1]."""
BIN_WIDTH = 0.025
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ROUNDING = 1e-6
"""Baseline action + offset is rounded to float32."""


class BoundsUse(Spec):
    """Where the actions of one dimension lie in their bounds; shares are of requests."""

    lower: float
    """Median lower offset, upper likewise: boxes may differ between requests."""
    upper: float
    share_outside: float
    share_at_wall: float


class DimensionDeviation(Spec):
    """`action - baseline action` of one dimension: its size (absolute) and its drift (signed)."""

    name: str
    mean: float
    quantiles: dict[str, float]
    counts: tuple[int, ...]
    drift_mean: float
    drift_quantiles: dict[str, float]
    drift_counts: tuple[int, ...]
    bounds: BoundsUse | None


class Deviation(Spec):
    """Figure 2 of IntegratedRL-MTF (arXiv 2404.17589): |mu_new - mu_baseline| per dimension, binned.

    `counts` are bins of `bin_width` from 0 to 2, `drift_counts` from -2 to 2; a bin holds its lower edge.
    """

    n_requests: int
    bin_width: float = BIN_WIDTH
    dimensions: tuple[DimensionDeviation, ...]


def deviation(
    names: tuple[str, ...],
    actions: np.ndarray,
    baseline_actions: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray] | None,
) -> Deviation:
    """Returns how far actions [n, d] are from baseline actions [n, d] in each of the d dimensions `names`.

    `bounds` are lower and upper offsets from the baseline action, [n, d] each. An action is outside beyond a
    bound, and then at the wall, too (`at_wall`).
    """
    drift = actions - baseline_actions
    return Deviation(
        n_requests=len(actions),
        dimensions=tuple(
            _dimension(name, drift[:, i], None if bounds is None else (bounds[0][:, i], bounds[1][:, i]))
            for i, name in enumerate(names)
        ),
    )


def _dimension(
    name: str, drift: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None
) -> DimensionDeviation:
    size = np.abs(drift)
    return DimensionDeviation(
        name=name,
        mean=float(size.mean(dtype=np.float64)),
        quantiles=_quantiles(size),
        counts=_counts(size, 0.0),
        drift_mean=float(drift.mean(dtype=np.float64)),
        drift_quantiles=_quantiles(drift),
        drift_counts=_counts(drift, -WIDEST),
        bounds=None if bounds is None else _bounds_use(drift, *bounds),
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _counts(values: np.ndarray, first: float) -> tuple[int, ...]:
    bins = round((WIDEST - first) / BIN_WIDTH)
    return tuple(np.histogram(values, bins, (first, WIDEST))[0].tolist())


def _bounds_use(drift: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> BoundsUse:
    depth = np.minimum(drift - lower, upper - drift)  # how far inside, negative outside
    return BoundsUse(
        lower=float(np.median(lower)),
        upper=float(np.median(upper)),
        share_outside=float((depth < -ROUNDING).mean()),
        share_at_wall=float(at_wall(drift, lower, upper).mean()),
    )
