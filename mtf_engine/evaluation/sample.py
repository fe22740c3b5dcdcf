"""Bounded samples of rows that come in parts: the same rows whoever brings which part, and in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import draws


@dataclass(frozen=True)
class Sample:
    """Those of the rows so far with the lowest of random ranks: `most` of all, and `least` of each group at least.

    Columns are arrays [n, ...] of the rows that are kept, in the order in which they came.
    """

    rank: draws.Keys  # [n]
    group: NDArray[np.int64]  # [n]
    columns: Mapping[str, NDArray]
    most: int
    least: int = 0

    @classmethod
    def of(cls, parts: Sequence["Sample"]) -> "Sample":
        """Returns the sample of all rows that the parts are samples of."""
        one = parts[0]
        return cls(
            np.concatenate([part.rank for part in parts]),
            np.concatenate([part.group for part in parts]),
            {name: np.concatenate([part.columns[name] for part in parts]) for name in one.columns},
            one.most,
            one.least,
        ).kept()

    def kept(self) -> "Sample":
        """Returns the sample of these rows."""
        if len(self.rank) <= self.most:
            return self
        chosen = np.zeros(len(self.rank), bool)
        chosen[lowest(self.rank, self.most)] = True
        for group in np.unique(self.group) if self.least else ():
            members = np.flatnonzero(self.group == group)
            chosen[members[lowest(self.rank[members], self.least)]] = True
        return self.among(chosen)

    def among(self, chosen: NDArray) -> "Sample":
        """Returns some of the rows, by a mask or by their numbers."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Sample(self.rank[chosen], self.group[chosen], columns, self.most, self.least)

    @property
    def everyone(self) -> "Sample":
        """The rows that are drawn from all alike, without those that are there for their group."""
        return self if len(self.rank) <= self.most else self.among(lowest(self.rank, self.most))


def lowest(rank: draws.Keys, n: int) -> NDArray[np.int64]:
    """Returns the places of the lowest `n` of `rank`, all where there are no more, in order of place."""
    if len(rank) <= n:
        return np.arange(len(rank))
    return np.sort(np.argpartition(rank, n)[:n])
