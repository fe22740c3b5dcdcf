"""What the session environment is like: how far apart its best weights are, measured on users no search has seen."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.environments.world import WORLDS
from mtf_engine.spec import Spec
from mtf_engine.study.optima import NAMES, Optima, effective_dimensions, played, session_reward

STORED = WORLDS / "properties"
"""Written by `benchmarks/session_optima.py`."""
STEPS = (
    ("box", "default"),
    ("everywhere", "default"),
    ("segments", "everywhere"),
    ("everywhere", "instant"),
    ("everywhere", "corner"),
)
"""Which weights are compared with which."""
USERS_SEED, LANDSCAPE_SEED = 7, 5
LANDSCAPE_POINTS, LANDSCAPE_REACH = 400, 0.3


class Standing(Spec):
    """What some weights bring: reward of a session, requests in it, and reward of a request."""

    name: str
    session_reward: float
    requests: float
    request_reward: float


class Gain(Spec):
    """The relative difference of session reward between two weights, with its 95 % interval, paired by user."""

    name: str
    base: str
    relative: float
    ci_low: float
    ci_high: float


class Properties(Spec):
    """Standings and gains of the optima on `n_users` fresh users, and how many directions matter."""

    optima: Optima
    n_users: int
    standings: tuple[Standing, ...]
    gains: tuple[Gain, ...]
    effective_dimensions: float | None = None

    @classmethod
    def stored(cls, world: str) -> Self | None:
        """Returns the properties of a world, as they were measured once; None where they were not."""
        path = STORED / f"{world}.json"
        return cls.model_validate_json(path.read_text()) if path.exists() else None

    def store(self) -> None:
        """Keeps the properties where `stored` finds them."""
        path = STORED / f"{self.optima.config.world}.json"
        path.write_text(self.model_dump_json(indent=1) + "\n")

    def gain(self, name: str, base: str) -> Gain:
        """Returns the gain of one of the `STEPS`."""
        return next(gain for gain in self.gains if (gain.name, gain.base) == (name, base))


def measure(optima: Optima, n_users: int, seed: int = USERS_SEED) -> Properties:
    """Returns the properties of the optima on new users of a collection `seed`; the same users for all weights."""
    env = SessionEnvironment(optima.config)
    users, sessions = env.visits(0, n_users, seed)
    env.reset(users, sessions)
    segments = env.active.segments
    found = {name: played(env, users, optima.actions(name, segments)) for name in NAMES}
    standings = [
        Standing(
            name=name,
            session_reward=rewards.mean(),
            requests=requests.mean(),
            request_reward=rewards.sum() / requests.sum(),
        )
        for name, (rewards, requests) in found.items()
    ]
    gains = [_gain(name, base, found[name][0], found[base][0]) for name, base in STEPS]
    return Properties(optima=optima, n_users=n_users, standings=tuple(standings), gains=tuple(gains))


def landscape_dimensions(optima: Optima, n_users: int) -> float:
    """Returns how many directions matter around the best weights: sampled, played, and fitted."""
    env = SessionEnvironment(optima.config)
    users, _ = env.visits(0, n_users, LANDSCAPE_SEED)
    centre = np.array(optima.everywhere)
    noise = np.random.default_rng(LANDSCAPE_SEED).uniform(-1, 1, (LANDSCAPE_POINTS, len(centre)))
    points = np.clip(centre + LANDSCAPE_REACH * noise, -1, 1).astype(np.float32)
    values = np.concatenate([session_reward(env, users, part) for part in np.array_split(points, 40)])
    return effective_dimensions(points, values)


def _gain(name: str, base: str, rewards: NDArray[np.float64], base_rewards: NDArray[np.float64]) -> Gain:
    """Returns the relative difference of two means of the same users, its interval by the delta method."""
    ratio = rewards.mean() / base_rewards.mean()
    deviation = (rewards - ratio * base_rewards).std(ddof=1) / base_rewards.mean()
    half = 1.96 * deviation / np.sqrt(len(rewards))
    return Gain(name=name, base=base, relative=ratio - 1, ci_low=ratio - 1 - half, ci_high=ratio - 1 + half)
