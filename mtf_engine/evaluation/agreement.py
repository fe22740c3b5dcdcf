"""Whether weighted GAUC and an A/B test say the same of the same policies."""

from collections.abc import Iterable
from itertools import combinations

from mtf_engine.evaluation.abtest import ABTest
from mtf_engine.evaluation.result import PairedDifference
from mtf_engine.spec import Spec

GROUP, METRIC = "user", "session_reward"


class Beside(Spec):
    """A policy minus the base: weighted GAUC by user, and relative session reward, with 95 % intervals."""

    policy: str
    gauc_difference: float | None
    gauc_low: float | None
    gauc_high: float | None
    reward_difference: float | None
    reward_low: float | None
    reward_high: float | None


class Agreement(Spec):
    """What both say of policies beside a base, and how many pairs of them, the base among them, both order alike."""

    base: str
    policies: tuple[Beside, ...]
    alike: int
    pairs: int

    @property
    def sentence(self) -> str:
        """Whether they agree, in words."""
        if self.alike == self.pairs:
            return "Weighted GAUC and the A/B test order the policies alike."
        return (
            f"Weighted GAUC and the A/B test order {self.alike} of {self.pairs} pairs of policies alike; "
            "the A/B test is about users, weighted GAUC about a log."
        )


def agreement(differences: Iterable[PairedDifference], test: ABTest) -> Agreement | None:
    """Returns how far both agree on the policies that both know; None where no policy beside the base has both."""
    pairs = {
        pair.run_id: pair
        for pair in differences
        if (pair.base, pair.group) == (test.base, GROUP) and pair.run_id in test.policies
    }
    if not pairs or METRIC not in test.metrics:
        return None
    effects = {policy: test.effect(policy, METRIC) for policy in pairs}
    told = tuple(
        Beside(
            policy=policy,
            gauc_difference=pair.value,
            gauc_low=pair.ci_low,
            gauc_high=pair.ci_high,
            reward_difference=effects[policy].relative,
            reward_low=effects[policy].ci_low,
            reward_high=effects[policy].ci_high,
        )
        for policy, pair in pairs.items()
    )
    known = [(one.gauc_difference, one.reward_difference) for one in told]
    points = [(0.0, 0.0), *((g, r) for g, r in known if g is not None and r is not None)]
    alike = [_sign(a[0] - b[0]) == _sign(a[1] - b[1]) for a, b in combinations(points, 2)]
    if not alike:
        return None
    return Agreement(base=test.base, policies=told, alike=sum(alike), pairs=len(alike))


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
