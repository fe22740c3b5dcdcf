"""Impressions by user and time, cut into requests and sessions and given observations."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mtf_engine.logs.schema import ACTION_COLUMNS, Columns, DatasetMeta, Tables
from mtf_engine.observation import ObservationEncoder, log_history

BATCH_REQUESTS = 2_048
TEST_DAYS, VALIDATION_DAYS = 3, 2

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True)
class ImportedLog:
    """A log that passed validation, ready for `write_dataset`; `batches` can be read once."""

    meta: DatasetMeta
    batches: Iterable[Tables]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """How m impressions, sorted by user and time, fall into r requests and those into sessions."""

    user: np.ndarray  # [m] codes, rows of a user stand together
    request_starts: np.ndarray  # [m] bool, an impression opens a request
    session_starts: np.ndarray  # [m] bool, an impression opens a session

    @cached_property
    def first(self) -> np.ndarray:
        """The row of each request's first impression, int [r]."""
        return np.flatnonzero(self.request_starts)

    @cached_property
    def request(self) -> np.ndarray:
        """The request of each impression, counted from 0, int [m]."""
        return np.cumsum(self.request_starts) - 1

    @cached_property
    def session(self) -> np.ndarray:
        """The session of each request, counted from 0, int [r]."""
        return np.cumsum(self.session_starts)[self.first] - 1

    @cached_property
    def step(self) -> np.ndarray:
        """The index of each request in its session, int [r]."""
        return within(self.session)

    @cached_property
    def left(self) -> np.ndarray:
        """How many requests of its session come after each, int [r]."""
        return within(self.session[::-1])[::-1]

    @cached_property
    def user_first(self) -> np.ndarray:
        """The first row of each request's user, int [r]."""
        starts = np.flatnonzero(changes(self.user))
        return starts[np.searchsorted(starts, self.first, side="right") - 1]


def changes(*keys: np.ndarray) -> np.ndarray:
    """Returns where any of `keys` [m] differs from the row before, bool [m]; true of the first row."""
    starts = np.zeros(len(keys[0]), bool)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


def within(*keys: np.ndarray) -> np.ndarray:
    """Returns the index of each row within its run of equal `keys`, int [m]."""
    rows = np.arange(len(keys[0]))
    return rows - np.maximum.accumulate(np.where(changes(*keys), rows, 0))


def deal(user: np.ndarray, split: np.ndarray, per_request: int, per_session: int) -> Cut:
    """Returns requests of the next `per_request` impressions of a user within a split, `per_session` a session."""
    position = within(user, split)
    return Cut(user, position % per_request == 0, position % (per_request * per_session) == 0)


def split_by_day(day: np.ndarray) -> np.ndarray:
    """Returns the split of each row of `day` [m]: the last 3 days test, the 2 before validation, the rest train."""
    days, index = np.unique(day, return_inverse=True)
    from_the_end = len(days) - 1 - index
    train_or_validation = np.where(from_the_end < TEST_DAYS + VALIDATION_DAYS, "validation", "train")
    return np.where(from_the_end < TEST_DAYS, "test", train_or_validation).astype(object)


def seconds_since_last(user_first: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Returns the time since the user's request before [r], NaN for a first one; rows by user and time."""
    return np.where(changes(user_first), np.nan, np.diff(seconds, prepend=seconds[:1]))


def batches(
    requests: Columns,
    impressions: Columns,
    cut: Cut,
    encoder: ObservationEncoder,
    profiles: pd.DataFrame,
    requests_left: np.ndarray,
    keep: np.ndarray,
) -> Iterator[Tables]:
    """Returns the rows of the requests in `keep` (bool [r]) as tables, with observations made on the way.

    `requests` has equally long columns [r], `impressions` [m] among them the encoder's signals; `profiles` has a
    row a request. Impressions of requests that are not kept still count as history.
    """
    signals = np.stack([impressions[s] for s in encoder.signals], axis=1).astype(np.float32)
    seconds = requests["timestamp"].astype("datetime64[us]").astype(np.int64) / 1e6
    since_last = seconds_since_last(cut.user_first, seconds)
    stop = np.append(cut.first[1:], len(cut.user))
    profile = encoder.profile(profiles)
    kept = np.flatnonzero(keep)
    for i in range(0, len(kept), BATCH_REQUESTS):
        rows = kept[i : i + BATCH_REQUESTS]
        history, counts = log_history(signals, cut.user_first[rows], cut.first[rows])
        observation = encoder.observe(
            profile[rows], history, counts, since_last[rows], cut.step[rows], requests_left[rows]
        )
        shown = np.concatenate([np.arange(cut.first[r], stop[r]) for r in rows])
        yield Tables(
            requests={**take(requests, rows), "observation": observation},
            impressions=take(impressions, shown),
        )


def take(columns: Columns, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in columns.items()}


def without_actions(n: int, n_actions: int) -> Mapping[str, np.ndarray]:
    """Returns the columns of n requests about actions for a log that has none."""
    absent = np.full((n, n_actions), np.nan, np.float32)
    return {
        **dict.fromkeys(ACTION_COLUMNS, absent),
        "pscore": np.full(n, np.nan),
        "clipped": np.zeros(n, np.int32),
    }
