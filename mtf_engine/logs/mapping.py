"""What the columns of a log mean: found by name, or told in a mapping."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError

from mtf_engine.logs.files import Column, Kind, Need, RawTable, list_sources
from mtf_engine.spec import Defect, FusionDimension, FusionSpec, Refusal, RewardSpec, Spec

WEIGHTS = {
    "watch_time": 0.01, "valid": 0.3, "long_view": 0.2, "finish": 0.2, "like": 0.5, "comment": 0.5, "share": 0.5,
    "forward": 0.5, "follow": 0.5, "skip": -0.2, "dislike": -0.3, "hate": -0.3,
}  # fmt: skip
"""Reward per unit of a signal where a mapping names no weights; watch_time is in seconds."""

SIGNALS = (*WEIGHTS, "click", "profile_enter")
"""Columns that are feedback signals where a mapping names none."""

PREDICTION = "prediction_"
"""A column that starts so holds the prediction of what follows."""


class ProfileColumns(Spec):
    """Columns that describe the user at the time of a request."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()


class FusionChoice(Spec):
    """How the predictions are fused: all dimensions, or what differs from the default ones."""

    dimensions: tuple[FusionDimension, ...] = ()
    negative: tuple[str, ...] = Field(default=(), description="predictions of unwanted behaviours")
    bias: tuple[str, ...] | None = Field(default=None, description="predictions that get a bias dimension")

    def spec(self, predictions: tuple[str, ...], n_actions: int | None) -> FusionSpec:
        """Returns the fusion of `predictions`; without a choice, one that has the log's number of dimensions.

        A pow for each prediction and a bias for the last ones, two where the log has no actions.
        """
        if self.dimensions:
            return FusionSpec(predictions=predictions, dimensions=self.dimensions)
        n_bias = 2 if n_actions is None else n_actions - len(predictions)
        default = predictions[len(predictions) - n_bias :] if 0 < n_bias <= len(predictions) else ()
        return FusionSpec.default(predictions, self.negative, default if self.bias is None else self.bias)


class Mapping(Spec):
    """A mapping file: which columns of a log hold what. All of it is optional.

    ```yaml
    requests: {user_id: uid, action: [w_click, w_like]}      # our column: the file's (a list of them for a list)
    impressions: {item_id: video, predictions: [p_click, p_like]}
    predictions: [click, like]              # what the predictions predict, in order
    signals: [click, like, watch_time]      # feedback columns; watch_time is in seconds
    features: [age, clicks]                 # what the observation holds, in order
    binary_features: [is_new]               # of these, the 0/1 ones, which are not standardised
    profile: {numeric: [age], categorical: [city]}           # where there is no observation
    reward: {weights: {watch_time: 0.01, like: 0.5}, valid_seconds: 10}
    fusion: {negative: [hate], bias: [click, like]}          # or dimensions: [{prediction, kind, low, high}]
    exploration: uniform                    # or gaussian, baseline: how the actions were drawn
    ```
    """

    requests: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    impressions: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    predictions: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
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
            return cls.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            problem = " ".join(str(error).split())
        except ValidationError as error:
            problem = "; ".join(".".join(map(str, e["loc"])) + ": " + e["msg"] for e in error.errors())
        raise Refusal.of(
            [Defect(code="bad_mapping", file=path.name, message=problem, remedy="correct the mapping file")]
        )


@dataclass
class Columns:
    """The columns of one file as the log calls them; what is missing is collected in `defects`."""

    raw: RawTable
    renames: dict[str, str | tuple[str, ...]]
    section: str
    found: list[Column] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return any(column.name == name for column in self.found)

    def add(self, name: str, kind: Kind, need: Need = "value") -> bool:
        """Returns whether the file has the column; one that the mapping names and the file lacks is a defect."""
        renamed = self.renames.get(name)
        if renamed is None:
            sources = list_sources(self.raw.types, name) if kind == "list" else (name,)
        else:
            sources = (renamed,) if isinstance(renamed, str) else renamed
        lacking = [s for s in sources if s not in self.raw.types]
        if renamed is not None and lacking:
            self._missing(", ".join(lacking), name)
        if lacking or not sources:
            return False
        self.found.append(Column(name, kind, sources, need))
        return True

    def require(self, name: str, kind: Kind, need: Need = "value") -> None:
        if not self.add(name, kind, need) and name not in self.renames:
            self._missing(name, name)

    def _missing(self, column: str, name: str) -> None:
        self.defects.append(
            Defect(
                code="missing_column",
                file=self.raw.file,
                column=column,
                message="is missing",
                remedy=f"add it, or name the column that holds {name} under {self.section}: in the mapping",
            )
        )

    def add_predictions(self, mapping: Mapping) -> tuple[str, ...]:
        """Returns the names of the predictions where columns tell them: `prediction_click`, or the mapping."""
        named = tuple(c for c in self.raw.types if c.startswith(PREDICTION) and not c[len(PREDICTION) :].isdigit())
        if named and "predictions" not in self.renames and "predictions" not in self.raw.types:
            self.found.append(Column("predictions", "list", named))
            return mapping.predictions or tuple(c.removeprefix(PREDICTION) for c in named)
        self.require("predictions", "list")
        renamed = self.renames.get("predictions")
        return mapping.predictions or (renamed if isinstance(renamed, tuple) else ())

    def add_signals(self, mapping: Mapping) -> tuple[str, ...]:
        """Returns the feedback signals: those of the mapping, else all known ones that the file has."""
        for name in mapping.signals:
            self.require(name, "number")
        if mapping.signals:
            return mapping.signals
        known = [s for s in SIGNALS if s in self.raw.types or s in self.renames]
        found = tuple(s for s in known if self.add(s, "number"))
        if not found:
            self._missing("watch_time", "watch_time (or another signal)")
        return found

    def add_profile(self, mapping: Mapping) -> None:
        for name in mapping.profile.numeric:
            self.require(name, "number", "optional")
        for name in mapping.profile.categorical:
            self.require(name, "text", "optional")

    def unused(self) -> list[str]:
        """Returns the columns of the file that nothing reads."""
        used = {source for column in self.found for source in column.sources}
        return [name for name in self.raw.types if name not in used]


def reward_of(mapping: Mapping, signals: tuple[str, ...]) -> RewardSpec:
    """Returns the mapping's reward, else the default weights of the log's signals."""
    if mapping.reward:
        return mapping.reward
    return RewardSpec(weights={s: WEIGHTS[s] for s in signals if s in WEIGHTS} or {signals[0]: 1.0})
