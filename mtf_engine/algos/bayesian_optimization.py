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

from typing import ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from pydantic import Field

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.search import SearchConfig, TrialSearch
from mtf_engine.spec import Count


class BayesianOptimizationConfig(SearchConfig):
    """Settings of the Bayesian optimization."""

    n_random: Count = Field(default=10, description="trials at random before the first fit (Optuna: 10)")


class BayesianOptimization(TrialSearch):
    """The searcher: `update` is one trial."""

    Config: ClassVar[type[TrainerConfig]] = BayesianOptimizationConfig
    name = "bayesian_optimization"

    def next_action(self) -> list[float]:
        """Returns the vector of the largest expected improvement over the trials so far."""
        seed = int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1)[0])
        sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.config.n_random)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        names = self.trials.start.fusion.names
        space: dict[str, BaseDistribution] = {name: FloatDistribution(-1, 1) for name in names}
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for action, value in zip(self.trials.actions, self.trials.fitness, strict=True):
            tried = dict(zip(names, action, strict=True))
            study.add_trial(optuna.create_trial(params=tried, distributions=space, value=value))
        asked = study.ask(space)
        return [asked.params[name] for name in names]
