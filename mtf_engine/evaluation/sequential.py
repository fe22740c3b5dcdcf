"""Confidence sequences: intervals about a mean that hold at every look together, however often one looks.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences" (Annals of Statistics 2024, arXiv 2103.06476): about a mean of n units it
reaches `std * sqrt(2 (n rho^2 + 1) / (n^2 rho^2) * log(sqrt(n rho^2 + 1) / alpha))`. A ratio of means is one as well,
by its linear part (the delta method). `rho^2` may not hang on the data: it is chosen by how many units were planned.
"""

import math
from collections.abc import Iterable, Mapping

from scipy.special import lambertw

from mtf_engine.spec import Spec

ALPHA = 0.05
FEWEST = 100
"""Units before the first look: of fewer a variance is not known well enough, and the sequence is asymptotic."""
N_LOOKS = 20


class Look(Spec):
    """The relative difference of one arm's metric after the first `users`, with the boundary about it.

    `arm` is a policy in a simulated test. None: the base's mean is 0. `day` is the last day of these users, in a
    live test.
    """

    arm: str
    metric: str
    users: int
    relative: float | None
    low: float | None
    high: float | None
    day: str | None = None

    @property
    def is_told(self) -> bool:
        """Whether the difference is told from 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def tuned(n_planned: int, alpha: float = ALPHA) -> float:
    """Returns the rho^2 with which the sequence is tightest after half of `n_planned` units.

    At half of them rather than at their end: that costs 1 % of width there and saves 18 % at the first of twenty looks.
    """
    return float((-lambertw(-(alpha**2) / math.e, -1).real - 1) / (n_planned / 2))


def reach(n: int, rho2: float, alpha: float = ALPHA) -> float:
    """Returns how many standard errors of the mean of `n` units the sequence reaches on both sides of it."""
    x = n * rho2
    return math.sqrt(2 * (x + 1) / x * math.log(math.sqrt(x + 1) / alpha))


def p_value(z: float, n: int, rho2: float) -> float:
    """Returns the p-value that holds at every look: the least alpha whose sequence leaves out 0, `z` errors away."""
    x = n * rho2
    return min(1.0, math.exp(math.log1p(x) / 2 - z**2 * x / (2 * (x + 1))))


def look_at(n_users: int) -> list[int]:
    """Returns after how many of `n_users` one looks: evenly spaced, at their end too; none of fewer than FEWEST."""
    ends = (n_users * k // N_LOOKS for k in range(1, N_LOOKS + 1))
    return sorted({end for end in ends if end >= FEWEST})


def first_told(looks: Iterable[Look]) -> Mapping[tuple[str, str], Look]:
    """Returns by arm and metric the first of `looks`, which are in their order, that told a difference from 0."""
    told: dict[tuple[str, str], Look] = {}
    for look in looks:
        if look.is_told:
            told.setdefault((look.arm, look.metric), look)
    return told
