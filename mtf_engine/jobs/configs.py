"""What a run of each kind is told; a training is told its algorithm's own config."""

from typing import Literal

from pydantic import Field, model_validator

from mtf_engine.registry import BASELINE
from mtf_engine.spec import BoundsPlan, Spec


class ImportConfig(Spec):
    """Read a log that lies at `source`, an absolute path."""

    source: str
    format: Literal["auto", "csv", "parquet", "impressions", "kuairand"] = "auto"
    user_features: str | None = None
    mapping: str | None = None
    name: str
    n_threads: int = 1


class CollectConfig(Spec):
    """Play an environment around a baseline policy and log what happens."""

    env: Literal["session", "replay"]
    source: str | None = Field(default=None, description="id of the dataset to replay")
    explore: Literal["uniform", "gaussian", "baseline"] = "uniform"
    half_width: float = Field(default=0.15, gt=0, le=2, description="of the box, where no plan is given")
    plan: BoundsPlan | None = None
    sigma: float = Field(default=0.2, gt=0, description="standard deviation of Gaussian exploration")
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")
    baseline: str = BASELINE
    n_requests: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    name: str
    n_threads: int = 1

    @model_validator(mode="after")
    def _replay_has_a_source(self) -> "CollectConfig":
        if (self.env == "replay") != (self.source is not None):
            raise ValueError("replay needs the dataset to replay (--from), and nothing else takes one")
        return self


class EvaluateConfig(Spec):
    """Score policies on a dataset."""

    policies: tuple[str, ...] = Field(min_length=1)
    dataset_id: str
    seed: int = Field(default=0, ge=0)
    n_threads: int = 1


class ABTestConfig(Spec):
    """Play the same users of an environment under several policies."""

    env: Literal["session"]
    policies: tuple[str, ...] = Field(min_length=2, description="the base among them")
    base: str
    n_users: int = Field(default=10_000, ge=2, description="of each seed")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    n_threads: int = 1


class ExportConfig(Spec):
    """Write the policy of a training as a bundle."""

    run_id: str
    n_threads: int = 1
