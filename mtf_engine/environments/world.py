"""The synthetic worlds of the session environment: catalogue, users, and what they would do.

Every probability is logistic in four properties of a user-item pair (the user's affinity, the item's quality,
click-bait and log duration). Watch time is log-logistic with shape 2, cut at the item's duration, so "valid",
"finish" and "skip" are thresholds of one draw, and its mean has a closed form.
"""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mtf_engine.environments import draws
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec, Spec

Floats = NDArray[np.float32]


def f32(values: ArrayLike) -> Floats:
    """Returns an array of float32."""
    return np.asarray(values, np.float32)


PREDICTIONS = (
    "valid_consumption", "watching_time", "play_finish_rate", "positive_behaviour_rate",
    "click", "like", "share", "skip",
)  # fmt: skip
SIGNALS = ("watch_time", "valid", "finish", "click", "like", "share", "comment", "skip")

AGES = ("under_25", "25_to_44", "over_44")
ACTIVITIES = ("light", "heavy")
SEGMENTS = np.array([f"{age}/{activity}" for age in AGES for activity in ACTIVITIES])
GENDERS = ("female", "male")
TOPICS = tuple(f"topic_{i:02d}" for i in range(12))
NUMERIC = ("daily_minutes",)
CATEGORICAL = ("age_band", "gender", "activity", "top_interest", "second_interest")
N_INTERESTS = 8

ITEM_KINDS = ("short", "middle", "long")
ITEM_FEATURES = ("log_duration", *(f"kind={kind}" for kind in ITEM_KINDS))
ITEM_MASK = (True, *(False for _ in ITEM_KINDS))
"""What a server knows of an item: its duration, and which of them a policy standardises."""

VALID_SECONDS, SKIP_SECONDS = 10.0, 4.0
SHORTEST, LONGEST = 12.0, 240.0
"""Durations of items, seconds."""


@dataclass(frozen=True)
class Catalogue:
    """Items, drawn from a seed; arrays of n_items. Neighbours in a stratum of the list share a topic."""

    interests: Floats  # [n_items, N_INTERESTS], unit length
    topic: NDArray[np.int64]
    quality: Floats
    bait: Floats
    log_duration: Floats  # log(seconds)
    kind: NDArray[np.int64]
    centroids: Floats  # [topics, N_INTERESTS]

    @classmethod
    def draw(cls, n_items: int, seed: int) -> Self:
        """Returns `n_items` items in topics of equal size, one after the other."""
        rng = np.random.default_rng([seed, n_items])
        centroids = _unit(rng.normal(size=(len(TOPICS), N_INTERESTS)))
        topic = np.arange(n_items) * len(TOPICS) // n_items
        duration = np.clip(np.exp(rng.normal(np.log(35), 0.7, n_items)), SHORTEST, LONGEST)
        return cls(
            interests=_unit(centroids[topic] + 0.25 * rng.normal(size=(n_items, N_INTERESTS))),
            topic=topic,
            quality=rng.normal(size=n_items).astype(np.float32),
            bait=np.maximum(rng.normal(0, 1.3, n_items), 0).astype(np.float32),
            log_duration=np.log(duration).astype(np.float32),
            kind=np.digitize(duration, [25, 50]),
            centroids=centroids,
        )

    def features(self, items: NDArray[np.int64]) -> Floats:
        """Returns what a server knows of `items` [n, k], [n, k, ITEM_FEATURES]."""
        return self._features.take(items, axis=0)

    @cached_property
    def _features(self) -> Floats:
        kinds = self.kind[:, None] == np.arange(len(ITEM_KINDS))
        return np.column_stack([self.log_duration, kinds]).astype(np.float32)


@dataclass(frozen=True)
class Users:
    """What makes n users act; only `segment` of it can be observed."""

    segment: NDArray[np.int64]  # index into SEGMENTS
    interests: Floats  # [n, N_INTERESTS]
    taste: Floats  # [n, 2], pleasure in affinity and in quality
    susceptibility: Floats  # multiplies the effect of click-bait
    generosity: Floats  # added to the logits of like, share and comment
    impatience: Floats  # added to the logit of leaving
    boredom: Floats  # multiplies the effect of repetition

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "Users":
        return Users(**{name: of[rows] for name, of in vars(self).items()})


@dataclass(frozen=True)
class Pairs:
    """What the world knows of each user with each of k items: arrays [n, k]."""

    affinity: Floats
    quality: Floats
    bait: Floats  # as this user feels it
    log_duration: Floats

    @classmethod
    def of(cls, users: Users, catalogue: Catalogue, items: NDArray[np.int64]) -> Self:
        """Returns users [n] paired with their items [n, k]."""
        return cls(
            affinity=np.einsum("nkd,nd->nk", catalogue.interests.take(items, axis=0), users.interests),
            quality=catalogue.quality.take(items),
            bait=catalogue.bait.take(items) * users.susceptibility[:, None],
            log_duration=catalogue.log_duration.take(items),
        )

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> "Pairs":
        """Returns the pairs in `columns` [n, j] of the `rows` [n, 1]."""
        return Pairs(**{name: of[rows, columns] for name, of in vars(self).items()})

    def pleasure(self, users: Users) -> Floats:
        """Returns how much the users enjoy each item once they watch it, [n, k]."""
        return users.taste[:, :1] * self.affinity + users.taste[:, 1:] * self.quality


Row = tuple[float, ...]
WORLDS = Path(__file__).with_name("worlds")
DEFAULT_WORLD = "feed"


class Leaving(Spec):
    """What makes a user leave after a request: weights in the logit of leaving, and chance."""

    level: float
    satisfaction: float
    disappointment: float
    boredom: float
    tired: float = Field(description="of the request's number in the session, from 0")
    interruption: float = Field(
        default=0, ge=0, lt=1, description="chance that something else ends the session after a request"
    )


class Generation(Spec):
    """What the generation before worked with: the noise of an older ranking model, and its own ranges."""

    noise: tuple[Row, ...]
    fusion: FusionSpec


class Live(Spec):
    """The live policy: actions linear in 0/1 features of the observation, as its generation learned them."""

    bias: Row
    weights: dict[str, Row] = Field(description="by feature name")


class World(Spec):
    """The parameters of a synthetic world; a table has a row a segment of users, or a column a prediction.

    A response is the logit (of "watch" the log of the median seconds) at an average pair and its slopes in the
    user's affinity, the item's quality, click-bait and log duration. A prediction is
    sigmoid(slope * logit + offset + noise), watching_time exp(...).
    """

    name: str
    what: str = Field(description="in a sentence")
    n_candidates: int = Field(ge=1, description="items a request chooses from")
    n_shown: int = Field(ge=1, description="items shown a request")
    n_requests: int = Field(ge=1, description="cap on the length of a session")
    responses: dict[str, Row]
    taste: tuple[Row, ...] = Field(description="pleasure in affinity and in quality, by segment")
    generosity: Row = Field(description="inclination to like, share and comment, by segment")
    susceptibility: Row = Field(description="how strongly click-bait works, by segment")
    noise: tuple[Row, ...] = Field(description="of the predictions: segments x PREDICTIONS")
    slope: tuple[Row, ...] = Field(description="of the predictions: segments x PREDICTIONS")
    offset: tuple[Row, ...] = Field(description="of the predictions: item kinds x PREDICTIONS")
    decay: float = Field(description="of exposure, satisfaction and disappointment, per request")
    position_fatigue: float
    repetition_fatigue: float
    leaving: Leaving
    fusion: FusionSpec
    reward: RewardSpec
    generation: Generation | None = Field(default=None, description="that learned the live policy")
    live: Live | None = Field(default=None, description="none: action 0 for everybody")

    @classmethod
    def named(cls, name: str) -> "World":
        """Returns the world of that name; a Refusal lists those there are."""
        if name not in names():
            raise Refusal(f"there is no world {name!r}; take one of {', '.join(names())}")
        return _read(name)

    @property
    def hash(self) -> str:
        """Names the parameters: what was measured under another hash is of another world."""
        return sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def draw_users(
        self, codes: NDArray[np.int64], catalogue: "Catalogue", seed: int
    ) -> tuple["Users", pd.DataFrame]:
        """Returns the users of `codes` and their observable profiles, each a function of (seed, code) alone."""
        keys, centroids = (
            draws.child(draws.child(draws.root(seed), draws.Channel.USERS), codes),
            catalogue.centroids,
        )

        def channel(index: int) -> Floats:
            return draws.normal(draws.child(keys, index))

        age, busy = np.digitize(channel(0), [-0.4, 0.6]), channel(1)
        heavy = (busy + 0.3 * channel(2) > 0).astype(np.int64)
        segment = age * len(ACTIVITIES) + heavy
        gender = (channel(3) > 0).astype(np.int64)
        lean = centroids[(age * 2 + gender) * 2] * np.float32(0.8)
        interests = _unit(np.stack([channel(10 + i) for i in range(N_INTERESTS)], axis=1) * 0.6 + lean)
        users = Users(
            segment=segment,
            interests=interests * np.float32(np.sqrt(N_INTERESTS)),
            taste=f32(self.taste)[segment],
            susceptibility=f32(self.susceptibility)[segment] * np.exp(0.2 * channel(4)),
            generosity=f32(self.generosity)[segment] + np.float32(0.5) * channel(5),
            impatience=np.float32(-0.35) * busy + np.float32(0.3) * channel(6),
            boredom=np.exp(0.3 * channel(7) - 0.2 * heavy).astype(np.float32),
        )
        liking = np.einsum("nd,td->nt", users.interests, centroids)
        slips = np.stack([channel(30 + i) for i in range(len(TOPICS))], axis=1)
        stated = np.argsort(liking + np.float32(0.5) * slips, axis=1)
        profile = pd.DataFrame(
            {
                "daily_minutes": np.round(np.exp(3.2 + 0.8 * busy + 0.4 * channel(8)), 1),
                "age_band": np.array(AGES)[age],
                "gender": pd.Series(np.array(GENDERS)[gender]).mask(channel(9) > 1.3),
                "activity": np.array(ACTIVITIES)[heavy],
                "top_interest": np.array(TOPICS)[stated[:, -1]],
                "second_interest": np.array(TOPICS)[stated[:, -2]],
            }
        )
        return users, profile

    def respond(self, behaviour: str, pairs: "Pairs") -> Floats:
        """Returns the logit of a behaviour, or for "watch" the log of the median seconds, [n, k]."""
        level, affinity, quality, bait, duration = map(np.float32, self.responses[behaviour])
        logit = affinity * pairs.affinity
        logit += quality * pairs.quality
        logit += bait * pairs.bait
        if duration:
            logit += duration * (pairs.log_duration - np.float32(np.log(30)))
        logit += level
        return logit

    def predictions(
        self, users: "Users", pairs: "Pairs", kind: NDArray[np.int64], keys: draws.Keys
    ) -> Floats:
        """Returns what the ranking model predicts of each pair, [8, n, k] in the order of PREDICTIONS.

        True probabilities, miscalibrated by segment and item type (`kind` [n, k]), with noise of `keys` [n, k].
        """
        scores = self.true_logits(users, pairs)
        scores *= self._slope[:, users.segment][:, :, None]
        scores += self._offset.take(kind, axis=1)
        noise = np.concatenate([draws.four_normals(draws.child(keys, channel)) for channel in (0, 1)])
        noise *= self._noise[:, users.segment][:, :, None]
        scores += noise
        watching_time = np.exp(scores[1])
        np.negative(scores, out=scores)
        np.exp(scores, out=scores)
        scores += np.float32(1)
        np.reciprocal(scores, out=scores)
        scores[1] = watching_time
        return scores

    def true_logits(self, users: "Users", pairs: "Pairs") -> Floats:
        """Returns the logits of what PREDICTIONS predict (of watching_time: log of mean minutes), [8, n, k]."""
        watch = self.respond("watch", pairs)
        likes, shares, comments = (
            self.respond(b, pairs) + users.generosity[:, None] for b in ("like", "share", "comment")
        )
        odds_of_any = (1 + np.exp(likes)) * (1 + np.exp(shares)) * (1 + np.exp(comments)) - 1
        mean_seconds = np.exp(watch) * np.arctan(np.exp(pairs.log_duration - watch))
        return np.stack(
            [
                2 * (watch - np.float32(np.log(VALID_SECONDS))),
                np.log(mean_seconds / 60),
                2 * (watch - pairs.log_duration),
                np.log(odds_of_any),
                self.respond("click", pairs),
                likes,
                shares,
                2 * (np.float32(np.log(SKIP_SECONDS)) - watch),
            ]
        )

    def feedback(self, users: "Users", pairs: "Pairs", fatigue: Floats, keys: draws.Keys) -> Floats:
        """Returns what the users do with what they are shown, float32 [n, k, 8] in the order of SIGNALS.

        `fatigue` [n, k] is subtracted from the log of the watch time and from the logit of a click.
        """
        luck = [draws.uniform(draws.child(keys, channel)) for channel in range(2, 7)]
        wanted = np.exp(self.respond("watch", pairs) - fatigue) * np.sqrt(luck[0] / (1 - luck[0]))
        duration = np.exp(pairs.log_duration)
        skip = wanted < SKIP_SECONDS
        clicks = luck[1] < sigmoid(self.respond("click", pairs) - fatigue)
        reactions = [
            u < sigmoid(self.respond(behaviour, pairs) + users.generosity[:, None])
            for behaviour, u in zip(("like", "share", "comment"), luck[2:], strict=True)
        ]
        watched = np.minimum(wanted, duration)
        signals = watched, watched > VALID_SECONDS, wanted >= duration, clicks, *reactions, skip
        return np.stack(signals, axis=-1, dtype=np.float32, casting="unsafe")

    @cached_property
    def _slope(self) -> Floats:
        return f32(self.slope).T

    @cached_property
    def _offset(self) -> Floats:
        return f32(self.offset).T

    @cached_property
    def _noise(self) -> Floats:
        return f32(self.noise).T


@cache
def names() -> tuple[str, ...]:
    """Returns the names of the worlds there are."""
    return tuple(sorted(path.stem for path in WORLDS.glob("*.json")))


@cache
def _read(name: str) -> World:
    values = json.loads((WORLDS / f"{name}.json").read_text())
    like = values.pop("like", None)
    return World.model_validate((_read(like).model_dump() if like else {}) | values)


def sigmoid(logits: Floats) -> Floats:
    """Returns probabilities of logits."""
    return np.reciprocal(1 + np.exp(-logits))


def _unit(vectors: NDArray) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
