"""The splits of a log: what each is called, and which rows or users are in it."""

import numpy as np
from numpy.typing import NDArray
from pandas.util import hash_array

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""What trainings learn from, what their best step is chosen on, and what policies are scored on."""
ALL, CONTROL = "all", "control"
"""Read like a split: every row, and the users of an explored log who met the baseline policy itself."""
TEST_DAYS, VALIDATION_DAYS = 3, 2
VALIDATION_USERS = 10
"""One user in this many is for validation in a log that is not split by day."""


def split_by_day(day: NDArray) -> NDArray[np.object_]:
    """Returns the split of each row of `day` [m]: last 3 days test, 2 before validation, the rest train."""
    days, index = np.unique(day, return_inverse=True)
    from_the_end = len(days) - 1 - index
    return np.where(from_the_end < TEST_DAYS, TEST, _split(from_the_end < TEST_DAYS + VALIDATION_DAYS))


def split_by_user(user_id: NDArray[np.object_]) -> NDArray[np.object_]:
    """Returns the split of each row of `user_id` [m]: one user in ten, by a hash of the id, for validation."""
    return _split(hash_array(user_id) % VALIDATION_USERS == 0)


def split_by_draw(draws: NDArray[np.float32]) -> NDArray[np.object_]:
    """Returns the split of each draw from (0, 1) [m]: one user in ten for validation."""
    return _split(draws < 1 / VALIDATION_USERS)


def split_log(
    user_id: NDArray[np.object_], timestamp: NDArray[np.datetime64], explored: bool
) -> tuple[NDArray[np.object_], str]:
    """Returns the split of each request [r] and how it came about: None for all in a short log."""
    if explored:
        return split_by_user(user_id), "one user in ten is for validation, by a hash of the id"
    days = timestamp.astype("datetime64[D]")
    if len(np.unique(days)) <= TEST_DAYS + VALIDATION_DAYS:
        return np.full(len(days), None), "the log is too short to be split by day: it has no test days"
    told = f"the last {TEST_DAYS} days (UTC) are for test, the {VALIDATION_DAYS} before for validation"
    return split_by_day(days), told


def _split(validation: NDArray[np.bool_]) -> NDArray[np.object_]:
    return np.where(validation, VALIDATION, TRAIN).astype(object)
