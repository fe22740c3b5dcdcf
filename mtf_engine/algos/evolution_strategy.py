"""Evolution strategy: a small personalised policy, mutated and selected by its fitness.

The method that IntegratedRL-MTF (arXiv 2404.17589) gives its gains against; like the searches it replaced, it
looks at one request at a time. The paper names neither policy nor strategy, so both are ours:

- The policy is linear in the user's profile, with at most 300 parameters: a bias and as many weights for each
  dimension as that allows. They weigh principal components of the profile, scaled to one variance, 1 together,
  so that one step size suits them and the bias. Of a log without profiles, all features are used.
- The strategy is separable CMA-ES: covariance matrix adaptation with a diagonal matrix (Ros and Hansen, PPSN
  2008; Hansen, arXiv 1604.00772), by the package `cma`. A diagonal learns in few generations what a full
  matrix of 300 parameters would need thousands for.
- It starts as the baseline policy: its parameters where it is of this kind, else the least-squares fit of its
  actions, with a warning where that is off by more than 1e-3.
- The policy is the mean of the strategy's distribution, not the best of its sample, which is luck in part.
- A step is one generation of `population` evaluations.
- What `cma` holds cannot be saved as tensors. It is deterministic, so a checkpoint keeps the generator and what
  each generation was told; a resumed search asks and tells them again, a millisecond each, to the same bits.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.learning import evolution
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.linear import parameters, set_parameters, starting_policy
from mtf_engine.learning.search import BUDGET, Fitness, SameFitness, SearchConfig
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import MOST, Count


class EvolutionStrategyConfig(SearchConfig):
    """Settings of the evolution strategy."""

    n_steps: Count = Field(
        default=BUDGET // 14, description="generations of `population` evaluations each (ours)"
    )
    validate_every: Count = Field(
        default=1, description="steps between scores on validation users; the best step is kept"
    )
    population: int = Field(default=14, ge=4, le=MOST, description="policies tried in each generation (ours)")
    sigma: float = Field(
        default=0.1,
        gt=0,
        description="standard deviation of the first mutations, in units of the action (ours by search)",
    )
    n_parameters: int = Field(default=300, ge=2, le=300, description="of the policy, at most (ours: 300)")


class EvolutionStrategy:
    """The searcher: `update` is one generation."""

    Config: ClassVar[type[TrainerConfig]] = EvolutionStrategyConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"n_parameters": 60},
        "paper": {},
        "demo": {"n_steps": 5, "n_parameters": 60},
    }
    critics = None

    def __init__(
        self, config: EvolutionStrategyConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config = config
        self.generator = torch.Generator()
        self.network = starting_policy(transitions, config.n_parameters, baseline)
        self.start = parameters(self.network)
        self.fusion, self.feature_names = transitions.fusion, transitions.feature_names
        self.numeric_mask = transitions.numeric_mask
        self._begin()

    def _begin(self) -> None:
        """Starts the strategy, before its first generation."""
        self.generator.manual_seed(self.config.seed)
        options = {"CMA_diagonal": True, "popsize": self.config.population}
        self.strategy = evolution.strategy(self.start, self.config.sigma, self._normal, **options)
        self.told: list[list[float]] = []

    def _normal(self, *shape: int) -> NDArray[np.float64]:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).numpy()

    @property
    def step(self) -> int:
        return len(self.told)

    @property
    def policy(self) -> Policy:
        """The mean of the strategy's distribution."""
        info = {
            "algo": "evolution_strategy",
            "fitness": self.config.fitness,
            "evaluations": self.step * self.config.population,
        }
        return Policy(self.network, self.fusion, self.feature_names, self.numeric_mask, info)

    def prepare(self, fitness: Fitness) -> SameFitness:
        """Returns the fitness as `update` takes it."""
        return SameFitness(fitness)

    def update(self, fitness: Fitness) -> dict[str, float]:
        """Returns the fitness of one generation, mutated from the mean and selected to move it."""
        mutants = self.strategy.ask()
        found = []
        for mutant in mutants:
            set_parameters(self.network, mutant)
            found.append(fitness(self.policy))
        self._select(mutants, found)
        return {
            "fitness_mean": float(np.mean(found)),
            "fitness_best": float(np.max(self.told)),
            "sigma": self.strategy.sigma,
            "evaluations": self.policy.info["evaluations"],
        }

    def _select(self, mutants: list[NDArray[np.float64]], found: list[float]) -> None:
        """Moves the distribution towards the better of its mutants."""
        self.strategy.tell(mutants, [-fitness for fitness in found])
        self.told.append(found)
        set_parameters(self.network, self.strategy.result.xfavorite)

    def diagnose(self, fitness: Fitness) -> dict[str, float]:
        """Returns nothing: what is watched is what `update` returns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return {
            "told": torch.tensor(self.told, dtype=torch.float64),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        self._begin()
        for found in state["told"].tolist():
            self._select(self.strategy.ask(), found)
