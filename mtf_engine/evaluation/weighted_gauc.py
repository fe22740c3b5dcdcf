"""Weighted GAUC: how well scores rank the impressions of each group, averaged over the groups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mtf_engine.spec import Refusal

KEY_BITS = 64
MIN_SCORE_BITS = 16


@dataclass(frozen=True)
class WeightedGAUC:
    """The weighted GAUC and the groups it is made of.

    `keys`, `aucs` and `weights` have one entry a group. They do not depend on the order of the rows, and keys
    and weights not on the scores either: two policies scored on the same rows are paired entry by entry. The
    AUC of a group with one class is NaN.
    """

    value: float | None
    users_used: int
    users_left_out: int
    weight_used: float
    weight_left_out: float
    keys: np.ndarray
    aucs: np.ndarray
    weights: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Returns which groups have both classes, bool [n_groups]."""
        return ~np.isnan(self.aucs)


def weighted_gauc(scores: Any, labels: Any, weights: Any, users: Any) -> WeightedGAUC:
    """Returns `sum_g W_g AUC_g / sum_g W_g` over the groups `users` that have both classes; None if none has.

    `AUC_g` is the weighted share of the group's (positive, negative) pairs that the scores order rightly, a tie
    counting one half; a pair weighs the product of its two sample weights. `W_g` is the group's total sample
    weight (IntegratedRL-MTF, arXiv 2404.17589, section 4.3.1).

    All four are arrays [n]: finite scores, labels 0 or 1 (or bool), positive finite weights, and users of any
    type; integers close together are fastest. Scores are compared in float64, exactly. NaN, a weight that is
    not positive, another label and a missing user are refused.
    """
    scores, weights = np.asarray(scores, np.float64), np.asarray(weights, np.float64)
    labels, codes, keys = _classes(labels), *_group_codes(users)
    _check(scores, labels, weights, codes)
    if not len(scores):
        return _result(keys[:0], np.empty(0), np.empty(0))
    order, present, starts, tied = _sort(scores, codes, len(keys))
    signed = np.where(labels, weights, -weights)[order]
    aucs, totals = _group_aucs(np.maximum(signed, 0), np.maximum(-signed, 0), starts, tied)
    return _result(keys[present], aucs, totals)


def _classes(labels: Any) -> np.ndarray:
    """Returns labels as bool [n]."""
    labels = np.asarray(labels)
    if labels.dtype == bool:
        return labels
    wrong = ~((labels == 0) | (labels == 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise Refusal(f"weighted GAUC: the label of row {row} is {labels[row]}; give 0 or 1")
    return labels == 1


def _group_codes(users: Any) -> tuple[np.ndarray, Any]:
    """Returns a code of each row's group [n] (-1 where it is missing) and what holds the key of each code."""
    users = users if isinstance(users, pd.Series) else np.asarray(users)
    if users.dtype.kind in "iu" and len(users):
        low, high = int(users.min()), int(users.max())
        if (high - low).bit_length() + len(users).bit_length() + MIN_SCORE_BITS <= KEY_BITS:
            codes = np.asarray(users).astype(np.int64) if low >= 0 else np.asarray(users) - low
            return (np.asarray(users) - users.dtype.type(low)).astype(np.int64), _Keys(low, high, users.dtype)
    codes, keys = pd.factorize(users)
    return codes, np.asarray(keys)
