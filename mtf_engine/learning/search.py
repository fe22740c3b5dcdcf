"""What search methods share: the fitness they are handed, what they have tried, and the settings of both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mtf_engine.environments import Acting
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.start import baseline_actions
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import ConstantAction
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Count

Fitness = Callable[[Acting], float]
"""How good a policy is by rows or sessions that are the same at every call; higher is better."""

BUDGET = 140
"""Evaluations of each search method in its preset `laptop`: those of a grid of 7 levels, 10 dimensions, 2 passes."""


class SearchConfig(TrainerConfig):
    """Settings of every search method."""

    n_steps: Count = Field(default=BUDGET, description="trials, one evaluation each")
    batch_size: Count = Field(
        default=5_000,
        description="training users (weighted_gauc) or sessions (reward) that an evaluation is over, at most; "
        "the same ones every time (ours)",
    )
    max_sessions: Count | None = Field(
        default=None,
        description="sessions that a search by reward plays in all, at most: an evaluation is then over fewer; "
        "None: no limit (ours)",
    )
    checkpoint_every: Count = Field(
        default=1, description="steps between checkpoints, from which a run resumes"
    )
    log_every: Count = Field(default=1, description="steps between rows of metrics")
    validate_every: Count = Field(
        default=5, description="steps between scores on validation users; the best step is kept"
    )
    fitness: Literal["weighted_gauc", "reward"] = Field(
        default="weighted_gauc",
        description="what is searched for: weighted GAUC by user on training rows, or the mean reward of a "
        "request in the environment that the log is from",
    )

    @model_validator(mode="after")
    def _each_evaluation_plays(self) -> Self:
        asked = evaluations(self.model_dump())
        if self.fitness == "reward" and self.max_sessions is not None and self.max_sessions < asked:
            raise ValueError(
                f"max_sessions: {self.max_sessions} are fewer than the {asked} evaluations; allow more, or make fewer "
                "by n_steps"
            )
        return self


def evaluations(config: Mapping[str, Any]) -> int:
    """Returns how often a search of this config asks for the fitness."""
    return int(config["n_steps"] * config.get("population", 1))


def sessions_each(config: Mapping[str, Any]) -> int:
    """Returns the sessions of one evaluation by reward, the same for all, so that trials can be compared."""
    if config.get("max_sessions") is None:
        return int(config["batch_size"])
    return int(min(config["batch_size"], config["max_sessions"] // evaluations(config)))


@dataclass(frozen=True)
class SameFitness:
    """What a search method is trained on: the fitness, the same at every step."""

    fitness: Fitness

    def draw(self, n: int, generator: torch.Generator) -> Fitness:
        """Returns the fitness; trials that are compared must be over the same rows."""
        return self.fitness


@dataclass
class Trials:
    """Constant actions that were tried, each for all users, and what they were worth; `start` is none of them."""

    start: Policy
    actions: list[list[float]] = field(default_factory=list)
    fitness: list[float] = field(default_factory=list)

    @classmethod
    def around(cls, transitions: Transitions, baseline: Policy | None, algo: str, fitness: str) -> "Trials":
        """Returns no trials yet; they start from the mean action of the baseline policy."""
        action = mean_action(transitions, baseline)
        policy = Policy(
            network=ConstantAction.of(len(transitions.feature_names), action),
            fusion=transitions.fusion,
            feature_names=transitions.feature_names,
            numeric_mask=transitions.numeric_mask,
            info={"algo": algo, "fitness": fitness},
        )
        return cls(policy)

    def __len__(self) -> int:
        return len(self.fitness)

    def best(self, among: int | None = None) -> list[float]:
        """Returns the action of the highest fitness `among` the first trials (all), the first among equals.

        Of no trials, the start's.
        """
        if not self.fitness[:among]:
            return self.start.network.action.tolist()  # type: ignore[operator]
        return self.actions[int(np.argmax(self.fitness[:among]))]

    @property
    def policy(self) -> Policy:
        """The best action for everybody."""
        return self._policy(self.best())

    def attempt(self, action: list[float], fitness: Fitness) -> dict[str, float]:
        """Tries one more action, and returns what is told of it."""
        self.fitness.append(fitness(self._policy(action)))
        self.actions.append(action)
        return {
            "fitness": self.fitness[-1],
            "fitness_best": max(self.fitness),
            "evaluations": len(self),
        }

    def _policy(self, action: list[float]) -> Policy:
        network = ConstantAction.of(len(self.start.feature_names), np.array(action))
        return replace(self.start, network=network, info=self.start.info | {"evaluations": len(self)})

    def state_dict(self) -> dict[str, Any]:
        """Returns the trials as tensors."""
        actions = torch.tensor(self.actions, dtype=torch.float64)
        return {"actions": actions, "fitness": torch.tensor(self.fitness, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called."""
        self.actions, self.fitness = state["actions"].tolist(), state["fitness"].tolist()


class TrialSearch(ABC):
    """A search method whose step is one trial; what it adds is which action comes next."""

    Config: ClassVar[type[TrainerConfig]]
    name: ClassVar[str]
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "paper": {}, "demo": {"n_steps": 70}}
    critics = None

    def __init__(self, config: Any, transitions: Transitions, baseline: Policy | None = None) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.trials = Trials.around(transitions, baseline, self.name, config.fitness)

    @abstractmethod
    def next_action(self) -> list[float]:
        """Returns the action to try next, by the trials so far."""

    @property
    def step(self) -> int:
        return len(self.trials)

    @property
    def policy(self) -> Policy:
        return self.trials.policy

    def prepare(self, fitness: Fitness) -> SameFitness:
        """Returns the fitness as `update` takes it."""
        return SameFitness(fitness)

    def update(self, fitness: Fitness) -> dict[str, float]:
        """Returns the fitness of one more action, and of the best so far."""
        return self.trials.attempt(self.next_action(), fitness)

    def diagnose(self, fitness: Fitness) -> dict[str, float]:
        """Returns nothing: what is watched is what `update` returns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return {"trials": self.trials.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        self.trials.load_state_dict(state["trials"])


def mean_action(transitions: Transitions, baseline: Policy | None) -> NDArray[np.float32]:
    """Returns the mean action [d] of the baseline policy in the log, as logged where no policy is given."""
    if baseline is not None:
        baseline.check(transitions.fusion, transitions.feature_names)
    return transitions.mean(lambda block: baseline_actions(block, baseline), np.float64).astype(np.float32)
