"""Two critics against each other: how alike any two see the same actions."""

import numpy as np

from mtf_engine.spec import Spec

LEVELS = 40
"""Any two critics make a picture of at most 40 x 40 cells."""


class CriticPairs(Spec):
    """Q of every critic about the same actions, on LEVELS even levels of one range.

    `edges` are the ends of the levels, in the units of Q; `levels[i][k]` is the level of critic i's Q of
    action k. `correlation` is Pearson's, None for a critic whose Q never varies.
    """

    edges: tuple[float, ...]
    levels: tuple[tuple[int, ...], ...]
    correlation: tuple[tuple[float | None, ...], ...]

    def counts(self, first: int, second: int) -> np.ndarray:
        """Returns how many actions have which level by critic `first` (rows) and by `second` (columns)."""
        cell = np.asarray(self.levels[first]) * LEVELS + np.asarray(self.levels[second])
        return np.bincount(cell, minlength=LEVELS**2).reshape(LEVELS, LEVELS)


def critic_pairs(q: np.ndarray) -> CriticPairs:
    """Returns what any two critics say of the same n actions, from Q [n_critics, n]."""
    low, high = float(q.min()), float(q.max())
    edges = np.linspace(low, high if high > low else low + 1, LEVELS + 1)
    levels = np.clip(np.searchsorted(edges, q, side="right") - 1, 0, LEVELS - 1)
    return CriticPairs(
        edges=tuple(edges.tolist()),
        levels=tuple(tuple(row) for row in levels.tolist()),
        correlation=_correlation(q),
    )


def _correlation(q: np.ndarray) -> tuple[tuple[float | None, ...], ...]:
    centred = q - q.mean(1, keepdims=True)
    length = np.sqrt((centred**2).sum(1))
    told = np.outer(length > 0, length > 0)
    products = np.divide(centred @ centred.T, np.outer(length, length), where=told, out=np.zeros(told.shape))
    return tuple(
        tuple(value if known else None for value, known in zip(*rows, strict=True))
        for rows in zip(products.tolist(), told.tolist(), strict=True)
    )
