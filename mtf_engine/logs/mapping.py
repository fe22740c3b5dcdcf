"""The mapping file: what the columns of a log mean where their names do not tell."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from mtf_engine.logs.units import TimeUnit, WatchTimeUnit
from mtf_engine.spec import (
    Defect,
    FusionDimension,
    FusionSpec,
    NotYaml,
    Refusal,
    RewardSpec,
    Spec,
    from_yaml,
    problems,
)

WEIGHTS = {
    "watch_time": 0.01, "valid": 0.3, "long_view": 0.2, "finish": 0.2, "like": 0.5, "comment": 0.5,
    "share": 0.5, "forward": 0.5, "follow": 0.5, "skip": -0.2, "dislike": -0.3, "hate": -0.3,
}  # fmt: skip
"""Reward per unit of a signal where a mapping names no weights; watch_time is in seconds."""


def bad_mapping(problem: str, file: str = "the mapping") -> Refusal:
    """Returns the refusal of a mapping that is not valid or does not fit the log."""
    return Refusal.of(
        [Defect(code="bad_mapping", file=file, message=problem, remedy="correct the mapping file")]
    )


class ProfileColumns(Spec):
    """Columns that describe the user at the time of a request."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.numeric, *self.categorical)


class FusionChoice(Spec):
    """How the predictions are fused: all dimensions, or what differs from the default ones."""

    dimensions: tuple[FusionDimension, ...] = ()
    negative: tuple[str, ...] = Field(default=(), description="predictions of unwanted behaviours")
    bias: tuple[str, ...] | None = Field(default=None, description="predictions that get a bias dimension")

    def spec(self, predictions: tuple[str, ...], n_actions: int | None) -> FusionSpec:
        """Returns the fusion of `predictions`, by default one with `n_actions` dimensions if there can be.

        A pow for each prediction and a bias for the last ones: two where the log has no actions (None).
        """
        if self.dimensions:
            return FusionSpec(predictions=predictions, dimensions=self.dimensions)
        n_bias = 2 if n_actions is None else n_actions - len(predictions)
        default = predictions[len(predictions) - n_bias :] if 0 < n_bias <= len(predictions) else ()
        return FusionSpec.default(predictions, self.negative, default if self.bias is None else self.bias)


class Mapping(Spec):
    """A mapping file: which columns of a log hold what. All of it is optional.

    ```yaml
    requests: {user_id: uid, action: [w_click, w_like]}      # our column: the file's, or several for a list
    impressions: {item_id: video, predictions: [p_click, p_like], segment: []}      # []: not there, though called so
    predictions: [click, like]              # what the predictions predict, in order
    signals: [click, like, watch_time]      # feedback columns
    time_unit: ms                           # of a timestamp that is a number: s, ms, us or ns since 1970, or date
    watch_time_unit: ms                     # of watch_time, which is in seconds (s) otherwise: ms or min
    features: [age, clicks]                 # what the observation holds, in order
    binary_features: [is_new]               # of these, the 0/1 ones, which are not standardised
    profile: {numeric: [age], categorical: [city]}           # where there is no observation
    reward: {weights: {watch_time: 0.01, like: 0.5}, valid_seconds: 10}
    fusion: {negative: [hate], bias: [click, like]}          # or dimensions: [{prediction, kind, low, high}]
    exploration: uniform                    # or gaussian, baseline: how the actions were drawn
    ```

    Where `time_unit` is not stated, numbers are times in the one unit in which they lie between 1990 and a year
    from now: s, ms, us or ns since 1970, or date (20261122 or 20261122093000, UTC). The import says which.
    """

    requests: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    impressions: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    predictions: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    time_unit: TimeUnit | None = None
    watch_time_unit: WatchTimeUnit | None = None
    features: tuple[str, ...] = ()
    binary_features: tuple[str, ...] = ()
    profile: ProfileColumns = ProfileColumns()
    reward: RewardSpec | None = None
    fusion: FusionChoice = FusionChoice()
    exploration: Literal["uniform", "gaussian", "baseline"] = "uniform"

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Returns the mapping in the YAML file `path`, the empty one where there is none."""
        if path is None:
            return cls()
        try:
            return cls.model_validate(from_yaml(path.read_bytes()) or {})
        except NotYaml as error:
            problem = f"is not YAML: {error}"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except ValidationError as error:
            problem = problems(error)
        raise bad_mapping(problem, path.name)

    def fusion_of(self, predictions: tuple[str, ...], n_actions: int | None) -> FusionSpec:
        """Returns the fusion of the log's predictions; a Refusal where the mapping names others."""
        unknown = sorted({*self.fusion.negative, *(self.fusion.bias or ())} - set(predictions))
        if unknown:
            raise bad_mapping(f"fusion: names predictions that the log lacks: {', '.join(unknown)}")
        try:
            fusion = self.fusion.spec(predictions, n_actions)
        except ValidationError as error:
            raise bad_mapping(f"fusion: {problems(error)}") from None
        if n_actions not in (None, fusion.n_actions):
            raise bad_mapping(
                f"fusion: actions have {n_actions} entries and the fusion of {len(predictions)} predictions "
                f"{fusion.n_actions} dimensions; name the dimensions"
            )
        return fusion

    def reward_of(self, signals: tuple[str, ...]) -> RewardSpec:
        """Returns the reward: the mapping's, else the default weights of the log's signals."""
        if self.reward is None:
            return RewardSpec(weights={s: WEIGHTS[s] for s in signals if s in WEIGHTS} or {signals[0]: 1.0})
        unknown = sorted(set(self.reward.weights) - set(signals))
        if unknown:
            raise bad_mapping(f"reward: weighs signals that the log lacks: {', '.join(unknown)}")
        return self.reward
