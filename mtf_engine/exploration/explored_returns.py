"""The explored requests of a log, each with the discounted reward that the log saw from it to its session's end."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtf_engine.exploration.clustered import folds_of
from mtf_engine.reward import discounted_returns
from mtf_engine.spec import Refusal

R = TypeVar("R")

COLUMNS = (
    "session_id", "step", "reward", "terminal", "segment", "observation", "action", "baseline_action", "lower", "upper",
    "explored",
)  # fmt: skip
"""What `explored_returns` takes of requests."""
SELECTED = ", ".join(COLUMNS).replace("explored", "pscore IS NOT NULL AND action IS NOT NULL AS explored")
"""The same in SQL."""


class ExploredLog(Protocol):
    """The explored requests of a log, in parts of whole sessions, some of which may be empty."""

    @property
    def gamma(self) -> float: ...
    def each(self, work: Callable[["ExploredReturns"], R], /) -> Iterable[R]:
        """Returns what `work` makes of each part, in the order of parts; each call reads all of them."""


@dataclass(frozen=True)
class ExploredReturns:
    """Explored requests, those of a session together; control users and requests without an action are left out.

    A session that the log cuts off has the returns that the log saw of it: too small, by what followed.
    """

    observations: NDArray[np.float32]  # [n, f]
    offsets: NDArray[np.float32]  # [n, d], action minus baseline action
    lower: NDArray[np.float32]  # [n, d], offsets of the box
    upper: NDArray[np.float32]  # [n, d]
    returns: NDArray[np.float64]  # [n], in units of the reward
    steps: NDArray[np.int64]  # [n], place among the explored requests of the session, from 0
    sessions: NDArray[np.int64]  # [n], their ids
    segments: NDArray[Any]  # [n]
    cut: NDArray[np.bool_]  # [n], the session has no end in the log
    gamma: float

    def __len__(self) -> int:
        return len(self.returns)

    def each(self, work: Callable[["ExploredReturns"], R], /) -> Iterator[R]:
        """Yields what `work` makes of these requests: a log of one part."""
        yield work(self)

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """The fold of each request [n], by its session alone."""
        return folds_of(self.sessions)

    def among(self, chosen: NDArray[np.bool_]) -> "ExploredReturns":
        """Returns some of the requests."""
        return replace(
            self, **{one.name: getattr(self, one.name)[chosen] for one in fields(self) if one.name != "gamma"}
        )


def explored_returns(rows: Mapping[str, NDArray[Any]], gamma: float) -> ExploredReturns:
    """Returns the explored requests of `rows`, which are those of whole sessions in any order, perhaps none."""
    if not 0 <= gamma <= 1:
        raise Refusal(f"signal: a gamma of {gamma:g} discounts nothing; give 0 to 1")
    order = np.lexsort((rows["step"], rows["session_id"]))
    session = rows["session_id"][order]
    starts = np.flatnonzero(np.append(True, session[1:] != session[:-1])[: len(session)])
    lengths = np.diff(np.append(starts, len(session)))
    ended = rows["terminal"][order].astype(bool)[starts + lengths - 1]
    explored = rows["explored"][order].astype(bool)
    earlier = np.cumsum(explored) - explored
    kept = order[explored]
    return ExploredReturns(
        observations=rows["observation"][kept],
        offsets=rows["action"][kept] - rows["baseline_action"][kept],
        lower=rows["lower"][kept],
        upper=rows["upper"][kept],
        returns=discounted_returns(rows["reward"][order], starts, gamma)[explored],
        steps=(earlier - np.repeat(earlier[starts], lengths))[explored],
        sessions=session[explored],
        segments=rows["segment"][kept],
        cut=np.repeat(~ended, lengths)[explored],
        gamma=gamma,
    )
