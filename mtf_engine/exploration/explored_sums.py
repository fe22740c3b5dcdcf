"""What adds up of explored requests: for everybody and each segment, the sums that fits and regressions are told by.

A log is seen in parts of whole sessions. The first pass takes Gram matrices, of each fold its own, and a few sums; the
second, when the slopes are known, what each session does to them. Parts are added in their order, each about its own
means, so that the whole depends on the parts alone, and a column of numbers that are large and alike loses no digits.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pandas import factorize

from mtf_engine.exploration.clustered import FOLDS, Fit, jackknife, moved_to
from mtf_engine.exploration.explored_returns import ExploredReturns

Whom = str | None
"""A segment, or everybody."""
Array = NDArray[np.float64]
Own = slice | NDArray[np.int64]
Part = TypeVar("Part", "ExploredSums", NDArray[np.float64])
ROWS = 16_384
"""Rows at a time."""


@dataclass(frozen=True)
class ExploredSums:
    """Sums over explored requests, whose columns are observation, middle of the box, offsets and return.

    `grams` [folds, 1 + c, 1 + c] are Gram matrices of a constant and the columns about a `centre` [c].
    """

    centre: Array
    grams: Array
    widths: Array  # [d], of the boxes
    sessions: int
    cut: int  # sessions without an end in the log
    begun: int  # requests that are the first of their session
    begun_returns: float  # and their returns
    discounts: float  # gamma^t
    least: float  # of the returns
    most: float

    @property
    def requests(self) -> int:
        return int(self.grams[:, 0, 0].sum())

    @property
    def n_covariates(self) -> int:
        return len(self.centre) - len(self.widths) - 1

    def fit(self) -> Fit:
        """Returns what observations and boxes explain of offsets and returns."""
        return Fit.of(self.grams, self.centre, self.n_covariates)

    def variances(self) -> Array:
        """Returns the variance of each column [c]."""
        total = self.grams.sum(axis=0)
        about_means = moved_to(total, -total[0, 1:] / total[0, 0]).diagonal()[1:]
        return np.asarray(np.maximum(about_means, 0) / total[0, 0])

    def __add__(self, other: "ExploredSums") -> "ExploredSums":
        added = {
            one.name: getattr(self, one.name) + getattr(other, one.name)
            for one in fields(self)
            if one.name not in ("centre", "least", "most")
        }
        added["grams"] = self.grams + moved_to(other.grams, other.centre - self.centre)
        return replace(self, **added, least=min(self.least, other.least), most=max(self.most, other.most))


@dataclass(frozen=True)
class Regression:
    """The slopes of what a fit leaves of returns on what it leaves of the offsets that move, `live` [m].

    `gram` [m, m] is that of the latter about their means, `products` [m] are theirs with the former, and `means`
    [m + 1] are of both, the returns' last.
    """

    fit: Fit
    live: NDArray[np.int64]
    means: Array
    gram: Array
    products: Array

    @cached_property
    def slopes(self) -> Array:
        """The slopes [m]; LinAlgError where they cannot be told apart."""
        return np.asarray(np.linalg.solve(self.gram, self.products), np.float64)

    @classmethod
    def of(cls, fit: Fit, live: NDArray[np.int64]) -> "Regression":
        kept = np.append(live, len(fit.left) - 2) + 1
        means = fit.left[0, kept] / fit.left[0, 0]
        total = (fit.left - np.outer(fit.left[0], fit.left[0]) / fit.left[0, 0])[np.ix_(kept, kept)]
        return cls(fit, live, means, total[:-1, :-1], total[:-1, -1])

    def spread(self, left: Array, sessions: NDArray[np.int64]) -> Array:
        """Returns what sessions add to `jackknife`; `left` [n, d + 1] is what the fit leaves of their rows."""
        kept = left[:, np.append(self.live, left.shape[1] - 1)] - self.means
        x = kept[:, :-1]
        return jackknife(self.gram, x, kept[:, -1] - x @ self.slopes, starts_of(sessions))


def sums(log: ExploredReturns) -> dict[Whom, ExploredSums]:
    """Returns the sums of a part of a log, of everybody and of the segments that it has; of no requests, none."""
    if not len(log):
        return {}
    rows, first = _Rows(log), slice(ROWS)
    centres = {number: rows.mean(rows.of(number)[first]) for number in range(1 + len(rows.segments))}
    centre = rows.mean(slice(None))
    grams = np.zeros((len(centres), FOLDS, 1 + len(centre), 1 + len(centre)))
    for number, fold, block, _ in rows.blocks(centres):
        grams[number, fold] += block.T @ block
    whole = sum(moved_to(grams[number], of - centre) for number, of in centres.items())
    found: dict[Whom, ExploredSums] = {None: _sums(log, slice(None), centre, np.asarray(whole))}
    for number, segment in rows.numbered:
        found[segment] = _sums(log, rows.of(number), centres[number], grams[number])
    return found


def _sums(log: ExploredReturns, own: Own, centre: Array, grams: Array) -> ExploredSums:
    begun, returns = log.steps[own] == 0, log.returns[own]
    return ExploredSums(
        centre=centre,
        grams=grams,
        widths=(log.upper[own] - log.lower[own]).sum(axis=0, dtype=np.float64),
        sessions=len(starts_of(log.sessions[own])),
        cut=int(log.cut[own][begun].sum()),
        begun=int(begun.sum()),
        begun_returns=float(returns[begun].sum()),
        discounts=float((log.gamma ** log.steps[own]).sum()),
        least=float(returns.min()),
        most=float(returns.max()),
    )


def spreads(regressions: Mapping[Whom, Regression], log: ExploredReturns) -> dict[Whom, Array]:
    """Returns what the sessions of a part of a log add to `jackknife`, in everybody's regression and in others."""
    if not len(log):
        return {}
    rows, means = _Rows(log), regressions[None].fit.means
    first = regressions[None].fit.weights.shape[1]
    weights = {whom: one.fit.weights_about(means[: first - 1]) for whom, one in regressions.items()}
    left, left_of_own = np.empty((2, len(log), 1 + len(means) - first))
    for number, fold, block, own in rows.blocks(rows.all_about(means)):
        design, targets = block[:, :first], block[:, first:]
        left[own] = targets - design @ weights[None][fold]
        if number and (segment := rows.segments[number - 1]) in weights:
            moved = means[first - 1 :] - regressions[segment].fit.means[first - 1 :]
            left_of_own[own] = targets + moved - design @ weights[segment][fold]
    found: dict[Whom, Array] = {None: regressions[None].spread(left, log.sessions)}
    for number, segment in rows.numbered:
        if segment in regressions:
            own = rows.of(number)
            found[segment] = regressions[segment].spread(left_of_own[own], log.sessions[own])
    return found


def left_over(fit: Fit, log: ExploredReturns) -> Iterator[tuple[int, Array, Array, NDArray[np.int64]]]:
    """Yields fold, a constant and the covariates about their means, what a fit leaves, and places of some rows."""
    first, rows = fit.weights.shape[1], _Rows(log)
    for _, fold, block, own in rows.blocks(rows.all_about(fit.means)):
        design = block[:, :first]
        yield fold, design, block[:, first:] - design @ fit.weights[fold], own


def added(parts: Iterable[Mapping[Whom, Part]]) -> dict[Whom, Part]:
    """Returns the sums of all parts, in their order."""
    whole: dict[Whom, Part] = {}
    for part in parts:
        for whom, one in part.items():
            whole[whom] = whole[whom] + one if whom in whole else one
    return whole


class _Rows:
    """The requests of a part as blocks of their columns, each of one segment and fold; segments are numbered from 1."""

    def __init__(self, log: ExploredReturns) -> None:
        self.log = log
        self.middles = (log.lower + log.upper) / 2
        codes, names = factorize(log.segments, sort=True)
        self.numbers, self.segments = codes + 1, tuple(map(str, names))

    @property
    def numbered(self) -> Iterator[tuple[int, str]]:
        """The segments with their numbers."""
        return enumerate(self.segments, start=1)

    def of(self, number: int) -> NDArray[np.int64]:
        """Returns the places of the rows of a segment."""
        return np.flatnonzero(self.numbers == number)

    @property
    def columns(self) -> tuple[NDArray, ...]:
        return self.log.observations, self.middles, self.log.offsets, self.log.returns[:, None]

    def mean(self, own: Own) -> Array:
        """Returns the means of the columns [c] of some rows; 0 of none."""
        some = [column[own] for column in self.columns]
        return np.concatenate([one.sum(axis=0, dtype=np.float64) / max(len(one), 1) for one in some])

    def all_about(self, centre: Array) -> dict[int, Array]:
        """Returns one centre for all segments by their numbers."""
        return dict.fromkeys(range(1 + len(self.segments)), centre)

    def blocks(self, centres: Mapping[int, Array]) -> Iterator[tuple[int, int, Array, NDArray[np.int64]]]:
        """Yields segment, fold, a constant and the columns about its centre [m, 1 + c], and the rows' places [m].

        `centres` are by the numbers of segments, 0 that of rows without one.
        """
        group = self.numbers * FOLDS + self.log.folds
        order = np.argsort(group, kind="stable")
        starts = starts_of(group[order])
        for first, end in pairwise([*starts.tolist(), len(order)]):
            number, fold = divmod(int(group[order[first]]), FOLDS)
            centre = centres[number]
            for start in range(first, end, ROWS):
                own = order[start : min(start + ROWS, end)]
                block = np.ones((len(own), 1 + len(centre)))
                at = 1
                for column in self.columns:
                    width = column.shape[1]
                    np.subtract(column[own], centre[at - 1 : at - 1 + width], out=block[:, at : at + width])
                    at += width
                yield number, fold, block, own


def starts_of(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns where sessions begin, or other numbers of equals that stand together; of none, nowhere."""
    return np.flatnonzero(np.append(True, sessions[1:] != sessions[:-1])[: len(sessions)])
