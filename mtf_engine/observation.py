"""The observation: a user's profile and pooled history, encoded the same way everywhere."""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field

from mtf_engine.fusion import PREDICTION_FLOOR
from mtf_engine.spec import Refusal, Spec

HISTORY = 100
"""At most this many past impressions of a user enter an observation."""

MOST_WHOLE = 100_000
"""A hundred whole numbers below this add up to one that float32 holds."""

MISSING = "missing"
"""The category of a blank or never seen categorical value."""


LOG = "log_"
"""Before a prediction's name: its logarithm as an item feature."""


def item_names(named: Sequence[str], predictions: Sequence[str]) -> tuple[str, ...]:
    """Returns the item features of a state: those that a log has `named`, else the logarithms of its predictions."""
    return tuple(named) or tuple(f"{LOG}{name}" for name in predictions)


def item_states(
    wanted: Sequence[str],
    named: Sequence[str],
    features: np.ndarray | None,
    predictions_named: Sequence[str],
    predictions: np.ndarray,
) -> np.ndarray:
    """Returns the item features `wanted` of items, float32 [..., len(wanted)], in natural units.

    `features` [..., len(named)] are those that a log has, None where it has none; `predictions` [..., p] give
    logarithms. A Refusal names what the log lacks.
    """
    logs = tuple(f"{LOG}{name}" for name in predictions_named)
    if lacking := [name for name in wanted if name not in (*named, *logs)]:
        raise Refusal(
            "the policy has weights for each item, and the data lacks item features that it reads: "
            f"{', '.join(lacking)}; take a log or an environment that has them"
        )
    if features is not None and tuple(wanted) == tuple(named):
        return features
    read = np.empty((*predictions.shape[:-1], len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        if name in named and features is not None:
            read[..., column] = features[..., named.index(name)]
        else:
            read[..., column] = np.log(predictions[..., logs.index(name)].clip(PREDICTION_FLOOR))
    return read


class ObservationEncoder(Spec):
    """Turns profiles and histories into observations in natural units; a policy standardises them itself.

    Features, in order: each numeric profile feature and whether it is missing; each categorical one-hot with
    "missing" as a category of its own; the mean of each signal over the last 5, 20 and 100 impressions; their
    count; log(1 + seconds since the last request) and whether there was none; the request's index in the
    session; and, where a server knows how long a session may be, how many requests are left after it.
    """

    signals: tuple[str, ...]
    numeric: tuple[str, ...] = ()
    fill: tuple[float, ...] = Field(
        default=(), description="value of each numeric feature where it is missing"
    )
    categorical: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="vocabularies")
    windows: tuple[int, ...] = (5, 20, HISTORY)
    requests_left: bool = Field(
        default=True, description="requests left are a feature; stored encoders that do not say have it"
    )

    @classmethod
    def fit(
        cls,
        profiles: pd.DataFrame,
        signals: Sequence[str],
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        *,
        requests_left: bool = False,
    ) -> Self:
        """Returns the encoder whose fill values and vocabularies come from the training users' `profiles`.

        `requests_left` only where the longest session is a rule that a server knows: what is left of a logged
        session is known afterwards alone.
        """
        fill = profiles[list(numeric)].astype("float64").mean().fillna(0)
        vocabularies = {c: tuple(sorted(profiles[c].dropna().astype(str).unique())) for c in categorical}
        return cls(
            signals=tuple(signals),
            numeric=tuple(numeric),
            fill=tuple(fill),
            categorical=vocabularies,
            requests_left=requests_left,
        )

    @cached_property
    def profile_names(self) -> tuple[str, ...]:
        numeric = [name for n in self.numeric for name in (n, f"{n}_missing")]
        one_hot = [f"{c}={value}" for c, values in self.categorical.items() for value in (*values, MISSING)]
        return (*numeric, *one_hot)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        pooled = [f"{s}_mean_{w}" for w in self.windows for s in self.signals]
        context = ("history_count", "log_seconds_since_last", "no_history", "request_index")
        left = ("requests_left",) if self.requests_left else ()
        return (*self.profile_names, *pooled, *context, *left)

    @property
    def n_features(self) -> int:
        return len(self.feature_names)

    @cached_property
    def numeric_mask(self) -> tuple[bool, ...]:
        """Which features a policy standardises: all but the 0/1 ones."""
        binary = {f"{n}_missing" for n in self.numeric} | {"no_history"}
        binary |= set(self.profile_names[2 * len(self.numeric) :])
        return tuple(name not in binary for name in self.feature_names)

    def profile(self, profiles: pd.DataFrame) -> np.ndarray:
        """Returns the profile part of the observation, float32 [n, p], for one row a user."""
        columns = []
        for name, fill in zip(self.numeric, self.fill, strict=True):
            values = profiles[name].to_numpy("float64", na_value=np.nan)
            columns += [np.where(np.isnan(values), fill, values), np.isnan(values)]
        for name, vocabulary in self.categorical.items():
            codes = pd.Index(vocabulary, dtype="str").get_indexer(profiles[name].astype("str"))
            columns += list(np.eye(len(vocabulary) + 1)[codes].T)
        return np.array(columns, np.float32).T.reshape(len(profiles), len(self.profile_names))

    def observe(
        self,
        profile: np.ndarray,
        history: np.ndarray,
        counts: np.ndarray,
        seconds_since_last: np.ndarray,
        step: np.ndarray,
        requests_left: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns observations, float32 [n, n_features].

        `profile` [n, p]; `history` [n, HISTORY, n_signals] with the newest impression last and zeros in front;
        `counts` [n] impressions in it; `seconds_since_last` [n], NaN where there is no last request; `step`
        [n] from 0; `requests_left` [n] in the session after this one, for an encoder that has them.
        """
        totals = pooled_history(history, self.windows)
        return self.observe_totals(profile, totals, counts, seconds_since_last, step, requests_left)

    def observe_totals(
        self,
        profile: np.ndarray,
        totals: Sequence[np.ndarray],
        counts: np.ndarray,
        seconds_since_last: np.ndarray,
        step: np.ndarray,
        requests_left: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns observations as `observe` does from what its histories add up to, [n, n_signals] a window."""
        pooled = [
            total / np.maximum(np.minimum(counts, window), 1)[:, None].astype(np.float32)
            for window, total in zip(self.windows, totals, strict=True)
        ]
        none = np.isnan(seconds_since_last)
        elapsed = np.log1p(np.where(none, 0, seconds_since_last))
        context = np.stack([counts, elapsed, none, step, *self._left(requests_left)], axis=1)
        return np.concatenate([profile, *pooled, context], axis=1, dtype=np.float32, casting="same_kind")

    def _left(self, requests_left: np.ndarray | None) -> list[np.ndarray]:
        if not self.requests_left:
            return []
        if requests_left is None:
            raise ValueError("this encoder needs the requests that are left")
        return [requests_left]


def push(history: np.ndarray, counts: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns history [n, HISTORY, S] and counts [n] with the impressions `shown` [n, k, S] appended."""
    kept = np.concatenate([history, shown], axis=1, dtype=np.float32)[:, -HISTORY:]
    return kept, np.minimum(counts + shown.shape[1], HISTORY)


def log_history(values: np.ndarray, first: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns history [n, HISTORY, S] and counts [n]: the last impressions among rows first[i]:stop[i].

    `values` [m, S] are all impressions sorted by user and time; `first` is where the user's rows begin and
    `stop` where the request's own impressions begin.
    """
    rows = stop[:, None] - HISTORY + np.arange(HISTORY)
    known = rows >= first[:, None]
    history = np.where(known[:, :, None], values[np.maximum(rows, 0)], np.float32(0))
    return history, np.minimum(stop - first, HISTORY)


def pooled_history(history: np.ndarray, windows: Sequence[int]) -> list[np.ndarray]:
    """Returns the sums over the last impressions of a history [n, HISTORY, S], [n, S] a window."""
    sums, total, start = [], np.zeros((len(history), history.shape[2]), np.float32), HISTORY
    for window in windows:
        total = total + history[:, HISTORY - window : start].sum(axis=1)
        start = HISTORY - window
        sums.append(total)
    return sums


def log_totals(
    values: np.ndarray, first: np.ndarray, stop: np.ndarray, windows: Sequence[int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns `pooled_history` of `log_history` to the bit, without making it, and its counts [n].

    Whole numbers, as signals of 0 and 1 are, add up to the same in any order; others are added as a history would be.
    """
    counts = np.minimum(stop - first, HISTORY)
    low = int((stop - counts).min(initial=len(values)))
    near, end = values[low : int(stop.max(initial=low))], stop - low
    whole = (near == np.rint(near)).all(axis=0) & (np.abs(near).max(axis=0, initial=0) < MOST_WHOLE)
    if len(whole) == 1 and not whole[0]:  # numpy adds up a single column in pairs
        history, _ = log_history(values, first, stop)
        return pooled_history(history, windows), counts
    sums = np.zeros((len(near) + 1, int(whole.sum())))
    np.cumsum(near[:, whole], axis=0, dtype=np.float64, out=sums[1:])
    order = np.argsort(-counts, kind="stable")
    longest, ends = -counts[order], end[order]
    totals, start, total = [], 0, np.zeros((len(stop), len(whole)), np.float32)
    for window in windows:
        total = total.copy()
        total[:, whole] = sums[end] - sums[end - np.minimum(counts, window)]
        for column in np.flatnonzero(~whole):
            one, part = np.ascontiguousarray(near[:, column]), np.zeros(len(stop), np.float32)
            for back in range(window, start, -1):
                reach = np.searchsorted(longest, -back, side="right")
                part[:reach] += one.take(ends[:reach] - back)
            total[order, column] += part
        start = window
        totals.append(total)
    return totals, counts
