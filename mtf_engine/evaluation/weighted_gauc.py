"""Weighted GAUC: how well scores rank the impressions of each group, averaged over the groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mtf_engine.spec import Refusal

KEY_BITS = 64
MIN_SCORE_BITS = 16
MAX_SCORE_BITS = 52


@dataclass(frozen=True)
class WeightedGAUC:
    """The weighted GAUC and the groups it is made of.

    `keys`, `aucs` and `weights` have one entry a group; the AUC of a group with one class is NaN. Which
    groups there are, in which order and with which weight does not depend on the scores, so two policies
    scored on the same rows are paired entry by entry.
    """

    value: float | None
    users_used: int
    users_left_out: int
    weight_used: float
    weight_left_out: float
    keys: np.ndarray
    aucs: np.ndarray
    weights: np.ndarray

    @classmethod
    def of_groups(cls, keys: np.ndarray, aucs: np.ndarray, weights: np.ndarray) -> "WeightedGAUC":
        """Returns the mean of `aucs` under `weights`, the NaN left out."""
        used = ~np.isnan(aucs)
        weight = float(weights[used].sum())
        return cls(
            value=float(weights[used] @ aucs[used]) / weight if used.any() else None,
            users_used=int(used.sum()),
            users_left_out=int((~used).sum()),
            weight_used=weight,
            weight_left_out=float(weights[~used].sum()),
            keys=keys,
            aucs=aucs,
            weights=weights,
        )


def weighted_gauc(scores: Any, labels: Any, weights: Any, users: Any) -> WeightedGAUC:
    """Returns `sum_g W_g AUC_g / sum_g W_g` over the groups `users` that have both classes; None if none has.

    `AUC_g` is the weighted share of the group's (positive, negative) pairs that the scores order rightly, a
    tie counting one half; a pair weighs the product of its two sample weights. `W_g` is the group's total
    sample weight (IntegratedRL-MTF, arXiv 2404.17589, section 4.3.1).

    All four are arrays [n]: finite scores, labels 0 or 1 (or bool), finite weights above 0, and users of any
    type; integers close together are fastest. Scores are compared exactly, in float64. What is not finite, a
    weight that is not above 0, another label and a missing user are refused.
    """
    scores, weights = np.asarray(scores, np.float64), np.asarray(weights, np.float64)
    labels, codes = np.asarray(labels), _group_codes(users)
    _refuse_bad_rows(scores, labels, weights, codes)
    if not len(scores):
        return WeightedGAUC.of_groups(np.asarray(users), scores, weights)
    order, starts, tied = _sort(scores, codes.astype(np.uint64, copy=False))
    signed = np.where(labels.astype(bool, copy=False), weights, -weights)[order]
    aucs, totals = _group_aucs(np.maximum(signed, 0), np.maximum(-signed, 0), starts, tied)
    return WeightedGAUC.of_groups(np.asarray(users)[order[starts]], aucs, totals)


def _group_codes(users: Any) -> np.ndarray:
    """Returns a code of the group of each row [n]: offsets for integers close together, else by hashing."""
    if not isinstance(users, pd.Series):
        users = np.asarray(users)
    if users.dtype.kind in "iu" and len(users):
        low, high = int(users.min()), int(users.max())
        if (high - low).bit_length() + len(users).bit_length() + MIN_SCORE_BITS <= KEY_BITS:
            return np.asarray(users).astype(np.uint64) - np.uint64(low % 2**KEY_BITS)  # modulo 2^64: exact
    return pd.factorize(users)[0]


def _refuse_bad_rows(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> None:
    if not len(scores) == len(labels) == len(weights) == len(codes):
        lengths = f"{len(scores)} scores, {len(labels)} labels, {len(weights)} weights, {len(codes)} users"
        raise Refusal(f"weighted GAUC: {lengths}; give one of each for every row")
    for what, values, good, remedy in (
        ("score", scores, np.isfinite(scores), "give finite scores"),
        ("weight", weights, (weights > 0) & (weights < np.inf), "give finite weights above 0 (reward + 1)"),
        ("label", labels, (labels == 0) | (labels == 1), "give 0 or 1"),
        ("user", codes, codes >= 0, "give every row a user"),
    ):
        if not good.all():
            row = int(good.argmin())
            found = "missing" if what == "user" else values[row]
            raise Refusal(f"weighted GAUC: the {what} of row {row} (counted from 0) is {found}; {remedy}")


def _sort(scores: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rows by (group, score) [n], where groups start [g], and which rows tie the next [n - 1].

    One sort of one uint64 a row: group, score rounded down to the bits that are left, row. Rows whose rounded
    scores are equal and whose scores are not are put in order afterwards: a handful, unless the scores are
    spread over many orders of magnitude.
    """
    row_bits = (len(scores) - 1).bit_length()
    score_bits = min(KEY_BITS - row_bits - int(codes.max()).bit_length(), MAX_SCORE_BITS)
    key = (codes << np.uint64(score_bits)) | _levels(scores, score_bits)
    key <<= np.uint64(row_bits)
    key |= np.arange(len(scores), dtype=np.uint64)
    key.sort()
    order = (key & np.uint64(2**row_bits - 1)).astype(np.int64)
    key >>= np.uint64(row_bits)

    close = np.flatnonzero(key[1:] == key[:-1])
    if (scores[order[close]] != scores[order[close + 1]]).any():
        _sort_within(order, key, scores)
    tied = np.zeros(len(scores) - 1, bool)
    tied[close] = scores[order[close]] == scores[order[close + 1]]
    key >>= np.uint64(score_bits)
    starts = np.append(0, np.flatnonzero(key[1:] != key[:-1]) + 1)
    return order, starts, tied


def _levels(scores: np.ndarray, bits: int) -> np.ndarray:
    """Returns scores [n] on an even grid of 2^bits levels, never out of order, as uint64 [n]."""
    low = scores.min() / 2  # halves: the range of float64 itself would overflow
    span = scores.max() / 2 - low
    if span == 0:
        return np.zeros(len(scores), np.uint64)
    return ((scores / 2 - low) / span * (2**bits - 1)).astype(np.uint64)


def _sort_within(order: np.ndarray, key: np.ndarray, scores: np.ndarray) -> None:
    """Puts the rows of `order` [n] that share a key, which is sorted, in the order of their scores."""
    shares = np.append(False, key[1:] == key[:-1])
    shares[:-1] |= shares[1:]
    rows = order[shares]
    order[shares] = rows[np.lexsort((scores[rows], key[shares]))]


def _group_aucs(
    positive: np.ndarray, negative: np.ndarray, starts: np.ndarray, tied: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns AUC (NaN with one class) and total weight of each group [n_groups].

    `positive` and `negative` [n] hold the weight of each row by (group, score), 0 in the other class.
    """
    below = _sums_before(negative, starts)
    _share_ties(below, negative, tied)
    won, positives, negatives = (np.add.reduceat(x, starts) for x in (positive * below, positive, negative))
    both = (positives > 0) & (negatives > 0)
    aucs = np.full(len(starts), np.nan)
    aucs[both] = won[both] / positives[both] / negatives[both]
    return aucs, positives + negatives


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
