"""A live A/B test by its users: whether they were split as meant, and what each arm did beside the base."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, stdtr, stdtrit

from mtf_engine.evaluation.sequential import FEWEST, Look, reach, tuned
from mtf_engine.logs.live_users import Arms
from mtf_engine.spec import Refusal, Spec

LEVEL = 0.95
MISMATCH = 0.001
"""Of a sample ratio, by its p-value (Fabijan et al., "Diagnosing sample ratio mismatch", KDD 2019)."""
PLANNED = 20_000
"""Users of two arms together for whom the boundary is tuned where nobody says how many were planned."""


class SampleRatio(Spec):
    """How many users each arm has and was meant to have, and how often chance alone splits them so unevenly."""

    arms: tuple[str, ...]
    users: tuple[int, ...]
    meant: tuple[float, ...]
    p_value: float

    @property
    def is_mismatch(self) -> bool:
        return self.p_value < MISMATCH

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        first, *others = zip(self.arms, self.users, strict=True)
        has = [f"{first[0]} has {first[1]:,} users", *(f"{name} {n:,}" for name, n in others)]
        said = f"{_listed(has)}, where {self._shares} were meant"
        if not self.is_mismatch:
            return f"{said}: chance alone explains that (p = {self.p_value:.2g})."
        p = f"p = {self.p_value:.0e}" if self.p_value > 1e-300 else "p < 1e-300"
        return f"{said}: {p}. Find the cause before you read any figure."

    @property
    def _shares(self) -> str:
        if len(set(self.meant)) == 1:
            return "equal shares"
        return f"shares of {_listed([f'{n / sum(self.meant):.1%}' for n in self.meant])}"


class LiveEffect(Spec):
    """What an arm does to one metric, per user, beside the base.

    `ci_low` to `ci_high` is the interval of one look at the end alone, `low` to `high` the boundary that holds at
    every look; None: the base's mean is 0, or there are too few users for the boundary.
    """

    arm: str
    metric: str
    users: int
    mean: float
    base_mean: float
    relative: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    low: float | None
    high: float | None


class LiveTest(Spec):
    """A live test: the split of its users, the effects of all arms but the base, and what was known by each day."""

    file: str
    base: str
    n_planned: int
    sample_ratio: SampleRatio
    effects: tuple[LiveEffect, ...]
    looks: tuple[Look, ...]


def live_test(arms: Arms, base: str, ratio: str = "", n_planned: int = PLANNED) -> LiveTest:
    """Returns what a live test tells of each arm against `base`; `ratio` is as in `sample_ratio`.

    The relative difference has Student's t of a ratio of the means of two independent arms, by the delta method
    (Deng, Knoblich and Lu, KDD 2018) with Welch's degrees of freedom. The boundary is that of `sequential`, over
    the users of both arms, tuned for `n_planned` of them: a number that may not hang on how the test went.
    """
    if base not in arms.names:
        raise Refusal(f"{arms.file} has no arm {base}; its arms are {', '.join(arms.names)}")
    rho2, others = tuned(n_planned), [name for name in arms.names if name != base]
    whole = [_Beside.of(arms, name, base) for name in others]
    daily = [_Beside.of(arms, name, base, day) for day in range(len(arms.days)) for name in others]
    return LiveTest(
        file=arms.file,
        base=base,
        n_planned=n_planned,
        sample_ratio=sample_ratio(arms, ratio),
        effects=tuple(_effect(pair, metric, rho2) for pair in whole for metric in arms.metrics),
        looks=tuple(_look(pair, metric, rho2) for pair in daily if pair.is_enough for metric in arms.metrics),
    )


def sample_ratio(arms: Arms, ratio: str = "") -> SampleRatio:
    """Returns the chi-square test of the users of each arm against a `ratio` such as "A=1,B=2"; "": equal shares."""
    shares = _parsed(ratio) if ratio.strip() else dict.fromkeys(arms.names, 1.0)
    if unknown := [name for name in shares if name not in arms.names]:
        raise Refusal(f"the ratio names the arm {unknown[0]}, of which {arms.file} has no user")
    if left_out := [name for name in arms.names if name not in shares]:
        raise Refusal(f"the ratio does not say what share {left_out[0]} was meant to have; name every arm")
    users = arms.users[:, -1]
    meant = users.sum() * np.array([shares[name] for name in arms.names]) / sum(shares.values())
    p_value = float(chdtrc(len(users) - 1, ((users - meant) ** 2 / meant).sum()))
    return SampleRatio(
        arms=arms.names, users=tuple(users.tolist()), meant=tuple(meant.tolist()), p_value=p_value
    )


def _parsed(ratio: str) -> Mapping[str, float]:
    shares: dict[str, float] = {}
    for part in ratio.split(","):
        name, _, text = part.rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not name or not 0 < share < math.inf or name.strip() in shares:
            raise Refusal(f"the ratio {ratio!r} is none; write each arm once with its share, such as A=1,B=1")
        shares[name.strip()] = share
    return shares


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


@dataclass(frozen=True)
class _Difference:
    """A relative difference over `n` users, its standard error and Welch's degrees of freedom."""

    n: int
    relative: float
    error: float
    df: float

    def student(self) -> dict[str, float]:
        reached = float(stdtrit(self.df, (1 + LEVEL) / 2)) * self.error
        t = self.relative / self.error if self.error else math.inf * bool(self.relative)
        p_value = float(2 * stdtr(self.df, -abs(t))) if self.relative else 1.0
        return {"ci_low": self.relative - reached, "ci_high": self.relative + reached, "p_value": p_value}

    def boundary(self, rho2: float) -> dict[str, float]:
        wide = reach(self.n, rho2) * self.error
        return {"low": self.relative - wide, "high": self.relative + wide}


@dataclass(frozen=True)
class _Beside:
    """An arm and the base, in this order, until a day: users [2], means and variances by metric [2]."""

    arm: str
    day: str | None
    users: NDArray[np.int64]
    means: dict[str, NDArray[np.float64]]
    variances: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, arms: Arms, arm: str, base: str, day: int = -1) -> Self:
        rows = [arms.names.index(arm), arms.names.index(base)]
        means, variances = (
            dict(zip(arms.metrics, moments[:, rows, day], strict=True))
            for moments in (arms.means, arms.variances)
        )
        return cls(arm, arms.days[day] if arms.days else None, arms.users[rows, day], means, variances)

    @property
    def is_enough(self) -> bool:
        """Whether both arms have half of the users that a look takes."""
        return bool((2 * self.users >= FEWEST).all())

    def difference(self, metric: str) -> _Difference | None:
        """Returns the relative difference; None where the base's mean is 0."""
        mean, base_mean = self.means[metric].tolist()
        if base_mean == 0:
            return None
        slopes = np.array([1.0, mean / base_mean]) / base_mean
        parts = slopes**2 * self.variances[metric] / self.users
        shares = parts / parts.sum() if parts.any() else np.full(2, 0.5)
        df = 1 / (shares**2 / (self.users - 1)).sum()
        relative = (mean - base_mean) / abs(base_mean)
        return _Difference(int(self.users.sum()), relative, math.sqrt(parts.sum()), float(df))


def _effect(pair: _Beside, metric: str, rho2: float) -> LiveEffect:
    found = pair.difference(metric)
    told: dict[str, float | None] = dict.fromkeys(("relative", "ci_low", "ci_high", "p_value", "low", "high"))
    if found:
        told |= {"relative": found.relative, **found.student()}
        told |= found.boundary(rho2) if pair.is_enough else {}
    mean, base_mean = pair.means[metric].tolist()
    return LiveEffect(
        arm=pair.arm, metric=metric, users=int(pair.users[0]), mean=mean, base_mean=base_mean, **told
    )


def _look(pair: _Beside, metric: str, rho2: float) -> Look:
    found = pair.difference(metric)
    told: dict[str, float | None] = dict.fromkeys(("relative", "low", "high"))
    if found:
        told |= {"relative": found.relative, **found.boundary(rho2)}
    return Look(arm=pair.arm, metric=metric, users=int(pair.users.sum()), day=pair.day, **told)
