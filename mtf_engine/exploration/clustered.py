"""What a linear fit on covariates leaves, and regressions whose errors are correlated within clusters.

Fits and slopes are told by Gram matrices, which add up: `Fit` and `jackknife` are for those who see the rows part by
part, `residuals` and `clustered_slopes` for those who have them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
RIDGES = 10.0 ** np.arange(8)
"""Tried of each fit, in rows: how strongly the slope of a standardised covariate is pulled to 0."""
CHUNK = 65_536
CLUSTERS = 1_024
"""Clusters at a time, all of one length."""
CONSTANT = 1e-6
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB))


class Covariates(Protocol):
    """Numbers [n, f] of which a slice at a time is read: an array, or what reads them from a log."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


def residuals(
    covariates: Covariates,
    x: NDArray[np.floating],
    y: NDArray[np.float64],
    clusters: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns x [n, d] and y [n] minus their linear fits on covariates [n, f] and a constant.

    The fit of y that a row is compared with is made without its fold: `clusters` [n], numbered from 0, are
    dealt to FOLDS. So what is left of y owes nothing to the row's own error, however many covariates there are.
    The fit of x is made on all rows, so what is left of x meets nothing that is linear in the covariates. Each
    column gets the ridge of RIDGES with the least squared error on folds left out. Covariates that are constant
    count for nothing. The normal equations are summed a chunk at a time, float64.
    """
    folds, mean = clusters % FOLDS, _mean(covariates)
    left = np.column_stack([x, y])
    on_others, on_all = _fits(covariates, left, folds, mean)
    on_others[:, :, :-1] = on_all[:, :-1]
    for rows, predicted in _predicted(covariates, folds, mean, on_others):
        left[rows] -= predicted
    return left[:, :-1], left[:, -1]


def values(
    covariates: Covariates,
    later: Covariates,
    y: NDArray[np.float64],
    clusters: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the linear fit of y [n] on covariates [n, f] and a constant, and the same of `later` [n, f].

    Both are by the fit without the row's fold, as in `residuals`.
    """
    folds, mean = clusters % FOLDS, _mean(covariates)
    on_others, _ = _fits(covariates, y[:, None], folds, mean)
    here, after = (
        np.concatenate([fit[:, 0] for _, fit in _predicted(seen, folds, mean, on_others)])
        for seen in (covariates, later)
    )
    return here, after


def clustered_slopes(
    x: NDArray[np.float64], y: NDArray[np.float64], clusters: NDArray[np.int64], ridge: float = 0.0
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Returns the least-squares slopes of y [n] on x [n, d] beside a constant [d], and their covariance [d, d].

    With a `ridge`, in rows, each slope is pulled to 0 as by so many rows of no effect and of x's own variance.

    Errors may be correlated within `clusters` [n], numbered from 0, and differ in size. The covariance is the
    sandwich `(g - 1) / g * sum_c b_c b_c'` over g clusters, `b_c = (A - A_c)^-1 s_c` with `A = x'x`, x about its
    means, the ridge on its diagonal, `A_c` the part of the cluster's rows, and `s_c = sum_i x_i e_i` over them,
    e the errors. `b_c` is what the slopes lose without the cluster (the jackknife, also called CR3); with `A`
    alone in its place the errors of few clusters are too small. Slopes that cannot be told apart raise LinAlgError.
    """
    x, y = x - x.mean(axis=0), y - y.mean()
    gram = x.T @ x
    gram += ridge / len(x) * np.diag(gram.diagonal())
    slopes = np.linalg.solve(gram, x.T @ y)
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(int(clusters.max()) + 1))
    spread = jackknife(gram, x, y - x @ slopes, starts, order)
    return slopes, spread * (len(starts) - 1) / len(starts)


def jackknife(
    gram: NDArray[np.float64],
    x: NDArray[np.float64],
    errors: NDArray[np.float64],
    starts: NDArray[np.int64],
    order: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Returns `sum_c b_c b_c'` [d, d] of `clustered_slopes` over some clusters of rows, which add up over all.

    `gram` is that of all rows, `x` [n, d] about the means of all. The rows of a cluster stand together, in `order`
    where it is given, and the first of each is at `starts`.
    """
    spread, lengths = np.zeros_like(gram), np.diff(np.append(starts, len(x)))
    for length in np.unique(lengths):
        own = starts[lengths == length]
        for first in range(0, len(own), CLUSTERS):
            rows = own[first : first + CLUSTERS, None] + np.arange(length)  # [clusters, length]
            rows = rows if order is None else order[rows]
            moves = x[rows]
            scores = errors[rows][:, None] @ moves  # [clusters, 1, d]
            grams = moves.swapaxes(1, 2) @ moves
            lost = np.linalg.solve(gram - grams, scores.swapaxes(1, 2))[:, :, 0]
            spread += lost.T @ lost
    return spread


def folds_of(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the fold of clusters by their ids [n], whatever others there are: by SplitMix64 of the id.

    Steele, Lea and Flood, OOPSLA 2014. No spacing of ids puts them all into one.
    """
    mixed = ids.astype(np.uint64) * GOLDEN
    for shift, factor in MIX:
        mixed = (mixed ^ (mixed >> shift)) * factor
    high = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)
    return (high * np.uint64(FOLDS) >> np.uint64(32)).astype(np.int64)


def moved_to(grams: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Gram matrices [..., 1 + c, 1 + c] of a constant and c columns, where `by` [c] is added to the columns."""
    move = np.eye(len(by) + 1)
    move[0, 1:] = by
    return np.asarray(move.T @ grams @ move)


@dataclass(frozen=True)
class Fit:
    """Linear fits of t targets on f covariates, both about their `means` [f + t], and a constant.

    `weights` [folds, 1 + f, t] are those for rows of each fold; `left` [1 + t, 1 + t] is the Gram matrix of a constant
    and of what they leave of the targets.
    """

    means: NDArray[np.float64]
    weights: NDArray[np.float64]
    left: NDArray[np.float64]

    @classmethod
    def of(cls, grams: NDArray[np.float64], centre: NDArray[np.float64], n_covariates: int) -> Self:
        """Returns the fits by Gram matrices of each fold [folds, 1 + f + t, 1 + f + t] of columns about a `centre`.

        As in `residuals` the last target is fitted without the row's fold, the others on all rows.
        """
        total, first = grams.sum(axis=0), 1 + n_covariates
        means = total[0, 1:] / total[0, 0]
        grams, at = moved_to(grams, -means), centre + means
        on_others, on_all = solved(grams, first, CONSTANT * (1 + np.abs(at[:n_covariates])))
        weights = np.concatenate(
            [np.broadcast_to(on_all, on_others.shape)[..., :-1], on_others[..., -1:]], -1
        )
        n_targets = weights.shape[2]
        what = np.zeros((FOLDS, len(total), 1 + n_targets))  # of the columns, to what is left
        what[:, 0, 0] = 1
        what[:, :first, 1:] = -weights
        what[:, first:, 1:] = np.eye(n_targets)
        return cls(at, weights, (what.swapaxes(1, 2) @ grams @ what).sum(axis=0))

    def variances(self) -> NDArray[np.float64]:
        """Returns the variance of what is left of each target [t]."""
        n, sums, squares = self.left[0, 0], self.left[0, 1:], self.left.diagonal()[1:]
        return np.asarray(np.maximum(squares - sums**2 / n, 0) / n)

    def weights_about(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the weights [folds, 1 + f, t] for covariates about other means [f]."""
        weights = self.weights.copy()
        weights[:, 0] += (means - self.means[: len(means)]) @ self.weights[:, 1:]
        return weights


def _chunks(n: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))


def _mean(covariates: Covariates) -> NDArray[np.float64]:
    sums = [covariates[rows].sum(axis=0, dtype=np.float64) for rows in _chunks(len(covariates))]
    return np.asarray(sum(sums) / len(covariates))


def _design(covariates: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns a constant and the covariates about their means [n, 1 + f]."""
    return np.column_stack([np.ones(len(covariates)), covariates - mean])


def _predicted(
    covariates: Covariates,
    folds: NDArray[np.int64],
    mean: NDArray[np.float64],
    on_others: NDArray[np.float64],
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yields rows, and what the fits without each fold [folds, 1 + f, t] make of those of that fold: [m, t]."""
    for rows in _chunks(len(folds)):
        block = _design(covariates[rows], mean)
        predicted = np.empty((len(block), on_others.shape[2]))
        for fold in range(FOLDS):
            own = folds[rows] == fold
            predicted[own] = block[own] @ on_others[fold]
        yield rows, predicted


def _fits(
    covariates: Covariates,
    targets: NDArray[np.float64],
    folds: NDArray[np.int64],
    mean: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the weights without each fold [folds, 1 + f, t] of the linear fits of targets, and those on all."""
    first = 1 + len(mean)
    grams = np.zeros((FOLDS, first + targets.shape[1], first + targets.shape[1]))
    for rows in _chunks(len(targets)):
        block = np.column_stack([_design(covariates[rows], mean), targets[rows]])
        for fold in range(FOLDS):
            own = block[folds[rows] == fold]
            grams[fold] += own.T @ own
    return solved(grams, first, CONSTANT * (1 + np.abs(mean)))


def solved(
    grams: NDArray[np.float64], first: int, least_std: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the weights without each fold [folds, 1 + f, t], and those on all folds [1 + f, t].

    `grams` [folds, 1 + f + t, 1 + f + t] are the Gram matrices of each fold's rows: a constant, f covariates
    about their means, and t targets, which start at `first`.
    """
    total = grams.sum(axis=0)
    std = np.sqrt(np.maximum(total.diagonal()[1:first], 0) / total[0, 0])  # of a constant, rounding alone
    scale = np.append(1.0, np.divide(1, std, out=np.zeros_like(std), where=std > least_std))
    own = grams.copy()
    own[:, :first] *= scale[:, None]
    own[:, :, :first] *= scale
    total = own.sum(axis=0)
    pull = np.diag(np.append(0.0, np.ones(first - 1)))
    others = np.concatenate([total - own, total[None]])  # [folds + 1, 1 + f + t, 1 + f + t], all of them last
    fits = np.stack(
        [np.linalg.solve(others[:, :first, :first] + r * pull, others[:, :first, first:]) for r in RIDGES]
    )  # [ridges, folds + 1, 1 + f, t]
    left_out = fits[:, :-1]
    explained = 2 * left_out * own[:, :first, first:] - left_out * (own[:, :first, :first] @ left_out)
    best = explained.sum(axis=(1, 2)).argmax(axis=0)  # [t]
    chosen = np.take_along_axis(fits, best[None, None, None], axis=0)[0] * scale[:, None]
    return chosen[:-1], chosen[-1]
