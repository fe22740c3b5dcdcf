"""ALGOS: the one list of training methods, and what each offers."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch

from mtf_engine.algos.batchrl_mtf import BatchRLMTF
from mtf_engine.algos.bayesian_optimization import BayesianOptimization
from mtf_engine.algos.best_single_head import BestSingleHead
from mtf_engine.algos.cql_sac import CQLSAC
from mtf_engine.algos.ddpg import DDPG
from mtf_engine.algos.evolution_strategy import EvolutionStrategy
from mtf_engine.algos.grid_search import GridSearch
from mtf_engine.algos.integrated_rl import IntegratedRL
from mtf_engine.algos.iql import IQL
from mtf_engine.algos.linear_one_step import LinearOneStep
from mtf_engine.algos.unified_rl import UnifiedRL
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import CriticEnsemble
from mtf_engine.policies.policy import Policy


class Data(Protocol):
    """What a method is trained on."""

    def draw(self, n: int, generator: torch.Generator) -> Any:
        """Returns what one update takes: `n` of the transitions, or the fitness of a policy."""


class Algorithm(Protocol):
    """A training method: built from its config, the transitions and the baseline policy; trained by `fit`.

    RL methods learn from the transitions; a search method, whose config has a setting `fitness`, from a callable
    that says how good a policy is.
    """

    Config: ClassVar[type[TrainerConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]]
    config: Any
    generator: torch.Generator

    def __init__(self, config: Any, transitions: Transitions, baseline: Policy | None = None) -> None: ...

    @property
    def step(self) -> int:
        """How many updates were done."""

    @property
    def policy(self) -> Policy:
        """The policy as it is now."""

    @property
    def critics(self) -> CriticEnsemble | None:
        """The critics, where the method has an ensemble of them."""

    def prepare(self, source: Any, /) -> Data:
        """Returns what the method learns from, transitions or a fitness, as `update` will draw from it."""

    def update(self, batch: Any, /) -> dict[str, Any]:
        """Does one step on what was drawn and returns its losses, or what a search found."""

    def diagnose(self, batch: Any, /) -> dict[str, Any]:
        """Returns what is watched, on one batch; changes nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""


ALGOS: dict[str, type[Algorithm]] = {
    "integrated_rl": IntegratedRL,
    "unified_rl": UnifiedRL,
    "ddpg": DDPG,
    "cql_sac": CQLSAC,
    "batchrl_mtf": BatchRLMTF,
    "iql": IQL,
    "evolution_strategy": EvolutionStrategy,
    "grid_search": GridSearch,
    "bayesian_optimization": BayesianOptimization,
    "linear_one_step": LinearOneStep,
    "best_single_head": BestSingleHead,
}
"""By the name that commands, forms and run rows use."""
