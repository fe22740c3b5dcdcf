"""Environments: many sessions at once, one action (a fusion-weight vector) for each at every request."""

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mtf_engine.observation import ObservationEncoder, item_states
from mtf_engine.spec import FusionSpec, RewardSpec


@dataclass(frozen=True)
class Active:
    """The n sessions that wait for an action, in the order of `reset`; all are at the same step."""

    sessions: NDArray[np.int64]  # position in the arrays given to `reset`
    users: NDArray[np.str_]
    segments: NDArray[np.str_]
    seconds: NDArray[np.float64]  # time of the request, seconds since 1970
    step: int

    def __len__(self) -> int:
        return len(self.sessions)


@dataclass(frozen=True)
class Impressions:
    """The k items shown to each of n sessions, by position, with their feedback."""

    item_id: NDArray  # [n, k]
    predictions: NDArray[np.float32]  # [n, k, p]
    signals: NDArray[np.float32]  # [n, k, signals]
    reward: NDArray[np.float64]  # [n, k]
    label: NDArray[np.bool_]  # [n, k]
    item_features: NDArray[np.float32] | None = None  # [n, k, item features]


@dataclass(frozen=True)
class Step:
    """What one action for each of n sessions brought; a session that ended leaves `Environment.active`."""

    rewards: NDArray[np.float64]  # [n]
    terminals: NDArray[np.bool_]  # [n]
    truncated: NDArray[np.bool_]  # [n]
    impressions: Impressions
    led_to: NDArray[np.float32] | None = None  # [cut, f], what the truncated ones would have observed next


@dataclass(frozen=True)
class Candidates:
    """The k items that a request chooses from, before any action."""

    item_id: NDArray  # [n, k]
    predictions: NDArray[np.float32]  # [n, k, p]
    item_features: NDArray[np.float32] | None = None  # [n, k, item features]


class Environment(Protocol):
    """Batched Gymnasium style: `reset` many sessions, then `observe` and `step` until none is active.

    Draws are functions of (seed, user, session, request, item), so two policies meet the same world, and a
    session goes the same way in whatever batch it is played.
    """

    name: str
    synthetic: bool
    batch: int
    """Sessions to play at once; bounds the memory, and changes nothing in what is played."""
    fusion: FusionSpec
    reward: RewardSpec
    signals: tuple[str, ...]
    feature_names: tuple[str, ...]
    numeric_mask: tuple[bool, ...]
    item_features: tuple[str, ...]
    """Names of what candidates tell of their items; empty where they tell their predictions alone."""
    item_mask: tuple[bool, ...]
    """Item features that a policy standardises."""

    @property
    def encoder(self) -> ObservationEncoder | None:
        """What makes the observations, or None where the environment brings its own."""

    def visits(self, first: int, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns user codes [n] and session numbers [n] of a collection's sessions first..first + n."""

    def passes(self, n_requests: int, seed: int) -> int:
        """Returns how often a collection of `n_requests` deals out its users (1 where they are new)."""

    def reset(self, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> None:
        """Starts one session for each user code and session number."""

    @property
    def active(self) -> Active:
        """The sessions that wait for an action."""

    def observe(self) -> NDArray[np.float32]:
        """Returns the observations of the active sessions, [n, n_features]."""

    def candidates(self, rows: slice) -> Candidates:
        """Returns what some of the active sessions choose from at this request."""

    def step(self, actions: NDArray[np.float32], typical: NDArray[np.float32] | None = None) -> Step:
        """Returns what happens when the active sessions are served with `actions` in [-1, 1].

        They are [n, d], or [n, k, d] where each of the k candidates has weights of its own; scores are then told
        beside those of an item of `typical` predictions [p].
        """


class Acting(Protocol):
    """What a policy does here."""

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns an action [n, d] in [-1, 1] for each observation [n, f]."""


class ActingOnItems(Acting, Protocol):
    """What a policy does that has weights for each item, by the features `item_names` of it."""

    item_names: tuple[str, ...]
    typical: NDArray[np.float32]  # [p], predictions of a typical item

    def act_on(self, observations: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns an action [n, k, d] for each item, for items [n, k, `item_names`] of observations [n, f].

        For one item of each observation, [n, `item_names`], they are [n, d].
        """


def serve(env: Environment, policy: Acting, observations: NDArray[np.float32]) -> Step:
    """Returns what happens when the active sessions are served by `policy`, which may have weights for each item."""
    wanted = getattr(policy, "item_names", ())
    if not wanted:
        return env.step(policy.act(observations))
    offered, on_items = env.candidates(slice(None)), cast("ActingOnItems", policy)
    items = item_states(
        wanted, env.item_features, offered.item_features, env.fusion.predictions, offered.predictions
    )
    return env.step(on_items.act_on(observations, items), on_items.typical)


def best(scores: NDArray, k: int) -> NDArray[np.int64]:
    """Returns the columns [n, k] of the k highest scores [n, candidates], best first."""
    top = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
