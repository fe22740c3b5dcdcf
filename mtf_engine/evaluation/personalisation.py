"""What a policy's personalisation is worth: the same users under the policy and under its own mean actions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import Acting, Environment
from mtf_engine.evaluation.abtest import Flattened, Played, Progress

EVERYBODY, BY_SEGMENT = "mean action", "mean per segment"
POLICY = "policy"


def personalisation(
    env: Environment,
    name: str,
    policy: Acting,
    n_users: int,
    seeds: Sequence[int] = (0,),
    progress: Progress = lambda done, of: None,
) -> tuple[Flattened, ...]:
    """Returns what the users of `policy` would lose under its mean action and under its mean of each segment.

    The means are over the requests that the policy itself meets with these users, so that what is lost is the
    difference between telling users and moments apart and not doing so. Effects are relative to the policy,
    paired by user; a negative one says that its personalisation is worth having. `name` is the policy's in them.
    A policy with weights for each item has no action of a request to take the mean of: nothing is told of it.
    """
    if getattr(policy, "item_names", ()):
        return ()
    watched = _Watched(env, policy)
    arms: dict[str, Acting] = {
        POLICY: watched,
        EVERYBODY: _Mean(watched),
        BY_SEGMENT: _MeanOfSegment(watched),
    }
    played = Played(env, arms, n_users, seeds, progress)
    for arm in arms:  # one after another: the means are of all that the policy did
        for batch in played.batches():
            played.play(arm, batch)
    test = played.result(POLICY)
    return tuple(
        Flattened(**{**effect.model_dump(), "policy": name}, to=effect.policy) for effect in test.effects
    )


@dataclass
class _Watched:
    """Acts as `policy`, and keeps the sum of its actions in each segment and their number."""

    env: Environment
    policy: Acting
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # segment -> [d + 1]

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        actions = self.policy.act(observations)
        counted = np.column_stack([actions, np.ones(len(actions))])
        segments = self.env.active.segments
        for segment in np.unique(segments).tolist():
            here = counted[segments == segment].sum(0, dtype=np.float64)
            self.sums[segment] = self.sums.get(segment, 0.0) + here
        return actions


@dataclass
class _Mean:
    """Gives everybody the mean of the actions that were watched."""

    watched: _Watched

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.sum(list(self.watched.sums.values()), axis=0)
        return np.tile((total[:-1] / total[-1]).astype(np.float32), (len(observations), 1))


@dataclass
class _MeanOfSegment:
    """Gives every user the mean of the actions that were watched in the user's segment."""

    watched: _Watched

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        means = {name: (total[:-1] / total[-1]) for name, total in self.watched.sums.items()}
        return np.stack([means[name] for name in self.watched.env.active.segments]).astype(np.float32)
