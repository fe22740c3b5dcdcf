"""What a coverage certificate must know of an explored log: counts, gathered in one pass over its rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.spec import BoundsPlan, Refusal, Spec

CELLS = 20
"""Cells a dimension's box is cut into; as many again are counted on either side of the box."""
PAIR_CELLS = 5
TOLERANCE = 2.0**-22
"""Actions are float32 in [-1, 1]: the offset between two of them is known to this much."""
MOVED = 1e-6
CHUNK = 65_536
_HASH = np.uint64(0x9E3779B97F4A7C15)

Arrays = Callable[[str, Sequence[Any]], dict[str, np.ndarray]]
"""Runs SQL with parameters on a dataset and returns its columns; list columns are float32 [n, width]."""
Parts = Callable[[str, Sequence[Any], int], Iterator[dict[str, np.ndarray]]]
"""The same, at most so many rows at a time."""


@dataclass(frozen=True)
class LoggedActions:
    """Some rows of an explored log; offsets from the baseline action are float32."""

    baseline_actions: NDArray[np.float32]  # [n, d]
    actions: NDArray[np.float32]  # [n, d]
    lower: NDArray[np.float32]  # [n, d]
    upper: NDArray[np.float32]  # [n, d]
    segments: NDArray[Any]  # [n]
    explored: NDArray[np.bool_]  # [n], False for control users, who have no density
    clipped: NDArray[np.int32]  # [n]
    action_keys: NDArray[np.uint64]  # [n], a hash of the action
    user_keys: NDArray[np.uint64]  # [n], a hash of the user


class CoverageCounts(Spec):
    """The counts of an explored log, a few thousand numbers for any number of rows.

    One entry a dimension unless said otherwise. A position is (offset - lower) / (upper - lower), 0 and 1 at
    the walls; a row counts in the dimensions in which its box has a width.
    """

    n_requests: int
    n_control: int
    control_moved: int = Field(description="control rows that are not at the baseline action")
    n_duplicates: int = Field(description="rows whose action another row has; the user's rows in 1 dimension")
    n_clipped: int = Field(description="rows that the log counts as clipped")
    on_wall: tuple[int, ...] = Field(description="rows exactly at a wall or at -1 or 1")
    at_ends: tuple[int, ...] = Field(description="rows at the dimension's lowest or highest offset")
    undeclared: tuple[int, ...] | None = Field(description="rows whose bounds are not the declared plan's")
    spread: tuple[float, ...] = Field(description="range of the offsets or of the actions, the smaller")
    first: tuple[float, ...] = Field(description="lowest position")
    last: tuple[float, ...] = Field(description="highest position")
    histogram: tuple[tuple[int, ...], ...] = Field(description="rows in the 3 * CELLS cells of [-1, 2)")
    quantiles: bool = Field(default=False, description="positions are quantiles of a mixture, not of the box")
    pairs: tuple[tuple[int, ...], ...] = Field(description="rows in cell (i, a) and (j, b), [5 d, 5 d]")

    @property
    def n_explored(self) -> int:
        return self.n_requests - self.n_control

    @property
    def cells(self) -> NDArray[np.int64]:
        """Returns the histogram as an array [d, 3 CELLS]; the outermost cells hold all that lies beyond."""
        return np.asarray(self.histogram, np.int64)

    @property
    def pair_cells(self) -> NDArray[np.int64]:
        """Returns the counts of every two dimensions as an array [d, d, 5, 5]."""
        d = len(self.on_wall)
        return np.asarray(self.pairs, np.int64).reshape(d, PAIR_CELLS, d, PAIR_CELLS).swapaxes(1, 2)


def read_logged_actions(parts: Parts, chunk: int = CHUNK) -> Iterator[LoggedActions]:
    """Yields the rows of a dataset's `requests`, a chunk at a time in stored order."""
    told = (
        "SELECT baseline_action AS baseline_actions, action AS actions, lower, upper, "
        "segment AS segments, pscore IS NOT NULL AS explored, coalesce(clipped, 0) AS clipped, "
        "hash(action) AS action_keys, hash(user_id) AS user_keys FROM requests WHERE NOT isnan(action[1])"
    )
    for columns in parts(told, [], chunk):
        yield LoggedActions(**columns)


def count_coverage(
    rows: Iterable[LoggedActions], plan: BoundsPlan | None, mixture: Mixture | None = None
) -> CoverageCounts:
    """Returns the counts of `rows`, compared with the declared `plan` where there is one.

    Of a log that declares a `mixture`, positions are its quantiles instead of places in the box: even and
    independent where the log was drawn from it.

    Time is linear in rows and dimensions, memory that of one chunk and 8 bytes a row. A log without explored
    rows is refused.
    """
    tally: _Tally | None = None
    for part in rows:
        tally = tally or _Tally(part.actions.shape[1], plan, mixture)
        tally.add(part)
    if tally is None or tally.n_control == tally.n_requests:
        raise Refusal(
            "coverage: no row of this dataset was explored (pscore is empty throughout); "
            "collect one with --explore uniform, or import it with pscore or, if its actions were drawn so, with "
            "exploration: uniform in the mapping"
        )
    return tally.counts()


class _Tally:
    """Running counts over chunks of rows."""

    def __init__(self, n_actions: int, plan: BoundsPlan | None, mixture: Mixture | None) -> None:
        self.plan, self.mixture = plan, mixture
        self.n_requests = self.n_control = self.control_moved = self.n_clipped = 0
        self.keys: list[NDArray[np.uint64]] = []
        self.on_wall, self.undeclared = np.zeros((2, n_actions), np.int64)
        self.at_ends = np.zeros((2, n_actions), np.int64)
        self.low = np.full((3, n_actions), np.inf)  # of offset, action and position
        self.high = -self.low
        self.histogram = np.zeros((n_actions, 3 * CELLS), np.int64)
        self.pairs = np.zeros((n_actions * PAIR_CELLS,) * 2, np.int64)

    def add(self, rows: LoggedActions) -> None:
        self.n_requests += len(rows.actions)
        if self.plan is not None:
            self._compare_bounds(rows, self.plan)
        offsets = rows.actions - rows.baseline_actions
        self.n_control += int((~rows.explored).sum())
        self.control_moved += int((np.abs(offsets[~rows.explored]) > MOVED).any(axis=1).sum())
        self.n_clipped += int((rows.clipped[rows.explored] > 0).sum())
        if rows.explored.any():
            lower, upper = rows.lower[rows.explored], rows.upper[rows.explored]
            free = upper > lower
            self._add_keys(rows, free)
            drawn: NDArray[np.floating] = offsets[rows.explored]
            if self.mixture is not None:
                drawn = self.mixture.quantiles(rows.baseline_actions[rows.explored], drawn, free)
                lower, upper = np.zeros(free.shape, np.float32), free.astype(np.float32)
            self._add_offsets(drawn, rows.actions[rows.explored], lower, upper, free)

    def _compare_bounds(self, rows: LoggedActions, plan: BoundsPlan) -> None:
        declared = plan.resolve(rows.baseline_actions, rows.segments)
        differ = [np.abs(a - b) > MOVED for a, b in zip(declared, (rows.lower, rows.upper), strict=True)]
        self.undeclared += (differ[0] | differ[1]).sum(axis=0)

    def _add_keys(self, rows: LoggedActions, free: NDArray[np.bool_]) -> None:
        """Two free dimensions of float32 hardly ever meet by chance; one does, so the user joins it."""
        user = np.where(free.sum(axis=1) > 1, np.uint64(0), rows.user_keys[rows.explored])
        self.keys.append(rows.action_keys[rows.explored] ^ (user * _HASH))

    def _add_offsets(
        self, offsets: NDArray, actions: NDArray, lower: NDArray, upper: NDArray, free: NDArray[np.bool_]
    ) -> None:
        self._count_ends(np.where(free, offsets, np.nan))
        at_wall = np.minimum(np.abs(offsets - lower), np.abs(offsets - upper)) <= TOLERANCE
        self.on_wall += ((at_wall | (np.abs(actions) >= 1 - TOLERANCE)) & free).sum(axis=0)
        position = (offsets - lower) / np.where(free, upper - lower, 1)
        for i, values in enumerate((offsets, actions, position)):
            self.low[i] = np.minimum(self.low[i], np.where(free, values, np.inf).min(axis=0))
            self.high[i] = np.maximum(self.high[i], np.where(free, values, -np.inf).max(axis=0))
        inside = (offsets >= lower - TOLERANCE) & (offsets <= upper + TOLERANCE)
        cell = np.clip(np.floor(position * CELLS), -CELLS, 2 * CELLS - 1).astype(np.int16)
        within = cell.clip(0, CELLS - 1)
        self._count(np.where(inside, within, cell) + CELLS, within // (CELLS // PAIR_CELLS), free)

    def _count_ends(self, offsets: NDArray) -> None:
        """Counts the rows at either end of the offsets [n, d] so far; a farther end starts anew."""
        for side, signed in enumerate((offsets, -offsets)):
            seen = self.low[0] if side == 0 else -self.high[0]
            end = np.fmin.reduce(signed, axis=0, initial=np.inf)
            rows = (signed <= np.minimum(end, seen) + TOLERANCE).sum(axis=0)
            self.at_ends[side] = np.where(end < seen - TOLERANCE, rows, self.at_ends[side] + rows)

    def _count(self, cell: NDArray, pair_cell: NDArray, free: NDArray[np.bool_]) -> None:
        first = np.arange(len(self.histogram)) * (3 * CELLS)
        flat = np.bincount((cell + first)[free], minlength=self.histogram.size)
        self.histogram += flat.reshape(self.histogram.shape)
        one_hot = (pair_cell[:, :, None] == np.arange(PAIR_CELLS)) & free[:, :, None]
        rows = one_hot.reshape(len(cell), -1).astype(np.float32)  # exact below 2^24 rows a chunk
        self.pairs += (rows.T @ rows).astype(np.int64)

    def counts(self) -> CoverageCounts:
        keys = np.sort(np.concatenate(self.keys))
        spread = np.where(np.isinf(self.low[0]), 0, self.high[:2] - self.low[:2]).min(axis=0)
        return CoverageCounts(
            n_requests=self.n_requests,
            n_control=self.n_control,
            control_moved=self.control_moved,
            n_duplicates=int((keys[1:] == keys[:-1]).sum()),
            n_clipped=self.n_clipped,
            on_wall=tuple(self.on_wall.tolist()),
            at_ends=tuple(self.at_ends.sum(axis=0).tolist()),
            undeclared=None if self.plan is None else tuple(self.undeclared.tolist()),
            spread=tuple(spread.tolist()),
            first=tuple(np.nan_to_num(self.low[2], posinf=0).tolist()),
            last=tuple(np.nan_to_num(self.high[2], neginf=1).tolist()),
            histogram=tuple(map(tuple, self.histogram.tolist())),
            quantiles=self.mixture is not None,
            pairs=tuple(map(tuple, self.pairs.tolist())),
        )
