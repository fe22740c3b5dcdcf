"""The session environment: synthetic users whose next request depends on what they were shown before.

Click-bait holds a user now and disappoints later; more of the same topic bores; both make leaving likelier,
satisfaction makes it rarer. All figures that come from here are synthetic.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mtf_engine.environments import Active, Candidates, Impressions, Step, best, draws, world
from mtf_engine.environments.world import DEFAULT_WORLD, Catalogue, Floats, Pairs, Users, World, f32
from mtf_engine.fusion import log_final_score
from mtf_engine.observation import HISTORY, ObservationEncoder, push
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import Seed, Spec

SLICE = 512
"""Sessions computed together: their candidates' predictions (1 MB) stay in a core's cache."""
FIRST_SECOND, DAY = 1_704_067_200.0, 86_400  # 2024-01-01
PROFILE_SAMPLE = (1 << 62) + np.arange(10_000)
"""Users whose profiles fix the encoder's vocabularies and fill values."""
USERS_PER_SEED = 1 << 32
WALK, CLOCK = 1 << 40, (1 << 40) + 1
"""Children of a session's key beside its requests."""

PAUSE_SECONDS = 2  # between requests


class SessionConfig(Spec):
    """The size of the synthetic world; its users and items are drawn from the seed."""

    world: str = Field(default=DEFAULT_WORLD, description="name of the world")
    n_candidates: int = Field(
        default=0, ge=1, description="items a request chooses from; the world's own by default"
    )
    n_shown: int = Field(default=0, ge=1, description="items shown a request; the world's own by default")
    n_requests: int = Field(
        default=0, ge=1, description="cap on the length of a session; the world's own by default"
    )
    n_items: int = Field(default=6000, ge=1, description="items in the catalogue")
    seed: Seed = Field(default=0, description="of the world; a collection has its own")

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_world(cls, values: dict[str, Any]) -> dict[str, Any]:
        of = World.named(values.get("world", DEFAULT_WORLD))
        return {name: getattr(of, name) for name in ("n_candidates", "n_shown", "n_requests")} | values

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
    reach: Floats  # chance of being still there, 1 where leaving is drawn

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "State":
        return State(**{name: of[rows] for name, of in vars(self).items()})


@dataclass(frozen=True)
class Offer:
    """The k items that each of n sessions is offered, or those of them that are shown."""

    items: NDArray[np.int64]  # [n, k]
    keys: draws.Keys  # [n, k]
    pairs: Pairs
    predictions: Floats  # [8, n, k]

    def at(self, columns: NDArray[np.int64]) -> "Offer":
        """Returns the items in `columns` [n, j] of each session."""
        rows = np.arange(len(columns))[:, None]
        return Offer(
            items=self.items[rows, columns],
            keys=self.keys[rows, columns],
            pairs=self.pairs.at(rows, columns),
            predictions=self.predictions[:, rows, columns],
        )


class SessionEnvironment:
    """Synthetic sessions; see `Environment` for the interface and the module for what happens in them."""

    synthetic = True
    batch = 2048
    signals: tuple[str, ...] = world.SIGNALS
    item_features, item_mask = world.ITEM_FEATURES, world.ITEM_MASK

    def __init__(
        self,
        config: SessionConfig = DEFAULT,
        n_threads: int = 1,
        parameters: World | None = None,
        weigh_leaving: bool = False,
    ) -> None:
        """`parameters` are of another world than that of the config.

        With `weigh_leaving` nobody leaves before the cap: the reward of a request counts with the chance that its
        user is still there, which is what chance would bring in the mean, from a tenth of the users.
        """
        self.config = config
        self.world = parameters or World.named(config.world)
        self._weigh_leaving = weigh_leaving
        self.name = f"session:{config.world}"
        self.fusion, self.reward = self.world.fusion, self.world.reward
        self.catalogue = Catalogue.draw(config.n_items, config.seed)
        _, profiles = self.world.draw_users(PROFILE_SAMPLE, self.catalogue, config.seed)
        self.encoder = ObservationEncoder.fit(
            profiles,
            self.signals,
            numeric=world.NUMERIC,
            categorical=world.CATEGORICAL,
            requests_left=True,
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
        traits, profiles = self.world.draw_users(users, self.catalogue, seed)
        key = draws.child(draws.child(draws.child(draws.root(seed), draws.Channel.SESSIONS), users), sessions)
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
            reach=np.ones(n, np.float32),
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

    @property
    def reach(self) -> Floats:
        """The chance that each active session has come this far: 1 where leaving is drawn."""
        return self._state.reach

    def observe(self) -> Floats:
        """Returns the observations of the active sessions, [n, n_features]."""
        return np.concatenate(self._map(self._observe))

    def candidates(self, rows: slice) -> Candidates:
        """Returns what some of the active sessions choose from at this request."""
        offer = self._offer(self._state[rows])
        return Candidates(
            offer.items,
            np.ascontiguousarray(np.moveaxis(offer.predictions, 0, -1)),
            self.catalogue.features(offer.items),
        )

    def step(self, actions: Floats, typical: Floats | None = None) -> Step:
        """Returns what happens when the active sessions are served with `actions` [n, d], or [n, k, d], in [-1, 1]."""
        reach = self.reach
        parts = self._map(lambda rows: self._serve(self._state[rows], actions[rows], typical))
        impressions, ended, states = (_concatenate(part) for part in zip(*parts, strict=True))
        self._step += 1
        self._state = states
        return Step(
            rewards=impressions.reward.sum(axis=1) * reach,
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
        predictions = self.world.predictions(state.users, pairs, self.catalogue.kind.take(items), keys)
        return Offer(items, keys, pairs, predictions)

    def _serve(
        self, state: State, actions: Floats, typical: Floats | None
    ) -> tuple[Impressions, NDArray[np.bool_], State]:
        """Returns impressions and whether each session ended, [n], and the state of those that go on."""
        offer = self._offer(state)
        predictions = np.moveaxis(offer.predictions, 0, -1)
        scores = log_final_score(self.fusion, actions, predictions, typical=typical)
        shown = offer.at(best(scores, self.config.n_shown))
        signals, ended, after = self._live(state, shown)
        columns = dict(zip(self.signals, np.moveaxis(signals, -1, 0), strict=True))
        impressions = Impressions(
            item_id=shown.items,
            predictions=np.ascontiguousarray(np.moveaxis(shown.predictions, 0, -1)),
            signals=signals,
            reward=impression_rewards(self.reward, columns),
            label=columns["watch_time"] > self.reward.valid_seconds,
            item_features=self.catalogue.features(shown.items),
        )
        return impressions, ended, after[~ended]

    def _live(self, state: State, shown: Offer) -> tuple[Floats, NDArray[np.bool_], State]:
        """Returns signals [n, k, 8] for what is shown, who leaves [n], and the state after it."""
        topics = self.catalogue.topic.take(shown.items)
        repetition = np.take_along_axis(state.exposure, topics, axis=1) * state.users.boredom[:, None]
        by_repetition, by_position = f32((self.world.repetition_fatigue, self.world.position_fatigue))
        fatigue = by_repetition * repetition + by_position * np.arange(topics.shape[1], dtype=np.float32)
        signals = self.world.feedback(state.users, shown.pairs, fatigue, shown.keys)
        valid = signals[..., 1]
        history, counts = push(state.history, state.counts, signals)
        elapsed = np.ceil(signals[..., 0].sum(axis=1, dtype=np.float64)) + PAUSE_SECONDS
        after = replace(
            state,
            seconds=state.seconds + elapsed,
            elapsed=elapsed,
            exposure=self._blend(state.exposure, _shares(topics)),
            satisfaction=self._blend(
                state.satisfaction, (valid * shown.pairs.pleasure(state.users)).mean(axis=1)
            ),
            disappointment=self._blend(state.disappointment, (valid * shown.pairs.bait).mean(axis=1)),
            history=history,
            counts=counts,
        )
        weigh = self.world.leaving
        leaving = (
            weigh.level + state.users.impatience + weigh.satisfaction * after.satisfaction
            + weigh.disappointment * after.disappointment + weigh.boredom * repetition.mean(axis=1)
            + weigh.tired * self._step
        )  # fmt: skip
        luck = draws.uniform(draws.child(draws.child(state.key, self._step), self.config.n_items))
        last = self._step + 1 == self.config.n_requests
        leaves = np.float32(weigh.interruption) + np.float32(1 - weigh.interruption) * world.sigmoid(leaving)
        if self._weigh_leaving:
            return signals, np.full(len(leaves), last), replace(after, reach=state.reach * (1 - leaves))
        return signals, (luck < leaves) | last, after

    def _blend(self, old: Floats, new: Floats) -> Floats:
        decay = np.float32(self.world.decay)
        return decay * old + (1 - decay) * new


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
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(**{name: _concatenate([vars(p)[name] for p in parts]) for name in vars(parts[0])})
