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

from typing import ClassVar

import numpy as np
from pydantic import Field

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import SearchConfig, TrialSearch
from mtf_engine.spec import MOST


class GridSearchConfig(SearchConfig):
    """Settings of the grid search."""

    levels: int = Field(
        default=7, ge=2, le=MOST, description="of each dimension, evenly spaced from -1 to 1 (ours)"
    )


class GridSearch(TrialSearch):
    """The searcher: `update` is one trial."""

    Config: ClassVar[type[TrainerConfig]] = GridSearchConfig
    name = "grid_search"

    def next_action(self) -> list[float]:
        """Returns the best vector before the dimension whose turn it is, with the next level in that one."""
        turn, level = divmod(self.step, self.config.levels)
        action = list(self.trials.best(among=turn * self.config.levels))
        n_pass, place = divmod(turn, len(action))
        order = np.random.default_rng([self.config.seed, n_pass]).permutation(len(action))
        action[order[place]] = float(np.linspace(-1, 1, self.config.levels)[level])
        return action
