"""Logs from environments: whole sessions under an explored baseline policy, in the shape of a dataset."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mtf_engine.environments import Acting, Active, Environment, Impressions, Step, draws
from mtf_engine.environments.draws import Channel
from mtf_engine.environments.play import each_request
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.exploration.policies import Exploration, Kind, explore
from mtf_engine.logs.schema import CANDIDATE_REQUESTS, DatasetMeta, Tables
from mtf_engine.logs.splits import split_by_draw
from mtf_engine.spec import BoundsPlan, Count, Refusal, Seed, Spec

Rows = dict[str, NDArray]
"""Equally long arrays by column name."""

Elsewhere = Callable[[Iterator[tuple[int, int]]], Generator[tuple[Rows, Rows, Rows], None, None]]
"""Returns what `play_sessions` does of sessions first..first + n, for each (first, n), in that order."""

LEFT_OUT = -1
WORTH_SPREADING = 100_000
"""Requests: of fewer, other processes are not ready before one has played them."""


class Collection(Spec):
    """How a log is collected from an environment."""

    explore: Kind = Field(
        default="uniform", description="noise around the baseline action, or none (baseline)"
    )
    plan: BoundsPlan
    sigma: float = Field(default=0.2, gt=0, description="standard deviation of gaussian noise, per dimension")
    random_share: float = Field(
        default=0.5, gt=0, lt=1, description="share of mixed requests drawn at random"
    )
    random_sigma: float = Field(default=0.5, gt=0, description="standard deviation of those, per dimension")
    control_share: float = Field(
        default=0.1, ge=0, le=1, description="share of users kept at the baseline action"
    )
    n_requests: Count | None = Field(
        default=None, description="at least this many requests: the last session is played to its end"
    )
    n_sessions: Count | None = Field(default=None, description="so many sessions, instead of n_requests")
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.n_requests is None) == (self.n_sessions is None):
            raise ValueError("give a number of requests or one of sessions")
        return self

    @property
    def mixture(self) -> Mixture | None:
        """What mixed exploration draws from; None of any other."""
        of = {name: getattr(self, name) for name in Mixture.model_fields}
        return Mixture(**of) if self.explore == "mixed" else None

    def sessions_left(self, sessions: int, requests: int, most: int) -> int:
        """Returns how many sessions to play next, at most `most`, for a log that has so many already."""
        if self.n_requests is not None:
            return most if requests < self.n_requests else 0
        return min((self.n_sessions or 0) - sessions, most)

    def requests_left(self, sessions: int, requests: int) -> float:
        """Returns how many requests a log of so many sessions and requests still lacks, by their mean length."""
        if self.n_requests is not None:
            return self.n_requests - requests
        return ((self.n_sessions or 0) - sessions) * requests / max(sessions, 1)

    def sessions_kept(self, lengths: NDArray[np.int64], requests: int) -> int:
        """Returns how many of the sessions just played, of `lengths` requests, such a log takes."""
        if self.n_requests is None:
            return len(lengths)
        return min(int(np.searchsorted(lengths.cumsum(), self.n_requests - requests)) + 1, len(lengths))

    def meta(self, env: Environment, name: str, source: str, baseline: str = "baseline") -> DatasetMeta:
        """Returns the meta data of the dataset collected around `baseline`, a run id or "baseline"."""
        return DatasetMeta(
            name=name,
            source=source,
            fusion=env.fusion,
            reward=env.reward,
            signals=env.signals,
            feature_names=env.feature_names,
            numeric_mask=env.numeric_mask,
            item_features=env.item_features,
            item_mask=env.item_mask,
            encoder=env.encoder,
            synthetic=env.synthetic,
            exploration=self.explore,
            plan=self.plan,
            sigma=self.sigma if self.explore == "gaussian" else None,
            mixture=self.mixture,
            control_share=1.0 if self.explore == "baseline" else self.control_share,
            baseline=baseline,
            seed=self.seed,
            passes=self._passes(env),
            details={"env": env.name},
        )

    def _passes(self, env: Environment) -> int:
        """Returns how often the collection deals out the environment's users."""
        if self.n_requests is not None:
            return env.passes(self.n_requests, self.seed)
        _, numbers = env.visits(0, self.n_sessions or 0, self.seed)
        return len(np.unique(numbers))


def collect(
    env: Environment,
    baseline: Acting,
    collection: Collection,
    batch: int | None = None,
    elsewhere: Elsewhere | None = None,
) -> Generator[Tables, None, None]:
    """Yields the log, `batch` sessions at a time, until it has the requests asked for.

    Explored logs carry a split: 10 % of users, by hash, are validation. Control users, by another hash, stay
    at the baseline action. All candidates are kept for the first 10,000 requests.

    What comes after those is played `elsewhere` where that is worth it; the log is the same.
    """
    if collection.plan.n_actions != env.fusion.n_actions:
        raise Refusal(
            f"the bounds plan has {collection.plan.n_actions} dimensions and {env.name} environments take "
            f"actions of {env.fusion.n_actions}; give a plan with {', '.join(env.fusion.names)}"
        )
    size = batch or env.batch
    sessions = requests = 0
    played = None
    with ExitStack() as stack:
        while n := collection.sessions_left(sessions, requests, size):
            n_offered = max(CANDIDATE_REQUESTS - requests, 0)
            left = collection.requests_left(sessions, requests)
            if elsewhere and played is None and not n_offered and left > WORTH_SPREADING:
                played = elsewhere(_spans(collection, sessions, size))
                stack.enter_context(closing(played))
            found = (
                next(played) if played else play_sessions(env, baseline, collection, (sessions, n), n_offered)
            )
            tables = _numbered(collection, found, sessions, requests, n_offered)
            yield tables
            sessions = int(tables.requests["session_id"][-1]) + 1
            requests += len(tables.requests["request_id"])


def _spans(collection: Collection, first: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields sessions first..first + n as (first, n), `size` at a time; without an end where requests are counted."""
    while n := collection.sessions_left(first, 0, size):
        yield first, n
        first += n


def _numbered(
    collection: Collection, found: tuple[Rows, Rows, Rows], sessions: int, requests: int, n_offered: int
) -> Tables:
    """Returns what the log takes of sessions played, behind so many sessions and requests that it has."""
    played, shown, offered = found
    session = played["session_id"] - sessions
    lengths = np.bincount(session)
    n_sessions = collection.sessions_kept(lengths, requests)
    order = np.lexsort((played["step"], session))[: lengths[:n_sessions].sum()]
    ids = np.full(len(session), LEFT_OUT)
    ids[order] = np.arange(requests, requests + len(order))
    return Tables(
        requests={"request_id": ids[order]} | _rows(played, order),
        impressions=_flat(ids[order], _rows(shown, order)),
        candidates=_candidates(ids[session < n_offered], offered)
        if offered and offered["item_id"].size
        else None,
    )


def play_sessions(
    env: Environment, baseline: Acting, collection: Collection, span: tuple[int, int], n_offered: int = 0
) -> tuple[Rows, Rows, Rows]:
    """Returns requests, what each showed, and what those of the first `n_offered` sessions chose from.

    Sessions first..first + n of the `span` (first, n) are played to their ends; rows are in the order of play: all
    first requests, all second ones.
    """
    first, n = span
    users, numbers = env.visits(first, n, collection.seed)
    control = _drawn(users, collection.seed, Channel.CONTROL) < collection.control_share
    split = _split(users, collection)
    n_actions, mixture = env.fusion.n_actions, collection.mixture
    luck = draws.child(draws.child(draws.root(collection.seed), Channel.NOISE), np.arange(first, first + n))
    env.reset(users, numbers)
    played, shown, offered = [], [], []
    for active, observations in each_request(env):
        who = active.sessions
        baseline_actions = baseline.act(observations)
        keys = draws.child(draws.child(luck[who], active.step)[:, None], np.arange(n_actions + 1))
        lucky = draws.uniform(keys)
        exploration = explore(
            collection.explore,
            baseline_actions,
            collection.plan,
            active.segments,
            sigma=collection.sigma,
            control=control[who],
            luck=lucky[:, :n_actions],
            mixture=mixture,
            part=lucky[:, n_actions],
        )
        if n_offered > 0:
            found = vars(env.candidates(slice(0, int(np.searchsorted(who, n_offered)))))
            offered.append({name: column for name, column in found.items() if column is not None})
        step = env.step(exploration.actions)
        played.append(
            {
                "session_id": who + first,
                "split": split[who],
                "observation": observations,
                "baseline_action": baseline_actions,
            }
            | _columns(active, exploration, step)
        )
        shown.append(_shown(env, active.users, step.impressions))
        if step.led_to is not None and len(step.led_to):
            cut = np.flatnonzero(step.truncated)
            whose = {"session_id": who[cut] + first, "split": split[who[cut]]}
            played.append(whose | _led_to(active, cut, step.led_to, baseline, collection.plan))
            shown.append(_rows(shown[-1], cut))
    return _concatenate(played), _concatenate(shown), _concatenate(offered)


def _columns(active: Active, exploration: Exploration, step: Step) -> Rows:
    """Returns the columns of the requests table that the environment and the exploration fill."""
    return {
        "user_id": active.users,
        "segment": active.segments,
        "step": np.full(len(active), active.step, np.int32),
        "timestamp": (active.seconds * 1e6).round().astype("datetime64[us]"),
        "action": exploration.actions,
        "lower": exploration.lower,
        "upper": exploration.upper,
        "pscore": exploration.pscore,
        "clipped": exploration.clipped,
        "reward": step.rewards,
        "terminal": step.terminals,
        "truncated": step.truncated,
    }


def _led_to(
    active: Active,
    cut: NDArray[np.int64],
    observations: NDArray[np.float32],
    baseline: Acting,
    plan: BoundsPlan,
) -> Rows:
    """Returns the columns of requests without an action: where the sessions `cut`, which show nothing, led."""
    baseline_actions, nothing = baseline.act(observations), np.full(len(cut), np.nan)
    lower, upper = plan.resolve(baseline_actions, active.segments[cut])
    return {
        "observation": observations,
        "baseline_action": baseline_actions,
        "user_id": active.users[cut],
        "segment": active.segments[cut],
        "step": np.full(len(cut), active.step + 1, np.int32),
        "timestamp": (active.seconds[cut] * 1e6).round().astype("datetime64[us]"),
        "action": np.full_like(baseline_actions, np.nan),
        "lower": lower,
        "upper": upper,
        "pscore": nothing,
        "clipped": np.zeros(len(cut), np.int32),
        "reward": np.zeros(len(cut)),
        "terminal": np.zeros(len(cut), bool),
        "truncated": np.zeros(len(cut), bool),
    }


def _shown(env: Environment, users: NDArray[np.str_], impressions: Impressions) -> Rows:
    """Returns the columns of the impressions table, each [n, k] or [n, k, width]."""
    signals = dict(zip(env.signals, np.moveaxis(impressions.signals, -1, 0), strict=True))
    n, k = impressions.item_id.shape
    return {
        "user_id": np.tile(users[:, None], k),
        "item_id": impressions.item_id,
        "position": np.tile(np.arange(k, dtype=np.int32), (n, 1)),
        "predictions": impressions.predictions,
        **({} if impressions.item_features is None else {"item_features": impressions.item_features}),
        **signals,
        "reward": impressions.reward,
        "label": impressions.label,
    }


def _flat(ids: NDArray[np.int64], columns: Rows) -> Rows:
    """Returns one row an item from columns [n, k] or [n, k, width] of the requests `ids` [n]."""
    n, k = columns["item_id"].shape
    return {"request_id": np.repeat(ids, k)} | {
        name: values.reshape(n * k, *values.shape[2:]) for name, values in columns.items()
    }


def _candidates(ids: NDArray[np.int64], offered: Rows) -> Rows | None:
    """Returns the candidates of the first 10,000 requests; `ids` [n] are the requests of `offered` [n, k]."""
    order = np.argsort(ids, kind="stable")
    order = order[(ids[order] > LEFT_OUT) & (ids[order] < CANDIDATE_REQUESTS)]
    return _flat(ids[order], _rows(offered, order))


def _drawn(users: NDArray[np.int64], seed: int, channel: Channel) -> NDArray[np.float32]:
    """Returns a draw from (0, 1) for each user [n], the same wherever the seed is."""
    return draws.uniform(draws.child(draws.child(draws.root(seed), channel), users))


def _split(users: NDArray[np.int64], collection: Collection) -> NDArray:
    """Returns "train" or "validation" for each user [n], the same in every log; None for a baseline log."""
    if collection.explore == "baseline":
        return np.full(len(users), None)
    return split_by_draw(_drawn(users, 0, Channel.VALIDATION))


def _rows(columns: Rows, order: NDArray[np.int64]) -> Rows:
    return {name: values[order] for name, values in columns.items()}


def _concatenate(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
