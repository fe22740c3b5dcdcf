"""The users of a live test: a file with a row a user, checked whole and reduced to what each arm brought by day.

Its columns: `user`, `arm`, any number of metrics, and `date` where it is known, the day a user came into the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from mtf_engine.logs.files import RawTable, connect, fetch, load
from mtf_engine.logs.typed import Column, judged, type_columns
from mtf_engine.logs.validation import Check, duplicate, find_defects, numbered
from mtf_engine.spec import Defect, Refusal

USER, ARM, DATE = "user", "arm", "date"
MOST_ARMS = 20


@dataclass(frozen=True)
class Arms:
    """What the users of each arm brought until each day: their number, and of each metric mean and variance.

    Without days there is one column of all users. Where an arm has no user yet, its mean is 0; with fewer than
    two its variance.
    """

    file: str
    names: tuple[str, ...]
    metrics: tuple[str, ...]
    days: tuple[str, ...]
    users: NDArray[np.int64]  # [arms, days]
    means: NDArray[np.float64]  # [metrics, arms, days]
    variances: NDArray[np.float64]  # [metrics, arms, days]


def read_arms(path: Path) -> Arms:
    """Returns what the users of each arm brought; a Refusal names what is wrong with the file, by row and column."""
    if not path.exists():
        raise Refusal(f"there is no file {path}; check the path")
    with connect() as con:
        raw = load(con, path, "raw_users")
        if not isinstance(raw, RawTable):
            raise Refusal.of(raw)
        metrics = _typed(con, raw)
        on = "date::DATE::VARCHAR" if DATE in raw.types else "''"
        moments = ", ".join(
            f"avg(metric_{i})::DOUBLE AS mean_{i}, var_pop(metric_{i})::DOUBLE AS variance_{i}"
            for i in range(len(metrics))
        )
        rows = fetch(con, f"SELECT arm, {on} AS day, count(*) AS n, {moments} FROM users GROUP BY ALL")
    names, arm = np.unique(rows["arm"].astype(str), return_inverse=True)
    days, day = np.unique(rows["day"].astype(str), return_inverse=True)
    n = np.zeros((len(names), len(days)))
    mean, squares = np.zeros((2, len(metrics), *n.shape))
    n[arm, day] = rows["n"]
    for i in range(len(metrics)):
        mean[i, arm, day], squares[i, arm, day] = rows[f"mean_{i}"], rows["n"] * rows[f"variance_{i}"]
    _refuse_few(raw.file, names.tolist(), n.sum(axis=1))
    return Arms(
        raw.file,
        tuple(names.tolist()),
        metrics,
        tuple(filter(None, days.tolist())),
        *_until(n, mean, squares),
    )


def _typed(con: duckdb.DuckDBPyConnection, raw: RawTable) -> tuple[str, ...]:
    """Returns the metrics; creates the table `users` of sound rows, or raises what is wrong with them."""
    lacking = [name for name in (USER, ARM) if name not in raw.types]
    if lacking:
        remedy = "name the columns user, arm and, where there are days, date; all others are metrics"
        raise Refusal.of([_missing(raw, name, remedy) for name in lacking])
    metrics = tuple(name for name in raw.types if name not in (USER, ARM, DATE))
    if not metrics:
        raise Refusal.of([_missing(raw, None, "add a column of numbers for each metric")])
    columns = [Column(name, "text", (name,), "key") for name in (USER, ARM)]
    if DATE in raw.types:
        columns.append(judged(con, raw, Column(DATE, "time", (DATE,), "key")))
    columns += [Column(f"metric_{i}", "number", (name,), "value") for i, name in enumerate(metrics)]
    typed, checks = type_columns(con, raw, columns, "users")
    defects = find_defects(con, typed, raw.file, map(_of_users, checks))
    defects += find_defects(con, ARMS_OF_USERS, raw.file, [TWO_ARMS])
    defects += find_defects(con, numbered("users", USER, ARM), raw.file, [duplicate(USER, "the user")])
    if defects:
        raise Refusal.of(raw.placed(defects))
    return metrics


ARMS_OF_USERS = """(
    SELECT row, user, arm, first_value(arm) OVER (PARTITION BY user ORDER BY row) AS first_arm
    FROM users WHERE user IS NOT NULL AND arm IS NOT NULL
)"""
TWO_ARMS = Check(
    "duplicate_request",
    ARM,
    "arm <> first_arm",
    "puts {value} into a second arm",
    "find out why: a user belongs to one arm from the first day to the last",
    "user",
)


def _of_users(check: Check) -> Check:
    """Returns the check with the remedy that fits this file, which has no mapping."""
    if check.code != "wrong_type" or check.column in (USER, ARM):
        return check
    if check.column == DATE:
        return replace(check, remedy="write a day such as 2026-11-22")
    return replace(check, remedy="write a number, or leave the column out if it is no metric")


def _missing(raw: RawTable, column: str | None, remedy: str) -> Defect:
    message = "is not in the file" if column else "has no metric"
    return Defect(code="missing_column", file=raw.file, column=column, message=message, remedy=remedy)


def _refuse_few(file: str, names: Sequence[str], users: NDArray) -> None:
    if len(names) == 1:
        raise Refusal(f"{file}: all users are in the arm {names[0]}; a test has two arms or more")
    if len(names) > MOST_ARMS:
        raise Refusal(
            f"{file}: has {len(names):,} arms, {MOST_ARMS} at most; is `arm` the column of the arms?"
        )
    few = [name for name, n in zip(names, users, strict=True) if n < 2]
    if few:
        raise Refusal(f"{file}: the arm {few[0]} has 1 user; each needs 2 or more")


def _until(
    n: NDArray, mean: NDArray, squares: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns users, means and variances until each day, of those on each day; `squares` are around their mean."""
    whole = (n * mean).sum(axis=-1, keepdims=True) / n.sum(axis=-1, keepdims=True)
    beyond = mean - whole  # around the mean of all days nothing cancels
    users = n.cumsum(axis=-1)
    shift = (n * beyond).cumsum(axis=-1) / np.maximum(users, 1)
    spread = (squares + n * beyond**2).cumsum(axis=-1) - users * shift**2
    means = np.where(users > 0, whole + shift, 0.0)
    return users.astype(np.int64), means, np.maximum(spread, 0.0) / np.maximum(users - 1, 1)
