"""Weighted GAUC: how well scores rank the impressions of each group, averaged over the groups."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mtf_engine.spec import Refusal

KEY_BITS = 64
MIN_SCORE_BITS = 16
MAX_SCORE_BITS = 52
BEYOND = 9e-301, 2e300
"""Of these and further out not every sum and share is a float64."""
ORDINARY = 1e-5, 1e5
"""Weights between which a running sum over groups keeps the digits of the lightest."""
CACHED_ROWS = 65_536
"""Rows worked on at once after the sort, unless one group has more."""


@dataclass(frozen=True)
class GaucSums:
    """What a weighted GAUC is the quotient of, and how many groups there are: of some groups and of others it adds up.

    `numerator` is the sum of `W_g AUC_g`. Left out are groups of one class.
    """

    numerator: float
    users_used: int
    users_left_out: int
    weight_used: float
    weight_left_out: float

    @property
    def value(self) -> float | None:
        """The weighted GAUC; None where no group has both classes."""
        return self.numerator / self.weight_used if self.users_used else None

    @property
    def sums(self) -> "GaucSums":
        """The sums alone, without the groups."""
        return GaucSums(*(getattr(self, of.name) for of in fields(GaucSums)))

    def __add__(self, other: "GaucSums") -> "GaucSums":
        return GaucSums(*(getattr(self, of.name) + getattr(other, of.name) for of in fields(GaucSums)))


@dataclass(frozen=True)
class WeightedGAUC(GaucSums):
    """The weighted GAUC and the groups it is made of.

    `keys`, `aucs` and `weights` have one entry a group; the AUC of a group with one class is NaN. Which
    groups there are, in which order and with which weight does not depend on the scores, so two policies
    scored on the same rows are paired entry by entry.
    """

    keys: np.ndarray
    aucs: np.ndarray
    weights: np.ndarray

    @classmethod
    def of_groups(cls, keys: np.ndarray, aucs: np.ndarray, weights: np.ndarray) -> "WeightedGAUC":
        """Returns the mean of `aucs` under `weights`, the NaN left out."""
        used = ~np.isnan(aucs)
        return cls(
            numerator=float(weights[used] @ aucs[used]),
            users_used=int(used.sum()),
            users_left_out=int((~used).sum()),
            weight_used=float(weights[used].sum()),
            weight_left_out=float(weights[~used].sum()),
            keys=keys,
            aucs=aucs,
            weights=weights,
        )

    def among(self, chosen: np.ndarray) -> "WeightedGAUC":
        """Returns the weighted GAUC of the groups `chosen` [g], a mask, alone."""
        return self.of_groups(self.keys[chosen], self.aucs[chosen], self.weights[chosen])


def weighted_gauc(scores: Any, labels: Any, weights: Any, users: Any, n_threads: int = 1) -> WeightedGAUC:
    """Returns `sum_g W_g AUC_g / sum_g W_g` over the groups `users` that have both classes; None if none has.

    `AUC_g` is the weighted share of the group's (positive, negative) pairs that the scores order rightly, a
    tie counting one half; a pair weighs the product of its two sample weights. `W_g` is the group's total
    sample weight (IntegratedRL-MTF, arXiv 2404.17589, section 4.3.1).

    All four are arrays [n]: finite scores, labels 0 or 1 (or bool), weights of 1e-300 to 1e300, and users of
    any type; integers close together are fastest. Scores are compared exactly, in float64. What is missing or
    not finite, another weight and another label are refused. The bits are the same for any `n_threads`.
    """
    scores, weights = np.asarray(scores, np.float64), np.asarray(weights, np.float64)
    labels, codes = np.asarray(labels), _group_codes(users)
    _refuse_bad_rows(scores, labels, weights, codes)
    if not len(scores):
        return WeightedGAUC.of_groups(np.asarray(users), scores, weights)
    signed = np.where(labels.astype(bool, copy=False), weights, -weights)
    key, score_bits, row_bits = _sorted_keys(scores, codes)
    of_part = partial(_group_aucs, score_bits=score_bits, row_bits=row_bits, scores=scores, signed=signed)
    parts = (key[part] for part in _whole_groups(key, score_bits + row_bits))
    with ThreadPoolExecutor(n_threads) as threads:
        first, aucs, totals = zip(*threads.map(of_part, parts), strict=True)
    keys = np.asarray(users)[np.concatenate(first)]
    return WeightedGAUC.of_groups(keys, np.concatenate(aucs), np.concatenate(totals))


def _group_codes(users: Any) -> np.ndarray:
    """Returns a code of the group of each row [n]: offsets for integers close together, else by hashing."""
    if not isinstance(users, pd.Series):
        users = np.asarray(users)
    if users.dtype.kind in "iu" and len(users) and not getattr(users, "hasnans", False):
        low, high = int(users.min()), int(users.max())
        if (high - low).bit_length() + len(users).bit_length() + MIN_SCORE_BITS <= KEY_BITS:
            codes = np.array(users, np.uint64)
            codes -= np.uint64(low % 2**KEY_BITS)  # modulo 2^64, so exact for negative users too
            return codes
    return pd.factorize(users)[0]


def _refuse_bad_rows(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> None:
    if not len(scores) == len(labels) == len(weights) == len(codes):
        lengths = f"{len(scores)} scores, {len(labels)} labels, {len(weights)} weights, {len(codes)} users"
        raise Refusal(f"weighted GAUC: {lengths}; give one of each for every row")
    for what, values, above, below, remedy in (
        ("score", scores, -np.inf, np.inf, "give finite scores"),
        ("weight", weights, *BEYOND, "give finite weights above 0 (reward + 1), of 1e-300 to 1e300"),
        ("user", codes, -1, np.inf, "give every row a user"),
    ):
        if len(values) and not (values.min() > above and values.max() < below):
            row = int(((values > above) & (values < below)).argmin())
            found = "missing" if what == "user" else values[row]
            raise Refusal(f"weighted GAUC: the {what} of row {row} (counted from 0) is {found}; {remedy}")
    if labels.dtype != bool and not (good := pd.Series(labels).isin((0, 1)).to_numpy()).all():
        row = int(good.argmin())
        raise Refusal(f"weighted GAUC: the label of row {row} (counted from 0) is {labels[row]}; give 0 or 1")


def _sorted_keys(scores: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Returns one sorted uint64 a row, [n], and how many of its bits are score and row.

    From the top: the group, the score rounded down to the bits that are left, the row. So a plain sort brings
    the rows into order, several times faster than an argsort. A log is often by user already: merging is then
    several times faster again.
    """
    row_bits = (len(scores) - 1).bit_length()
    score_bits = min(KEY_BITS - row_bits - int(codes.max()).bit_length(), MAX_SCORE_BITS)
    clustered = (codes[1:] >= codes[:-1]).all()
    key = codes.astype(np.uint64, copy=False)
    key <<= np.uint64(score_bits)
    key |= _levels(scores, score_bits)
    key <<= np.uint64(row_bits)
    key |= np.arange(len(scores), dtype=np.uint64)
    key.sort(kind="stable" if clustered else "quicksort")
    return key, score_bits, row_bits


def _levels(scores: np.ndarray, bits: int) -> np.ndarray:
    """Returns scores [n] on an even grid of 2^bits levels, never out of order, as uint64 [n]."""
    low = scores.min() / 2  # halves: the range of float64 itself would overflow
    span = scores.max() / 2 - low
    if span == 0:
        return np.zeros(len(scores), np.uint64)
    grid = scores / 2
    grid -= low
    grid /= span
    grid *= 2**bits - 1
    return grid.astype(np.int64).view(np.uint64)


def _whole_groups(key: np.ndarray, group_shift: int) -> Iterator[slice]:
    """Yields the rows of a few groups at a time: as many as fit the processor's cache, at least one group."""
    start = 0
    while start < len(key):
        last = key[min(start + CACHED_ROWS, len(key)) - 1]
        stop = int(np.searchsorted(key, last | np.uint64(2**group_shift - 1), side="right"))
        yield slice(start, stop)
        start = stop


def _group_aucs(
    key: np.ndarray, score_bits: int, row_bits: int, scores: np.ndarray, signed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a row, the AUC (NaN with one class) and the total weight of each group in `key` [k], [g] each.

    Scores and `signed` weights, negative where the label is 0, are those of all n rows.
    """
    order = (key & np.uint64(2**row_bits - 1)).view(np.int64)
    key = key >> np.uint64(row_bits)
    tied = _settle(order, key, scores)
    key >>= np.uint64(score_bits)
    starts = np.append(0, np.flatnonzero(key[1:] != key[:-1]) + 1)

    weight = signed[order]
    positive, negative = np.maximum(weight, 0), np.maximum(-weight, 0)
    np.abs(weight, out=weight)
    totals = np.add.reduceat(weight, starts)
    if not (weight.min() > ORDINARY[0] and weight.max() < ORDINARY[1]):
        positive, negative = _scaled(positive, starts), _scaled(negative, starts)
    below = _sums_before(negative, starts)
    _share_ties(below, negative, tied)
    below *= positive
    won, positives, negatives = (np.add.reduceat(x, starts) for x in (below, positive, negative))
    both = (positives > 0) & (negatives > 0)
    aucs = np.full(len(starts), np.nan)
    aucs[both] = won[both] / positives[both] / negatives[both]
    return order[starts], aucs, totals


def _scaled(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns `values` [n] times a power of two that brings the largest of each group between 1/2 and 1.

    That leaves an AUC as it is, and products and running sums over groups can neither overflow nor vanish.
    """
    exponents = np.frexp(np.maximum.reduceat(values, starts))[1]
    return values * np.repeat(np.ldexp(1.0, -exponents), np.diff(starts, append=len(values)))


def _settle(order: np.ndarray, key: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns which rows tie with the next, [k - 1], once those that the rounding made equal are in order.

    `key` [k] is sorted and holds group and rounded score; `order` is corrected in place. Few rows share a
    key, unless they tie, or a few scores are many orders of magnitude away from the rest.
    """
    shared = np.flatnonzero(key[1:] == key[:-1])
    equal = scores[order[shared]] == scores[order[shared + 1]]
    if not equal.all():
        rows = np.unique(np.concatenate([shared, shared + 1]))
        order[rows] = order[rows][np.lexsort((scores[order[rows]], key[rows]))]
        equal = scores[order[shared]] == scores[order[shared + 1]]
    tied = np.zeros(len(key) - 1, bool)
    tied[shared] = equal
    return tied


def _sums_before(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns for each row the sum of the `values` [n] before it in its group.

    A running sum over all groups and its value at the group's start would lose the digits of a light group
    behind heavy ones, so the rounding error of each addition (Knuth's TwoSum) is summed beside it.
    """
    total = np.cumsum(values)
    before = np.append(0.0, total[:-1])
    added = total - before
    lost = (before - (total - added)) + (values - added)
    carried = np.append(0.0, np.cumsum(lost)[:-1])
    sizes = np.diff(starts, append=len(values))
    before -= np.repeat(before[starts], sizes)
    carried -= np.repeat(carried[starts], sizes)
    return before + carried


def _share_ties(below: np.ndarray, negative: np.ndarray, tied: np.ndarray) -> None:
    """Gives rows with one score the same negative weight below them: half of their own included."""
    edges = np.diff(np.concatenate(([False], tied, [False])).astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    middle = (below[first] + below[last] + negative[last]) / 2
    rows = np.zeros(len(below), bool)
    rows[1:] = tied
    rows[:-1] |= tied
    below[rows] = np.repeat(middle, last - first + 1)
