"""Impressions by user and time, cut into requests and sessions and given observations."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mtf_engine.logs.mapping import ProfileColumns
from mtf_engine.logs.schema import ACTION_COLUMNS, Columns, DatasetMeta, Tables
from mtf_engine.logs.splits import TRAIN
from mtf_engine.observation import ObservationEncoder, log_totals

BATCH_REQUESTS, OBSERVED_REQUESTS = 16_384, 8_192
"""Requests that are written at once, and observed at once: a history is a hundred impressions."""

Arrays = dict[str, NDArray]
Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True)
class ImportedLog:
    """A log that passed validation, ready for `write_dataset`; `batches` can be read once."""

    meta: DatasetMeta
    batches: Iterable[Tables]
    warnings: tuple[str, ...]
    model: bytes | None = None
    """The file of the model that made the predictions, where the import made them."""


@dataclass(frozen=True)
class Cut:
    """How m impressions, sorted by user and time, fall into r requests and those into sessions."""

    user: NDArray[np.int64]  # [m] codes, rows of a user stand together
    request_starts: NDArray[np.bool_]  # [m] an impression opens a request
    session_of: NDArray  # [m] what tells the session of an impression that opens a request from others

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The row of each request's first impression, and the number of impressions, int [r + 1]."""
        return np.append(np.flatnonzero(self.request_starts), len(self.user))

    @cached_property
    def request(self) -> NDArray[np.int64]:
        """The request of each impression, counted from 0, int [m]."""
        return np.cumsum(self.request_starts) - 1

    @cached_property
    def session(self) -> NDArray[np.int64]:
        """The session of each request, counted from 0; those of a user may interleave, int [r]."""
        return pd.factorize(self.session_of[self.first[:-1]])[0]

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """The index of each request in its session, int [r]."""
        return steps_of(self.session)[0]

    @cached_property
    def left(self) -> NDArray[np.int64]:
        """How many requests of its session come after each, int [r]."""
        return steps_of(self.session)[1]


def steps_of(session: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the index of each request in its session, and how many come after it; sessions count from 0, [r]."""
    step = pd.Series(session).groupby(session).cumcount().to_numpy()
    return step, np.bincount(session)[session] - 1 - step


def changes(*keys: NDArray) -> NDArray[np.bool_]:
    """Returns where any of `keys` [m] differs from the row before, bool [m]; true of the first row."""
    starts = np.zeros(len(keys[0]), bool)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


def within(*keys: NDArray) -> NDArray[np.int64]:
    """Returns the index of each row within its run of equal `keys`, int [m]."""
    return np.arange(len(keys[0])) - run_starts(*keys)


def run_starts(*keys: NDArray) -> NDArray[np.int64]:
    """Returns for each row the first row of its run of equal `keys`, int [m]."""
    return np.maximum.accumulate(np.where(changes(*keys), np.arange(len(keys[0])), 0))


def deal(user: NDArray, split: NDArray, per_request: int, per_session: int) -> Cut:
    """Returns requests of the user's next `per_request` impressions of a split, `per_session` a session."""
    position = within(user, split)
    opens_session = position % (per_request * per_session) == 0
    return Cut(user, position % per_request == 0, np.cumsum(opens_session))


@dataclass(frozen=True)
class Observer:
    """Observations of r requests, by user and time, from their m impressions and the users' profiles."""

    encoder: ObservationEncoder
    profile: NDArray[np.float32]  # [r, p]
    signals: NDArray[np.float32]  # [m, s] in the encoder's order
    first: NDArray[np.int64]  # [r + 1] first impression of each request
    user: NDArray  # [r]
    timestamp: NDArray[np.datetime64]  # [r]
    step: NDArray[np.int64]  # [r]

    @cached_property
    def since_last(self) -> NDArray[np.float64]:
        """Seconds since the user's request before, NaN for the first, [r]."""
        elapsed = np.diff(self.timestamp, prepend=self.timestamp[:1]) / np.timedelta64(1, "s")
        return np.where(changes(self.user), np.nan, elapsed)

    @cached_property
    def user_first(self) -> NDArray[np.int64]:
        """The first impression of each request's user, [r]."""
        return self.first[run_starts(self.user)]

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the observations of the requests `rows`, [n, f]."""
        at_once = range(0, len(rows), OBSERVED_REQUESTS)
        return np.concatenate([self._observe(rows[i : i + OBSERVED_REQUESTS]) for i in at_once])

    def _observe(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        first, stop = self.user_first[rows], self.first[rows]
        totals, counts = log_totals(self.signals, first, stop, self.encoder.windows)
        return self.encoder.observe_totals(
            self.profile[rows], totals, counts, self.since_last[rows], self.step[rows]
        )


def fit_encoder(
    profiles: pd.DataFrame, split: NDArray[np.object_], signals: tuple[str, ...], columns: ProfileColumns
) -> ObservationEncoder:
    """Returns the encoder fitted to the training rows of `profiles` [r], all rows where there is no split."""
    training = split == TRAIN if (split == TRAIN).any() else np.full(len(split), True)
    return ObservationEncoder.fit(profiles[training], signals, columns.numeric, columns.categorical)


def observe_log(
    encoder: ObservationEncoder,
    profiles: pd.DataFrame,
    requests: Columns,
    impressions: Columns,
    first: NDArray[np.int64],
) -> Observer:
    """Returns the observer of the log with these columns; `profiles` has a row a request."""
    return Observer(
        encoder,
        encoder.profile(profiles),
        np.stack([impressions[s] for s in encoder.signals], axis=1).astype(np.float32),
        first,
        requests["user_id"],
        requests["timestamp"],
        requests["step"],
    )


def encoder_meta(encoder: ObservationEncoder) -> dict[str, Any]:
    """Returns what a dataset's meta data says of observations that `encoder` made."""
    return {"encoder": encoder, "feature_names": encoder.feature_names, "numeric_mask": encoder.numeric_mask}


def batches(
    requests: Columns,
    impressions: Columns,
    first: NDArray[np.int64],
    observe: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    kept: NDArray[np.int64],
) -> Iterator[Tables]:
    """Yields the requests `kept` (int [n]) and their impressions, with observations made on the way.

    `requests` has columns [r], `impressions` columns [m]; those of request i are first[i]:first[i + 1].
    """
    for i in range(0, len(kept), BATCH_REQUESTS):
        rows = kept[i : i + BATCH_REQUESTS]
        sizes = first[rows + 1] - first[rows]
        shown = np.arange(sizes.sum()) + np.repeat(first[rows] - (np.cumsum(sizes) - sizes), sizes)
        yield Tables(
            requests={**_take(requests, rows), "observation": observe(rows)},
            impressions=_take(impressions, shown),
        )


def _take(columns: Columns, rows: NDArray[np.int64]) -> dict[str, NDArray | pa.Array]:
    """Returns some rows, which grow; they are copied only where others lie between them."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return {name: values[int(rows[0]) : int(rows[-1]) + 1] for name, values in columns.items()}
    return {
        name: values.take(pa.array(rows)) if isinstance(values, pa.Array) else values[rows]
        for name, values in columns.items()
    }


def without_actions(n: int, n_actions: int) -> dict[str, NDArray]:
    """Returns the columns of n requests about actions for a log that has none."""
    absent = np.full((n, n_actions), np.nan, np.float32)
    return {
        **dict.fromkeys(ACTION_COLUMNS, absent),
        "pscore": np.full(n, np.nan),
        "clipped": np.zeros(n, np.int32),
    }


def drawn_uniformly(
    action: NDArray[np.float32],
    baseline: NDArray[np.float32],
    lower: NDArray[np.float32],
    upper: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Returns the densities [n] of actions [n, d] that only the mapping calls uniform in their bounds.

    NaN where there is no action or it is the baseline action, as a control user's.
    """
    moved = ~np.isnan(action).any(axis=1) & (action != baseline).any(axis=1)
    width = upper.astype(np.float64) - lower
    density = 1 / np.prod(width, axis=1, where=width > 0)
    return np.where(moved, density, np.nan)


def said_of_drawn(n_moved: int, n_acted: int) -> str:
    """Returns a sentence of `n_acted` actions of which so many count as drawn."""
    return (
        f"{n_moved:,} of {n_acted:,} rows count as explored, since the mapping says exploration: uniform; the "
        "others are at their baseline action, as those of control users"
    )
