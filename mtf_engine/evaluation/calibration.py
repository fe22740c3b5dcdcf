"""Calibration of the critics: their Q against the discounted returns of a log they were not trained on."""

import numpy as np

from mtf_engine.evaluation.bootstrap import interval, poisson_bootstrap
from mtf_engine.evaluation.disagreement import Critics
from mtf_engine.logs.transitions import Transitions
from mtf_engine.spec import Spec

BINS = 10
MAX_STEPS = 20_000
"""Steps the critics are asked about, drawn from the log: evenly spaced ones might all open their sessions."""


class CalibrationBin(Spec):
    """Steps with similar Q: their mean Q, and the mean return that followed, with its 95 % interval."""

    count: int
    q_low: float
    q_high: float
    q_mean: float
    return_mean: float
    ci_low: float | None
    ci_high: float | None


class Calibration(Spec):
    """The critics' mean Q of logged actions against the discounted return that the log saw after them.

    All in units of the reward. Q is of going on with the learned policy, the return of how the log went on:
    where the policy is better than what made the log, Q should lie above. `errors` is the mean of
    `Q_i - return` of each critic.
    """

    dataset_id: str
    split: str
    gamma: float
    n_steps: int
    n_sessions: int
    q_mean: float
    return_mean: float
    correlation: float | None
    errors: tuple[float, ...]
    bins: tuple[CalibrationBin, ...]


def calibration(
    critics: Critics,
    transitions: Transitions,
    *,
    dataset_id: str,
    split: str,
    gamma: float,
    reward_scale: float,
    n_bootstrap: int = 1_000,
    seed: int = 0,
) -> Calibration:
    """Returns how Q of the logged actions compares with the returns that followed, in 10 bins of equal size.

    Q is divided by `reward_scale`, what rewards were multiplied by in training. Returns are discounted by
    `gamma` to the end of the session. Steps of one session depend on each other, so intervals come from
    bootstrap draws over sessions.
    """
    generator = np.random.default_rng(seed)
    steps = np.sort(generator.permutation(len(transitions))[:MAX_STEPS])
    asked = transitions[steps]
    seen = (asked.observations, asked.baseline_actions, asked.lower, asked.upper, asked.actions)
    q = np.asarray(critics.q(*seen), np.float64) / reward_scale
    returns = transitions.returns(gamma)[steps]
    session = np.unique(asked.sessions, return_inverse=True)[1]
    return Calibration(
        dataset_id=dataset_id,
        split=split,
        gamma=gamma,
        n_steps=len(steps),
        n_sessions=int(session.max()) + 1,
        q_mean=float(q.mean()),
        return_mean=float(returns.mean()),
        correlation=_correlation(q.mean(0), returns),
        errors=tuple((q - returns).mean(1).tolist()),
        bins=_bins(q.mean(0), returns, session, n_bootstrap, generator),
    )


def _correlation(q: np.ndarray, returns: np.ndarray) -> float | None:
    return float(np.corrcoef(q, returns)[0, 1]) if q.std() > 0 and returns.std() > 0 else None


def _bins(
    q: np.ndarray, returns: np.ndarray, session: np.ndarray, n_bootstrap: int, generator: np.random.Generator
) -> tuple[CalibrationBin, ...]:
    """Returns bins of steps [n] by rank of `q`, as even as their number allows."""
    members = np.array_split(np.argsort(q, kind="stable"), min(BINS, len(q)))
    n_sessions = int(session.max()) + 1
    sums = np.stack([np.bincount(session[rows], returns[rows], n_sessions) for rows in members])
    counts = np.stack([np.bincount(session[rows], minlength=n_sessions) for rows in members])
    draws = poisson_bootstrap(sums, counts.astype(float), n_bootstrap, generator)
    return tuple(
        CalibrationBin(
            count=len(rows),
            q_low=float(q[rows[0]]),
            q_high=float(q[rows[-1]]),
            q_mean=float(q[rows].mean()),
            return_mean=float(returns[rows].mean()),
            ci_low=ci_low,
            ci_high=ci_high,
        )
        for rows, drawn in zip(members, draws.T, strict=True)
        for ci_low, ci_high in [interval(drawn)]
    )
