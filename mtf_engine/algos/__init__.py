"""ALGOS: the one list of training methods, and what each offers."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch

from mtf_engine.algos.ddpg import DDPG
from mtf_engine.algos.integrated_rl import IntegratedRL
from mtf_engine.algos.iql import IQL
from mtf_engine.learning.batches import Batch
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.logs.schema import Transitions
from mtf_engine.networks import CriticEnsemble
from mtf_engine.policy import Policy


class Algorithm(Protocol):
    """A training method: built from its config, the transitions and the baseline policy; trained by `fit`."""

    Config: ClassVar[type[TrainerConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]]
    config: Any
    step: int
    generator: torch.Generator
    policy: Policy

    def __init__(self, config: Any, transitions: Transitions, baseline: Policy | None = None) -> None: ...

    @property
    def critics(self) -> CriticEnsemble | None:
        """The critics, where the method has an ensemble of them."""

    def prepare(self, transitions: Transitions) -> Batch:
        """Returns the transitions as `update` reads them, all at once."""

    def update(self, batch: Batch) -> dict[str, Any]:
        """Does one step and returns its losses."""

    def diagnose(self, batch: Batch) -> dict[str, Any]:
        """Returns what is watched, on one batch; changes nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""


ALGOS: dict[str, type[Algorithm]] = {
    "integrated_rl": IntegratedRL,
    "ddpg": DDPG,
    "iql": IQL,
}
"""By the name that commands, forms and run rows use."""
