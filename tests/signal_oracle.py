"""The signal and the curvatures of explored requests that are all at hand: by rows, where the engine adds up sums."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, chndtrinc, fdtrc

from mtf_engine.exploration.clustered import clustered_slopes, residuals
from mtf_engine.exploration.explored_returns import ExploredReturns
from mtf_engine.exploration.signal import ALPHA, MOVED, OWN_SHARE, POWER


def covariates(log: ExploredReturns) -> NDArray[np.float32]:
    middles = (log.lower + log.upper) / 2
    return np.column_stack([log.observations, middles[:, np.ptp(middles, axis=0) > MOVED]])


def explained_away(log: ExploredReturns) -> tuple[NDArray[np.int64], NDArray, NDArray]:
    """Returns the dimensions that move, and what requests explain of neither moves nor returns."""
    moves, left = residuals(covariates(log), log.offsets, log.returns, log.folds)
    spread, own = log.offsets.std(axis=0, dtype=np.float64), moves.std(axis=0)
    live = np.flatnonzero((spread > MOVED) & (own > OWN_SHARE * spread))
    return live, moves[:, live], left


def slow_signal(log: ExploredReturns, names: Sequence[str]) -> dict[str, Any]:
    """Returns figures of `signal` by name."""
    live, moves, left = explained_away(log)
    sessions = np.unique(log.sessions, return_inverse=True)[1]
    slopes, covariance = clustered_slopes(moves, left, sessions)
    df, g = len(live), int(sessions.max()) + 1
    chi2 = float(slopes @ np.linalg.solve(covariance, slopes))
    half_widths = (log.upper - log.lower)[:, live].mean(axis=0, dtype=np.float64) / 2
    needed = chndtrinc(chdtri(df, ALPHA), df, 1 - POWER)
    each_session = (log.gamma**log.steps).sum() / g
    return {
        "requests": len(log),
        "sessions": g,
        "sessions_cut": int(log.cut[log.steps == 0].sum()),
        "mean_return": float(log.returns[log.steps == 0].mean()),
        "explained": max(0.0, 1 - float(left.var() / log.returns.var())),
        "chi2": chi2,
        "df": df,
        "p_value": float(fdtrc(df, g - df, chi2 * (g - df) / (df * (g - 1)))),
        "gain": float(each_session * np.sqrt(needed * (half_widths @ np.abs(covariance) @ half_widths))),
        "slopes": slopes.tolist(),
        "errors": np.sqrt(covariance.diagonal()).tolist(),
        "half_widths": half_widths.tolist(),
        "dead": [name for i, name in enumerate(names) if i not in live],
    }


def slow_curvatures(log: ExploredReturns) -> tuple[NDArray, NDArray]:
    """Returns the curvature of the return in each dimension that moves, and its covariance."""
    _, moves, left = explained_away(log)
    squares, _ = residuals(covariates(log), moves**2, log.returns, log.folds)
    sessions, m = np.unique(log.sessions, return_inverse=True)[1], moves.shape[1]
    slopes, covariance = clustered_slopes(np.column_stack([moves, squares]), left, sessions)
    return -2 * slopes[m:], 4 * covariance[m:, m:]
