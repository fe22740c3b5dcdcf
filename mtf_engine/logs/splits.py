"""The splits of a log: what each is called, and which rows or users are in it."""

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pandas.util import hash_array
from pydantic import Field, model_validator

from mtf_engine.spec import MOST, Refusal, Spec

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""What trainings learn from, what their best step is chosen on, and what policies are scored on."""
WARM_UP = "warm-up"
"""Rows of days that cannot be predicted yet, which no dataset keeps."""
ALL, CONTROL = "all", "control"
"""Read like a split: every row, and the users of an explored log who met the baseline policy itself."""
TEST_DAYS, VALIDATION_DAYS = 3, 2
VALIDATION_USERS = 10
"""One user in this many is for validation in a log that is not split by day."""
HOLD_OUT = 0.2
"""Share of the users that are for test where a log is split by user on request."""
HOLD_OUT_KEY = "users held out.."
"""Of the hash that draws them, so that it has nothing to do with who is for validation."""


SplitRule = Callable[[NDArray[np.object_], NDArray], NDArray[np.object_]]
"""What makes the splits of rows from their user ids and days."""


class Splitting(Spec):
    """How an import splits a log: by what is asked for, else by its column `split`, else as its kind is split."""

    by: str | None = Field(default=None, description="day, user, or the column that holds the split")
    test_days: int | None = Field(default=None, ge=1, le=MOST)
    validation_days: int | None = Field(default=None, ge=0, le=MOST)
    hold_out: float | None = Field(default=None, gt=0, lt=1, description="share of users for test")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        days = self.test_days is not None or self.validation_days is not None
        if days and (self.by not in (None, "day") or self.hold_out is not None):
            raise ValueError("days for test and validation go with a split by day alone")
        if self.hold_out is not None and self.by not in (None, "user"):
            raise ValueError("a share of users held out goes with a split by user alone")
        return self

    @property
    def column(self) -> str | None:
        """The column that was named to hold the split."""
        return None if self.by in ("day", "user") else self.by

    @property
    def kind(self) -> Literal["day", "user"] | None:
        """What was asked for; None where the log itself may say."""
        if self.by == "day" or self.test_days is not None or self.validation_days is not None:
            return "day"
        if self.by == "user" or self.hold_out is not None:
            return "user"
        return None

    @property
    def days(self) -> tuple[int, int]:
        """How many days are for test, and how many before them for validation."""
        test = TEST_DAYS if self.test_days is None else self.test_days
        return test, VALIDATION_DAYS if self.validation_days is None else self.validation_days


UNASKED = Splitting()
"""Nothing is asked for."""


def split_by_day(
    day: NDArray, test: int = TEST_DAYS, validation: int = VALIDATION_DAYS, days: NDArray | None = None
) -> NDArray[np.object_]:
    """Returns the split of each row of `day` [m]: the last days test, those before validation, the rest train.

    `days` are all of the log, in order, where `day` are those of a part of it.
    """
    days = np.unique(day) if days is None else days
    index = np.searchsorted(days, day)
    from_the_end = len(days) - 1 - index
    return np.where(from_the_end < test, TEST, _split(from_the_end < test + validation))


def split_by_user(user_id: NDArray[np.object_], hold_out: float = 0) -> NDArray[np.object_]:
    """Returns the split of each row of `user_id` [m], by hashes of the id.

    A share `hold_out` of the users is for test, and of the others one in ten for validation.
    """
    split = _split(hash_array(user_id) % VALIDATION_USERS == 0)
    held_out = hash_array(user_id, hash_key=HOLD_OUT_KEY) < hold_out * 2.0**64
    return np.where(held_out, TEST, split)


def split_by_draw(draws: NDArray[np.float32]) -> NDArray[np.object_]:
    """Returns the split of each draw from (0, 1) [m]: one user in ten for validation."""
    return _split(draws < 1 / VALIDATION_USERS)


def split_log(
    user_id: NDArray[np.object_], day: NDArray, explored: bool, how: Splitting
) -> tuple[NDArray[np.object_], str]:
    """Returns the split of each of r rows and how it came about, see `split_rule`; `day` [r] are times or days."""
    days = day.astype("datetime64[D]") if np.issubdtype(day.dtype, np.datetime64) else day
    rule, told = split_rule(np.unique(days), explored, how)
    return rule(user_id, days), told


def split_rule(days: NDArray, explored: bool, how: Splitting) -> tuple[SplitRule, str]:
    """Returns what splits rows of a log by their users and days, and how: it makes None of all in a short log.

    `days` are those of the whole log in order, dates of any kind that sort. A Refusal where days were asked for and
    there are too few.
    """
    if how.kind == "user" or (explored and how.kind is None):
        share = 0 if how.kind is None else how.hold_out or HOLD_OUT
        told = "one user in ten is for validation, by a hash of the id"
        if share:
            others = "one in ten of the others for validation"
            told = f"{share:.0%} of the users are for test, {others}, by hashes of the id"
        return lambda user_id, day: split_by_user(user_id, share), told
    (test, validation), n = how.days, len(days)
    if n > test + validation:
        before = f", the {validation} before for validation" if validation else ""
        zone = "UTC" if np.issubdtype(days.dtype, np.datetime64) else "of the log"
        told = f"the last {test} days ({zone}) are for test{before}"
        return lambda user_id, day: split_by_day(day, test, validation, days), told
    if how.kind:
        raise Refusal(
            f"the log covers {n} days and {test + validation + 1} are needed: {test} to test, {validation} to "
            "validate and one to train; ask for fewer (--test-days, --validation-days) or split it by user"
        )
    told = "the log is too short to be split by day: it has no test days"
    return lambda user_id, day: np.full(len(day), None), told


def _split(validation: NDArray[np.bool_]) -> NDArray[np.object_]:
    return np.where(validation, VALIDATION, TRAIN).astype(object)
