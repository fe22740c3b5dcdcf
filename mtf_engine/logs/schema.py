"""What a dataset holds: its meta data, its two tables, and the arrays that are read from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from mtf_engine.observation import ObservationEncoder
from mtf_engine.spec import BoundsPlan, FusionSpec, RewardSpec, Spec

Columns = Mapping[str, np.ndarray]
"""Equally long arrays by column name; a list column is an array [n, width], NaN where a log has none."""

REQUEST_COLUMNS = (
    "request_id", "session_id", "user_id", "step", "timestamp", "split", "segment", "observation",
    "baseline_action", "action", "lower", "upper", "pscore", "clipped", "reward", "terminal", "truncated",
)  # fmt: skip
ACTION_COLUMNS = ("baseline_action", "action", "lower", "upper")
IMPRESSION_COLUMNS = ("request_id", "user_id", "item_id", "position", "predictions", "reward", "label")
SCALAR_TYPES = {
    "request_id": pa.int64(), "session_id": pa.int64(), "user_id": pa.string(), "step": pa.int32(),
    "timestamp": pa.timestamp("us"), "split": pa.string(), "segment": pa.string(), "pscore": pa.float64(),
    "clipped": pa.int32(), "reward": pa.float64(), "terminal": pa.bool_(), "truncated": pa.bool_(),
    "position": pa.int32(), "label": pa.bool_(),
}  # fmt: skip
"""Types of the columns of either table that are not lists; item_id is an integer or a string."""
CANDIDATE_REQUESTS = 10_000
"""All candidates are kept for a sample of this many requests only."""


class DatasetMeta(Spec):
    """How a dataset came about and what its columns mean; stored inside its file."""

    name: str
    source: Literal["session", "replay", "gym", "kuairand", "csv", "json", "parquet", "impressions"]
    fusion: FusionSpec
    reward: RewardSpec
    signals: tuple[str, ...] = Field(description="feedback columns of the impressions")
    feature_names: tuple[str, ...]
    numeric_mask: tuple[bool, ...] = Field(description="features that a policy standardises")
    encoder: ObservationEncoder | None = Field(default=None, description="what made the observations")
    synthetic: bool = Field(default=False, description="users and feedback are simulated")
    exploration: Literal["uniform", "gaussian", "baseline"] | None = None
    plan: BoundsPlan | None = Field(default=None, description="the bounds that the log carries")
    sigma: float | None = Field(default=None, description="standard deviation of Gaussian exploration")
    control_share: float | None = Field(default=None, description="share of users kept at the baseline")
    baseline: str = Field(default="baseline", description="the policy explored around: a run id or baseline")
    seed: int | None = None
    passes: int = Field(default=1, description="how often the source log was dealt out")
    continues: str | None = Field(default=None, description="the dataset whose log this one carries on")
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


@dataclass(frozen=True)
class EvaluationRows:
    """Logged requests with their impressions, for scoring by any policy.

    r requests: `request_id`, `user` (int codes), `segment`, `observations` [r, f], `baseline_actions`,
    `lower`, `upper` [r, d] (None for a log without actions). m impressions: `request` (index into the
    requests), `predictions` [m, p], `reward`, `label` (bool).
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

    @cached_property
    def impression_user(self) -> np.ndarray:
        return self.user[self.request]


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
