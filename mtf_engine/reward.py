"""Formula 2: the reward of an impression from its feedback signals, and weights suggested by a log."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mtf_engine.spec import RewardSpec


def impression_rewards(spec: RewardSpec, signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns `r = sum_i w_i v_i` [m], float64, from one array [m] per weighted signal."""
    weighted = [weight * np.asarray(signals[name], np.float64) for name, weight in spec.weights.items()]
    return np.sum(weighted, axis=0)


def next_day_correlations(impressions: pd.DataFrame, signals: tuple[str, ...]) -> pd.Series:
    """Returns, per signal, its correlation with the user's total watch time on the next calendar day.

    `impressions` has user_id, timestamp, watch_time and the signals. One observation is a user's day that is
    followed by a day with impressions of the same user; the same day's watch time would be circular.
    NaN where a signal does not vary.
    """
    by_day = (
        impressions.assign(day=impressions["timestamp"].dt.floor("D"))
        .groupby(["user_id", "day"])[list(dict.fromkeys([*signals, "watch_time"]))]
        .sum()
        .reset_index()
    )
    tomorrow = by_day[["user_id", "day", "watch_time"]].assign(day=by_day["day"] - pd.Timedelta(days=1))
    pairs = by_day.merge(tomorrow, on=["user_id", "day"], suffixes=("", "_next_day"))
    return pairs[list(signals)].corrwith(pairs["watch_time_next_day"])
