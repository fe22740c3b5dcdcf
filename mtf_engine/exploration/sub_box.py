"""Sub-box replay: what a narrower plan would have taught, by the rows of a uniform log that lie inside its box.

Given that a uniform action lies inside a smaller box, it is uniform there: the density is exact, 1 / the box's volume.
The rewards after a request are still those of actions anywhere in the log's own box.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.explored_returns import ExploredLog, ExploredReturns
from mtf_engine.exploration.signal import Signal, signal, too_few
from mtf_engine.spec import BoundsPlan, Box, Refusal, Spec

R = TypeVar("R")

ROUNDING = 1e-6
"""An offset is the difference of two float32 numbers: it may lie so far beyond the box that it was drawn in."""


class SubBox(Spec):
    """The explored training rows of a log, and those inside a narrower plan's boxes."""

    requests: int
    kept: int
    expected: float = Field(
        description="rows that uniform exploration puts inside: the boxes' share of the volume"
    )
    whole: Signal
    inside: Signal | None = Field(description="of the rows kept; None where they are too few to tell")
    untold: str = Field(default="", description="why they are too few")

    @property
    def sentence(self) -> str:
        """What the narrower plan would have taught."""
        kept = f"{self.kept:,} of {self.requests:,} rows lie inside ({self.kept / self.requests:.1%})"
        if self.inside is None:
            return f"{kept}; {self.untold}"
        return (
            f"{kept}; chi2 {self.inside.chi2:.1f} with {self.inside.df} degrees of freedom is left of "
            f"{self.whole.chi2:.1f} with {self.whole.df}. {self.inside.sentence}"
        )


def narrower(plan: BoundsPlan, logged: BoundsPlan) -> BoundsPlan:
    """Returns the plan of what both plans hold, a box for each segment of either; refused where that is nothing."""
    boxes = {
        segment: _meet(plan.segments.get(segment, plan), logged.segments.get(segment, logged), segment)
        for segment in {**logged.segments, **plan.segments}
    }
    return BoundsPlan(**_meet(plan, logged, None).model_dump(), segments=boxes, edge=logged.edge)


def _meet(box: Box, other: Box, segment: str | None) -> Box:
    lower, upper = np.maximum(box.lower, other.lower), np.minimum(box.upper, other.upper)
    if (lower > upper).any():
        i = int((lower > upper).argmax())
        of = f" of {segment}" if segment else ""
        raise Refusal(
            f"sub-box: dimension {i}{of} of the plan and of the log have nothing in common; name a narrower plan"
        )
    return Box(lower=tuple(lower.tolist()), upper=tuple(upper.tolist()))


def inside(
    offsets: NDArray[np.float32],
    lower: NDArray[np.float32],
    upper: NDArray[np.float32],
    segments: NDArray,
    plan: BoundsPlan,
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    """Returns which rows [n] of a log lie inside the plan, and the box [n, d] of each: the plan's within the log's.

    `lower` and `upper` are the boxes of the log, cut at the ends of the range as it cut them. Dimensions that the
    log explored must stay explored, or no row would lie inside. A row whose box has nothing in common with the plan's
    lies outside, with a width of 0.
    """
    boxes = plan.model_copy(update={"edge": "clip"})  # as it is: the log's box is cut already
    low, high = boxes.resolve(np.zeros_like(lower), segments)
    shut = ((high <= low) & (upper > lower)).any(axis=0)
    if shut.any():
        raise Refusal(
            f"sub-box: dimension {int(shut.argmax())} is explored in the log and has no width in the plan, so no row "
            "lies inside; give it some"
        )
    low, high = np.maximum(low, lower), np.minimum(high, upper)
    apart = (low > high + ROUNDING).any(axis=1)
    high = np.maximum(low, high)
    kept = ~apart & ((offsets >= low - ROUNDING) & (offsets <= high + ROUNDING)).all(axis=1)
    return kept, low, high


def density(lower: NDArray[np.float32], upper: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the density [n] of uniform draws in boxes [n, d]; a dimension of width 0 is fixed and does not count."""
    width = (upper - lower).astype(np.float64)
    return 1 / np.where(width > 0, width, 1).prod(axis=1)


@dataclass(frozen=True)
class _Inside:
    """The requests of a log that lie inside a plan."""

    log: ExploredLog
    plan: BoundsPlan

    @property
    def gamma(self) -> float:
        return self.log.gamma

    def each(self, work: Callable[[ExploredReturns], R], /) -> Iterable[R]:
        """Returns what `work` makes of each part."""
        return self.log.each(partial(_of_inside, self.plan, work))


def _of_inside(plan: BoundsPlan, work: Callable[[ExploredReturns], R], part: ExploredReturns) -> R:
    kept, lower, upper = inside(part.offsets, part.lower, part.upper, part.segments, plan)
    return work(replace(part, lower=lower, upper=upper).among(kept))


def _counted(plan: BoundsPlan, part: ExploredReturns) -> NDArray[np.float64]:
    """Returns how many rows lie inside, and how many uniform exploration puts there, [2]."""
    kept, lower, upper = inside(part.offsets, part.lower, part.upper, part.segments, plan)
    width = (part.upper - part.lower).astype(np.float64)
    share = np.divide(upper - lower, width, where=width > 0, out=np.ones_like(width)).prod(axis=1)
    return np.array([kept.sum(), share.sum()])


def sub_box(log: ExploredLog, whole: Signal, names: tuple[str, ...], plan: BoundsPlan) -> SubBox:
    """Returns what the rows of a uniform log inside `plan` tell of the return, beside the signal of the `whole`."""
    kept, expected = sum(log.each(partial(_counted, plan)), np.zeros(2)).tolist()
    found, untold = None, ""
    try:
        if not kept:
            raise too_few(0, len(names))
        found = signal(_Inside(log, plan), names)
    except Refusal as refusal:
        untold = str(refusal)
    return SubBox(
        requests=whole.requests,
        kept=int(kept),
        expected=expected,
        whole=whole,
        inside=found,
        untold=untold,
    )
