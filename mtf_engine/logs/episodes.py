"""The sessions of a dataset one by one, as libraries of offline reinforcement learning hold episodes.

Their actions are those of the dataset, on [-1, 1]. A session that was cut off ends in the observation that it led to;
where that is not known, its last step is left out, as trainings leave it out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mtf_engine.disk import appear
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import Columns, DatasetMeta
from mtf_engine.logs.steps import Kept
from mtf_engine.spec import Refusal


@dataclass(frozen=True)
class Episode:
    """n steps of one session. `requests` are their columns, and those of where it led if it was cut off."""

    requests: Columns  # [n] if terminal, else [n + 1]
    terminal: bool

    @property
    def n_steps(self) -> int:
        return len(self.requests["reward"]) - (not self.terminal)

    @property
    def actions(self) -> NDArray[np.float32]:  # [n, d]
        return self.requests["action"][: self.n_steps]

    @property
    def rewards(self) -> NDArray[np.float64]:  # [n]
        return self.requests["reward"][: self.n_steps]

    @property
    def observations(self) -> NDArray[np.float32]:
        """Every step's observation and what the last one led to, zeros after a terminal one, [n + 1, f]."""
        seen = self.requests["observation"]
        return np.concatenate([seen, np.zeros_like(seen[:1])]) if self.terminal else seen


def episodes(dataset: Dataset) -> Iterator[Episode]:
    """Yields the sessions with a step whose successor or end is known; a Refusal where the log has no actions."""
    left = 0
    for requests in dataset.by_session():
        episode = Episode(requests, bool(requests["terminal"][-1]))
        if episode.n_steps and not np.isnan(episode.actions).any():
            left += 1
            yield episode
    if not left:
        raise Refusal(f"the dataset {dataset.meta.name} has no steps with actions to export")


def kept_of(meta: DatasetMeta) -> Kept:
    """Returns what an export says of the dataset's columns, for an import to take up."""
    names = zip(meta.feature_names, meta.numeric_mask, strict=True)
    return Kept(
        fusion=meta.fusion,
        features=meta.feature_names,
        binary_features=tuple(name for name, numeric in names if not numeric),
        exploration=meta.exploration or "unknown",
        mixture=meta.mixture,
        on_unit=True,
    )


def extra(module: str) -> ModuleType:
    """Returns a module of an optional package; a Refusal says how to install one that lacks."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise Refusal(f"this needs the package {package}: pip install {package}") from None


@contextmanager
def new_place(path: Path) -> Iterator[Path]:
    """Yields a place beside `path` to write to, a file or folder that then appears there at once, or not at all."""
    if path.exists():
        raise Refusal(f"{path} exists; name a file or folder that does not")
    if not path.parent.is_dir():
        raise Refusal(f"there is no folder {path.parent}; make it, or name another")
    with TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        temp = Path(folder) / path.name
        yield temp
        appear(temp, path)
