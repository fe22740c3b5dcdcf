"""How far a policy's actions are from the baseline actions in each dimension, and from the bounds."""

from dataclasses import dataclass, fields

import numpy as np

from mtf_engine.exploration.walls import at_wall
from mtf_engine.spec import Spec

MOST_SAMPLED, LEAST_SAMPLED = 131_072, 4_096
"""Requests whose actions are kept for quantiles: of all, and of each segment at least. The share of actions below a
quantile of so many is right to 0.003, and to 0.016, 19 times of 20."""
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

    `counts` are bins of `bin_width` from 0 to 2, `drift_counts` from -2 to 2; a bin holds its lower edge. Quantiles
    and the medians of the bounds are those of a sample where there are more than MOST_SAMPLED requests.
    """

    n_requests: int
    bin_width: float = BIN_WIDTH
    dimensions: tuple[DimensionDeviation, ...]


Bounds = tuple[np.ndarray, np.ndarray] | None
"""Lower and upper offsets from the baseline action, [n, d] each; None where they are not known."""


@dataclass(frozen=True)
class Tally:
    """What of a deviation adds up: of `n` actions and d dimensions, whose sizes are in row 0 and drifts in row 1."""

    n: int
    sums: np.ndarray  # [2, d]
    counts: np.ndarray  # [d, bins]
    drift_counts: np.ndarray  # [d, 2 * bins]
    beyond: np.ndarray  # [2, d], actions outside of the bounds and at a wall

    @classmethod
    def of(cls, drift: np.ndarray, bounds: Bounds) -> "Tally":
        """Returns the tally of actions that are `drift` [n, d] away from the baseline actions."""
        drifts = [drift[:, i] for i in range(drift.shape[1])]
        sizes = [np.abs(of) for of in drifts]
        beyond = np.zeros((2, drift.shape[1]), np.int64)
        if bounds:
            lower, upper = bounds
            depth = np.minimum(drift - lower, upper - drift)  # how far inside, negative outside
            beyond = np.stack([(depth < -ROUNDING).sum(0), at_wall(drift, lower, upper).sum(0)])
        return cls(
            n=len(drift),
            sums=np.array([[of.sum(dtype=np.float64) for of in kind] for kind in (sizes, drifts)]),
            counts=np.array([_counts(of, 0.0) for of in sizes]),
            drift_counts=np.array([_counts(of, -WIDEST) for of in drifts]),
            beyond=beyond,
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, of.name) + getattr(other, of.name) for of in fields(self)))


def deviation(
    names: tuple[str, ...], actions: np.ndarray, baseline_actions: np.ndarray, bounds: Bounds
) -> Deviation:
    """Returns how far actions [n, d] are from baseline actions [n, d] in each of the d dimensions `names`.

    An action is outside beyond a bound, and then at the wall, too (`at_wall`).
    """
    drift = actions - baseline_actions
    return told(names, Tally.of(drift, bounds), drift, bounds)


def told(names: tuple[str, ...], tally: Tally, drift: np.ndarray, bounds: Bounds) -> Deviation:
    """Returns the deviation of the actions in a tally; quantiles are those of a sample of them, drift [m, d]."""
    return Deviation(
        n_requests=tally.n,
        dimensions=tuple(
            _dimension(name, tally, i, drift[:, i], bounds and (bounds[0][:, i], bounds[1][:, i]))
            for i, name in enumerate(names)
        ),
    )


def _dimension(name: str, tally: Tally, i: int, drift: np.ndarray, bounds: Bounds) -> DimensionDeviation:
    mean, drift_mean = (tally.sums[:, i] / tally.n).tolist()
    share_outside, share_at_wall = (tally.beyond[:, i] / tally.n).tolist()
    return DimensionDeviation(
        name=name,
        mean=mean,
        quantiles=_quantiles(np.abs(drift)),
        counts=tuple(tally.counts[i].tolist()),
        drift_mean=drift_mean,
        drift_quantiles=_quantiles(drift),
        drift_counts=tuple(tally.drift_counts[i].tolist()),
        bounds=bounds
        and BoundsUse(
            lower=float(np.median(bounds[0])),
            upper=float(np.median(bounds[1])),
            share_outside=share_outside,
            share_at_wall=share_at_wall,
        ),
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def _counts(values: np.ndarray, first: float) -> np.ndarray:
    bins = round((WIDEST - first) / BIN_WIDTH)
    return np.histogram(values, bins, (first, WIDEST))[0]
