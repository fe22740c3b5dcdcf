"""Where policies stand: weighted GAUC of everyone and of each segment, and its bootstrap draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtf_engine.evaluation.bootstrap import (
    interval,
    probability_above_zero,
    probability_best,
    resolvable_gap,
)
from mtf_engine.evaluation.result import GROUPS, Group
from mtf_engine.evaluation.scored import Scored
from mtf_engine.evaluation.weighted_gauc import GaucSums

EVERYONE = 0
"""Part 0 of a standing is everyone; part 1 + s is segment s."""


@dataclass(frozen=True)
class Standing:
    """The policies by one grouping, in p parts: everyone, then each segment.

    Intervals, probabilities and differences of a part come from the same draws, so they fit together.
    """

    gaucs: Mapping[str, Sequence[GaucSums]]  # by run id, [p]
    draws: np.ndarray  # [p, n_bootstrap, k], policies in the order of `gaucs`

    def score(self, run_id: str, part: int = EVERYONE) -> dict[str, float | None]:
        """Returns a policy's weighted GAUC with its 95 % interval, and how likely it is the best of all."""
        place = list(self.gaucs).index(run_id)
        ci_low, ci_high = interval(self.draws[part, :, place])
        best = probability_best(self.draws[part])
        return {
            "weighted_gauc": self.gaucs[run_id][part].value,
            "ci_low": ci_low,
            "ci_high": ci_high,
            "probability_best": None if best is None else best[place],
        }

    def difference(self, run_id: str, base: str, part: int = EVERYONE) -> dict[str, float | None]:
        """Returns what a policy's weighted GAUC is above that of `base`, paired by user."""
        places = list(self.gaucs)
        draws = self.draws[part, :, places.index(run_id)] - self.draws[part, :, places.index(base)]
        value, base_value = self.gaucs[run_id][part].value, self.gaucs[base][part].value
        ci_low, ci_high = interval(draws)
        return {
            "value": None if value is None or base_value is None else value - base_value,
            "ci_low": ci_low,
            "ci_high": ci_high,
            "probability_better": probability_above_zero(draws),
            "resolvable_gap": resolvable_gap(draws),
        }


def standings(whole: Scored) -> dict[Group, Standing]:
    """Returns the standing of the policies by user and by request, drawn with the same counts of users."""
    by_group = np.split(whole.draws.ratios(), len(GROUPS), axis=-1)
    return {
        group: Standing({run_id: acted.gaucs[group] for run_id, acted in whole.acted.items()}, drawn)
        for group, drawn in zip(GROUPS, by_group, strict=True)
    }
