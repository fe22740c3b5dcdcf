"""What a run of each kind is told; a training is told its algorithm's own config."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from mtf_engine.registry import BASELINE
from mtf_engine.release.criteria import Criteria
from mtf_engine.spec import MOST, BoundsPlan, Count, HalfWidth, Seed, Spec, Threads

SESSION, REPLAY, GYM = "session", "replay", "gym:"
"""What the name of an environment is, or starts with: "session:WORLD", "replay:20/3/5", "gym:ID"."""


FIRST_WORLD = "clickbait"
"""The world of a stored "session" that names none: there was no other."""


def session_of(world: str) -> str:
    """Returns the name of the environment of synthetic users in a world."""
    return f"{SESSION}:{world}"


def is_session(env: str) -> bool:
    """Returns whether users of the environment are synthetic."""
    return env.partition(":")[0] == SESSION


def world_of(env: str) -> str | None:
    """Returns the world of an environment's synthetic users; None where it has none."""
    return env.partition(":")[2] or FIRST_WORLD if is_session(env) else None


def is_replay(env: str) -> bool:
    """Returns whether the environment deals out the impressions of a log."""
    return env.partition(":")[0] == REPLAY


def _whole(env: str) -> str:
    """Returns the whole name of an environment, of which an earlier version may have stored a shorter one."""
    if env.endswith(":"):
        raise ValueError(f"{env!r} names no environment; write session:WORLD, replay:20/3/5 or gym:ID")
    if world := world_of(env):
        return session_of(world)
    if is_replay(env):
        from mtf_engine.environments.replay import ReplayConfig

        return ReplayConfig.named(env).name
    if env.startswith(GYM):
        return env
    raise ValueError(f"there is no environment {env!r}; write session:WORLD, replay:20/3/5 or gym:ID")


EnvName = Annotated[str, AfterValidator(_whole)]


class Played(Spec):
    """Sessions of an environment, or of a log that is replayed."""

    env: EnvName
    source: str | None = Field(default=None, description="id of the dataset to replay")

    @model_validator(mode="after")
    def _replay_has_a_source(self) -> Self:
        if is_replay(self.env) != (self.source is not None):
            raise ValueError("replay needs the dataset to replay (--from), and nothing else takes one")
        return self


class ImportConfig(Spec):
    """Read a log that lies at `source`, an absolute path."""

    source: str
    format: Literal["auto", "csv", "json", "parquet", "impressions", "kuairand"] = "auto"
    user_features: str | None = None
    mapping: str | None = None
    bad_rows: Literal["refuse", "drop"] = "refuse"
    name: str
    n_threads: Threads = 1


class CollectConfig(Played):
    """Play an environment around a baseline policy and log what happens."""

    explore: Literal["uniform", "gaussian", "baseline"] = "uniform"
    half_width: HalfWidth = Field(default=0.15, description="of the box, where no plan is given")
    plan: BoundsPlan | None = None
    sigma: float = Field(default=0.2, gt=0, description="standard deviation of Gaussian exploration")
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")
    baseline: str = BASELINE
    n_requests: Count | None = None
    n_sessions: Count | None = Field(default=None, description="so many sessions, instead of n_requests")
    seed: Seed = 0
    name: str
    n_threads: Threads = 1

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.n_requests is None) == (self.n_sessions is None):
            raise ValueError("give a number of requests or one of sessions")
        return self


class JoinConfig(Spec):
    """Put the logs of several datasets into one."""

    datasets: tuple[str, ...] = Field(min_length=2, description="ids, oldest first")
    name: str
    n_threads: Threads = 1


class EvaluateConfig(Spec):
    """Score policies on a dataset."""

    policies: tuple[str, ...] = Field(min_length=1)
    dataset_id: str
    seed: Seed = 0
    n_threads: Threads = 1


class ABTestConfig(Spec):
    """Play the same users of an environment under several policies."""

    env: EnvName
    policies: tuple[str, ...] = Field(min_length=2, description="the base among them")
    base: str
    n_users: Count = Field(default=10_000, ge=2, description="of each seed")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    personalisation: bool = Field(default=False, description="each policy beside its own mean actions too")
    n_threads: Threads = 1

    @model_validator(mode="after")
    def _users_decide(self) -> "ABTestConfig":
        if is_replay(self.env):
            raise ValueError("what replayed users consume is bounded by their log; take session or gym:ID")
        return self

    @property
    def sessions(self) -> int:
        """How many sessions are played; a policy and its two mean actions make three more each."""
        more = 3 * (len(self.policies) - 1) if self.personalisation else 0
        return (len(self.policies) + more) * len(self.seeds) * self.n_users


class ExportConfig(Spec):
    """Write the policy of a training as a bundle."""

    run_id: str
    on: str | None = Field(default=None, description="id of the dataset whose rows it is checked with")
    n_threads: Threads = 1


class ProgressiveConfig(Played):
    """Explore, train and promote, round after round. `training` is the trainer's config for all rounds."""

    rounds: int = Field(default=5, ge=1, le=100)
    sessions_per_round: Count
    algo: str
    training: dict[str, Any] = Field(description="n_steps is shared by the rounds, passes are of each")
    half_width: HalfWidth = Field(default=0.15, description="of the box, where no plan is given")
    plan: BoundsPlan | None = None
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")
    baseline: str = Field(default=BASELINE, description="policy that the first round explores around")
    train_on: Literal["current", "cumulative"] = Field(
        default="current", description="the log of the round, or of all rounds so far"
    )
    promote: Literal["always", "if-better", "by-hand"] = "always"
    criteria: Criteria = Field(description="what a round is judged by, fixed before it is played")
    ab_users: int = Field(
        default=0, ge=0, le=MOST, description="of an A/B test against the round's baseline; 0: none"
    )
    seed: Seed = 0
    n_threads: Threads = 1

    @property
    def stages(self) -> tuple[str, ...]:
        """What a round does, in order; a join of logs is part of its training."""
        return ("collect", "train", "evaluate", *(("abtest",) if self.ab_users else ()))

    @model_validator(mode="after")
    def _every_round_learns(self) -> "ProgressiveConfig":
        if self.training["n_steps"] is not None and self.training["n_steps"] < self.rounds:
            raise ValueError(f"{self.training['n_steps']} steps are too few for {self.rounds} rounds")
        if self.ab_users and is_replay(self.env):
            raise ValueError("replayed users cannot be A/B tested: what they consume is bounded by their log")
        return self


class PaperDataConfig(Played):
    """Make the paper's datasets from four groups of users who are in none of the other groups."""

    sessions: Count = Field(
        ge=5, multiple_of=5, description="of each dataset; five rounds share those of one"
    )
    half_width: HalfWidth = 0.15
    algo: str
    training: dict[str, Any] = Field(description="of the rounds, which share n_steps; passes are of each")
    seed: Seed = 0
    n_threads: Threads = 1


class CompareConfig(Played):
    """Train every method on every dataset with every seed, score each policy and A/B test it.

    A seed draws the datasets, the training and the users of the A/B test, the same ones for all methods.
    `training` is the trainer's config of each method, without its seed.
    """

    training: dict[str, dict[str, Any]] = Field(min_length=1, description="by method")
    preset: str
    datasets: tuple[Literal["1", "1b", "2", "3"], ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    sessions: Count = Field(
        ge=5, multiple_of=5, description="of each dataset; five rounds share those of one"
    )
    rounds: bool = Field(default=False, description="every method that learns collects its own five, too")
    n_critics: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(), description="integrated_rl on dataset 2 with so many"
    )
    users: Count = Field(default=10_000, ge=2, description="of each A/B test")
    half_width: HalfWidth = 0.15
    n_threads: Threads = 1

    @field_validator("datasets", "seeds", "n_critics")
    @classmethod
    def _named_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each may be named only once")
        return values

    @model_validator(mode="after")
    def _compares_on_users_or_a_log(self) -> Self:
        if self.env.startswith(GYM):
            raise ValueError("methods are compared on synthetic users or by replay; take session or replay")
        return self
