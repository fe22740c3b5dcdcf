"""A/B test in an environment: what users consume under each policy, relative to a base (the paper's Table 2)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from mtf_engine.environments import Acting, Environment
from mtf_engine.environments.play import Outcome, play
from mtf_engine.spec import Spec

METRICS = {"valid_consumption": "valid", "duration_time": "seconds", "session_reward": "rewards"}
"""What is compared, and where an outcome holds it; the first two are the paper's."""
BARE_METRICS = {"return": "rewards", "length": "requests"}
"""The same in an environment that shows no impressions."""
POWER, LEVEL = 0.8, 0.95

Progress = Callable[[int, int], object]
"""Told how many sessions are done, and of how many."""
Sums = dict[str, np.ndarray]
"""By metric, what each user of each seed brought, [n_seeds, n_users]."""


class Effect(Spec):
    """What one policy does to one metric, per user, beside the base.

    `relative` is the difference over the size of the base's mean. `users_live` is how many users each arm of
    a live test needs to find a difference of this size. None: the base's mean is 0, or there is no difference.
    """

    policy: str
    metric: str
    mean: float
    base_mean: float
    relative: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    by_seed: tuple[float, ...]
    """The relative difference of each seed's users alone; empty where one has a base mean of 0."""
    users_live: int | None


class Flattened(Effect):
    """What is lost where everybody, or every user of a segment, gets a policy's mean action: its base is the policy."""

    to: Literal["mean action", "mean per segment"]


class ABTest(Spec):
    """Policies on the same users of an environment; an effect for each policy but the base, and each metric."""

    env: str
    synthetic: bool
    base: str
    policies: tuple[str, ...]
    metrics: tuple[str, ...]
    base_means: dict[str, float]
    n_users: int
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    personalisation: tuple[Flattened, ...] = ()

    def effect(self, policy: str, metric: str) -> Effect:
        """Returns what `policy` does to `metric`."""
        return next(e for e in self.effects if (e.policy, e.metric) == (policy, metric))


def ab_test(
    env: Environment,
    policies: Mapping[str, Acting],
    base: str,
    n_users: int,
    seeds: Sequence[int] = (0,),
    progress: Progress = lambda done, of: None,
) -> ABTest:
    """Returns the effect of each of `policies` on `n_users` (at least 2) of each seed, against `base` among them.

    All policies play the same users in the same world (common random numbers), one session each, so the
    difference is taken within a user and most of what users differ by drops out.

    With one seed, users are the unit: the interval is Student's t of the ratio of means by the delta method
    (Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018, section 2). It agrees
    with a bootstrap over users, takes one pass, and its p-values do not end at one over the number of draws.
    With several seeds, seeds are the unit: Student's t of their relative differences.
    """
    metrics = METRICS if env.signals else BARE_METRICS
    of, done = len(policies) * len(seeds) * n_users, 0
    sums: dict[str, Sums] = {}
    for name, policy in policies.items():
        sums[name] = {metric: np.empty((len(seeds), n_users)) for metric in metrics}
        for users, outcome in _outcomes(env, policy, n_users, seeds):
            for metric, field in metrics.items():
                sums[name][metric][users] = getattr(outcome, field)
            done += len(outcome)
            progress(done, of)
    return ABTest(
        env=env.name,
        synthetic=env.synthetic,
        base=base,
        policies=tuple(policies),
        metrics=tuple(metrics),
        base_means={metric: float(sums[base][metric].mean()) for metric in metrics},
        n_users=n_users,
        seeds=tuple(seeds),
        effects=tuple(
            Effect(policy=name, metric=metric, **relative_effect(sums[name][metric], sums[base][metric]))
            for name in policies
            if name != base
            for metric in metrics
        ),
    )


def _outcomes(
    env: Environment, policy: Acting, n_users: int, seeds: Sequence[int]
) -> Iterator[tuple[tuple[int, slice], Outcome]]:
    """Yields what each batch of users brought, and which they are: the row of their seed, and their places."""
    for row, seed in enumerate(seeds):
        for first in range(0, n_users, env.batch):
            outcome = play(env, policy, *env.visits(first, min(env.batch, n_users - first), seed))
            yield (row, slice(first, first + len(outcome))), outcome


def relative_effect(ours: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Returns the fields of an Effect from one metric of all users, [n_seeds, n_users]."""
    means, base_means = ours.mean(axis=1), base.mean(axis=1)
    fields = {"mean": ours.mean(), "base_mean": base.mean(), "users_live": users_live(ours, base)}
    if (base_means == 0).any():
        return fields | {"by_seed": (), **dict.fromkeys(("relative", "ci_low", "ci_high", "p_value"))}
    relative = (means - base_means) / np.abs(base_means)
    linear_part = (ours[0] - means[0] / base_means[0] * base[0]) / np.abs(base_means[0])
    units = relative if len(relative) > 1 else linear_part
    return (
        fields
        | {"by_seed": tuple(relative)}
        | {"relative": relative.mean(), **student(relative.mean(), units)}
    )


def student(mean: float, units: np.ndarray) -> dict[str, float]:
    """Returns `ci_low`, `ci_high` and `p_value` (against 0) of `mean`, by Student's t over independent units [n]."""
    n, error = len(units), units.std(ddof=1) / math.sqrt(len(units))
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2) * error)
    p_value = float(2 * stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return {"ci_low": mean - reach, "ci_high": mean + reach, "p_value": p_value}


def users_live(ours: np.ndarray, base: np.ndarray) -> int | None:
    """Returns the users per arm with which a live test finds the difference of the means; None if there is none.

    With 80 % power, two-sided at 5 %: `(z(0.975) + z(0.8))^2 (variance + base variance) / difference^2` (van
    Belle, "Statistical Rules of Thumb", 2nd edition, section 2.1, before rounding to 16 / delta^2). A live
    user is in one arm alone, so the variances are of users, unpaired. Both arguments are [n_seeds, n_users].
    """
    difference = ours.mean() - base.mean()
    if difference == 0:
        return None
    z = NormalDist().inv_cdf
    variance = ours.var(axis=1, ddof=1).mean() + base.var(axis=1, ddof=1).mean()
    return math.ceil((z((1 + LEVEL) / 2) + z(POWER)) ** 2 * variance / difference**2)
