"""How a column's values are distributed, in a few hundred numbers; and how far two distributions lie apart."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import chdtri

from mtf_engine.spec import Spec

TAIL = (1e-4, 3e-4, 1e-3, 3e-3)
GRID = np.sort(np.concatenate([np.linspace(0, 1, 101), TAIL, 1 - np.array(TAIL)]))
"""Quantiles kept of a column: denser at its ends, where values lie far apart."""
BINS = 10
"""Equal shares of the reference between which PSI looks for a difference."""
Z = 1.959964
"""Standard errors on either side of a 95 % interval."""
LUCK = 0.999
"""Quantile of PSI without drift; high, since a log has many columns."""
NO_SPREAD = 1e-9
"""Standard deviation, relative to the mean, at which a column is constant but for rounding."""
Kind = Literal["signal", "feature", "prediction"]


class Distribution(Spec):
    """The values of one column. Between two points the values are taken as evenly spread."""

    name: str
    kind: Kind
    n: int = Field(description="values that are there")
    missing: int
    n_users: int
    mean: float
    std: float
    stderr: float = Field(description="of the mean; users are the unit")
    points: tuple[float, ...] = Field(description="quantiles, growing; the least and the largest among them")
    below: tuple[float, ...] = Field(description="share of the values below each point")
    upto: tuple[float, ...] = Field(description="share of the values up to and with each point")

    @property
    def n_effective(self) -> float:
        """Independent values that would tell the mean as precisely: fewer than rows, since a user's are alike.

        Of a column that does not vary the rows tell nothing about that: each user counts once.
        """
        if self.is_constant:
            return float(self.n_users)
        return min(float(self.n), (self.std / self.stderr) ** 2)

    @property
    def is_constant(self) -> bool:
        return self.stderr <= NO_SPREAD * abs(self.mean) or self.std <= NO_SPREAD * abs(self.mean)

    def share_below(self, values: NDArray[np.float64], inclusive: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Returns the share of the values below each of `values`, or up to and with it where `inclusive`."""
        points, below, upto = map(np.asarray, (self.points, self.below, self.upto))
        right = np.searchsorted(points, values, "left").clip(max=len(points) - 1)
        left = (right - 1).clip(min=0)
        width = np.where(points[right] > points[left], points[right] - points[left], 1)
        between = upto[left] + (values - points[left]) / width * (below[right] - upto[left])
        inside = np.where(values < points[0], 0.0, np.where(values > points[-1], 1.0, between))
        return np.where(values == points[right], np.where(inclusive, upto[right], below[right]), inside)


def describe(name: str, kind: Kind, values: NDArray, first: NDArray[np.int64]) -> Distribution | None:
    """Returns the distribution of `values` [m], where user u has the rows first[u]:first[u + 1]; None of none.

    NaN is missing. The standard error of the mean is the linearised one of a ratio, clustered by user.
    """
    known = np.isfinite(values)
    n = int(known.sum())
    if not n:
        return None
    ordered = np.sort(values[known].astype(np.float64))
    mean = float(ordered.mean())
    of_users = np.add.reduceat(np.where(known, values.astype(np.float64) - mean, 0.0), first)
    stderr = np.sqrt((of_users**2).sum() * len(first) / max(len(first) - 1, 1)) / n
    points = np.unique(ordered[((n - 1) * GRID).round().astype(np.int64)])
    return Distribution(
        name=name,
        kind=kind,
        n=n,
        missing=len(values) - n,
        n_users=len(first),
        mean=mean,
        std=float(ordered.std()),
        stderr=float(stderr),
        points=tuple(points.tolist()),
        below=tuple((np.searchsorted(ordered, points, "left") / n).tolist()),
        upto=tuple((np.searchsorted(ordered, points, "right") / n).tolist()),
    )


class Difference(NamedTuple):
    """A difference of two means in pooled standard deviations, with its 95 % interval."""

    value: float
    low: float
    high: float


def effective_rows(*logs: Distribution) -> NDArray[np.float64]:
    """Returns the effective rows of a column in each of several logs.

    Of a value that one user of a log has, that log alone cannot tell how alike the rows of a user are: in
    every log a user counts for no more than in the one where users count for least.
    """
    users = np.array([log.n_users for log in logs])
    effective = np.array([log.n_effective for log in logs])
    return np.minimum(effective, users * (effective / users).min())


def standardised_difference(new: Distribution, reference: Distribution) -> Difference | None:
    """Returns (mean of `new` - mean of `reference`) / pooled standard deviation; None where neither varies.

    Cohen's d with equal weights of the two variances, which are taken as known and alike in the interval.
    """
    if new.is_constant and reference.is_constant:
        return None
    value = (new.mean - reference.mean) / np.sqrt((new.std**2 + reference.std**2) / 2)
    half = Z * np.sqrt((1 / effective_rows(new, reference)).sum())
    return Difference(float(value), float(value - half), float(value + half))


def population_stability_index(new: Distribution, reference: Distribution) -> tuple[float, float]:
    """Returns PSI = sum_b (new_b - reference_b) ln(new_b / reference_b), and what luck alone stays below.

    The bins are tenths of the reference, as its values allow, and one on either side beyond its range; each
    gets half a row more, so that none is empty. Without drift PSI is about chi-squared, bins - 1 degrees of
    freedom, times (1 / n + 1 / m), with the effective numbers of rows: luck is its 99.9 % quantile.
    """
    levels = np.concatenate([reference.below, reference.upto])
    wanted = np.abs(levels[:, None] - np.arange(1, BINS) / BINS).argmin(axis=0)
    cuts = np.unique(np.concatenate([[0], wanted, [len(levels) - 1]]))
    values = np.tile(reference.points, 2)[cuts]
    inclusive = cuts >= len(reference.points)
    order = np.lexsort((inclusive, values))
    cumulative = [log.share_below(values[order], inclusive[order]) for log in (new, reference)]
    rows = effective_rows(new, reference)
    p, q = (_smoothed(shares, n) for shares, n in zip(cumulative, rows, strict=True))
    occupied = np.count_nonzero(np.diff(cumulative[1], prepend=0.0))
    luck = chdtri(max(occupied - 1, 1), 1 - LUCK) * (1 / rows).sum()
    return float(((p - q) * np.log(p / q)).sum()), float(luck)


def _smoothed(cumulative: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    """Returns the shares of the bins between shares below their edges, with half a row more in each."""
    shares = np.diff(cumulative, prepend=0.0, append=1.0)
    return (shares * n + 0.5) / (n + 0.5 * len(shares))
