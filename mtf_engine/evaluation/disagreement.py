"""Disagreement of the critics: the spread of their Q inside the bounds, outside, and against the distance."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from mtf_engine.spec import Spec

MAX_REQUESTS = 2_000
FARTHEST = 4.0
"""Rays end this many half widths from the baseline action, 3 beyond the wall of a symmetric box."""
RAY_POINTS = 17
BIN_WIDTH = 0.25
"""Bins of distance are centred on its multiples, where the rays of symmetric boxes have their points."""
ROUNDING = 1e-6
"""An action on the wall is inside, whatever float32 made of it."""


class Critics(Protocol):
    """What is asked of an ensemble: Q [n_critics, n] of n observations with bounds and an action."""

    def q(
        self,
        observations: np.ndarray,
        baseline_actions: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        actions: np.ndarray,
    ) -> Any:
        """Returns Q [n_critics, n] as an array."""


class Context(NamedTuple):
    """What the critics are told of n requests, the action aside."""

    observations: np.ndarray  # [n, f]
    baseline_actions: np.ndarray  # [n, d]
    lower: np.ndarray  # [n, d]
    upper: np.ndarray  # [n, d]


class Spread(Spec):
    """Population standard deviation over critics, summed up over `count` actions."""

    count: int
    std_mean: float
    std_quantiles: tuple[float, float]
    """5 % and 95 %."""
    q_mean: float


class DistanceBin(Spec):
    """The actions of all rays whose distance from the bounds, in half widths, is in (above, up_to]."""

    above: float
    up_to: float
    spread: Spread


class Disagreement(Spec):
    """How much the critics differ about a policy's own actions, and along rays through them.

    `inside` and `outside` split the policy's own actions by their bounds. On the rays, `ray_inside` holds all
    points inside, `profile` the rest by distance. A part without actions is None or missing.
    """

    n_requests: int
    n_rays: int
    inside: Spread | None
    outside: Spread | None
    ray_inside: Spread | None
    profile: tuple[DistanceBin, ...]


def distance_from_bounds(offsets: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Returns how far offsets [n, d] lie outside the bounds, in half widths, 0 inside: float64 [n].

    It is the largest over the dimensions of `excess / ((upper - lower) / 2)`, so that 1 means that one
    dimension is as far beyond its wall as the wall is from the centre. Dimensions of width 0 are fixed and do
    not count.
    """
    half = (upper - lower).astype(np.float64) / 2
    excess = np.maximum(offsets - upper, lower - offsets)
    return np.divide(excess, half, where=(half > 0) & (excess > ROUNDING), out=np.zeros_like(half)).max(1)


def disagreement(
    critics: Critics,
    observations: np.ndarray,
    baseline_actions: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    actions: np.ndarray,
) -> Disagreement:
    """Returns the spread of the critics' Q over actions [n, d] of a policy and over rays through them.

    A ray runs from the baseline action through the policy's action to 4 half widths (of the dimension that
    gets there first), cut at [-1, 1]. Where the two actions are the same there is no ray. At most 2,000
    requests, evenly spaced in the log, are asked for.
    """
    rows = np.unique(np.linspace(0, len(actions) - 1, min(len(actions), MAX_REQUESTS)).astype(int))
    context = Context(*(x[rows] for x in (observations, baseline_actions, lower, upper)))
    own = _spread_at(critics, context, actions[rows])
    direction, has_ray = _directions(actions[rows] - context.baseline_actions, context.lower, context.upper)
    context = Context(*(x[has_ray] for x in context))
    points = [
        _spread_at(critics, context, np.clip(context.baseline_actions + radius * direction, -1, 1))
        for radius in np.linspace(0, FARTHEST, RAY_POINTS, dtype=np.float32)
    ]
    along = np.concatenate(points, axis=1)
    return Disagreement(
        n_requests=len(rows),
        n_rays=int(has_ray.sum()),
        inside=_spread(own[:, own[0] == 0]),
        outside=_spread(own[:, own[0] > 0]),
        ray_inside=_spread(along[:, along[0] == 0]),
        profile=_profile(along[:, along[0] > 0]),
    )


def _directions(offsets: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns offsets [n_rays, d] scaled to reach one half width, and which rows have a ray, bool [n]."""
    half = (upper - lower) / 2
    reach = np.divide(np.abs(offsets), half, where=half > 0, out=np.zeros_like(half)).max(1)
    has_ray = reach > 0
    return offsets[has_ray] / reach[has_ray, None], has_ray


def _spread_at(critics: Critics, context: Context, actions: np.ndarray) -> np.ndarray:
    """Returns distance from the bounds, standard deviation and mean of Q over critics: [3, n]."""
    offsets = actions - context.baseline_actions
    q = np.asarray(critics.q(*context, actions), np.float64)  # [n_critics, n]
    return np.stack([distance_from_bounds(offsets, context.lower, context.upper), q.std(0), q.mean(0)])


def _spread(points: np.ndarray) -> Spread | None:
    """Returns the summary of points [3, n] of `_spread_at`."""
    _, std, q = points
    if not len(std):
        return None
    low, high = np.quantile(std, (0.05, 0.95))
    return Spread(
        count=len(std),
        std_mean=float(std.mean()),
        std_quantiles=(float(low), float(high)),
        q_mean=float(q.mean()),
    )


def _profile(points: np.ndarray) -> tuple[DistanceBin, ...]:
    """Returns the spread of points [3, n] outside the bounds by distance, empty bins left out."""
    number = np.rint(points[0] / BIN_WIDTH).astype(int)
    return tuple(
        DistanceBin(above=max(0.0, (k - 0.5) * BIN_WIDTH), up_to=(k + 0.5) * BIN_WIDTH, spread=spread)
        for k in np.unique(number).tolist()
        if (spread := _spread(points[:, number == k]))
    )
