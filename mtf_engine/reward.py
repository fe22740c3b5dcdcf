"""Formula 2: the reward of an impression from its feedback signals; the return; weights by correlations."""

from collections.abc import Mapping

import numpy as np

from mtf_engine.spec import RewardSpec, Spec

GAMMA = 0.9
"""Discount of later requests, unless a training is set to another (IntegratedRL-MTF: 0.9)."""
LARGEST = 0.5
"""Of the suggested weights of signals from 0 to 1."""
MOST_NEGATIVE = 0.9
"""That the suggested negative weights may add up to; an impression must stay above -1."""


class Correlation(Spec):
    """Pearson's correlation with its 95 % interval."""

    value: float
    low: float
    high: float


def impression_rewards(spec: RewardSpec, signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns `r = sum_i w_i v_i` [m], float64, from one array [m] per weighted signal."""
    weighted = [weight * np.asarray(signals[name], np.float64) for name, weight in spec.weights.items()]
    return np.sum(weighted, axis=0)


def discounted_returns(rewards: np.ndarray, session_starts: np.ndarray, gamma: float) -> np.ndarray:
    """Returns the discounted return of every step to the end of its session, float64 [n].

    `session_starts` [s] is the first row of each session; rows of a session are in step order.
    """
    ends = np.append(session_starts[1:], len(rewards))
    lengths = ends - session_starts
    last = ends[np.argsort(-lengths, kind="stable")] - 1  # of the longest session first
    n_longer = len(lengths) - np.cumsum(np.bincount(lengths))  # by length: how many sessions are longer
    returns = rewards.astype(np.float64)
    for before_last in range(1, lengths.max(initial=0)):
        steps = last[: n_longer[before_last]] - before_last
        returns[steps] += gamma * returns[steps + 1]
    return returns


def suggest_weights(correlations: Mapping[str, Correlation], mean_watch_time: float) -> RewardSpec | None:
    """Returns weights in proportion to what each signal tells of the next day; None where none tells anything.

    A signal at 1 is worth its correlation, a mean watch time (seconds) is worth that of watch_time, and the
    largest is LARGEST. What may as well be 0 gets 0, and so does a watch_time that foretells less. Negative
    weights are shrunk together until no impression can reach -1.
    """
    sure = {name: c.value for name, c in correlations.items() if c.low > 0 or c.high < 0}
    if sure.get("watch_time", 0) < 0:
        del sure["watch_time"]
    if not sure:
        return None
    scale = LARGEST / max(map(abs, sure.values()))
    negative = -scale * sum(value for value in sure.values() if value < 0)
    shrink = min(1.0, MOST_NEGATIVE / negative) if negative else 1.0
    weights = {name: scale * value * (shrink if value < 0 else 1) for name, value in sure.items()}
    if "watch_time" in weights:
        weights["watch_time"] /= mean_watch_time
    return RewardSpec(weights={name: float(f"{weights.get(name, 0.0):.2g}") for name in correlations})
