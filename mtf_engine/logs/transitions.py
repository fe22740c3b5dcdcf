"""Transitions: the steps of a log for training, as rows of a memory map beside their dataset.

A row is one request. The rows of a session follow each other in step order, so the state after a step is the next
row: nothing is held twice, and memory is that of what is asked for, a batch or a block. What has been read stays
in the page cache, which the machine takes back when it needs the room.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mtf_engine.logs.schema import Columns, DatasetMeta
from mtf_engine.observation import item_names
from mtf_engine.reward import discounted_returns
from mtf_engine.spec import FusionSpec, Spec

BLOCK = 65_536
"""Rows that are looked at together. A mean over a log of no more is that of one array, to the bit."""
VALUES = ("observation", "action", "baseline_action", "lower", "upper", "reward")
"""Columns of the requests that are numbers, in the order of a row."""
READ = ("session_id", "terminal", *VALUES)

ROWS, STEPS, HEAD = "rows", "steps", "head.json"
"""The files of a folder: rows, the numbers of those that are steps, and how to read them."""
AS_READ = "as-read"
"""The file that rows wait in until they are put into order."""


class Layout(Spec):
    """How many numbers each column has, and which of all of them are `halves`.

    In no row has such a number a bit in its lower half: counts up to 256 and flags are so. The upper half is kept.
    """

    widths: dict[str, int]
    halves: tuple[bool, ...]

    @classmethod
    def of(cls, parts: Iterable[Columns]) -> Self:
        """Returns the smallest exact layout of the rows in `parts`, of which there is one at least."""
        exact = [(name, np.ones(1, bool)) for name in VALUES]
        for part in parts:
            exact = [(name, both & _fits_half(_matrix(part[name]))) for name, both in exact]
        return cls(
            widths={name: len(fits) for name, fits in exact},
            halves=tuple(np.concatenate([fits for _, fits in exact]).tolist()),
        )

    @cached_property
    def row(self) -> np.dtype[np.void]:
        """The type of a row."""
        n_halves = sum(self.halves)
        full, half = ("<f4", (len(self.halves) - n_halves,)), ("<u2", (n_halves,))
        fields = [("session", "<i8"), ("full", *full), ("half", *half), ("terminal", "?")]
        return np.dtype(fields, align=True)

    @cached_property
    def places(self) -> dict[str, tuple[NDArray[np.bool_], slice, slice]]:
        """Which numbers of a column are halves, and where its full ones and its halves lie in a row."""
        edges = [*accumulate(self.widths.values(), initial=0)]
        places = {}
        for name, low, high in zip(self.widths, edges, edges[1:], strict=False):
            before, own = sum(self.halves[:low]), np.array(self.halves[low:high])
            full = slice(low - before, high - before - int(own.sum()))
            places[name] = own, full, slice(before, before + int(own.sum()))
        return places

    def pack(self, columns: Columns) -> NDArray[np.void]:
        """Returns the requests in `columns` as rows."""
        rows = np.zeros(len(columns["session_id"]), self.row)
        rows["session"], rows["terminal"] = columns["session_id"], columns["terminal"].astype(bool)
        for name, (halves, full, half) in self.places.items():
            values = _matrix(columns[name])
            rows["full"][:, full] = values.take(np.flatnonzero(~halves), axis=1)
            rows["half"][:, half] = _upper(values.take(np.flatnonzero(halves), axis=1))
        return rows

    def values(self, rows: NDArray[np.void], name: str) -> NDArray[np.float32]:
        """Returns a column of `rows` as it was packed, [n, width]."""
        halves, full, half = self.places[name]
        if not halves.any():
            return np.ascontiguousarray(rows["full"][:, full])
        values = np.empty((len(rows), len(halves)), np.float32)
        values[:, ~halves] = rows["full"][:, full]
        values[:, halves] = (rows["half"][:, half].astype(np.uint32) << 16).view(np.float32)
        return values


class Requests:
    """n requests of a log, each column read when it is asked for; float32 unless said otherwise.

    `lower` and `upper` are offsets from the baseline action. Rewards are unscaled.
    """

    def __init__(self, rows: NDArray[np.void], layout: Layout) -> None:
        self._rows, self._layout = rows, layout

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def observations(self) -> NDArray[np.float32]:  # [n, f]
        return self._layout.values(self._rows, "observation")

    @property
    def actions(self) -> NDArray[np.float32]:  # [n, d]
        return self._layout.values(self._rows, "action")

    @property
    def baseline_actions(self) -> NDArray[np.float32]:  # [n, d]
        return self._layout.values(self._rows, "baseline_action")

    @property
    def lower(self) -> NDArray[np.float32]:  # [n, d]
        return self._layout.values(self._rows, "lower")

    @property
    def upper(self) -> NDArray[np.float32]:  # [n, d]
        return self._layout.values(self._rows, "upper")

    @property
    def rewards(self) -> NDArray[np.float32]:  # [n]
        return self._layout.values(self._rows, "reward")[:, 0]

    @property
    def terminals(self) -> NDArray[np.bool_]:  # [n]
        return np.ascontiguousarray(self._rows["terminal"])

    @property
    def sessions(self) -> NDArray[np.int64]:  # [n]
        return np.ascontiguousarray(self._rows["session"])


class Transitions:
    """The steps of logged sessions whose successor or end is known, by session and step.

    `rows` are requests as of `layout`, `steps` the numbers of those that are steps; both may be memory maps.
    """

    def __init__(
        self,
        rows: NDArray[np.void],
        steps: NDArray[np.int64],
        layout: Layout,
        fusion: FusionSpec,
        feature_names: tuple[str, ...],
        numeric_mask: tuple[bool, ...],
        n_left_out: int = 0,
        n_profile: int | None = None,
        item_names: tuple[str, ...] = (),
        typical: tuple[float, ...] = (),
        watch_rewards: Callable[[], NDArray[np.float32]] | None = None,
    ) -> None:
        self._rows, self._steps, self._layout, self._watched = rows, steps, layout, watch_rewards
        self.fusion, self.feature_names, self.numeric_mask = fusion, feature_names, numeric_mask
        self.n_left_out = n_left_out
        self.n_profile = n_profile  # features of the user's profile, the first ones; None: none are marked
        self.item_names = item_names  # the last of the features, where a step is an impression; else none
        self.typical = typical  # the geometric means of the predictions, where a step is an impression

    @classmethod
    def open(
        cls,
        folder: Path,
        meta: DatasetMeta,
        by_item: bool = False,
        watch_rewards: Callable[[], NDArray[np.float32]] | None = None,
    ) -> Self:
        """Returns what `write` wrote to `folder`; with `by_item` the steps are impressions.

        `watch_rewards` reads what watch time is of its rows' rewards.
        """
        head = _Head.model_validate_json((folder / HEAD).read_bytes())
        items = item_names(meta.item_features, meta.fusion.predictions) if by_item else ()
        numeric = (meta.item_mask or (True,) * len(items)) if by_item else ()
        return cls(
            _mapped(folder / ROWS, head.layout.row),
            _mapped(folder / STEPS, np.dtype(np.int64)),
            head.layout,
            meta.fusion,
            (*meta.feature_names, *items),
            (*meta.numeric_mask, *numeric),
            head.n_left_out,
            len(meta.encoder.profile_names) if meta.encoder else None,
            items,
            head.typical,
            watch_rewards,
        )

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def observed_names(self) -> tuple[str, ...]:
        """The features of an observation: all but those of an item."""
        return self.feature_names[: len(self.feature_names) - len(self.item_names)]

    @overload
    def __getitem__(self, which: slice) -> Requests: ...
    @overload
    def __getitem__(self, which: NDArray[np.int64]) -> Requests: ...
    def __getitem__(self, which: slice | NDArray[np.int64]) -> Requests:
        """Returns some of the steps; what was asked for is all that is held in memory."""
        return Requests(self._rows.take(self._steps[which]), self._layout)

    def after(self, which: slice | NDArray[np.int64]) -> Requests:
        """Returns the requests that follow some of the steps; all zeros after a terminal one."""
        here = self._steps[which]
        ends = self._rows.take(here)["terminal"]
        rows = self._rows.take(np.where(ends, here, here + 1))
        rows[ends] = np.zeros((), rows.dtype)
        return Requests(rows, self._layout)

    def blocks(self, which: NDArray[np.int64] | None = None) -> Iterator[Requests]:
        """Yields all steps, or those of `which`, in order and so many at once that memory is bounded."""
        for first in range(0, len(self if which is None else which), BLOCK):
            block = slice(first, first + BLOCK)
            yield self[block if which is None else which[block]]

    def mean(self, of: Callable[[Requests], Any], dtype: DTypeLike | None = None) -> NDArray[np.float64]:
        """Returns the mean over all steps of what `of` makes of a block, arrays or tensors [n, ...].

        Blocks are summed in `dtype`, by default their own.
        """
        sums = (of(block).sum(0, dtype=dtype) for block in self.blocks())
        return np.asarray(sum(np.asarray(part, np.float64) for part in sums) / len(self))

    @cached_property
    def watch_rewards(self) -> NDArray[np.float32] | None:
        """What watch time is of the reward of every step, [n]; None of a log whose rewards are not of it and others."""
        return self._watched()[self._steps] if self._watched else None

    def ahead(
        self, n: int, gamma: float, rewards: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Returns the discounted sum of n rewards from every step on, and by how many steps the last is later.

        They are fewer at the end of a session, and before a request that is no step. `rewards` [n] are a part of
        the steps' own, which are all of it.
        """
        found = [(block.rewards, block.terminals) for block in self.blocks()]
        if rewards is None:
            rewards = np.concatenate([np.empty(0, np.float32), *(of for of, _ in found)])
        follows = ~np.concatenate([np.empty(0, bool), *(ends for _, ends in found)])[:-1]
        follows &= np.diff(self._steps) == 1
        sums, later, on = rewards.copy(), np.zeros(len(rewards), np.uint8), np.ones(len(rewards), bool)
        for k in range(1, n):
            on = on[: len(rewards) - k] & follows[k - 1 :]
            sums[: len(on)] += np.where(on, np.float32(gamma**k) * rewards[k:], 0)
            later[: len(on)] += on
        return sums, later

    @property
    def session_starts(self) -> NDArray[np.int64]:
        """The first step of each session, [s]."""
        found, before = [], None
        for i, block in enumerate(self.blocks()):
            sessions = block.sessions
            starts = np.flatnonzero(np.diff(sessions, prepend=sessions[0] - 1 if before is None else before))
            found.append(i * BLOCK + starts)
            before = sessions[-1]
        return np.concatenate([np.empty(0, np.int64), *found])

    def returns(self, gamma: float) -> NDArray[np.float64]:
        """Returns the discounted return of every step to the end of its session, [n]."""
        return np.concatenate([np.empty(0), *[*self.returns_backwards(gamma)][::-1]])

    def returns_backwards(self, gamma: float) -> Iterator[NDArray[np.float64]]:
        """Yields the discounted returns in blocks, the last one first: each block goes on from the one after it."""
        later, session = 0.0, None
        for first in reversed(range(0, len(self), BLOCK)):
            block = self[first : first + BLOCK]
            sessions, rewards = block.sessions, block.rewards.astype(np.float64)
            if sessions[-1] == session:
                rewards[-1] += gamma * later
            starts = np.flatnonzero(np.diff(sessions, prepend=sessions[0] - 1))
            returns = discounted_returns(rewards, starts, gamma)
            later, session = returns[0], sessions[0]
            yield returns


def known_steps(rows: NDArray[np.void], layout: Layout) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yields the numbers of the rows whose successor or end is known, and how many are not; block by block.

    Rows are by session and step. Those without an action are neither.
    """
    for first in range(0, len(rows), BLOCK):
        seen = rows[first : first + BLOCK + 1]
        block = seen[:BLOCK]
        follows = np.append(seen["session"][1:] == seen["session"][:-1], False)[: len(block)]
        acted = ~np.isnan(layout.values(block, "action")[:, 0])
        known = (follows | block["terminal"]) & acted
        yield first + np.flatnonzero(known), int((acted & ~known).sum())


class _Head(Spec):
    layout: Layout
    n_left_out: int
    typical: tuple[float, ...] = ()


def write(
    folder: Path,
    read: Callable[[], Iterable[Columns]],
    order: Iterable[NDArray[np.int64]] | None = None,
    typical: tuple[float, ...] = (),
) -> None:
    """Writes the transitions of the requests in the parts that `read` returns, of which there is one, to `folder`.

    `order` has the numbers of the requests by session and step; None: so they come. `typical` are the predictions of
    a typical item, where a step is an impression. What the first part suggests of the layout is nearly always true of
    all, and the parts are read once; else twice.
    """
    path = folder / (ROWS if order is None else AS_READ)
    parts = iter(read())
    first = list(islice(parts, 1))
    layout = Layout.of(first)
    if layout != (exact := Layout.of(_packed(layout, chain(first, parts), path))):
        layout = exact
        deque(_packed(layout, read(), path), maxlen=0)
    if order is not None:
        rows = _mapped(path, layout.row)
        with (folder / ROWS).open("wb") as file:
            for some in order:
                file.write(rows.take(some).data)
        path.unlink()
    n_left_out = 0
    with (folder / STEPS).open("wb") as file:
        for steps, left_out in known_steps(_mapped(folder / ROWS, layout.row), layout):
            file.write(steps.data)
            n_left_out += left_out
    head = _Head(layout=layout, n_left_out=n_left_out, typical=typical)
    (folder / HEAD).write_bytes(head.model_dump_json().encode())


def _packed(layout: Layout, parts: Iterable[Columns], path: Path) -> Iterator[Columns]:
    """Yields the parts, and writes their rows to a file as the layout has them."""
    with path.open("wb") as file:
        for part in parts:
            file.write(layout.pack(part).data)
            yield part


def _mapped(path: Path, of: np.dtype[Any]) -> NDArray[Any]:
    """Returns the numbers in a file without reading them; a file may be deleted while it is mapped."""
    return np.asarray(np.memmap(path, of, "r")) if path.stat().st_size else np.empty(0, of)


def _matrix(values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the numbers of a column as float32 [n, width]."""
    numbers = values.astype(np.float32, copy=False)
    return numbers if numbers.ndim == 2 else numbers[:, None]


def _fits_half(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (np.bitwise_or.reduce(_bits(values), axis=0) & 0xFFFF) == 0


def _upper(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (_bits(values) >> 16).astype(np.uint16)


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)
