"""The best single prediction, or the predictions weighed by a regression: the same for all users. A floor, no paper.

What fusion has to beat. With `weights=single` a step ranks by one prediction alone: its pow is at the end of its
range that is farther from 0, all other pows and biases as near 0 as their ranges allow. The prediction with the
highest fitness is kept; steps beyond the last prediction begin again with the first and change nothing.

With `weights=regression` the one vector tried is a least-squares fit of an impression's reward on the logarithms
of its predictions, on the training rows that the fitness ranks, both minus their means in the request: formula 1
ranks within a request, and is linear in those logarithms.

- A coefficient has the sign that its pow's range allows, or is 0 (bounded least squares).
- All coefficients are scaled by one number, so that the first pow reaches the end of its range; this changes no
  ranking. A range without 0 is then still held.
- Neither sees what an action does to later requests, or whom it helps.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.fusion import PREDICTION_FLOOR, action_of
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import Fitness, SameFitness, SearchConfig, TrialSearch
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.fixed import one_head
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Count, FusionSpec, Refusal

SMALLEST = 1e-9
"""Of the largest coefficient; what is smaller counts as 0."""


class BestSingleHeadConfig(SearchConfig):
    """Settings of the best single head."""

    n_steps: Count = Field(default=16, description="predictions tried, each by one evaluation (ours)")
    weights: Literal["single", "regression"] = Field(
        default="single",
        description="rank by the best single prediction, or by a regression of the reward on their logarithms",
    )


class BestSingleHead(TrialSearch):
    """The searcher: `update` is one trial."""

    Config: ClassVar[type[TrainerConfig]] = BestSingleHeadConfig
    name = "best_single_head"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "paper": {}, "demo": {}}

    def __init__(
        self, config: BestSingleHeadConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        super().__init__(config, transitions, baseline)
        self.vectors = single_heads(transitions.fusion)

    def prepare(self, fitness: Fitness) -> SameFitness:
        """Returns the fitness as `update` takes it; a Refusal where there is nothing to regress on."""
        if self.config.weights == "regression":
            rows = getattr(fitness, "rows", None)
            if rows is None:
                raise Refusal("weights=regression needs impressions to learn from; set fitness=weighted_gauc")
            self.vectors = [regressed(rows)]
        return super().prepare(fitness)

    def next_action(self) -> list[float]:
        """Returns the next of the vectors in turn."""
        return self.vectors[self.step % len(self.vectors)].tolist()


def single_heads(spec: FusionSpec) -> list[NDArray[np.float64]]:
    """Returns the action [d] of each prediction with a pow, alone."""
    return [one_head(spec, d.prediction) for d in spec.dimensions if d.kind == "pow"]


def regressed(rows: EvaluationRows) -> NDArray[np.float64]:
    """Returns the action [d] whose pows are in proportion to the coefficients of the regression."""
    from scipy.optimize import lsq_linear  # a part of a second to load, for this alone

    spec = rows.fusion
    pows = [i for i, d in enumerate(spec.dimensions) if d.kind == "pow"]
    low, high = (np.array([getattr(spec.dimensions[i], end) for i in pows]) for end in ("low", "high"))
    of = [spec.predictions.index(spec.dimensions[i].prediction) for i in pows]
    logs = np.log(rows.predictions[:, of].astype(np.float64).clip(PREDICTION_FLOOR))
    left = _within(np.column_stack([logs, rows.reward]), rows.request)
    allowed = np.where(low < 0, -np.inf, 0), np.where(high > 0, np.inf, 0)
    found = lsq_linear(left[:, :-1], left[:, -1], allowed).x
    found[np.abs(found) <= SMALLEST * np.abs(found).max()] = 0
    ends = np.where(found > 0, high, low)
    reach = np.divide(ends, found, out=np.full(len(pows), np.inf), where=found != 0).min()
    real = np.zeros(spec.n_actions)
    real[pows] = found * reach if np.isfinite(reach) else 0
    return action_of(spec, real)


def _within(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns values [m, k] minus the means of their groups, numbered from 0: [m, k]."""
    sizes = np.bincount(groups)
    sums = np.column_stack([np.bincount(groups, column) for column in values.T])
    return values - (sums / np.maximum(sizes, 1)[:, None])[groups]
