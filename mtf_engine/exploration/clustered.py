"""What a linear fit on covariates leaves, and regressions whose errors are correlated within clusters."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
RIDGES = 10.0 ** np.arange(8)
"""Tried of each fit, in rows: how strongly the slope of a standardised covariate is pulled to 0."""
CHUNK = 65_536
CONSTANT = 1e-6


def residuals(
    covariates: NDArray[np.float32], targets: NDArray[np.float64], clusters: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns targets [n, t] minus their linear fit on covariates [n, f] and a constant, float64 [n, t].

    A row is left out of the fit that it is compared with, and so is all of its fold: `clusters` [n], numbered
    from 0, are dealt to FOLDS. So what is left of a row owes nothing to its own error, however many covariates
    there are. Each target gets the ridge of RIDGES with the least squared error on the folds left out.
    Covariates that are constant count for nothing. The normal equations are summed a chunk at a time, float64.
    """
    folds, mean = clusters % FOLDS, covariates.mean(axis=0, dtype=np.float64)
    first = 1 + len(mean)
    grams = np.zeros((FOLDS, first + targets.shape[1], first + targets.shape[1]))
    for rows in _chunks(len(targets)):
        block = np.column_stack([_design(covariates[rows], mean), targets[rows]])
        for fold in range(FOLDS):
            own = block[folds[rows] == fold]
            grams[fold] += own.T @ own
    weights = _cross_fitted(grams, first, CONSTANT * (1 + np.abs(mean)))
    left = targets.copy()
    for rows in _chunks(len(targets)):
        block = _design(covariates[rows], mean)
        for fold in range(FOLDS):
            own = folds[rows] == fold
            left[rows][own] -= block[own] @ weights[fold]
    return left


def clustered_slopes(
    x: NDArray[np.float64], y: NDArray[np.float64], clusters: NDArray[np.int64]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Returns the least-squares slopes of y [n] on x [n, d] beside a constant [d], and their covariance [d, d].

    The covariance is the sandwich `A^-1 M A^-1` with `A = x'x`, x about its means, and `M` the sum over
    clusters of `s s'`, `s = sum_i x_i e_i` over the rows of a cluster: errors e may be correlated within a
    cluster, and differ in size. It is multiplied by `g / (g - 1) * (n - 1) / (n - 1 - d)` for g clusters, as
    Stata does. Slopes that cannot be told apart raise LinAlgError.
    """
    x, y = x - x.mean(axis=0), y - y.mean()
    (n, d), g = x.shape, int(clusters.max()) + 1
    gram = x.T @ x
    slopes = np.linalg.solve(gram, x.T @ y)
    errors = y - x @ slopes
    scores = np.stack([np.bincount(clusters, column * errors, g) for column in x.T])  # [d, g]
    half = np.linalg.solve(gram, scores)
    return slopes, half @ half.T * (g / (g - 1) * (n - 1) / (n - 1 - d))


def _chunks(n: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, n, CHUNK))


def _design(covariates: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns a constant and the covariates about their means [n, 1 + f]."""
    return np.column_stack([np.ones(len(covariates)), covariates - mean])


def _cross_fitted(
    grams: NDArray[np.float64], first: int, least_std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the weights [folds, 1 + f, t] that the other folds give, from each fold's Gram matrix.

    The matrices are of a constant, f covariates about their means, and t targets, which start at `first`.
    """
    total = grams.sum(axis=0)
    std = np.sqrt(total.diagonal()[1:first] / total[0, 0])
    scale = np.append(1.0, np.divide(1, std, out=np.zeros_like(std), where=std > least_std))
    own = grams.copy()
    own[:, :first] *= scale[:, None]
    own[:, :, :first] *= scale
    others = own.sum(axis=0) - own
    pulled = np.append(0.0, np.ones(first - 1))
    fits = np.stack(
        [
            np.linalg.solve(others[:, :first, :first] + ridge * np.diag(pulled), others[:, :first, first:])
            for ridge in RIDGES
        ]
    )  # [ridges, folds, 1 + f, t]
    explained = 2 * fits * own[None, :, :first, first:] - fits * (own[:, :first, :first] @ fits)
    best = explained.sum(axis=(1, 2)).argmax(axis=0)  # [t]
    chosen = np.take_along_axis(fits, best[None, None, None], axis=0)[0]
    return chosen * scale[:, None]
