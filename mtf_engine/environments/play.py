"""Whole sessions under one policy, nothing logged but what each user took away."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import Acting, Active, Environment, Step, serve


@dataclass(frozen=True)
class Outcome:
    """What each of n sessions brought, in the order they were asked for."""

    users: NDArray[np.int64]  # codes
    rewards: NDArray[np.float64]  # undiscounted sums over the session
    valid: NDArray[np.int64]  # impressions watched long enough
    seconds: NDArray[np.float64]  # watch time
    requests: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


def play(
    env: Environment,
    policy: Acting,
    users: NDArray[np.int64],
    sessions: NDArray[np.int64],
    batch: int | None = None,
) -> Outcome:
    """Returns the outcome of one session for each user code [n] and session number [n], `batch` at a time.

    Draws are functions of (seed, user, session, request, item): two policies that play the same users meet
    the same world. `Environment.visits` deals out users and numbers.
    """
    size = batch or env.batch
    starts = range(0, len(users), size)
    parts = [_play(env, policy, users[i : i + size], sessions[i : i + size]) for i in starts]
    return Outcome(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Outcome)})


def each_request(env: Environment) -> Iterator[tuple[Active, NDArray[np.float32]]]:
    """Yields the sessions that wait and their observations [n, f], until all have ended.

    Whoever asks calls `env.step` before asking again.
    """
    while len(active := env.active):
        yield active, env.observe()


def _play(env: Environment, policy: Acting, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> Outcome:
    n = len(users)
    outcome = Outcome(users, np.zeros(n), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.int64))
    env.reset(users, sessions)
    for active, observations in each_request(env):
        who, step = active.sessions, serve(env, policy, observations)
        outcome.rewards[who] += step.rewards
        outcome.valid[who] += step.impressions.label.sum(axis=1)
        outcome.seconds[who] += _watch_time(env, step)
        outcome.requests[who] += 1
    return outcome


def _watch_time(env: Environment, step: Step) -> NDArray[np.float64]:
    """Returns the seconds watched at this request, [n]; 0 where nothing that is watched is shown."""
    watched = np.array([signal == "watch_time" for signal in env.signals], bool)
    return step.impressions.signals[..., watched].sum(axis=(1, 2), dtype=np.float64)
