"""The explored training requests of a dataset, read in parts of whole users, by one process or by several."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from mtf_engine.exploration.explored_returns import COLUMNS, SELECTED, ExploredReturns, explored_returns
from mtf_engine.logs.datasets import OF_SPLIT, Dataset, columns
from mtf_engine.logs.schema import UserShare
from mtf_engine.logs.splits import TRAIN

S = TypeVar("S")
R = TypeVar("R")

PART_REQUESTS = 65_536
"""Requests of a part, about: what is held at once. A log of fewer is one part, and is read once."""
WORTH_SPREADING = 1_000_000
"""Requests: of fewer, other processes are not ready before one has seen them."""

Progress = Callable[[int, int], None]
"""Is told how many rows are counted, and of how many."""


class Spread(Protocol):
    """Yields what a function returns of each of some things, in their order, worked on by several processes."""

    def __call__(self, work: Callable[[S], R], things: Iterable[S], /) -> Generator[R, None, None]: ...


class ExploredRequests:
    """The explored training requests of a dataset, whose returns are discounted by `gamma`.

    `spread` has several processes read a large log, to the same bits. `progress` is told of the rows of all `passes`;
    who raises in it ends them.
    """

    def __init__(
        self,
        dataset: Dataset,
        gamma: float,
        spread: Spread | None = None,
        progress: Progress = lambda done, of: None,
        passes: int = 2,
    ) -> None:
        self.dataset, self.gamma = dataset, gamma
        self._spread = spread if dataset.n_requests > WORTH_SPREADING else None
        self._progress, self._passes, self._passed = progress, passes, 0

    def each(self, work: Callable[[ExploredReturns], R], /) -> Iterator[R]:
        """Yields what `work` makes of each part, in the order of users."""
        self._tell(0)
        if len(self._shares) == 1:
            yield work(self._only_part)
        else:
            work_on, shares = partial(_worked, self.dataset, self.gamma, work), self._shares
            with closing(
                self._spread(work_on, shares) if self._spread else (work_on(share) for share in shares)
            ) as found:
                for i, result in enumerate(found, 1):
                    yield result
                    self._tell(i / len(shares))
        self._passed += 1
        self._tell(0)

    @cached_property
    def _shares(self) -> list[UserShare]:
        return self.dataset.request_shares(TRAIN, PART_REQUESTS)

    @cached_property
    def _only_part(self) -> ExploredReturns:
        return _read(self.dataset, self.gamma, self._shares[0])

    def _tell(self, share: float) -> None:
        n = self.dataset.n_requests
        self._progress(int(n * (self._passed + share) / self._passes), n)


def _worked(dataset: Dataset, gamma: float, work: Callable[[ExploredReturns], R], share: UserShare) -> R:
    return work(_read(dataset, gamma, share))


def _read(dataset: Dataset, gamma: float, share: UserShare) -> ExploredReturns:
    sql = f"SELECT {SELECTED} FROM (SELECT * {OF_SPLIT}) WHERE {share.sql}"
    with TemporaryDirectory() as spill:
        batches = dataset.batches(sql, [TRAIN, *share.ids], Path(spill))
        some = [columns(pa.Table.from_batches([batch])) for batch in batches]
    return explored_returns({name: np.concatenate([rows[name] for rows in some]) for name in COLUMNS}, gamma)
