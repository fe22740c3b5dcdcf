"""A/B test in an environment: what users consume under each policy, relative to a base (the paper's Table 2)."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from mtf_engine.environments import Acting, Environment
from mtf_engine.environments.play import play
from mtf_engine.evaluation.sequential import Look, look_at, p_value, reach, tuned
from mtf_engine.spec import Spec

METRICS = {"valid_consumption": "valid", "duration_time": "seconds", "session_reward": "rewards"}
"""What is compared, and where an outcome holds it; the first two are the paper's."""
BARE_METRICS = {"return": "rewards", "length": "requests"}
"""The same in an environment that shows no impressions."""
POWER, LEVEL = 0.8, 0.95
DECIDES = ("session_reward", "return")
"""The metric that ends a test early, with impressions and without."""

Progress = Callable[[int, int], object]
"""Told how many sessions are done, and of how many."""
Looked = Callable[[Sequence[Look]], object]
"""Told every look at a test that goes on."""
Sums = dict[str, np.ndarray]
"""By metric, what each user of each seed brought, [n_seeds, n_users]."""


class Batch(NamedTuple):
    """Users that are played at once: the row of their seed, and their places in it."""

    row: int
    users: slice


class ArmMean(Spec):
    """What users bring under one policy, the base too, with its 95 % interval over users, or over several seeds."""

    policy: str
    metric: str
    mean: float
    ci_low: float
    ci_high: float


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
    means: tuple[ArmMean, ...] = ()
    """Of every policy, the base first; intervals of a stopped test are the boundary's, as its effects'."""
    n_users: int
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    personalisation: tuple[Flattened, ...] = ()
    looks: tuple[Look, ...] = ()
    """What was known after how many users, in their order; of one seed alone."""
    n_planned: int | None = None
    """The users that were asked for, where the test was stopped before: its effects then have the boundary's
    interval and p-value, which hold though it was looked at."""

    def effect(self, policy: str, metric: str) -> Effect:
        """Returns what `policy` does to `metric`."""
        return next(e for e in self.effects if (e.policy, e.metric) == (policy, metric))


class Played:
    """The same users under several policies, played batch by batch in whatever order is asked for.

    `sums` has what they brought so far. A session goes the same way whatever was played before it, so that the
    order changes no figure.
    """

    def __init__(
        self,
        env: Environment,
        policies: Mapping[str, Acting],
        n_users: int,
        seeds: Sequence[int],
        progress: Progress,
    ) -> None:
        self.env, self.policies, self.n_users, self.seeds = env, policies, n_users, tuple(seeds)
        self.metrics = METRICS if env.signals else BARE_METRICS
        shape = (len(self.seeds), n_users)
        self.sums = {name: {metric: np.empty(shape) for metric in self.metrics} for name in policies}
        self.done = 0
        self._progress = progress

    def batches(self) -> list[Batch]:
        """Returns all users, batch by batch and seed by seed."""
        starts = range(0, self.n_users, self.env.batch)
        ends = [slice(first, min(first + self.env.batch, self.n_users)) for first in starts]
        return [Batch(row, users) for row in range(len(self.seeds)) for users in ends]

    def play(self, name: str, batch: Batch) -> None:
        """Plays a session of each user of `batch` under the policy `name`."""
        row, users = batch
        visits = self.env.visits(users.start, users.stop - users.start, self.seeds[row])
        outcome = play(self.env, self.policies[name], *visits)
        for metric, field in self.metrics.items():
            self.sums[name][metric][row, users] = getattr(outcome, field)
        self.done += len(outcome)
        self._progress(self.done, len(self.policies) * len(self.seeds) * self.n_users)

    def looks(self, base: str, users: int) -> list[Look]:
        """Returns what the first `users` of the one seed tell of each policy and metric."""
        rho2 = tuned(self.n_users)
        return [
            Look(
                arm=name,
                metric=metric,
                users=users,
                **_boundary(*self._pair(name, base, metric, users), rho2),
            )
            for name in self.policies
            if name != base
            for metric in self.metrics
        ]

    def result(self, base: str, looks: Sequence[Look] = (), users: int | None = None) -> ABTest:
        """Returns the effect of each policy on all users; on the first `users` alone where it was stopped there."""
        n = users or self.n_users
        rho2 = tuned(self.n_users) if users else None
        return ABTest(
            env=self.env.name,
            synthetic=self.env.synthetic,
            base=base,
            policies=tuple(self.policies),
            metrics=tuple(self.metrics),
            base_means={metric: float(self.sums[base][metric][:, :n].mean()) for metric in self.metrics},
            means=tuple(
                ArmMean(policy=name, metric=metric, **arm_mean(self.sums[name][metric][:, :n], rho2))
                for name in sorted(self.policies, key=lambda name: name != base)
                for metric in self.metrics
            ),
            n_users=n,
            seeds=self.seeds,
            effects=tuple(
                Effect(
                    policy=name, metric=metric, **relative_effect(*self._pair(name, base, metric, n), rho2)
                )
                for name in self.policies
                if name != base
                for metric in self.metrics
            ),
            looks=tuple(looks),
            n_planned=self.n_users if users else None,
        )

    def _pair(self, name: str, base: str, metric: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        return self.sums[name][metric][:, :n], self.sums[base][metric][:, :n]


def ab_test(
    env: Environment,
    policies: Mapping[str, Acting],
    base: str,
    n_users: int,
    seeds: Sequence[int] = (0,),
    progress: Progress = lambda done, of: None,
    looked: Looked = lambda looks: None,
    stop_early: bool = False,
) -> ABTest:
    """Returns the effect of each of `policies` on `n_users` (at least 2) of each seed, against `base` among them.

    All policies play the same users in the same world (common random numbers), one session each, so the
    difference is taken within a user and most of what users differ by drops out. Each batch of users is played
    under every policy before the next.

    With one seed, users are the unit: the interval is Student's t of the ratio of means by the delta method
    (Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018, section 2). It agrees
    with a bootstrap over users, takes one pass, and its p-values do not end at one over the number of draws.
    The test is then looked at some twenty times, and with `stop_early` ends at the look at which the session
    reward (the return, in an environment without impressions) of every policy is told from the base's.

    With several seeds, seeds are the unit: Student's t of their relative differences. A handful of seeds is no
    sequence, so such a test is not looked at before its end.
    """
    played, looks = Played(env, policies, n_users, seeds, progress), list[Look]()
    waiting = look_at(n_users) if len(played.seeds) == 1 else []
    for batch in played.batches():
        for name in policies:
            played.play(name, batch)
        while waiting and waiting[0] <= batch.users.stop:
            users = waiting.pop(0)
            now = played.looks(base, users)
            looks += now
            looked(now)
            if stop_early and waiting and all(look.is_told for look in now if look.metric in DECIDES):
                return played.result(base, looks, users)
    return played.result(base, looks)


def arm_mean(values: np.ndarray, rho2: float | None = None) -> dict[str, float]:
    """Returns `mean`, `ci_low` and `ci_high` of one metric of all users, [n_seeds, n_users].

    Users are the unit, or seeds where there are several; with `rho2` as in `relative_effect`.
    """
    units = values.mean(axis=1) if len(values) > 1 else values[0]
    mean = float(units.mean())
    told = student(mean, units) if rho2 is None else _always(mean, units, rho2)
    return {"mean": mean, "ci_low": told["ci_low"], "ci_high": told["ci_high"]}


def relative_effect(ours: np.ndarray, base: np.ndarray, rho2: float | None = None) -> dict[str, Any]:
    """Returns the fields of an Effect from one metric of all users, [n_seeds, n_users].

    With `rho2` the interval and the p-value are those of the confidence sequence that it tunes, over users.
    """
    means, base_means = ours.mean(axis=1), base.mean(axis=1)
    fields = {"mean": ours.mean(), "base_mean": base.mean(), "users_live": users_live(ours, base)}
    if (base_means == 0).any():
        return fields | {"by_seed": (), **dict.fromkeys(("relative", "ci_low", "ci_high", "p_value"))}
    relative = (means - base_means) / np.abs(base_means)
    linear_part = (ours[0] - means[0] / base_means[0] * base[0]) / np.abs(base_means[0])
    units = relative if len(relative) > 1 else linear_part
    told = student(relative.mean(), units) if rho2 is None else _always(relative.mean(), units, rho2)
    return fields | {"by_seed": tuple(relative), "relative": relative.mean(), **told}


def _boundary(ours: np.ndarray, base: np.ndarray, rho2: float) -> dict[str, float | None]:
    """Returns the relative difference of a Look from one metric of users [1, n], and the boundary about it."""
    effect = relative_effect(ours, base, rho2)
    return {"relative": effect["relative"], "low": effect["ci_low"], "high": effect["ci_high"]}


def _always(mean: float, units: np.ndarray, rho2: float) -> dict[str, float]:
    """Returns `ci_low`, `ci_high` and `p_value` of `mean` as they hold at every look, over independent units [n]."""
    n, error = len(units), units.std(ddof=1) / math.sqrt(len(units))
    wide = reach(n, rho2) * error
    p = p_value(mean / error, n, rho2) if error else float(mean == 0)
    return {"ci_low": mean - wide, "ci_high": mean + wide, "p_value": p}


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
