"""Formula 1: the final score of an item from its predictions and an action."""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtf_engine.spec import FusionSpec

PREDICTION_FLOOR = 1e-6


def log_final_score(
    spec: FusionSpec, actions: Any, predictions: Any, xp: ModuleType = np, typical: Any = None
) -> Any:
    """Returns `sum_i pow_i * log(prediction_i + bias_i)`, the logarithm of the paper's formula 1.

    Actions [n, d] lie in [-1, 1]; predictions are [n, p], or [n, k, p] for k candidates a request, and give scores [n]
    or [n, k]. Actions [n, k, d] are one for each candidate. Predictions are floored at 1e-6, so the logarithm exists. A
    prediction without a pow dimension has pow 0, one without a bias dimension bias 0. `xp` is numpy, or torch for
    tensors.

    With `typical` predictions [p] a score is told less that of a typical item under the same weights: else items with
    weights of their own would rise or sink by the weights alone, whatever is predicted of them. Where all items of a
    request have the same weights this changes no ranking.
    """
    return log_parts(spec, actions, predictions, xp, typical).sum(-1)


def log_parts(
    spec: FusionSpec, actions: Any, predictions: Any, xp: ModuleType = np, typical: Any = None
) -> Any:
    """Returns what each prediction adds to `log_final_score`, [n, p] or [n, k, p]."""
    pows, biases = pows_and_biases(spec, actions, xp)
    if actions.ndim == 2 and predictions.ndim == 3:
        pows, biases = pows[:, None, :], biases[:, None, :]
    parts = pows * xp.log(predictions.clip(PREDICTION_FLOOR) + biases)
    return parts if typical is None else parts - pows * xp.log(typical + biases)


def action_of(spec: FusionSpec, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the action [d] of real pows and biases [d], cut to their ranges: what `pows_and_biases` turns back."""
    low, high = (np.array([getattr(d, end) for d in spec.dimensions]) for end in ("low", "high"))
    return (np.clip(weights, low, high) - (low + high) / 2) / ((high - low) / 2)


class LogPredictions:
    """Predictions [m, p] whose final scores are wanted under many actions: their logarithms are taken once.

    Only those of a prediction with a bias dimension depend on the action.
    """

    def __init__(self, spec: FusionSpec, predictions: np.ndarray) -> None:
        self.spec = spec
        self._biased = np.flatnonzero(_placement(spec, "bias").any(axis=0))
        self._predictions = predictions[:, self._biased].clip(PREDICTION_FLOOR).astype(np.float64)
        self._logs = np.log(predictions.astype(np.float64).clip(PREDICTION_FLOOR))

    def log_final_score(
        self, actions: np.ndarray, own: np.ndarray, typical: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns formula 1's logarithm [m] where row i has the action `own[i]` of `actions` [n, d].

        With `typical` predictions [p] less that of a typical item.
        """
        pows, biases = pows_and_biases(self.spec, actions)
        logs = self._logs
        logs[:, self._biased] = np.log(self._predictions + biases[:, self._biased][own])
        scores = np.einsum("mp,mp->m", pows[own], logs)
        return scores if typical is None else scores - (pows * np.log(typical + biases)).sum(-1)[own]


def pows_and_biases(spec: FusionSpec, actions: Any, xp: ModuleType = np) -> tuple[Any, Any]:
    """Returns real pows and biases, each [..., p], for actions [..., d]."""
    centre = np.array([(d.high + d.low) / 2 for d in spec.dimensions], np.float32)
    half_range = np.array([(d.high - d.low) / 2 for d in spec.dimensions], np.float32)
    real = actions * xp.asarray(half_range) + xp.asarray(centre)
    pows, biases = (real @ xp.asarray(_placement(spec, kind)) for kind in ("pow", "bias"))
    return pows, biases


def _placement(spec: FusionSpec, kind: str) -> np.ndarray:
    """Returns the 0/1 matrix [d, p] that sends each dimension of `kind` to its prediction."""
    placed = [[d.kind == kind and d.prediction == p for p in spec.predictions] for d in spec.dimensions]
    return np.array(placed, np.float32)
