"""Bayesian optimization: one weight vector for all users, each chosen by what the earlier ones were worth.

A Gaussian process with a Matern kernel is fitted to the trials so far, and the next vector is the one of the
largest log expected improvement: `GPSampler` of Optuna 5 (Akiba et al., KDD 2019, arXiv 1907.10902); log
expected improvement is Ament et al., NeurIPS 2023, arXiv 2310.20708.

- A step is one trial. The first `n_random` vectors are drawn at random, as Optuna does.
- Optuna's sampler carries random state from trial to trial that it cannot save. So each trial gets a new
  sampler, seeded by (seed, trial), and a new study that holds the earlier trials: a resumed run is then the
  uninterrupted one by construction. What is lost is the warm start of the kernel's parameters, which are
  fitted from Optuna's defaults each time; a trial takes a third of a second.
- The policy is the best vector tried so far.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from pydantic import Field

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import Fitness, SameFitness, SearchConfig, Trials
from mtf_engine.logs.schema import Transitions
from mtf_engine.policy import Policy


class BayesianOptimizationConfig(SearchConfig):
    """Settings of the Bayesian optimization."""

    n_random: int = Field(default=10, ge=1, description="trials at random before the first fit (Optuna: 10)")


class BayesianOptimization:
    """The searcher: `update` is one trial."""

    Config: ClassVar[type[TrainerConfig]] = BayesianOptimizationConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "paper": {}, "demo": {"n_steps": 70}}
    critics = None

    def __init__(
        self, config: BayesianOptimizationConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config = config
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.trials = Trials.around(transitions, baseline, "bayesian_optimization", config.fitness)
        self.space: dict[str, BaseDistribution] = {
            name: FloatDistribution(-1, 1) for name in transitions.fusion.names
        }

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
        """Returns the vector of the largest expected improvement over the trials so far."""
        seed = int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1)[0])
        sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.config.n_random)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for action, value in zip(self.trials.actions, self.trials.fitness, strict=True):
            tried = dict(zip(self.space, action, strict=True))
            study.add_trial(optuna.create_trial(params=tried, distributions=self.space, value=value))
        asked = study.ask(self.space)
        return [asked.params[name] for name in self.space]

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
