"""The best single head, or all predictions weighed by a regression: the same for all users. A floor, no paper.

What fusion has to beat. With `weights=single` a step ranks by one prediction alone: its pow is at the end of its
range that is farther from 0, all other pows and biases as near 0 as their ranges allow. The prediction with the
highest fitness is kept; steps beyond the last prediction begin again with the first and change nothing.

With `weights=regression` the one vector tried is `policies.fixed.regressed`: the reward on the logarithms of the
predictions, on the training rows that the fitness ranks.

- Neither sees what an action does to later requests, or whom it helps.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import Fitness, SameFitness, SearchConfig, TrialSearch
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.fixed import one_head, regressed
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Count, FusionSpec, Refusal


class BestSingleHeadConfig(SearchConfig):
    """Settings of the best single head."""

    n_steps: Count = Field(default=16, description="predictions tried, each by one evaluation (ours)")
    weights: Literal["single", "regression"] = Field(
        default="single",
        description="rank by the best single head, or by a regression of the reward on their logarithms",
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
            self.vectors = [regressed(rows, rows.reward)]
        return super().prepare(fitness)

    def next_action(self) -> list[float]:
        """Returns the next of the vectors in turn."""
        return self.vectors[self.step % len(self.vectors)].tolist()


def single_heads(spec: FusionSpec) -> list[NDArray[np.float64]]:
    """Returns the action [d] of each prediction with a pow, alone."""
    return [one_head(spec, d.prediction) for d in spec.dimensions if d.kind == "pow"]
