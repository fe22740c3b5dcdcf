"""The mapping file: what the columns of a log mean where their names do not tell."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from mtf_engine.exploration.mixture import Mixture
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


Renames = dict[str, str | tuple[str, ...]]
Most = Annotated[float, Field(gt=0)]


def _named(values: object) -> object:
    """Returns categories as a table of texts; of a list, each is called as it is."""
    if isinstance(values, list | tuple):
        return {str(value): str(value) for value in values}
    return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else values


Categories = Annotated[
    dict[str, str],
    BeforeValidator(_named),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": ["string", "number"]}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]


class ProfileColumns(Spec):
    """Columns that describe the user at the time of a request."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    may_lack: bool = Field(default=False, description="a log without one of them has it missing in every row")

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.numeric, *self.categorical)


class Predict(ProfileColumns):
    """What is to be predicted of each impression, and by which features of user, item and context."""

    signals: tuple[str, ...] = Field(min_length=1, description="feedback of 0 or 1")


class FusionChoice(Spec):
    """How the predictions are fused: all dimensions, or what differs from the default ones."""

    dimensions: tuple[FusionDimension, ...] = ()
    negative: tuple[str, ...] = Field(default=(), description="predictions of unwanted behaviours")
    bias: tuple[str, ...] | None = Field(default=None, description="predictions that get a bias dimension")
    on_unit: bool = Field(
        default=False,
        description="actions of transitions are on [-1, 1], as others are, whatever their ranges",
    )

    def spec(self, predictions: tuple[str, ...], n_actions: int | None) -> FusionSpec:
        """Returns the fusion of `predictions`, by default one with `n_actions` dimensions if there can be.

        A pow for each prediction and a bias for the last ones: two where the log has no actions (None).
        """
        if self.dimensions:
            return FusionSpec(predictions=predictions, dimensions=self.dimensions)
        n_bias = 2 if n_actions is None else n_actions - len(predictions)
        default = predictions[len(predictions) - n_bias :] if 0 < n_bias <= len(predictions) else ()
        return FusionSpec.default(predictions, self.negative, default if self.bias is None else self.bias)


class Slate(Spec):
    """How a row that holds a whole list of shown items is taken apart: into an impression for each item.

    A list is one, or a text such as `[11, 12]` or `11 12`.
    """

    items: str = Field(description="the file's column with the list of items, in the order they were shown")
    marks: str | None = Field(
        default=None, description="the signal that stands behind the last hyphen of each item: N11-1 N12-0"
    )
    chosen: dict[str, str] = Field(
        default_factory=dict,
        description="signals, each with the file's column that lists the items where it happened",
    )
    each: tuple[str, ...] = Field(
        default=(),
        description="the file's columns with lists of a value for each item, in the order of the items",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the file that hold lists."""
        return (self.items, *self.chosen.values(), *self.each)


class Mapping(Spec):
    """A mapping file: which columns of a log hold what. All of it is optional.

    ```yaml
    requests: {user_id: uid, action: [w_click, w_like]}      # our column: the file's, or several for a list
    impressions: {item_id: video, predictions: [p_click, p_like], segment: []}      # []: not there, though called so
    columns: [uid, video, stars, at]        # the impressions' columns, where the file has no header
    slate: {items: inview, chosen: {click: clicked}}         # a row is a list of items: marks, each are told below
    predictions: [click, like]              # what the predictions predict, in order
    signals: [click, like, watch_time]      # feedback columns
    time_unit: ms                           # of a timestamp that is a number: s, ms, us or ns since 1970, or date
    # time_format: "%m/%d/%Y %I:%M:%S %p"   # of a timestamp that is written otherwise than 2026-05-04 09:30:00
    watch_time_unit: ms                     # of watch_time, which is in seconds (s) otherwise: ms or min
    fill: {share: 0, city: unknown}         # our column: what stands where the file is blank
    counts: {like: 3}                       # a signal that is a number n: min(n, 3) / 3
    thresholds: {valid: 3}                  # a signal that is a number n: 1 where n > 3, else 0
    categories: {city: {b: Berlin, p: Paris}, segment: [new]}      # values told apart; all others are `other`
    features: [age, clicks]                 # what the observation holds, in order
    binary_features: [is_new]               # of these, the 0/1 ones, which are not standardised
    profile: {numeric: [age], categorical: [city]}           # where there is no observation; may_lack: true, where
                                            # a log may be without one of them, which then is missing in every row
    reward: {weights: {watch_time: 0.01, like: 0.5}, valid_seconds: 10}
    fusion: {negative: [hate], bias: [click, like]}          # or dimensions: [{prediction, kind, low, high}]
    exploration: uniform                    # or gaussian, mixed, baseline, unknown: how the actions were drawn
    # mixture: {sigma: 0.2, random_share: 0.5, random_sigma: 0.5}   # of mixed exploration: what it drew from
    predict: {signals: [click, like], numeric: [age, price], categorical: [device]}     # impressions alone: the log has
                                            # no predictions; they are made, each day's from earlier days only
    ```

    Where `time_unit` is not stated, numbers are times in the one unit in which they lie between 1990 and a year
    from now: s, ms, us or ns since 1970, or date (20261122 or 20261122093000, UTC). The import says which.
    """

    requests: Renames = Field(
        default_factory=dict, description="columns of the requests: ours, and the file's"
    )
    impressions: Renames = Field(
        default_factory=dict, description="columns of the impressions: ours, and the file's"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="names of the impressions' columns, in order, where the file has no header"
    )
    slate: Slate | None = Field(
        default=None, description="of impressions that stand in one row, a list of items"
    )
    predictions: tuple[str, ...] = Field(default=(), description="what the predictions predict, in order")
    signals: tuple[str, ...] = Field(default=(), description="feedback columns of the impressions")
    time_unit: TimeUnit | None = Field(default=None, description="unit of a timestamp that is a number")
    time_format: str | None = Field(
        default=None, min_length=1, description="how a timestamp is written, as strptime takes it"
    )
    watch_time_unit: WatchTimeUnit | None = Field(default=None, description="unit of watch_time; default: s")
    fill: dict[str, str | int | float] = Field(
        default_factory=dict, description="our columns, each with what stands where the file is blank"
    )
    counts: dict[str, Most] = Field(
        default_factory=dict, description="signals that are numbers n, each with its cap: min(n, cap) / cap"
    )
    thresholds: dict[str, float] = Field(
        default_factory=dict,
        description="signals that are numbers, each with what it is 1 above, and 0 up to",
    )
    categories: dict[str, Categories] = Field(
        default_factory=dict,
        description="texts, each with the values that are told apart, and maybe what we call them; others are `other`",
    )
    features: tuple[str, ...] = Field(default=(), description="what the observation holds, in order")
    binary_features: tuple[str, ...] = Field(default=(), description="features that are 0 or 1")
    profile: ProfileColumns = Field(
        default=ProfileColumns(), description="columns of the user that observations are made of"
    )
    reward: RewardSpec | None = Field(default=None, description="the reward of an impression")
    fusion: FusionChoice = Field(default=FusionChoice(), description="how the predictions are fused")
    predict: Predict | None = Field(
        default=None,
        description="what is to be predicted of impressions that have no predictions, and of what",
    )
    exploration: Literal["uniform", "gaussian", "mixed", "baseline", "unknown"] | None = Field(
        default=None, description="how the actions were drawn; taken for uniform where nothing is said"
    )
    mixture: Mixture | None = Field(default=None, description="what mixed exploration drew from")

    @model_validator(mode="after")
    def _one_rule_each(self) -> Self:
        if both := sorted(set(self.counts) & set(self.thresholds)):
            raise ValueError(f"{both[0]} has a count and a threshold; keep one")
        if (self.mixture is None) == (self.exploration == "mixed"):
            raise ValueError(
                "exploration: mixed has a mixture, of sigma, random_share and random_sigma, no other has"
            )
        if self.time_unit and self.time_format:
            raise ValueError("a timestamp has a time_unit and a time_format; keep one")
        if self.slate and (signal := next((s for s in self.slate.chosen if s == self.slate.marks), None)):
            raise ValueError(f"slate: {signal} is made by marks and by chosen; keep one")
        return self

    @property
    def mentioned(self) -> set[str]:
        """The columns of impressions that the mapping names, ours and the file's."""
        theirs = {
            s for value in self.impressions.values() for s in ([value] if isinstance(value, str) else value)
        }
        predicted = self.predict.names if self.predict else ()
        return {*self.impressions, *theirs, *self.signals, *self.profile.names, *predicted}

    @property
    def said(self) -> set[str]:
        """The fields that are not as in an empty mapping; those of the fusion as `fusion: FIELD`."""
        found = set(self.model_dump(exclude_defaults=True)) - {"fusion"}
        return found | {f"fusion: {name}" for name in self.fusion.model_dump(exclude_defaults=True)}

    def refuse_said(self, unread: Iterable[str], of: str) -> None:
        """Raises a Refusal where the mapping says one of the fields `unread` of a log `of` some kind."""
        if said := sorted(self.said & set(unread)):
            raise bad_mapping(f"says what is not read of {of}: {', '.join(said)}; leave it out")

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

    def without_actions(self) -> list[str]:
        """Returns a sentence where the mapping says how actions were drawn, for a log that has none."""
        said = f"the mapping says exploration: {self.exploration}, which is not used: the log has no actions"
        return [said] if self.exploration else []

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
