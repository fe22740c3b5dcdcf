"""What a dataset holds: its meta data, its two tables, and the arrays that are read from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import md5
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.observation import ObservationEncoder
from mtf_engine.spec import BoundsPlan, FusionSpec, RewardSpec, Spec

Columns = Mapping[str, np.ndarray | pa.Array]
"""Equally long arrays by column name; a list column is an array [n, width], NaN where a log has none. Texts of a batch
on its way into a dataset may be as they lie in Arrow's memory."""

REQUEST_COLUMNS = (
    "request_id", "session_id", "user_id", "step", "timestamp", "split", "segment", "observation",
    "baseline_action", "action", "lower", "upper", "pscore", "clipped", "reward", "terminal", "truncated",
)  # fmt: skip
ACTION_COLUMNS = ("baseline_action", "action", "lower", "upper")
IMPRESSION_COLUMNS = (
    "request_id", "user_id", "item_id", "position", "propensity_score", "predictions", "reward", "label",
)  # fmt: skip
SCALAR_TYPES = {
    "request_id": pa.int64(), "session_id": pa.int64(), "user_id": pa.string(), "step": pa.int32(),
    "timestamp": pa.timestamp("us"), "split": pa.string(), "segment": pa.string(), "pscore": pa.float64(),
    "clipped": pa.int32(), "reward": pa.float64(), "terminal": pa.bool_(), "truncated": pa.bool_(),
    "position": pa.int32(), "propensity_score": pa.float64(), "label": pa.bool_(),
}  # fmt: skip
"""Types of the columns of either table that are not lists; item_id is an integer or a string."""

Kind = Literal["text", "integer", "long", "number", "real", "flag", "time", "list"]


class FileColumn(NamedTuple):
    """A column of a log's file: what it holds, and what an import does without it.

    `needed` is said of every log, `with action` of one whose requests have actions; all else is `optional`.
    """

    name: str
    kind: Kind
    need: Literal["needed", "with action", "optional"]
    unit: str
    example: str
    meaning: str
    missing: str


REFUSED = "the log is refused"
REQUEST_FILE = (
    FileColumn("request_id", "text", "needed", "", "1001", "the request, once in the file", REFUSED),
    FileColumn("session_id", "text", "needed", "", "7", "the session of one user that it belongs to", REFUSED),
    FileColumn("user_id", "text", "needed", "", "ada", "the user", REFUSED),
    FileColumn("step", "integer", "needed", "", "0", "0, 1, 2, ... within the session, in time order", REFUSED),
    FileColumn(
        "timestamp", "time", "needed", "a time, or s, ms, us or ns since 1970", "2026-05-04 09:30:00",
        "when it was served", REFUSED,
    ),
    FileColumn(
        "action", "list", "optional", "[-1, 1], the range of each fusion weight", "[0.05, -0.1]",
        "the fusion weights that were served, a number a dimension",
        "a log without actions: policies are compared on it and explored by replay, not trained",
    ),
    FileColumn(
        "baseline_action", "list", "with action", "[-1, 1]", "[0.0, 0.0]",
        "what the live policy would have served", REFUSED,
    ),
    FileColumn(
        "lower", "list", "with action", "offset from the baseline action", "[-0.15, -0.15]",
        "the lower exploration bounds", REFUSED,
    ),
    FileColumn(
        "upper", "list", "with action", "offset from the baseline action", "[0.15, 0.15]",
        "the upper exploration bounds", REFUSED,
    ),
    FileColumn(
        "pscore", "real", "optional", "density", "11.1",
        "the density with which the action was drawn; blank for users kept at the baseline",
        "no row counts as explored, so no certificate and no signal is told; all that are off their baseline action do "
        "where the mapping says `exploration: uniform`",
    ),
    FileColumn(
        "clipped", "integer", "optional", "dimensions", "0", "how many of the action's dimensions were cut", "0",
    ),
    FileColumn(
        "observation", "list", "optional", "natural units", "[31.0, 0.4]",
        "what the policy is told of user and context",
        "made from the log: profile columns of the mapping, the user's feedback so far, time since the last request",
    ),
    FileColumn("segment", "text", "optional", "", "new", "the user's group; bounds may differ by it", "all"),
    FileColumn(
        "split", "text", "optional", "train, validation or test", "train", "what the row is for",
        "with actions one user in ten is for validation; without, the last 3 days are for test and the 2 before for "
        "validation, where the log has more than 5; or as the import is told (`--split-by`)",
    ),
    FileColumn(
        "reward", "real", "optional", "reward", "0.74", "the reward of the request",
        "the sum of its impressions' rewards; where it is there, it must be that sum",
    ),
    FileColumn(
        "terminal", "flag", "optional", "true or false", "false", "the session ended here",
        "true for the last request of a session that is not truncated",
    ),
    FileColumn(
        "truncated", "flag", "optional", "true or false", "false", "the session went on, the log does not", "false",
    ),
)  # fmt: skip
"""Columns of the file of requests."""
IMPRESSION_FILE = (
    FileColumn("request_id", "text", "needed", "", "1001", "the request that it was shown in", REFUSED),
    FileColumn(
        "predictions", "list", "needed", "probabilities or other numbers of 0 and above", "[0.12, 0.03]",
        "what the ranking model predicted, one number a behaviour; or a column for each: prediction_click, "
        "prediction_like", REFUSED,
    ),
    FileColumn(
        "watch_time", "number", "optional", "seconds", "12.5", "how long it was watched",
        "another signal must be there, and with neither `valid` nor `label` the log is refused",
    ),
    FileColumn(
        "signals", "number", "optional", "[0, 1]", "1",
        "what the user did, a column each: valid, click, like, comment, share, follow, finish, ... or those that "
        "the mapping names",
        "`watch_time` must be there",
    ),
    FileColumn(
        "item_id", "text", "optional", "", "v42", "the item that was shown", "items are numbered by row",
    ),
    FileColumn(
        "position", "integer", "optional", "", "0", "its place in the request, once in it, from 0 or from 1",
        "impressions of a request are in the file's order",
    ),
    FileColumn(
        "propensity_score", "real", "optional", "(0, 1]", "0.025",
        "how likely the item was shown at its position; kept, but what is learned are fusion weights, not a policy "
        "over items", "nothing is kept",
    ),
    FileColumn(
        "label", "flag", "optional", "true or false", "true", "it counts as a positive for weighted GAUC",
        "`watch_time` above `valid_seconds` (10 s), else `valid` above 0",
    ),
    FileColumn(
        "reward", "real", "optional", "reward", "0.62", "the reward of the impression, above -1",
        "the weighted sum of its signals; where it is there, it must be that sum",
    ),
)  # fmt: skip
"""Columns of the file of impressions; `signals` stands for a column each."""

CANDIDATE_REQUESTS = 10_000
"""All candidates are kept for a sample of this many requests only."""


Source = Literal[
    "session",
    "replay",
    "gym",
    "kuairand",
    "csv",
    "json",
    "parquet",
    "impressions",
    "transitions",
    "minari",
    "d3rlpy",
]
Exploration = Literal["uniform", "gaussian", "mixed", "baseline", "unknown"]
"""How actions were drawn around the baseline action; unknown: by a behavior policy that the log does not describe."""


class DatasetMeta(Spec):
    """How a dataset came about and what its columns mean; stored inside its file."""

    name: str
    source: Source
    fusion: FusionSpec
    reward: RewardSpec
    signals: tuple[str, ...] = Field(description="feedback columns of the impressions")
    feature_names: tuple[str, ...]
    numeric_mask: tuple[bool, ...] = Field(description="features that a policy standardises")
    item_features: tuple[str, ...] = Field(
        default=(), description="features of items, a column `item_features` of impressions and candidates"
    )
    item_mask: tuple[bool, ...] = Field(default=(), description="item features that a policy standardises")
    encoder: ObservationEncoder | None = Field(default=None, description="what made the observations")
    synthetic: bool = Field(default=False, description="users and feedback are simulated")
    exploration: Exploration | None = None
    plan: BoundsPlan | None = Field(default=None, description="the bounds that the log carries")
    sigma: float | None = Field(default=None, description="standard deviation of Gaussian exploration")
    mixture: Mixture | None = Field(default=None, description="what mixed exploration drew from")
    control_share: float | None = Field(default=None, description="share of users kept at the baseline")
    baseline: str = Field(default="baseline", description="the policy explored around: a run id or baseline")
    baseline_action: tuple[float, ...] | None = Field(
        default=None,
        description="what `baseline` does for everybody, on [-1, 1]; None: as where the log is from",
    )
    seed: int | None = None
    passes: int = Field(default=1, description="how often the source log was dealt out")
    continues: str | None = Field(default=None, description="the dataset whose log this one carries on")
    prediction_model: str | None = Field(
        default=None, description="SHA-256 of the model that made the predictions, which the file holds"
    )
    created_at: datetime | None = None
    details: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """One batch of rows on its way into a dataset; request ids grow with time within a user."""

    requests: Columns
    impressions: Columns
    candidates: Columns | None = None


class Ledger(Spec):
    """What the registry remembers of a dataset file, compared whenever the file is opened."""

    dataset_id: str
    n_requests: int
    n_impressions: int
    content_hash: str


def user_keys(users: Iterable[str]) -> np.ndarray:
    """Returns a uint64 for each user id [n], as good as random: DuckDB's `md5_number_upper` of it."""
    return np.array(
        [int.from_bytes(md5(str(user).encode()).digest()[:8], "little") for user in users], np.uint64
    )


class UserShare(NamedTuple):
    """The users from `first` on and before `stop`, in the order of their ids; None: from the first, to the last.

    `before` is how many impressions the users before them have.
    """

    first: str | None = None
    stop: str | None = None
    before: int = 0

    @property
    def sql(self) -> str:
        """The condition that a user is of the share; its parameters are `ids`."""
        ends = [
            f"user_id {sign} ?" for sign, end in ((">=", self.first), ("<", self.stop)) if end is not None
        ]
        return " AND ".join(ends) or "true"

    @property
    def ids(self) -> list[str]:
        return [end for end in (self.first, self.stop) if end is not None]


LOGGED = ("baseline_actions", "lower", "upper")
"""The columns of evaluation rows that a log without actions has not."""


@dataclass(frozen=True)
class EvaluationWhole:
    """What is to be known of all rows of an evaluation where they are read share by share.

    `segments` are those of its requests, the largest first, and of one size by name; `logged` are the columns of
    LOGGED that any request has.
    """

    n_impressions: int
    segments: tuple[str, ...]
    logged: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationRows:
    """Logged requests with their impressions, for scoring by any policy.

    r requests: `request_id`, `user` (int codes), `segment`, `observations` [r, f], `baseline_actions`,
    `lower`, `upper` [r, d] (None for a log without actions). m impressions: `request` (index into the
    requests), `predictions` [m, p], `reward`, `label` (bool), and, where the log has them, features of the items
    [m, `item_names`]. `user_keys` [u] are hashes of the users' ids, by code, where those are known.
    """

    split: str
    request_id: np.ndarray
    user: np.ndarray
    segment: np.ndarray
    observations: np.ndarray
    baseline_actions: np.ndarray | None
    lower: np.ndarray | None
    upper: np.ndarray | None
    request: np.ndarray
    predictions: np.ndarray
    reward: np.ndarray
    label: np.ndarray
    fusion: FusionSpec
    feature_names: tuple[str, ...]
    item_features: np.ndarray | None = None
    item_names: tuple[str, ...] = ()
    user_keys: np.ndarray | None = None

    @property
    def whole(self) -> "EvaluationWhole":
        """What is to be known of these rows, where they are all there are."""
        segments, sizes = np.unique(self.segment.astype(str), return_counts=True)
        return EvaluationWhole(
            n_impressions=len(self.request),
            segments=tuple(segments[np.argsort(-sizes, kind="stable")].tolist()),
            logged=tuple(name for name in LOGGED if getattr(self, name) is not None),
        )

    def with_logged(self, names: tuple[str, ...]) -> "EvaluationRows":
        """Returns the rows with the columns `names` of LOGGED; NaN where these rows alone have no actions."""
        shape = len(self.request_id), self.fusion.n_actions
        lacking: dict[str, Any] = {
            name: np.full(shape, np.nan, np.float32) for name in names if getattr(self, name) is None
        }
        return replace(self, **lacking)

    @cached_property
    def impression_user(self) -> np.ndarray:
        return self.user[self.request]

    @cached_property
    def keys(self) -> np.ndarray:
        """A uint64 for each user [u], by code, as good as random."""
        if self.user_keys is not None:
            return self.user_keys
        return user_keys([str(code) for code in range(int(self.user.max(initial=-1)) + 1)])

    def of(self, requests: np.ndarray, impressions: np.ndarray) -> "EvaluationRows":
        """Returns the rows of some requests and of all their impressions, by their numbers, users coded anew."""
        codes, user = np.unique(self.user[requests], return_inverse=True)
        number = np.full(len(self.request_id), -1)
        number[requests] = np.arange(len(requests))
        of_requests = ("request_id", "segment", "observations", "baseline_actions", "lower", "upper")
        of_impressions = ("predictions", "reward", "label", "item_features")
        chosen = dict.fromkeys(of_requests, requests) | dict.fromkeys(of_impressions, impressions)
        columns: dict[str, Any] = {
            name: getattr(self, name)[rows]
            for name, rows in chosen.items()
            if getattr(self, name) is not None
        }
        columns |= {"user": user, "user_keys": self.keys[codes], "request": number[self.request[impressions]]}
        return replace(self, **columns)


@dataclass(frozen=True)
class UserLog:
    """Impressions of one split by user and time, for replay: rows first[u]:first[u + 1] are user u's."""

    users: np.ndarray  # [u] user ids
    segments: np.ndarray  # [u]
    profiles: np.ndarray  # [u, profile features]
    first: np.ndarray  # [u + 1]
    user: np.ndarray  # [m] index into users
    seconds: np.ndarray  # [m] time of the request, seconds
    item_id: np.ndarray  # [m]
    predictions: np.ndarray  # [m, p]
    signals: np.ndarray  # [m, s] in the order of meta.signals
    reward: np.ndarray  # [m]
    label: np.ndarray  # [m]
    item_features: np.ndarray | None = None  # [m, item features]
