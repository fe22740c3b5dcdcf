"""What a bounds plan asks of the traffic: sessions and days until every cell of its boxes is sampled."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import gammainccinv

from mtf_engine.spec import BoundsPlan, Box, Refusal, Spec


class Traffic(Spec):
    """The users that a collection may reach."""

    sessions_per_day: float = Field(default=100_000, gt=0)
    requests_per_session: float = Field(default=5, gt=0)
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")


class CellDemand(Spec):
    """What it takes to sample each cell of every `together` dimensions of a box."""

    together: int = Field(description="dimensions crossed: 1, 2, or all of them")
    cells: float = Field(description="cells of one such grid; a float, since 5^20 is no int64")
    requests: float = Field(description="explored requests until a cell holds k on average")
    requests_sure: float = Field(description="until every cell of one grid holds k with the confidence")
    sessions: float = Field(description="sessions, control users included, for `requests_sure`")
    days: float


class BoxSize(Spec):
    """How large one box of the plan is, and what it asks of its segment's traffic."""

    segment: str | None = Field(description="None: the plan's default box")
    free_dimensions: int
    covered: tuple[float, ...] = Field(description="share of [-1, 1] that each dimension's box covers")
    log10_volume: float = Field(description="of the share of the action space covered, over free dimensions")
    demands: tuple[CellDemand, ...]


def plan_size(
    plan: BoundsPlan,
    traffic: Traffic,
    *,
    k: int = 10,
    cells: int = 5,
    confidence: float = 0.95,
    shares: Mapping[str, float] | None = None,
    baseline_action: NDArray | None = None,
) -> tuple[BoxSize, ...]:
    """Returns the size of each box of the plan, default first, and the traffic for `k` samples in each cell.

    A grid has `cells` cells in each of its dimensions; uniform draws fill them evenly, as Poisson counts, so
    all N cells hold k with the confidence c, or a little more, from a mean of
    `gammaincc^-1(k, 1 - c^(1/N))` on. `shares` is
    each segment's share of the sessions; the default box has what they leave, or all where none is given.
    The boxes are cut at [-1, 1] around `baseline_action` [d] (0 if None). A fixed dimension does not count.
    """
    if k < 1 or cells < 1 or not 0 < confidence < 1:
        raise Refusal("plan size: needs k and cells of at least 1 and a confidence between 0 and 1")
    shares = shares or {}
    unknown = sorted(set(shares) - set(plan.segments))
    if unknown or sum(shares.values()) > 1 or min(shares.values(), default=0) < 0:
        raise Refusal(
            "plan size: shares must name segments of the plan, be at least 0 and add up to at most 1"
            + (f"; the plan has no {unknown[0]}" if unknown else "")
        )
    action = np.zeros(plan.n_actions) if baseline_action is None else np.asarray(baseline_action, np.float64)
    boxes: dict[str | None, tuple[Box, float]] = {None: (plan, 1 - sum(shares.values()))}
    boxes |= {name: (box, shares.get(name, 1.0)) for name, box in plan.segments.items()}
    return tuple(
        _box_size(segment, box, share, action, traffic, k, cells, confidence)
        for segment, (box, share) in boxes.items()
    )


def _box_size(
    segment: str | None,
    box: Box,
    share: float,
    action: NDArray[np.float64],
    traffic: Traffic,
    k: int,
    cells: int,
    confidence: float,
) -> BoxSize:
    low, high = (np.clip(action + np.array(edge), -1, 1) for edge in (box.lower, box.upper))
    covered = (high - low) / 2
    free = int((covered > 0).sum())
    return BoxSize(
        segment=segment,
        free_dimensions=free,
        covered=tuple(covered.tolist()),
        log10_volume=float(np.log10(covered[covered > 0]).sum()),
        demands=tuple(
            _demand(together, k, cells, confidence, traffic, share)
            for together in sorted({1, 2, free})
            if 0 < together <= free and share > 0
        ),
    )


def _demand(
    together: int, k: int, cells: int, confidence: float, traffic: Traffic, share: float
) -> CellDemand:
    grid = float(cells) ** together
    mean = float(gammainccinv(k, -np.expm1(np.log(confidence) / grid)))
    explored_a_session = traffic.requests_per_session * (1 - traffic.control_share)
    sessions = mean * grid / explored_a_session
    return CellDemand(
        together=together,
        cells=grid,
        requests=k * grid,
        requests_sure=mean * grid,
        sessions=sessions,
        days=sessions / (traffic.sessions_per_day * share),
    )
