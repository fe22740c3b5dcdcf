"""The generation before: how the live policy of a world learned what it does.

It knew an older ranking model, looked at the reward of a request alone, and told users apart by segment.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import world
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import Live, World
from mtf_engine.spec import FusionSpec, Refusal
from mtf_engine.study.optima import instant_reward, search, users_by_segment

USERS_SEED, STEP, STEP_BY_SEGMENT = 1, 0.3, 0.15
DIGITS = 4


def learn_live(
    config: SessionConfig,
    n_users: int,
    generations: int,
    n_threads: int = 1,
    tell: Callable[[str], object] = lambda what: None,
) -> Live:
    """Returns the live policy of a world: CMA-ES on the reward of a request, for all users, then by segment.

    `n_users` play each weight vector for one session. What the segments learn is fitted by a bias and a term for
    each age band and activity, so that it is linear in what a policy observes.
    """
    now = World.named(config.world)
    if now.generation is None:
        raise Refusal(
            f"the live policy of the world {now.name} was not learned: it is action 0 for everybody"
        )
    before = World.model_validate(now.model_dump() | now.generation.model_dump())
    env = SessionEnvironment(config, n_threads, before)
    users, _ = env.visits(0, n_users, USERS_SEED)
    tell("for all users")
    everybody = search(
        partial(instant_reward, env, users), np.zeros(env.fusion.n_actions), 1, STEP, generations
    )
    learned = []
    for segment, members in users_by_segment(env, n_users // 2).items():
        tell(f"for {segment}")
        value = partial(instant_reward, env, members)
        learned.append(search(value, everybody, 1, STEP_BY_SEGMENT, generations // 2))
    return linear(translated(np.array(learned), before.fusion, now.fusion))


def translated(actions: NDArray[np.floating], before: FusionSpec, now: FusionSpec) -> NDArray[np.floating]:
    """Returns the actions [n, d] that mean the same weights in other ranges."""
    low, high = (np.array([getattr(d, end) for d in before.dimensions]) for end in ("low", "high"))
    new_low, new_high = (np.array([getattr(d, end) for d in now.dimensions]) for end in ("low", "high"))
    return (2 * (low + (actions + 1) / 2 * (high - low)) - new_low - new_high) / (new_high - new_low)


FEATURES = tuple(
    f"{name}={value}"
    for name, values in (("age_band", world.AGES), ("activity", world.ACTIVITIES))
    for value in values
)
TERMS = np.array(
    [
        [1, *(feature.partition("=")[2] in segment.split("/") for feature in FEATURES)]
        for segment in world.SEGMENTS.tolist()
    ],
    float,
)
"""What a live policy is linear in, by segment: 1, then FEATURES."""


def linear(actions: NDArray[np.floating]) -> Live:
    """Returns the live policy that comes nearest to the `actions` [segments, d], by least squares."""
    rows: NDArray[np.float64] = np.linalg.lstsq(TERMS, actions, rcond=None)[0].round(DIGITS)
    return Live(bias=rows[0].tolist(), weights=dict(zip(FEATURES, rows[1:].tolist(), strict=True)))


def by_segment(live: Live) -> NDArray[np.float64]:
    """Returns the actions [segments, d] of such a live policy."""
    acted: NDArray[np.float64] = TERMS @ np.array([live.bias, *(live.weights[name] for name in FEATURES)])
    return acted
