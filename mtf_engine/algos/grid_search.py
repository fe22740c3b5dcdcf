"""Grid search: one weight vector for all users, found one dimension at a time.

The usual way to set fusion weights by hand, and the weakest baseline of the comparison; no paper. Each dimension
in turn takes the level at which the fitness is highest while the others stay at the best vector so far. A full
grid of 7 levels in 10 dimensions would be 282 million evaluations; 2 passes of this one are 140.

- A step is one trial; `n_steps / (levels * dimensions)` passes are made, the last one cut short where that is
  no whole number.
- The order of the dimensions is drawn anew for each pass, so that a seed matters as little as it does.
- Before a whole dimension was tried, the policy is the best vector tried so far, which may be worse than where
  the search started; the start itself is tried only where it lies on the grid, as the default weights, 0, do.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import Fitness, SameFitness, SearchConfig, Trials
from mtf_engine.logs.schema import Transitions
from mtf_engine.policy import Policy


class GridSearchConfig(SearchConfig):
    """Settings of the grid search."""

    levels: int = Field(default=7, ge=2, description="of each dimension, evenly spaced from -1 to 1 (ours)")


class GridSearch:
    """The searcher: `update` is one trial."""

    Config: ClassVar[type[TrainerConfig]] = GridSearchConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "paper": {}, "demo": {"n_steps": 70}}
    critics = None

    def __init__(
        self, config: GridSearchConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.trials = Trials.around(transitions, baseline, "grid_search", config.fitness)

    @property
    def policy(self) -> Policy:
        return self.trials.policy

    def prepare(self, fitness: Fitness) -> SameFitness:
        """Returns the fitness as `update` takes it."""
        return SameFitness(fitness)

    def update(self, fitness: Fitness) -> dict[str, float]:
        """Returns the fitness of one more vector, and of the best so far."""
        found = self.trials.attempt(self._next(), fitness)
        self.step += 1
        return found

    def _next(self) -> list[float]:
        """Returns the best vector before the dimension whose turn it is, with the next level in that one."""
        turn, level = divmod(self.step, self.config.levels)
        action = list(self.trials.best(among=turn * self.config.levels))
        n_pass, place = divmod(turn, len(action))
        order = np.random.default_rng([self.config.seed, n_pass]).permutation(len(action))
        action[order[place]] = float(np.linspace(-1, 1, self.config.levels)[level])
        return action

    def diagnose(self, fitness: Fitness) -> dict[str, float]:
        """Returns nothing: what is watched is what `update` returns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return {"trials": self.trials.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        self.trials.load_state_dict(state["trials"])
        self.step = state["step"]
