"""The session environment: synthetic users whose next request depends on what they were shown before.

Click-bait holds a user now and disappoints later; more of the same topic bores; both make leaving likelier,
satisfaction makes it rarer. All figures that come from here are synthetic.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mtf_engine.environments import Active, Candidates, Impressions, Step, best, draws, world
from mtf_engine.environments.world import Catalogue, Floats, Pairs, Users
from mtf_engine.fusion import log_final_score
from mtf_engine.observation import HISTORY, ObservationEncoder, push
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import FusionDimension, FusionSpec, RewardSpec, Seed, Spec

NEGATIVE = ("skip",)
BIASES = ("valid_consumption", "watching_time")
WIDE_POW = -1.0, 3.0
"""The walls lie where they are clearly wrong, so that the best weights are inside; 1 is the default."""
FUSION = FusionSpec(
    predictions=world.PREDICTIONS,
    dimensions=(
        *(FusionDimension.power(p, WIDE_POW, negative=p in NEGATIVE) for p in world.PREDICTIONS),
        *(FusionDimension.bias(p) for p in BIASES),
    ),
)
REWARD = RewardSpec(
    weights={
        "watch_time": 0.01,
        "valid": 0.2,
        "finish": 0.3,
        "click": 0.15,
        "like": 1.0,
        "share": 1.5,
        "comment": 0.5,
        "skip": -0.3,
    },
    valid_seconds=world.VALID_SECONDS,
)
SLICE = 256
"""Sessions computed together: their candidates' predictions (0.5 MB) stay in a core's cache."""
FIRST_SECOND, DAY = 1_704_067_200.0, 86_400  # 2024-01-01
PROFILE_SAMPLE = (1 << 62) + np.arange(10_000)
"""Users whose profiles fix the encoder's vocabularies and fill values."""
USERS_PER_SEED = 1 << 32
SESSIONS, WALK, CLOCK = 2, 1 << 40, (1 << 40) + 1  # channels of the seed and of a session's key

# Dynamics.
DECAY = np.float32(0.75)  # of exposure, satisfaction and disappointment, per request
POSITION_FATIGUE = np.float32(0.08)
REPETITION_FATIGUE = np.float32(1.0)
PAUSE_SECONDS = 2  # between requests
LEAVING = {"level": -1.7, "satisfaction": -1.2, "disappointment": 1.9, "boredom": 1.2}


class SessionConfig(Spec):
    """The size of the synthetic world; its users and items are drawn from the seed."""

    n_candidates: int = Field(default=60, ge=1, description="items a request chooses from")
    n_shown: int = Field(default=6, ge=1, description="items shown a request")
    n_requests: int = Field(default=20, ge=1, description="cap on the length of a session")
    n_items: int = Field(default=6000, ge=1, description="items in the catalogue")
    seed: Seed = Field(default=0, description="of the world; a collection has its own")

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if self.n_shown > self.n_candidates:
            raise ValueError(f"shows {self.n_shown} of {self.n_candidates} candidates")
        if self.n_items < self.n_candidates * self.n_requests:
            raise ValueError(
                "n_items is below n_candidates * n_requests, so a session would meet items twice"
            )
        return self


DEFAULT = SessionConfig()


@dataclass
class State:
    """The active sessions: one row of each array a session."""

    session: NDArray[np.int64]  # position in the batch
    code: NDArray[np.int64]
    key: draws.Keys
    users: Users
    profile: Floats
    seconds: NDArray[np.float64]
    elapsed: NDArray[np.float64]  # seconds since the last request, NaN before the first
    exposure: Floats  # [n, topics], decaying share of each topic among what was shown
    satisfaction: Floats
    disappointment: Floats
    history: Floats
    counts: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "State":
        return State(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Offer:
    """The k items that each of n sessions is offered, or those of them that are shown."""

    items: NDArray[np.int64]  # [n, k]
    keys: draws.Keys  # [n, k]
    pairs: Pairs
    predictions: Floats  # [8, n, k]

    def at(self, columns: NDArray[np.int64]) -> "Offer":
        """Returns the items in `columns` [n, j] of each session."""
        return Offer(
            items=np.take_along_axis(self.items, columns, axis=1),
            keys=np.take_along_axis(self.keys, columns, axis=1),
            pairs=self.pairs.at(columns),
            predictions=np.take_along_axis(self.predictions, columns[None], axis=2),
        )


class SessionEnvironment:
    """Synthetic sessions; see `Environment` for the interface and the module for what happens in them."""

    name = "session"
    synthetic = True
    batch = 2048
    fusion = FUSION
    reward = REWARD
    signals: tuple[str, ...] = world.SIGNALS

    def __init__(self, config: SessionConfig = DEFAULT, n_threads: int = 1) -> None:
        self.config = config
        self.catalogue = Catalogue.draw(config.n_items, config.seed)
        _, profiles = world.draw_users(PROFILE_SAMPLE, self.catalogue, config.seed)
        self.encoder = ObservationEncoder.fit(
            profiles, self.signals, numeric=world.NUMERIC, categorical=world.CATEGORICAL
        )
        self.feature_names = self.encoder.feature_names
        self.numeric_mask = self.encoder.numeric_mask
        self._threads = ThreadPoolExecutor(n_threads)
        self._strata = np.arange(config.n_candidates + 1) * config.n_items // config.n_candidates

    def visits(self, first: int, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns new users for every collection seed, each with their first session."""
        return np.arange(first, first + n) + seed * USERS_PER_SEED, np.zeros(n, np.int64)

    def passes(self, n_requests: int, seed: int) -> int:
        """Returns 1: users are always new."""
        return 1

    def reset(self, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> None:
        """Starts one session for each user code and session number."""
        n, seed = len(users), self.config.seed
        traits, profiles = world.draw_users(users, self.catalogue, seed)
        key = draws.child(draws.child(draws.child(draws.root(seed), SESSIONS), users), sessions)
        zeros = np.zeros(n, np.float32)
        self._step = 0
        self._state = State(
            session=np.arange(n),
            code=users,
            key=key,
            users=traits,
            profile=self.encoder.profile(profiles),
            seconds=(FIRST_SECOND + DAY * sessions + draws.below(draws.child(key, CLOCK), DAY)).astype(
                np.float64
            ),
            elapsed=np.full(n, np.nan),
            exposure=np.zeros((n, len(world.TOPICS)), np.float32),
            satisfaction=zeros,
            disappointment=zeros,
            history=np.zeros((n, HISTORY, len(self.signals)), np.float32),
            counts=np.zeros(n, np.int64),
        )

    @property
    def active(self) -> Active:
        state = self._state
        return Active(
            sessions=state.session,
            users=np.char.add("u", state.code.astype(str)),
            segments=world.SEGMENTS[state.users.segment],
            seconds=state.seconds,
            step=self._step,
        )

    def observe(self) -> Floats:
        """Returns the observations of the active sessions, [n, n_features]."""
        return np.concatenate(self._map(self._observe))

    def candidates(self, rows: slice) -> Candidates:
        """Returns what some of the active sessions choose from at this request."""
        offer = self._offer(self._state[rows])
        return Candidates(offer.items, np.ascontiguousarray(np.moveaxis(offer.predictions, 0, -1)))

    def step(self, actions: Floats) -> Step:
        """Returns what happens when the active sessions are served with `actions` [n, d] in [-1, 1]."""
        parts = self._map(lambda rows: self._serve(self._state[rows], actions[rows]))
        impressions, ended, states = (_concatenate(part) for part in zip(*parts, strict=True))
        self._step += 1
        self._state = states
        return Step(
            rewards=impressions.reward.sum(axis=1),
            terminals=ended,
            truncated=np.zeros(len(ended), bool),
            impressions=impressions,
        )

    def _map(self, of_rows: Callable[[slice], Any]) -> list[Any]:
        """Returns what `of_rows` returns for each slice of the active sessions; slices share nothing."""
        starts = range(0, len(self._state.session), SLICE)
        return list(self._threads.map(of_rows, [slice(start, start + SLICE) for start in starts]))

    def _observe(self, rows: slice) -> Floats:
        state, n = self._state[rows], len(self._state.session[rows])
        step = np.full(n, self._step)
        left = self.config.n_requests - 1 - step
        return self.encoder.observe(state.profile, state.history, state.counts, state.elapsed, step, left)

    def _offer(self, state: State) -> Offer:
        """Returns one item of each stratum of the catalogue for each session.

        A session walks each stratum from a random start, so it never meets an item twice.
        """
        sizes = np.diff(self._strata)
        starts = draws.child(draws.child(state.key, WALK)[:, None], np.arange(len(sizes)))
        items = self._strata[:-1] + (draws.below(starts, sizes) + self._step) % sizes
        keys = draws.child(draws.child(state.key, self._step)[:, None], items)
        pairs = Pairs.of(state.users, self.catalogue, items)
        predictions = world.predictions(state.users, pairs, self.catalogue.kind.take(items), keys)
        return Offer(items, keys, pairs, predictions)

    def _serve(self, state: State, actions: Floats) -> tuple[Impressions, NDArray[np.bool_], State]:
        """Returns impressions and whether each session ended, [n], and the state of those that go on."""
        offer = self._offer(state)
        scores = log_final_score(self.fusion, actions, np.moveaxis(offer.predictions, 0, -1))
        shown = offer.at(best(scores, self.config.n_shown))
        signals, ended, after = self._live(state, shown)
        columns = dict(zip(self.signals, np.moveaxis(signals, -1, 0), strict=True))
        impressions = Impressions(
            item_id=shown.items,
            predictions=np.ascontiguousarray(np.moveaxis(shown.predictions, 0, -1)),
            signals=signals,
            reward=impression_rewards(self.reward, columns),
            label=columns["watch_time"] > self.reward.valid_seconds,
        )
        return impressions, ended, after[~ended]

    def _live(self, state: State, shown: Offer) -> tuple[Floats, NDArray[np.bool_], State]:
        """Returns signals [n, k, 8] for what is shown, who leaves [n], and the state after it."""
        topics = self.catalogue.topic.take(shown.items)
        repetition = np.take_along_axis(state.exposure, topics, axis=1) * state.users.boredom[:, None]
        fatigue = REPETITION_FATIGUE * repetition + POSITION_FATIGUE * np.arange(
            topics.shape[1], dtype=np.float32
        )
        signals = world.feedback(state.users, shown.pairs, fatigue, shown.keys)
        valid = signals[..., 1]
        history, counts = push(state.history, state.counts, signals)
        elapsed = np.ceil(signals[..., 0].sum(axis=1, dtype=np.float64)) + PAUSE_SECONDS
        after = replace(
            state,
            seconds=state.seconds + elapsed,
            elapsed=elapsed,
            exposure=_blend(state.exposure, _shares(topics)),
            satisfaction=_blend(state.satisfaction, (valid * shown.pairs.pleasure(state.users)).mean(axis=1)),
            disappointment=_blend(state.disappointment, (valid * shown.pairs.bait).mean(axis=1)),
            history=history,
            counts=counts,
        )
        leaving = (
            LEAVING["level"] + state.users.impatience + LEAVING["satisfaction"] * after.satisfaction
            + LEAVING["disappointment"] * after.disappointment + LEAVING["boredom"] * repetition.mean(axis=1)
        )  # fmt: skip
        luck = draws.uniform(draws.child(draws.child(state.key, self._step), self.config.n_items))
        last = self._step + 1 == self.config.n_requests
        return signals, (luck < world.sigmoid(leaving)) | last, after


def _blend(old: Floats, new: Floats) -> Floats:
    return DECAY * old + (1 - DECAY) * new


def _shares(topics: NDArray[np.int64]) -> Floats:
    """Returns the share [n, topics] of each topic among the shown items' `topics` [n, k]."""
    n, k = topics.shape
    cells = topics + len(world.TOPICS) * np.arange(n)[:, None]
    counts = np.bincount(cells.ravel(), minlength=n * len(world.TOPICS))
    return counts.reshape(n, -1).astype(np.float32) / np.float32(k)


def _concatenate(parts: Sequence[Any]) -> Any:
    """Returns arrays, or dataclasses of arrays, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    names = [f.name for f in fields(parts[0])]
    return type(parts[0])(**{name: _concatenate([getattr(p, name) for p in parts]) for name in names})
