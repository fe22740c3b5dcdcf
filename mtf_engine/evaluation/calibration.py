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


class DisagreementBin(Spec):
    """Steps about which the critics differ similarly: their mean spread, and how far off their mean Q was.

    `std_mean` is the mean standard deviation over critics, `error` the root mean square of `mean Q - return`, with its
    95 % interval.
    """

    count: int
    std_mean: float
    error: float
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
    by_disagreement: tuple[DisagreementBin, ...] = ()
    """Empty for a single critic, and in an evaluation of an earlier version."""
    rank_correlation: float | None = None
    """Spearman's, of a step's spread and its |mean Q - return|."""


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
    several = len(q) > 1 and bool(np.ptp(q.std(0)) > 0)
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
        by_disagreement=_by_disagreement(q, returns, session, n_bootstrap, generator) if several else (),
        rank_correlation=_rank_correlation(q.std(0), np.abs(q.mean(0) - returns)) if several else None,
    )


def _correlation(q: np.ndarray, returns: np.ndarray) -> float | None:
    return float(np.corrcoef(q, returns)[0, 1]) if q.std() > 0 and returns.std() > 0 else None


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Returns Spearman's correlation; None where either is constant."""
    from scipy.stats import rankdata

    return _correlation(rankdata(one), rankdata(other))


def _by_disagreement(
    q: np.ndarray, returns: np.ndarray, session: np.ndarray, n_bootstrap: int, generator: np.random.Generator
) -> tuple[DisagreementBin, ...]:
    """Returns bins of steps by rank of the spread of q [n_critics, n]; their squared errors are drawn as returns."""
    std, squared = q.std(0), (q.mean(0) - returns) ** 2

    def root(value: float | None) -> float | None:
        return None if value is None else float(np.sqrt(value))

    return tuple(
        DisagreementBin(
            count=one.count,
            std_mean=one.q_mean,
            error=float(np.sqrt(one.return_mean)),
            ci_low=root(one.ci_low),
            ci_high=root(one.ci_high),
        )
        for one in _bins(std, squared, session, n_bootstrap, generator)
    )


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
