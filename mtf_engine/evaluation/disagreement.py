"""Disagreement of the critics, together and each: inside the bounds, outside, and against the distance."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from mtf_engine.evaluation.critic_pairs import CriticPairs, critic_pairs
from mtf_engine.evaluation.segments import Segments
from mtf_engine.spec import Spec

MAX_REQUESTS = 2_000
FARTHEST = 4.0
"""Rays end this many half widths from the baseline action, 3 beyond the wall of a symmetric box."""
RAY_POINTS = 17
BIN_WIDTH = 0.25
"""Bins of distance are centred on its multiples, where the rays of symmetric boxes have their points."""
HISTOGRAM_BINS = 40
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
    """How the critics spread over `count` actions: together, and each against the mean of all.

    `std_mean` averages the population standard deviation over critics. Of each critic, `biases` has the mean
    of `Q_i - mean Q`, `deviations` its root mean square: their squares average to the mean variance.
    """

    count: int
    std_mean: float
    std_quantiles: tuple[float, float]
    """5 % and 95 %."""
    q_mean: float
    biases: tuple[float, ...]
    deviations: tuple[float, ...]


class DistanceBin(Spec):
    """The actions of all rays whose distance from the bounds, in half widths, is in (above, up_to]."""

    above: float
    up_to: float
    spread: Spread


class Spreads(Spec):
    """The spread about a policy's own actions and along rays through them, a part without actions left out.

    `inside` and `outside` split the policy's own actions by their bounds. On the rays, `ray_inside` holds all
    points inside, `profile` the rest by distance.
    """

    inside: Spread | None
    outside: Spread | None
    ray_inside: Spread | None
    profile: tuple[DistanceBin, ...]


class Histograms(Spec):
    """How many points of the rays differ how much, inside the bounds and outside, in units of the reward.

    `inside` and `outside` count the standard deviation over critics in bins between `edges`; `critic_inside` and
    `critic_outside` the size of each critic's difference to the mean of all, between `critic_edges`.
    """

    edges: tuple[float, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]
    critic_edges: tuple[float, ...]
    critic_inside: tuple[tuple[int, ...], ...]
    critic_outside: tuple[tuple[int, ...], ...]


class Disagreement(Spreads):
    """How much the critics differ, over all requests asked about, and by segment where there are several.

    Q and its spread are in units of the reward.
    """

    n_requests: int
    n_rays: int
    by_segment: dict[str, Spreads]
    pairs: CriticPairs
    histograms: Histograms | None = None
    """None in an evaluation of an earlier version."""


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
    *,
    segments: Segments | None = None,
    reward_scale: float = 1.0,
) -> Disagreement:
    """Returns the spread of the critics' Q over actions [n, d] of a policy and over rays through them.

    A ray runs from the baseline action through the policy's action to 4 half widths (of the dimension that
    gets there first), cut at [-1, 1]. Where the two actions are the same there is no ray. At most 2,000
    requests, evenly spaced in the log, are asked for. Q is divided by `reward_scale`, what rewards were
    multiplied by in training.
    """
    rows = np.unique(np.linspace(0, len(actions) - 1, min(len(actions), MAX_REQUESTS)).astype(int))
    context = Context(*(x[rows] for x in (observations, baseline_actions, lower, upper)))
    own_q = _q(critics, context, actions[rows], reward_scale)
    own = _points(own_q, context, actions[rows])
    direction, has_ray = _directions(actions[rows] - context.baseline_actions, context.lower, context.upper)
    context = Context(*(x[has_ray] for x in context))
    along = [
        _points(_q(critics, context, on_ray, reward_scale), context, on_ray)
        for radius in np.linspace(0, FARTHEST, RAY_POINTS, dtype=np.float32)
        for on_ray in [np.clip(context.baseline_actions + radius * direction, -1, 1)]
    ]
    on_rays = np.concatenate(along, axis=1)
    names = segments.told_apart if segments else ()
    of_own = segments.of_request[rows] if segments else np.zeros(len(rows))
    of_ray = np.tile(of_own[has_ray], RAY_POINTS)
    return Disagreement(
        n_requests=len(rows),
        n_rays=int(has_ray.sum()),
        **_spreads(own, on_rays),
        by_segment={
            name: Spreads(**_spreads(own[:, of_own == s], on_rays[:, of_ray == s]))
            for s, name in enumerate(names)
        },
        pairs=critic_pairs(own_q),
        histograms=_histograms(on_rays),
    )


def _directions(offsets: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns offsets [n_rays, d] scaled to reach one half width, and which rows have a ray, bool [n]."""
    half = (upper - lower) / 2
    reach = np.divide(np.abs(offsets), half, where=half > 0, out=np.zeros_like(half)).max(1)
    has_ray = reach > 0
    return offsets[has_ray] / reach[has_ray, None], has_ray


def _q(critics: Critics, context: Context, actions: np.ndarray, reward_scale: float) -> np.ndarray:
    """Returns Q of actions [n, d] in units of the reward: float64 [n_critics, n]."""
    return np.asarray(critics.q(*context, actions), np.float64) / reward_scale


def _points(q: np.ndarray, context: Context, actions: np.ndarray) -> np.ndarray:
    """Returns, of each action, distance from the bounds, mean Q and each critic's difference to it.

    q is [n_critics, n], the result [2 + n_critics, n].
    """
    distance = distance_from_bounds(actions - context.baseline_actions, context.lower, context.upper)
    return np.stack([distance, q.mean(0), *(q - q.mean(0))])


def _spreads(own: np.ndarray, along: np.ndarray) -> dict[str, Any]:
    """Returns the fields of Spreads from points of `_points`: of the policy's actions, and along the rays."""
    return {
        "inside": _spread(own[:, own[0] == 0]),
        "outside": _spread(own[:, own[0] > 0]),
        "ray_inside": _spread(along[:, along[0] == 0]),
        "profile": _profile(along[:, along[0] > 0]),
    }


def _spread(points: np.ndarray) -> Spread | None:
    """Returns the summary of points [2 + n_critics, n] of `_points`."""
    q, differences = points[1], points[2:]
    if not len(q):
        return None
    std = differences.std(0)
    low, high = np.quantile(std, (0.05, 0.95))
    return Spread(
        count=len(q),
        std_mean=float(std.mean()),
        std_quantiles=(float(low), float(high)),
        q_mean=float(q.mean()),
        biases=tuple(differences.mean(1).tolist()),
        deviations=tuple(np.sqrt((differences**2).mean(1)).tolist()),
    )


def _histograms(points: np.ndarray) -> Histograms | None:
    """Returns the histograms of points [2 + n_critics, n] of `_points`; None without any."""
    if not points.shape[1]:
        return None
    is_inside, sizes = points[0] == 0, np.abs(points[2:])
    std = points[2:].std(0)
    edges, critic_edges = (
        np.linspace(0, max(float(of.max()), 1e-12), HISTOGRAM_BINS + 1) for of in (std, sizes)
    )

    def counted(values: np.ndarray, between: np.ndarray, part: np.ndarray) -> tuple[int, ...]:
        return tuple(np.histogram(values[part], between)[0].tolist())

    return Histograms(
        edges=tuple(edges.tolist()),
        inside=counted(std, edges, is_inside),
        outside=counted(std, edges, ~is_inside),
        critic_edges=tuple(critic_edges.tolist()),
        critic_inside=tuple(counted(one, critic_edges, is_inside) for one in sizes),
        critic_outside=tuple(counted(one, critic_edges, ~is_inside) for one in sizes),
    )


def _profile(points: np.ndarray) -> tuple[DistanceBin, ...]:
    """Returns the spread of points outside the bounds by distance, empty bins left out."""
    number = np.rint(points[0] / BIN_WIDTH).astype(int)
    return tuple(
        DistanceBin(above=max(0.0, (k - 0.5) * BIN_WIDTH), up_to=(k + 0.5) * BIN_WIDTH, spread=spread)
        for k in np.unique(number).tolist()
        if (spread := _spread(points[:, number == k]))
    )
