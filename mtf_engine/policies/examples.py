"""Examples: logged rows that lie beside a policy, so that it can be exported once its log is deleted."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mtf_engine import sealed
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.spec import FusionSpec, Refusal

REQUESTS, IMPRESSIONS = 256, 2_048
"""Kept at most; the bundle's golden examples are as many."""
USERS = 500
"""Of a log, whose rows they are taken from; the same ones at every call."""


@dataclass(frozen=True)
class Examples:
    """What an export reads of a log: requests, impressions, and the names they were logged under."""

    observations: NDArray[np.float32]  # [n, f]
    predictions: NDArray[np.float32]  # [m, p]
    fusion: FusionSpec
    feature_names: tuple[str, ...]
    item_features: NDArray[np.float32] | None = None  # [m, item features]
    item_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: EvaluationRows) -> Self:
        """Returns rows spread evenly over those of a log."""
        return cls(
            _spread(rows.observations, REQUESTS),
            _spread(rows.predictions, IMPRESSIONS),
            rows.fusion,
            rows.feature_names,
            None if rows.item_features is None else _spread(rows.item_features, IMPRESSIONS),
            rows.item_names,
        )

    def save(self, path: Path) -> None:
        """Writes the examples to `path` in one step."""
        head: dict[str, Any] = {
            "fusion": self.fusion.model_dump(mode="json"),
            "feature_names": self.feature_names,
        }
        arrays = {"observations": self.observations, "predictions": self.predictions}
        if self.item_features is not None:
            head |= {"item_names": self.item_names}
            arrays |= {"item_features": self.item_features}
        sealed.write(path, save(arrays, {"mtf_engine": json.dumps(head, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Returns the examples that `save` wrote; a Refusal where the file cannot be read."""
        try:
            sealed.read(path, "export with the rows of a log: --on DATASET")
            with safe_open(path, "np") as file:
                head: dict[str, Any] = json.loads(file.metadata()["mtf_engine"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise Refusal(
                f"{path.name} cannot be read: {error}; export with the rows of a log: --on DATASET"
            ) from None
        return cls(
            **arrays,
            fusion=FusionSpec.model_validate(head["fusion"]),
            feature_names=tuple(head["feature_names"]),
            item_names=tuple(head.get("item_names", ())),
        )


def _spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Returns at most so many rows, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
    return np.ascontiguousarray(rows[chosen])
