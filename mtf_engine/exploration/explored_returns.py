"""The explored requests of a log, each with the discounted reward that the log saw from it to its session's end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtf_engine.exploration.coverage_counts import CHUNK, Parts
from mtf_engine.reward import discounted_returns
from mtf_engine.spec import Refusal

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ExploredReturns:
    """Explored requests; control users and requests without an action are left out.

    A session that the log cuts off has the returns that the log saw of it: too small, by what followed.
    """

    observations: NDArray[np.float32]  # [n, f]
    offsets: NDArray[np.float32]  # [n, d], action minus baseline action
    lower: NDArray[np.float32]  # [n, d], offsets of the box
    upper: NDArray[np.float32]  # [n, d]
    returns: NDArray[np.float64]  # [n], in units of the reward
    steps: NDArray[np.int64]  # [n], place among the explored requests of the session, from 0
    sessions: NDArray[np.int64]  # [n], numbered from 0
    segments: NDArray[Any]  # [n]
    cut: NDArray[np.bool_]  # [n], the session has no end in the log
    gamma: float

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def n_sessions(self) -> int:
        return int(self.sessions.max(initial=-1)) + 1

    def of(self, segment: str) -> "ExploredReturns":
        """Returns the requests of one segment."""
        own = self.segments == segment
        part = replace(
            self, **{one.name: getattr(self, one.name)[own] for one in fields(self) if one.name != "gamma"}
        )
        return replace(part, sessions=np.unique(part.sessions, return_inverse=True)[1])


def read_sessions(parts: Parts, split: str, chunk: int = CHUNK) -> Iterator[Columns]:
    """Yields the rows of `split`, and those of none, in stored order."""
    yield from parts(
        "SELECT session_id, step, reward, terminal, segment, observation, action, baseline_action, lower, "
        "upper, pscore IS NOT NULL AND action IS NOT NULL AS explored "
        "FROM requests WHERE split IS NULL OR split = ?",
        [split],
        chunk,
    )


def explored_returns(parts: Iterable[Columns], n_requests: int, gamma: float) -> ExploredReturns:
    """Returns the explored requests of `parts`, of which there are `n_requests` rows at most.

    Memory is that of the rows kept and a chunk. A log without explored rows is refused.
    """
    if not 0 <= gamma <= 1:
        raise Refusal(f"signal: a gamma of {gamma:g} discounts nothing; give 0 to 1")
    kept, flat = _Kept(n_requests), []
    for part in parts:
        kept.add(part)
        flat.append({name: part[name] for name in ("session_id", "step", "reward", "terminal", "explored")})
    if not kept.n:
        raise Refusal(
            "signal: no training row of this dataset was explored (pscore or action is empty throughout); "
            "collect one with --explore uniform"
        )
    rows = {name: np.concatenate([part[name] for part in flat]) for name in flat[0]}
    order = np.lexsort((rows["step"], rows["session_id"]))
    session = rows["session_id"][order]
    starts = np.flatnonzero(np.append(True, session[1:] != session[:-1]))
    lengths = np.diff(np.append(starts, len(session)))
    ended = rows["terminal"][order].astype(bool)[starts + lengths - 1]
    explored = rows["explored"][order].astype(bool)
    earlier = np.cumsum(explored) - explored
    found: Columns = {
        "returns": discounted_returns(rows["reward"][order], starts, gamma),
        "steps": earlier - np.repeat(earlier[starts], lengths),
        "sessions": np.repeat(np.arange(len(starts)), lengths),
        "cut": np.repeat(~ended, lengths),
    }
    place = np.argsort(order)[rows["explored"].astype(bool)]
    found = {name: values[place] for name, values in found.items()}
    found["sessions"] = np.unique(found["sessions"], return_inverse=True)[1]
    return ExploredReturns(**kept.columns(), **found, gamma=gamma)


class _Kept:
    """Wide columns of the explored rows, put where they stay as they come."""

    def __init__(self, n_requests: int) -> None:
        self.n_requests, self.n = n_requests, 0
        self.wide: Columns = {}
        self.segments: list[NDArray[Any]] = []

    def add(self, part: Columns) -> None:
        own = part["explored"].astype(bool)
        if not own.any():
            return
        wide = {name: part[name][own] for name in ("lower", "upper")}
        wide |= {"observations": part["observation"][own]}
        wide |= {"offsets": part["action"][own] - part["baseline_action"][own]}
        self.wide = self.wide or {
            name: np.empty((self.n_requests, values.shape[1]), np.float32) for name, values in wide.items()
        }
        for name, values in wide.items():
            self.wide[name][self.n : self.n + len(values)] = values
        self.segments.append(part["segment"][own])
        self.n += int(own.sum())

    def columns(self) -> Columns:
        columns: Columns = {name: values[: self.n] for name, values in self.wide.items()}
        return columns | {"segments": np.concatenate(self.segments)}
