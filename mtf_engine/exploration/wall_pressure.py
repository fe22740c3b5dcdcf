"""Wall pressure: where learned actions sit at or beyond the bounds, and where the walls should go."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.drift import DECIMALS, MIN_ROWS, drift_of, segment_sizes
from mtf_engine.exploration.walls import AT_WALL
from mtf_engine.spec import BoundsPlan, Box, Spec

BEYOND = 1e-6
PRESSED = 0.1
STEP = 0.25
UNUSED = 0.5
MARGIN = 0.1
RULE = (
    f"A wall is pressed when {PRESSED:.0%} of the actions sit at it (within {AT_WALL:.0%} of the width) or "
    f"beyond. It moves out by {STEP:.0%} of the width, or by the distance within which 95 % of the pressing "
    "actions stay if that is more. Both walls pressed: widen. One pressed: shift, if the 1 % to 99 % range "
    "of the actions leaves that much room at the other wall, else widen. None pressed: narrow to that range "
    f"and {MARGIN:.0%} of the width on either side, if it leaves {UNUSED:.0%} of the width unused. Where "
    "most of the pressing actions lie at -1 or 1, the real range of the dimension ends, and no wall helps."
)

Proposal = Literal["keep", "widen", "shift", "narrow", "range"]


class WallRow(Spec):
    """One dimension in one segment; shares are of its rows, distances are in action units."""

    segment: str | None = Field(description="None: the segments without a box of their own")
    dimension: str
    n_rows: int
    lower: float
    upper: float
    below: float = Field(description="share below lower")
    at_lower: float
    at_upper: float
    above: float = Field(description="share above upper")
    distance_below: float = Field(description="mean distance beyond lower, of the rows below it")
    distance_above: float
    at_range_end: float = Field(description="share at -1 or 1, the end of the dimension's real range")
    proposal: Proposal
    new_lower: float
    new_upper: float
    reason: str


class WallPressure(Spec):
    """Every dimension's walls, and the plan with the proposed ones."""

    rows: tuple[WallRow, ...]
    plan: BoundsPlan
    rule: str = RULE


def wall_pressure(
    plan: BoundsPlan,
    new_actions: NDArray,
    baseline_actions: NDArray,
    segments: NDArray,
    names: Sequence[str],
    *,
    by_segment: bool = False,
) -> WallPressure:
    """Returns where actions [n, d] of a learned policy press against `plan`'s walls, and what to do (`RULE`).

    Shares are counted against the bounds of each row, cut at [-1, 1] where the plan cuts; proposals move the
    plan's own walls. Each box of the plan is judged on the rows it holds for; with `by_segment` every segment
    of at least 100 rows is, and gets a box of its own.
    """
    drift_of(new_actions, baseline_actions)
    own = set(plan.segments)
    parts: dict[str | None, NDArray] = {None: ~np.isin(segments, list(own))}
    own |= {s for s, n in segment_sizes(segments).items() if by_segment and n >= MIN_ROWS}
    parts |= {s: segments == s for s in sorted(own)}
    judged = {
        segment: _judge(plan, new_actions[rows], baseline_actions[rows], segments[rows])
        for segment, rows in parts.items()
        if rows.any()
    }
    boxes = {
        segment: Box(lower=tuple(j["new_lower"]), upper=tuple(j["new_upper"]))
        for segment, j in judged.items()
    }
    default = boxes.pop(None, Box(lower=plan.lower, upper=plan.upper))
    return WallPressure(
        rows=tuple(
            _row(segment, name, int(parts[segment].sum()), {k: v[i] for k, v in figures.items()})
            for segment, figures in judged.items()
            for i, name in enumerate(names)
        ),
        plan=BoundsPlan(
            lower=default.lower, upper=default.upper, segments={**plan.segments, **boxes}, edge=plan.edge
        ),
    )


def _judge(plan: BoundsPlan, new: NDArray, baseline: NDArray, segments: NDArray) -> dict[str, NDArray[Any]]:
    """Returns the figures [d] of rows that share one box of the plan."""
    box = plan.segments.get(str(segments[0]), plan)
    lower, upper = np.array(box.lower), np.array(box.upper)
    offsets, ends = drift_of(new, baseline), np.abs(new) >= 1 - BEYOND
    row_lower, row_upper = plan.resolve(baseline, segments)
    depth = np.stack([row_lower - offsets, offsets - row_upper])  # [2, n, d], above 0 beyond the wall
    beyond, near = depth > BEYOND, depth >= -AT_WALL * (row_upper - row_lower)
    pressing = near.any(axis=0)
    used = np.quantile(offsets, (0.01, 0.99), axis=0)
    room = np.maximum([used[0] - lower, upper - used[1]], 0)
    reach = np.stack([_quantile_where(d, n, 0.95) for d, n in zip(depth, near, strict=True)])
    step = np.maximum(reach, STEP * (upper - lower))
    pressed = near.mean(axis=1) >= PRESSED
    at_end = (pressing & ends).sum(axis=0) >= 0.5 * np.maximum(pressing.sum(axis=0), 1)
    proposal = _proposals(pressed, room, step, upper - lower, at_end)
    distance = np.where(beyond, depth, 0).sum(axis=1) / np.maximum(beyond.sum(axis=1), 1)
    new_lower, new_upper = _moved(proposal, lower, upper, pressed, step, used)
    return {
        "lower": lower,
        "upper": upper,
        "below": beyond[0].mean(axis=0),
        "at_lower": (near & ~beyond)[0].mean(axis=0),
        "at_upper": (near & ~beyond)[1].mean(axis=0),
        "above": beyond[1].mean(axis=0),
        "distance_below": distance[0],
        "distance_above": distance[1],
        "at_range_end": ends.mean(axis=0),
        "proposal": proposal,
        "new_lower": new_lower,
        "new_upper": new_upper,
    }


def _quantile_where(values: NDArray, chosen: NDArray, level: float) -> NDArray[np.float64]:
    """Returns the quantile over the chosen rows of each column, at least 0; 0 where none is chosen."""
    filled = np.where(chosen, values, np.nan)
    filled[:, ~chosen.any(axis=0)] = 0
    return np.maximum(np.nanquantile(filled, level, axis=0), 0)


def _proposals(
    pressed: NDArray, room: NDArray, step: NDArray, width: NDArray, at_end: NDArray
) -> NDArray[np.str_]:
    """Returns a proposal for each dimension; `pressed`, `room`, `step` are [2, d]: lower and upper wall."""
    both, one = pressed.all(axis=0), pressed.any(axis=0)
    room_opposite = np.where(pressed[0], room[1], room[0])
    step_pressed = np.where(pressed[0], step[0], step[1])
    return np.select(
        [
            width == 0,
            one & at_end,
            both,
            one & (room_opposite >= step_pressed),
            one,
            room.sum(axis=0) >= UNUSED * width,
        ],
        ["keep", "range", "widen", "shift", "widen", "narrow"],
        "keep",
    )


def _moved(
    proposal: NDArray, lower: NDArray, upper: NDArray, pressed: NDArray, step: NDArray, used: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the proposed walls [d], rounded outwards and kept inside [-2, 2]."""
    down, up = np.where(pressed, step, 0)
    margin = MARGIN * (upper - lower)
    new_lower = np.select(
        [proposal == "widen", proposal == "shift", proposal == "narrow"],
        [lower - down, lower - down + up, np.maximum(used[0] - margin, lower)],
        lower,
    )
    new_upper = np.select(
        [proposal == "widen", proposal == "shift", proposal == "narrow"],
        [upper + up, upper - down + up, np.minimum(used[1] + margin, upper)],
        upper,
    )
    scale = 10**DECIMALS
    return (
        np.clip(np.floor(new_lower * scale + 1e-6) / scale, -2, 2),
        np.clip(np.ceil(new_upper * scale - 1e-6) / scale, -2, 2),
    )


def _row(segment: str | None, name: str, n_rows: int, figures: dict[str, Any]) -> WallRow:
    return WallRow(
        segment=segment,
        dimension=name,
        n_rows=n_rows,
        reason=_reason(name, figures),
        proposal=str(figures["proposal"]),
        **{k: float(v) for k, v in figures.items() if k != "proposal"},
    )


def _reason(name: str, f: dict[str, Any]) -> str:
    low, high = f["below"] + f["at_lower"], f["above"] + f["at_upper"]
    to = f"[{f['new_lower']:g}, {f['new_upper']:g}]"
    match f["proposal"]:
        case "range":
            return f"{name}: {max(low, high):.0%} press where its real range ends; give it a wider range"
        case "widen":
            return f"{name}: {low:.0%} at or below lower, {high:.0%} at or above upper; widen to {to}"
        case "shift":
            side = "below lower" if low > high else "above upper"
            return f"{name}: {max(low, high):.0%} at or {side}, room at the other wall; shift to {to}"
        case "narrow":
            return f"{name}: 98 % of the actions leave half of the box or more unused; narrow to {to}"
    return f"{name}: keep"
