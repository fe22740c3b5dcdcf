"""The replay environment: logged impressions, ranked anew; what is shown returns its real feedback.

A request offers the next logged impressions of a user in time order, the action ranks them, those on top are
shown and the others are gone unseen. There is no model of a response: consumption is bounded by the log.
"""

from dataclasses import dataclass, fields, replace
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from mtf_engine.environments import Active, Candidates, Impressions, Step, best, draws
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.datasets import Dataset
from mtf_engine.observation import ObservationEncoder, log_history, push
from mtf_engine.spec import Refusal, Spec

PASSES_PER_SEED = 1 << 32
DAY = 86_400


class ReplayConfig(Spec):
    """How logged impressions are dealt out again."""

    n_candidates: int = Field(default=20, ge=1, le=1_000, description="logged impressions offered a request")
    n_shown: int = Field(default=3, ge=1, description="of them shown")
    n_requests: int = Field(default=5, ge=1, le=1_000, description="cap on the length of a session")

    @model_validator(mode="after")
    def _some_unseen(self) -> Self:
        if self.n_shown > self.n_candidates:
            raise ValueError(f"shows {self.n_shown} of {self.n_candidates} candidates")
        return self

    @classmethod
    def named(cls, name: str) -> Self:
        """Returns the settings in the name of an environment, "replay:CANDIDATES/SHOWN/REQUESTS".

        A bare "replay" is of before they had a name. A Refusal of what is no such name.
        """
        _, _, written = name.partition(":")
        try:
            values = [int(part) for part in (written or FIRST).split("/")]
            return cls(**dict(zip(cls.model_fields, values, strict=True)))
        except ValidationError as error:
            raise Refusal.invalid("the replay", error) from None
        except ValueError:
            raise Refusal(
                f"{name} is no replay; write replay:CANDIDATES/SHOWN/REQUESTS, replay:20/3/5"
            ) from None

    @property
    def name(self) -> str:
        """The name of an environment with these settings."""
        return f"replay:{self.n_candidates}/{self.n_shown}/{self.n_requests}"


FIRST = "8/3/5"
"""What a replay without a name of its own offers, shows and plays."""
DEFAULT = ReplayConfig()


@dataclass
class State:
    """The active sessions: one row of each array a session."""

    session: NDArray[np.int64]  # position in the batch
    user: NDArray[np.int64]
    shift: NDArray[np.float64]  # seconds by which this pass comes later than the log
    row: NDArray[np.int64]  # of the log, the first impression on offer
    elapsed: NDArray[np.float64]  # since the last request, NaN before the first
    history: NDArray[np.float32]
    counts: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "State":
        return State(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class ReplayEnvironment:
    """Sessions dealt from the training days of a dataset; see `Environment` for the interface.

    Users with fewer impressions than one request offers are left out (`n_users_left_out`).
    """

    batch = 2048

    def __init__(self, dataset: Dataset, config: ReplayConfig = DEFAULT, seed: int = 0) -> None:
        meta, self.config, self.seed = dataset.meta, config, seed
        self.name = config.name
        self.log = dataset.user_log()
        lengths = np.diff(self.log.first)
        self._players = np.flatnonzero(lengths >= config.n_candidates)
        self.n_users_left_out = len(lengths) - len(self._players)
        if not len(self._players):
            raise Refusal(
                f"the dataset {meta.name} has no user with {config.n_candidates} impressions in its training "
                "days, so there is nothing to replay; offer fewer candidates or import a longer log"
            )
        self.synthetic, self.fusion, self.reward = meta.synthetic, meta.fusion, meta.reward
        self.signals, self.feature_names, self.numeric_mask = (
            meta.signals,
            meta.feature_names,
            meta.numeric_mask,
        )
        self.item_features, self.item_mask = meta.item_features, meta.item_mask
        self.encoder = cast("ObservationEncoder", meta.encoder)  # user_log has refused a log without one
        self._span = np.ceil(np.ptp(self.log.seconds) / DAY + 1) * DAY

    def visits(self, first: int, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns users [n] and passes [n] of sessions first..first + n: every user once a pass, shuffled."""
        passes, places = np.divmod(np.arange(first, first + n), len(self._players))
        wanted, which = np.unique(passes, return_inverse=True)
        keys = draws.child(
            draws.child(draws.child(draws.root(seed), draws.Channel.REPLAY_ORDER), wanted)[:, None],
            self._players,
        )
        shuffled = self._players[np.argsort(keys, axis=1)]
        return shuffled[which, places], passes + seed * PASSES_PER_SEED

    def passes(self, n_requests: int, seed: int) -> int:
        """Returns how often a collection of `n_requests` deals out the log's users."""
        n_played = passes = 0
        while n_played < n_requests:
            users, sessions = self.visits(passes * len(self._players), len(self._players), seed)
            in_log = (self.log.first[users + 1] - self._start(users, sessions)) // self.config.n_candidates
            n_played += np.minimum(in_log, self.config.n_requests).sum()
            passes += 1
        return passes

    def _start(self, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the first row [n] of each session, drawn from (seed, user, session)."""
        keys = draws.child(
            draws.child(draws.child(draws.root(self.seed), draws.Channel.REPLAY_START), users), sessions
        )
        first, stop = self.log.first[users], self.log.first[users + 1]
        return first + draws.below(keys, stop - first - self.config.n_candidates + 1)

    def reset(self, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> None:
        """Starts one session for each user code and session number, at a random place in the user's log."""
        first, row = self.log.first[users], self._start(users, sessions)
        history, counts = log_history(self.log.signals, first, row)
        before = self.log.seconds[np.maximum(row - 1, 0)]
        self._step = 0
        self._state = State(
            session=np.arange(len(users)),
            user=users,
            shift=sessions % PASSES_PER_SEED * self._span,
            row=row,
            elapsed=np.where(row > first, self.log.seconds[row] - before, np.nan),
            history=history,
            counts=counts,
        )

    @property
    def active(self) -> Active:
        state = self._state
        return Active(
            sessions=state.session,
            users=self.log.users[state.user],
            segments=self.log.segments[state.user],
            seconds=self.log.seconds[state.row] + state.shift,
            step=self._step,
        )

    def observe(self) -> NDArray[np.float32]:
        """Returns the observations of the active sessions, [n, n_features]."""
        state = self._state
        step = np.full(len(state.row), self._step)
        profile = self.log.profiles[state.user]
        left = self._requests_left(state.user, state.row)
        return self.encoder.observe(profile, state.history, state.counts, state.elapsed, step, left)

    def candidates(self, rows: slice) -> Candidates:
        """Returns what some of the active sessions choose from at this request."""
        offered = self._offered(self._state[rows])
        return Candidates(
            item_id=self.log.item_id[offered],
            predictions=self.log.predictions[offered],
            item_features=self._items(offered),
        )

    def step(self, actions: NDArray[np.float32], typical: NDArray[np.float32] | None = None) -> Step:
        """Returns what happens when the active sessions are served with `actions` [n, d], or [n, k, d], in [-1, 1]."""
        log, state = self.log, self._state
        offered = self._offered(state)
        scores = log_final_score(self.fusion, actions, log.predictions[offered], typical=typical)
        shown = np.take_along_axis(offered, best(scores, self.config.n_shown), axis=1)
        history, counts = push(state.history, state.counts, log.signals[shown])
        ended = self._requests_left(state.user, state.row) == 0
        row = np.where(ended, state.row, state.row + self.config.n_candidates)
        elapsed = log.seconds[row] - log.seconds[state.row]
        self._step += 1
        self._state = replace(state, row=row, elapsed=elapsed, history=history, counts=counts)[~ended]
        impressions = Impressions(
            item_id=log.item_id[shown],
            predictions=log.predictions[shown],
            signals=log.signals[shown],
            reward=log.reward[shown],
            label=log.label[shown],
            item_features=self._items(shown),
        )
        return Step(impressions.reward.sum(axis=1), ended, np.zeros(len(ended), bool), impressions)

    def _items(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        return None if self.log.item_features is None else self.log.item_features[rows]

    def _offered(self, state: State) -> NDArray[np.int64]:
        return state.row[:, None] + np.arange(self.config.n_candidates)

    def _requests_left(self, users: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns how many requests [n] follow this one: to the cap, or until the user's log is exhausted."""
        in_log = (self.log.first[users + 1] - row) // self.config.n_candidates - 1
        return np.minimum(self.config.n_requests - 1 - self._step, in_log)
