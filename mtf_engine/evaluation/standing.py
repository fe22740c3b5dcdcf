"""Where policies stand: weighted GAUC of everyone and of each segment, and its bootstrap draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtf_engine.evaluation.bootstrap import (
    bootstrap_by_part,
    by_key,
    interval,
    probability_above_zero,
    probability_best,
    resolvable_gap,
    user_sums,
)
from mtf_engine.evaluation.result import GROUPS, Group
from mtf_engine.evaluation.scored import Gaucs
from mtf_engine.evaluation.segments import Segments
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC
from mtf_engine.logs.schema import EvaluationRows

EVERYONE = 0
"""Part 0 of a standing is everyone; part 1 + s is segment s."""


@dataclass(frozen=True)
class Standing:
    """The policies by one grouping, in p parts: everyone, then each segment.

    Intervals, probabilities and differences of a part come from the same draws, so they fit together.
    """

    gaucs: Mapping[str, Sequence[WeightedGAUC]]  # by run id, [p]
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


def standings(
    gaucs: Mapping[str, Gaucs],
    rows: EvaluationRows,
    segments: Segments,
    n_bootstrap: int,
    seed: int,
) -> dict[Group, Standing]:
    """Returns the standing of the policies by user and by request, drawn with the same counts of users.

    A user's counts depend on its id and the seed alone, not on who else is there nor in which order.
    """
    n_users = len(segments.of_user)
    user_of: dict[Group, np.ndarray] = {"user": np.arange(n_users), "request": rows.user}
    sums = [user_sums(gaucs[run_id][group], user_of[group], n_users) for group in GROUPS for run_id in gaucs]
    numerators, denominators = (np.stack(part) for part in zip(*sums, strict=True))
    part, n_parts = segments.of_user, max(1, len(segments.names))
    draws = bootstrap_by_part(numerators, denominators, part, n_parts, n_bootstrap, by_key(rows.keys, seed))
    by_group = np.split(draws, len(GROUPS), axis=-1)
    return {
        group: Standing(
            {run_id: _parts(gaucs[run_id][group], user_of[group], segments) for run_id in gaucs}, drawn
        )
        for group, drawn in zip(GROUPS, by_group, strict=True)
    }


def _parts(gauc: WeightedGAUC, user_of_group: np.ndarray, segments: Segments) -> list[WeightedGAUC]:
    segment = segments.of_user[user_of_group[gauc.keys]]
    return [gauc, *(gauc.among(segment == s) for s in range(len(segments.told_apart)))]
