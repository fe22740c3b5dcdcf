"""Bounds from drift: where a policy's actions lie relative to the baseline's, and the box that holds them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.spec import BoundsPlan, Box, Refusal, Spec

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MIN_ROWS = 100
DECIMALS = 4
"""Edges are rounded outwards to these: actions are float32 and people read the plan."""


class DriftRow(Spec):
    """The drift of one dimension in one segment."""

    segment: str | None = Field(description="None: the rows of every segment")
    dimension: str
    n_rows: int
    mean: float
    mean_absolute: float
    quantiles: dict[str, float] = Field(description="by level, as text")


class HoldingBox(Spec):
    """The box that holds a share of a segment's drift, and how well its edges are known."""

    segment: str | None = Field(description="None: the rows of every segment")
    n_rows: int
    n_users: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    lower_interval: tuple[tuple[float, float], ...] = Field(
        description="95 % of each edge over users, or empty"
    )
    upper_interval: tuple[tuple[float, float], ...]
    level: float = Field(description="share of the rows that each dimension's interval holds by itself")
    held: float = Field(description="share of the rows that the box holds")


class DriftBounds(Spec):
    """A bounds plan drawn around a policy's drift."""

    share: float
    plan: BoundsPlan
    boxes: tuple[HoldingBox, ...] = Field(description="all rows first, then each segment with an override")
    left_out: dict[str, int] = Field(description="rows of the segments too small for a box of their own")


def drift_quantiles(
    new_actions: NDArray, baseline_actions: NDArray, segments: NDArray, names: Sequence[str]
) -> tuple[DriftRow, ...]:
    """Returns the distribution of new minus baseline actions [n, d] by segment and dimension."""
    drift = drift_of(new_actions, baseline_actions)
    parts = {None: drift} | {s: drift[segments == s] for s in segment_sizes(segments)}
    return tuple(
        DriftRow(
            segment=segment,
            dimension=name,
            n_rows=len(part),
            mean=float(values.mean()),
            mean_absolute=float(np.abs(values).mean()),
            quantiles={f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES},
        )
        for segment, part in parts.items()
        for name, values in zip(names, part.T, strict=True)
    )


def bounds_from_drift(
    new_actions: NDArray,
    baseline_actions: NDArray,
    segments: NDArray,
    users: NDArray,
    generator: np.random.Generator,
    *,
    share: float = 0.95,
    by_segment: bool = False,
    include_baseline: bool = False,
    n_bootstrap: int = 200,
) -> DriftBounds:
    """Returns the plan whose box holds `share` of the drift new - baseline [n, d] in all dimensions at once.

    The box is the product of each dimension's shortest interval that holds a common share of the rows, its
    `level`; the level is the smallest at which `share` of the rows lie in every interval. A level common to
    all dimensions cuts equally much of each; no cheaper rule is exact, and the smallest box of all is a hard
    combinatorial problem. Edges are rounded outwards to 4 decimals. With `include_baseline` the box is
    widened to contain offset 0. With `by_segment` every segment of at least 100 rows gets a box of its own.
    The intervals are percentiles over `n_bootstrap` resamples of the users [n] (0: no intervals).
    """
    if not 0 < share <= 1:
        raise Refusal(f"bounds from drift: a share of {share:g} is none; give a number above 0 and at most 1")
    drift, people = drift_of(new_actions, baseline_actions), pd.factorize(np.asarray(users))[0]
    sizes = segment_sizes(segments)
    parts: dict[str | None, Any] = {None: slice(None)}
    if by_segment:
        parts |= {s: np.asarray(segments) == s for s, n in sizes.items() if n >= MIN_ROWS}
    boxes = [
        _holding_box(segment, drift[rows], people[rows], share, include_baseline, n_bootstrap, generator)
        for segment, rows in parts.items()
    ]
    overrides = {str(b.segment): Box(lower=b.lower, upper=b.upper) for b in boxes[1:]}
    return DriftBounds(
        share=share,
        plan=BoundsPlan(lower=boxes[0].lower, upper=boxes[0].upper, segments=overrides),
        boxes=tuple(boxes),
        left_out={s: n for s, n in sizes.items() if by_segment and n < MIN_ROWS},
    )


def segment_sizes(segments: NDArray) -> dict[str, int]:
    """Returns how many rows each segment has, by name; rows without a segment count in none."""
    return {str(s): int(n) for s, n in pd.Series(segments).value_counts().sort_index().items()}


def drift_of(new_actions: NDArray, baseline_actions: NDArray) -> NDArray[np.float64]:
    """Returns new minus baseline actions [n, d], float64; no rows and missing actions are refused."""
    drift = np.asarray(new_actions, np.float64) - baseline_actions
    if not len(drift):
        raise Refusal("drift: there are no rows; choose a dataset with requests to act on")
    if not np.isfinite(drift).all():
        raise Refusal("drift: an action is not a number; the log has rows without a baseline action")
    return drift


def _holding_box(
    segment: str | None,
    drift: NDArray[np.float64],
    people: NDArray[np.int64],
    share: float,
    include_baseline: bool,
    n_bootstrap: int,
    generator: np.random.Generator,
) -> HoldingBox:
    columns = np.ascontiguousarray(drift.T)  # [d, n]
    order = np.argsort(columns, axis=1)
    once = np.ones(len(drift), np.int64)
    edges, level = _shortest_edges(columns, order, once, share)
    low, high = np.floor(edges[0] * 10**DECIMALS), np.ceil(edges[1] * 10**DECIMALS)
    lower, upper = low / 10**DECIMALS, high / 10**DECIMALS
    if include_baseline:
        lower, upper = np.minimum(lower, 0), np.maximum(upper, 0)
    _, person = np.unique(people, return_inverse=True)
    n_users = int(person.max()) + 1
    draws = generator.multinomial(n_users, np.full(n_users, 1 / n_users), n_bootstrap)
    resampled = [_shortest_edges(columns, order, times[person], share)[0] for times in draws]
    intervals = np.quantile(resampled, (0.025, 0.975), axis=0) if resampled else np.empty((0, 2, 0))
    return HoldingBox(
        segment=segment,
        n_rows=len(drift),
        n_users=n_users,
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        lower_interval=tuple(map(tuple, intervals[:, 0].T.tolist())) if resampled else (),
        upper_interval=tuple(map(tuple, intervals[:, 1].T.tolist())) if resampled else (),
        level=level,
        held=float(((drift >= lower) & (drift <= upper)).all(axis=1).mean()),
    )


def _shortest_edges(
    columns: NDArray[np.float64], order: NDArray[np.int64], times: NDArray[np.int64], share: float
) -> tuple[NDArray[np.float64], float]:
    """Returns lower and upper edges [2, d] and the level; row j of `columns` [d, n] counts `times[j]`."""
    ordered = np.stack([np.repeat(x[by], times[by]) for x, by in zip(columns, order, strict=True)])
    n = ordered.shape[1]
    too_few, enough = math.ceil(share * n) - 1, n
    edges = ordered[:, [0, -1]].T
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        candidate = _shortest_intervals(ordered, count)
        inside = ((columns >= candidate[0, :, None]) & (columns <= candidate[1, :, None])).all(axis=0)
        if times[inside].sum() >= share * n:
            enough, edges = count, candidate
        else:
            too_few = count
    return edges, enough / n


def _shortest_intervals(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Returns the edges [2, d] of the shortest intervals that hold `count` of `ordered` [d, n]."""
    last = ordered.shape[1] - count
    start = (ordered[:, count - 1 :] - ordered[:, : last + 1]).argmin(axis=1)
    rows = np.arange(len(ordered))
    return np.stack([ordered[rows, start], ordered[rows, start + count - 1]])
