"""The best fusion weights of the session environment, by search on the environment itself.

They say how much there is to learn, whoever learns it: constant weights for all users, for each user segment,
inside a box around the default, at the corners of the action space, and for the instant reward alone.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import world
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import Floats, f32
from mtf_engine.learning import evolution
from mtf_engine.spec import Spec, Vector

HALF_WIDTH = 0.15  # of the box around the default weights
POPULATION = 14
SEARCH_SEED, PLAYED_AT_ONCE, PARTS = 1, 16_384, 16

Values = Callable[[Floats], NDArray[np.float64]]
"""What is to be largest: a number [c] for each weight vector [c, d]."""


class Optima(Spec):
    """Weights found by search, each a vector of actions in [-1, 1]."""

    config: SessionConfig
    box: Vector
    everywhere: Vector
    instant: Vector
    corner: Vector
    segments: dict[str, Vector]

    def actions(self, name: str, segments: NDArray[np.str_]) -> Floats:
        """Returns the weights [n, d] of users in `segments` under one of `NAMES`."""
        if name == "segments":
            return f32([self.segments[segment] for segment in segments])
        weights = np.zeros(len(self.box)) if name == "default" else getattr(self, name)
        return np.tile(f32(weights), (len(segments), 1))


NAMES = {
    "default": "default weights",
    "box": f"best within ±{HALF_WIDTH}",
    "instant": "best for the instant reward",
    "corner": "best corner of the action space",
    "everywhere": "best anywhere",
    "segments": "best for each user segment",
}


def played(
    env: SessionEnvironment, users: NDArray[np.int64], actions: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns reward and number of requests [n] of the first session of each user under weights [n, d]."""
    rewards, requests = np.zeros(len(users)), np.zeros(len(users))
    for start in range(0, len(users), PLAYED_AT_ONCE):
        part = slice(start, start + PLAYED_AT_ONCE)
        env.reset(users[part], np.zeros(len(users[part]), np.int64))
        while len(who := env.active.sessions + start):
            requests[who] += env.reach
            rewards[who] += env.step(actions[who]).rewards
    return rewards, requests


def session_reward(env: SessionEnvironment, users: NDArray[np.int64], weights: Floats) -> NDArray[np.float64]:
    """Returns the mean reward of a session [c] of the same users under each weight vector [c, d]."""
    rewards, _ = _of_each(env, users, weights)
    return rewards.mean(axis=1)


def instant_reward(env: SessionEnvironment, users: NDArray[np.int64], weights: Floats) -> NDArray[np.float64]:
    """Returns the mean reward of a request [c], whatever it does to the length of the session."""
    rewards, requests = _of_each(env, users, weights)
    return rewards.sum(axis=1) / requests.sum(axis=1)


def _of_each(env: SessionEnvironment, users: NDArray[np.int64], weights: Floats) -> tuple[NDArray, NDArray]:
    shape = len(weights), len(users)
    rewards, requests = played(env, np.tile(users, shape[0]), np.repeat(f32(weights), shape[1], axis=0))
    return rewards.reshape(shape), requests.reshape(shape)


def search(values: Values, start: NDArray, reach: float, step: float, generations: int) -> Floats:
    """Returns the weights [d] in [-reach, reach] that CMA-ES (Hansen, 2016) ends at, from `start` and `step`."""
    generator = np.random.default_rng(SEARCH_SEED)
    inside = np.clip(start, -0.98 * reach, 0.98 * reach)
    options = {"bounds": [-reach, reach], "popsize": POPULATION}
    strategy = evolution.strategy(inside, step, lambda *shape: generator.standard_normal(shape), **options)
    for _ in range(generations):
        asked = np.asarray(strategy.ask())
        strategy.tell(asked, -values(f32(asked)))
    return np.clip(strategy.result.xfavorite, -reach, reach).astype(np.float32)


def find_optima(
    config: SessionConfig, n_users: int, generations: int, tell: Callable[[str], object] = lambda what: None
) -> Optima:
    """Returns the optima of a world in which `n_users` play each weight vector; `tell` hears what is searched."""
    env = SessionEnvironment(config)
    d = env.fusion.n_actions
    users, _ = env.visits(0, n_users, SEARCH_SEED)
    reward, still = partial(session_reward, env, users), np.zeros(d)
    tell("within the box")
    box = search(reward, still, HALF_WIDTH, HALF_WIDTH / 3, generations // 2)
    tell("anywhere")
    everywhere = search(reward, still, 1, 0.3, generations)
    tell("for the instant reward")
    instant = search(partial(instant_reward, env, users), still, 1, 0.3, generations)
    tell("corners")
    corner = best_corner(partial(session_reward, env, users[: n_users // 4]), reward, d)
    segments = {}
    for segment, members in users_by_segment(env, n_users).items():
        tell(segment)
        value = partial(session_reward, env, members)
        segments[segment] = search(value, everywhere, 1, 0.2, generations)
    found = {"box": box, "everywhere": everywhere, "instant": instant, "corner": corner}
    return Optima(config=config, segments=_lists(segments), **_lists(found))


def best_corner(glance: Values, values: Values, d: int) -> Floats:
    """Returns the best corner of [-1, 1]^d: of all 2^d at a `glance`, the best few by their `values`."""
    corners = f32(list(product((-1, 1), repeat=d)))
    parts = np.array_split(corners, max(len(corners) // PARTS, 1))
    best = corners[np.argsort(np.concatenate([glance(part) for part in parts]))[-PARTS:]]
    return best[values(best).argmax()]


def users_by_segment(env: SessionEnvironment, n_users: int) -> dict[str, NDArray[np.int64]]:
    """Returns up to `n_users` users of each segment."""
    users, _ = env.visits(0, 8 * n_users, SEARCH_SEED)
    traits, _ = env.world.draw_users(users, env.catalogue, env.config.seed)
    return {name: users[traits.segment == i][:n_users] for i, name in enumerate(world.SEGMENTS.tolist())}


def effective_dimensions(weights: Floats, values: NDArray[np.float64]) -> float:
    """Returns how many directions matter near an optimum: the participation ratio of the curvatures.

    A quadratic is fitted to `values` [p] at `weights` [p, d]; with its curvatures k_i (those that bend up count
    as none) the ratio is (sum k_i)^2 / sum k_i^2: d where all matter alike, 1 where one does.
    """
    d = weights.shape[1]
    centred = weights - weights.mean(axis=0)
    rows, columns = np.triu_indices(d)
    terms = np.column_stack([np.ones(len(values)), centred, centred[:, rows] * centred[:, columns]])
    quadratic = np.linalg.lstsq(terms, values, rcond=None)[0][1 + d :]
    hessian = np.zeros((d, d))
    hessian[rows, columns] = quadratic
    curvatures = np.maximum(np.linalg.eigvalsh(-(hessian + hessian.T)), 0)
    return float(curvatures.sum() ** 2 / (curvatures**2).sum())


def _lists(found: Mapping[str, Floats]) -> dict[str, list[float]]:
    return {name: [round(float(x), 3) for x in weights] for name, weights in found.items()}
