"""Rank sensitivity: which dimensions of an action change the ranking within their bounds, and how many do so in effect.

Two candidates of a request swap where a dimension, moved alone from the baseline action to an end of its box, turns
their order. Dimensions that swap the same pairs count as one.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.cost import CandidateLists, Source, equally_long
from mtf_engine.fusion import log_final_score
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal, Spec


class DimensionSensitivity(Spec):
    """What moving one dimension alone does."""

    dimension: str
    swapped: float = Field(description="share of pairs that swap at either end of its box")


class RankSensitivity(Spec):
    """What each dimension does to the order of pairs of candidates, see `rank_sensitivity`."""

    source: Source
    n_requests: int
    n_pairs: int
    dimensions: tuple[DimensionSensitivity, ...]
    effective: float = Field(
        description="dimensions that change the ranking, by participation ratio; 0: none does"
    )

    @property
    def sentence(self) -> str:
        return (
            f"{self.effective:.1f} of {len(self.dimensions)} dimensions change the ranking inside the bounds, by "
            f"{self.n_pairs:,} pairs of {self.n_requests:,} requests."
        )


def rank_sensitivity(fusion: FusionSpec, lists: CandidateLists, plan: BoundsPlan) -> RankSensitivity:
    """Returns what each dimension, moved alone to the ends of its box, does to logged rankings.

    With x_i of a pair +1 where it swaps at the upper end of dimension i, -1 at the lower, else 0, and M the mean of
    x x', `effective` is (tr M)^2 / tr M^2: d where d dimensions swap equally many pairs, each others; 1 where all
    swap the same. Pairs that tie at the baseline action are left out.
    """
    kept = np.flatnonzero(np.diff(lists.first) > 1)
    if not len(kept):
        raise Refusal("sensitivity: no request has two candidates to rank; name a log that shows several")
    lower, upper = plan.resolve(lists.baseline_actions, lists.segments)
    d, n_pairs = fusion.n_actions, 0
    moment = np.zeros((d, d))
    for places, rows in equally_long(lists, kept):
        requests = kept[places]
        predictions = lists.predictions[rows].astype(np.float64)
        swaps = _swaps(
            fusion, lists.baseline_actions[requests], lower[requests], upper[requests], predictions
        )
        moment += swaps.T @ swaps
        n_pairs += len(swaps)
    if not n_pairs:
        raise Refusal(
            "sensitivity: every pair of candidates ties at the baseline action; bring other predictions"
        )
    moment /= n_pairs
    squared = float((moment**2).sum())
    return RankSensitivity(
        source=lists.source,
        n_requests=len(kept),
        n_pairs=n_pairs,
        dimensions=tuple(
            DimensionSensitivity(dimension=name, swapped=share)
            for name, share in zip(fusion.names, moment.diagonal().tolist(), strict=True)
        ),
        effective=float(np.trace(moment) ** 2 / squared) if squared else 0.0,
    )


def _swaps(
    fusion: FusionSpec,
    actions: NDArray[np.float32],
    lower: NDArray[np.float32],
    upper: NDArray[np.float32],
    predictions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns x [pairs, d] of the pairs of g requests' candidates, predictions [g, n, p], that do not tie."""
    before = _margins(fusion, actions, predictions)
    told = before != 0
    found = np.empty((int(told.sum()), fusion.n_actions))
    for i in range(fusion.n_actions):
        step = np.eye(fusion.n_actions, dtype=np.float32)[i]
        down, up = (_margins(fusion, actions + end[:, [i]] * step, predictions) for end in (lower, upper))
        found[:, i] = ((up * before < 0) * 1.0 - (down * before < 0))[told]
    return found


def _margins(
    fusion: FusionSpec, actions: NDArray[np.float32], predictions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns how far the first of each pair of candidates is above the second: [g, pairs]."""
    scores = log_final_score(fusion, actions.astype(np.float64), predictions)
    first, second = np.triu_indices(predictions.shape[1], 1)
    margins: NDArray[np.float64] = scores[:, first] - scores[:, second]
    return margins
