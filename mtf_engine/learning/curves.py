"""Curves of several trainings side by side: smoothed, and seeds as a mean with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LEVEL = 0.95


def smoothed(values: pd.Series, weight: float) -> pd.Series:
    """Returns the exponential moving average of `values`, each past one weighing `weight` of its successor.

    Debiased, so it starts at the first value; `weight` 0 returns the values. As TensorBoard smooths.
    """
    return values.ewm(alpha=1 - weight, adjust=True).mean()


def mean_and_interval(curves: Sequence[pd.Series]) -> pd.DataFrame:
    """Returns mean, 95 % t interval (low, high) and n of curves indexed by step, at every step of any.

    Interval ends are NaN where fewer than two curves have a value.
    """
    table = pd.concat(list(curves), axis=1).sort_index()
    n = table.count(axis=1)
    error = table.std(axis=1) / np.sqrt(n) * stdtrit((n - 1).clip(lower=1), (1 + LEVEL) / 2)
    mean = table.mean(axis=1)
    return pd.DataFrame({"mean": mean, "low": mean - error, "high": mean + error, "n": n})
