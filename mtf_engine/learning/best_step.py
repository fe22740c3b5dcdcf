"""Validation: how a policy in training ranks users it does not learn from, and the best step so far."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from mtf_engine import sealed
from mtf_engine.evaluation.ranking import Ranking, undefined
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.policy import Policy

USERS = 1_000
"""Validation users that are looked at: always the same ones, so that steps and runs compare."""


class Validation:
    """Weighted GAUC by user on fixed rows, and the policy of the step that scored highest.

    `best_score` and `best_step` are None until a step was scored; `start_score` is that of the policy that
    the training starts from, which is never the best step.
    """

    def __init__(self, score: Ranking) -> None:
        self.score = score
        self.start_score: float | None = None
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._best_policy = b""

    @classmethod
    def of(cls, rows: EvaluationRows) -> Self | None:
        """Returns the validation on `rows`; None where weighted GAUC is `undefined` of them."""
        return None if undefined(rows) else cls(Ranking(rows))

    def start(self, policy: Policy) -> float:
        """Returns the score of the policy that the training starts from."""
        self.start_score = self.score(policy)
        return self.start_score

    def look(self, policy: Policy, step: int) -> float:
        """Returns the score of `policy` at `step`, keeping the policy of the highest score yet."""
        score = self.score(policy)
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step = score, step
            self._best_policy = replace(policy, info=policy.info | {"step": step}).to_bytes()
        return score

    def save_best(self, path: Path) -> None:
        """Writes the best step's policy to `path` in one step."""
        sealed.write(path, self._best_policy)

    def summary(self) -> dict[str, Any]:
        """Returns whom the scores are of, and the scores that matter."""
        return {
            "users": self.score.size["users"],
            "requests": len(self.score.rows.request_id),
            "start_score": self.start_score,
            "best_score": self.best_score,
            "best_step": self.best_step,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the scores so far and the policy kept, as tensors and primitives."""
        return {
            "start_score": self.start_score,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best_policy": torch.frombuffer(bytearray(self._best_policy), dtype=torch.uint8)
            if self._best_policy
            else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called."""
        self.start_score, self.best_score = state["start_score"], state["best_score"]
        self.best_step = state["best_step"]
        policy = state["best_policy"]
        self._best_policy = b"" if policy is None else policy.numpy().tobytes()
