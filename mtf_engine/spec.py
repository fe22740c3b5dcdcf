"""The nouns every other module speaks: FusionSpec, RewardSpec, BoundsPlan, and Refusal for bad input."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MOST = 2**31 - 1
"""The largest seed and the largest count of anything: ids of users are 64 bits, 2**32 of them a seed."""
Seed = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Workers = Annotated[
    int, Field(ge=1, le=1024, description="processes that share the work; the result is the same")
]
POW = (0.0, 2.0)
BIAS = (0.0, 0.1)


class Spec(BaseModel):
    """A frozen, JSON-able value; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def asked(cls, what: str, values: Mapping[str, Any]) -> Self:
        """Returns the spec of values that somebody asked for; a Refusal names every field of `what` that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise Refusal.invalid(what, error) from None


class Defect(Spec):
    """One thing wrong with an input: which rule, where, how often, and what to do about it."""

    code: str
    file: str
    column: str | None = None
    row: int | None = Field(default=None, description="first affected data row, counted from 1")
    count: int = Field(default=1, description="affected rows")
    message: str
    remedy: str

    def __str__(self) -> str:
        place = ", ".join(
            part
            for part in (
                self.file,
                self.row is not None and f"row {self.row}",
                self.column and f"column {self.column}",
            )
            if part
        )
        more = f" (and {self.count - 1} more rows)" if self.count > 1 else ""
        return f"{place}: {self.message}{more}; {self.remedy}"


LONGEST_WORD, LONGEST = 300, 2_000
"""Characters of a word, which may be the path of a file, and of a sentence."""


def one_line(text: str) -> str:
    """Returns `text`, parts of which a stranger may have written, so that it stands in a sentence and hides nothing."""
    words = (w if len(w) <= LONGEST_WORD else f"{w[: LONGEST_WORD - 3]}..." for w in text.split())
    line = "".join(c if c.isprintable() else f"<{ord(c):02x}>" for c in " ".join(words))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


class Refusal(Exception):
    """Bad input, told in one sentence: what, where, what to do. The command line exits with 1 on it."""

    def __init__(self, sentence: str, defects: tuple[Defect, ...] = ()) -> None:
        super().__init__(one_line(sentence))
        self.defects = defects

    @classmethod
    def of(cls, defects: list[Defect]) -> Self:
        """Returns the refusal that names the first of `defects` and counts the rest."""
        rest = len(defects) - 1
        more = f" ({rest} more {'defect' if rest == 1 else 'defects'} in the report)" if rest else ""
        return cls(f"{defects[0]}{more}", tuple(defects))

    @classmethod
    def invalid(cls, what: str, error: ValidationError) -> Self:
        """Returns the refusal that names every field of `what` that failed validation."""
        return cls(f"{what} is not valid: {problems(error)}")


def problems(error: ValidationError) -> str:
    """Returns what is wrong with each field, without the words that pydantic puts before ours."""
    return "; ".join(
        (".".join(map(str, e["loc"])) + ": " if e["loc"] else "") + e["msg"].removeprefix("Value error, ")
        for e in error.errors()
    )


class FusionDimension(Spec):
    """One dimension of the action: the pow or the bias of a prediction, and the range [-1, 1] maps to."""

    prediction: str
    kind: Literal["pow", "bias"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"the range of {self.name} is empty: low {self.low}, high {self.high}")
        if self.kind == "bias" and self.low < 0:
            raise ValueError(f"the bias of {self.prediction} may be negative, so its logarithm may not exist")
        return self

    @classmethod
    def power(cls, prediction: str, span: tuple[float, float] = POW, negative: bool = False) -> Self:
        """Returns the pow of a prediction in `span`; of a `negative` behaviour in its mirror image."""
        low, high = (-span[1], -span[0]) if negative else span
        return cls(prediction=prediction, kind="pow", low=low, high=high)

    @classmethod
    def bias(cls, prediction: str) -> Self:
        """Returns the bias of a prediction in [0, 0.1]."""
        return cls(prediction=prediction, kind="bias", low=BIAS[0], high=BIAS[1])

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.prediction}"


class FusionSpec(Spec):
    """Which predictions are fused, and what each dimension of an action means (formula 1)."""

    predictions: tuple[str, ...] = Field(min_length=1)
    dimensions: tuple[FusionDimension, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = sorted({d.prediction for d in self.dimensions} - set(self.predictions))
        if unknown:
            raise ValueError(f"dimensions name predictions that are not listed: {', '.join(unknown)}")
        for what, names in (("prediction", self.predictions), ("dimension", self.names)):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is listed twice: {', '.join(names)}")
        return self

    @classmethod
    def default(
        cls, predictions: tuple[str, ...], negative: tuple[str, ...] = (), bias: tuple[str, ...] = ()
    ) -> Self:
        """Returns a pow for every prediction in [0, 2] ([-2, 0] if negative), and a bias in [0, 0.1] for `bias`."""
        pows = [FusionDimension.power(p, negative=p in negative) for p in predictions]
        biases = [FusionDimension.bias(p) for p in bias]
        return cls(predictions=tuple(predictions), dimensions=(*pows, *biases))

    @classmethod
    def weights(cls, names: Sequence[str], low: Iterable[float], high: Iterable[float]) -> Self:
        """Returns a spec of actions that are weights themselves: one for each name, on its own range."""
        ranges = zip(names, map(float, low), map(float, high), strict=True)
        dimensions = tuple(FusionDimension(prediction=n, kind="pow", low=a, high=b) for n, a, b in ranges)
        return cls(predictions=tuple(names), dimensions=dimensions)

    @property
    def n_actions(self) -> int:
        return len(self.dimensions)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dimensions)


class NotYaml(Exception):
    """Why a text of a user is no YAML, in one line."""


def from_yaml(text: str | bytes) -> object:
    """Returns what the YAML of a user says; `NotYaml`, which quotes no line of it, where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:  # its own text quotes the line, which may be a secret's
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise NotYaml(f"{error.problem or error.context}{at}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # beside its own errors PyYAML raises these: of dates such as 2026-13-45, `!!int ''` and deep nesting
        raise NotYaml(" ".join(str(error).split())) from None


class RewardSpec(Spec):
    """Weights of the feedback signals in an impression's reward, `r = sum_i w_i v_i` (formula 2).

    Every signal is at least 0, and at most 1 but for `watch_time` (seconds). GAUC weighs impressions by
    reward + 1, so weights with which an impression can fall to -1 are refused.
    """

    weights: dict[str, float] = Field(min_length=1)
    valid_seconds: float = Field(default=10.0, gt=0, description="watched longer than this is valid, seconds")

    @model_validator(mode="after")
    def _above_minus_one(self) -> Self:
        if self.weights.get("watch_time", 0) < 0:
            raise ValueError("watch_time has a negative weight, so a long impression can reach -1")
        lowest = sum(w for w in self.weights.values() if w < 0)
        if lowest <= -1:
            raise ValueError(
                f"the negative weights add up to {lowest:g}: an impression can reach -1 or below"
            )
        return self


Vector = Annotated[
    tuple[float, ...],
    Field(min_length=1),
    AfterValidator(lambda v: tuple(float(x) for x in v)),
]


MIN_WIDTH = 1e-5
"""Of an explored dimension; float32 actions could not tell the offsets of a narrower one apart."""
HalfWidth = Annotated[float, Field(ge=MIN_WIDTH, le=2)]


class Box(Spec):
    """Lower and upper offsets from the baseline action, one per dimension; equal where it is not explored."""

    lower: Vector
    upper: Vector

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if len(self.lower) != len(self.upper):
            raise ValueError(f"lower has {len(self.lower)} dimensions, upper {len(self.upper)}")
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not -2 <= low <= high <= 2:
                raise ValueError(f"dimension {i}: needs -2 <= lower <= upper <= 2, has {low:g} and {high:g}")
            if 0 < high - low < MIN_WIDTH:
                raise ValueError(
                    f"dimension {i}: is {high - low:g} wide; use {MIN_WIDTH:g} or more, or equal bounds to fix it"
                )
        return self


class BoundsPlan(Box):
    """Personalised exploration bounds: a default box and overrides per user segment (formula 3)."""

    segments: dict[str, Box] = Field(default_factory=dict)
    edge: Literal["truncate", "clip"] = Field(
        default="truncate",
        description="truncate: cut the box at [-1, 1] before drawing; clip: draw, then clip",
    )

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        for name, box in self.segments.items():
            if len(box.lower) != self.n_actions:
                raise ValueError(f"segment {name} has {len(box.lower)} dimensions, the plan {self.n_actions}")
        return self

    @classmethod
    def symmetric(cls, half_width: float, n_actions: int) -> Self:
        """Returns the plan of +-`half_width` in every dimension."""
        return cls(lower=(-half_width,) * n_actions, upper=(half_width,) * n_actions)

    @property
    def n_actions(self) -> int:
        return len(self.lower)

    def resolve(self, baseline_actions: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns lower and upper offsets [n, d] for baseline actions [n, d] of users in `segments` [n].

        With `edge="truncate"` the box is cut so that baseline action + offset stays in [-1, 1].
        """
        n = len(baseline_actions)
        lower = np.tile(np.array(self.lower, np.float32), (n, 1))
        upper = np.tile(np.array(self.upper, np.float32), (n, 1))
        for name, box in self.segments.items():
            rows = segments == name
            lower[rows], upper[rows] = box.lower, box.upper
        if self.edge == "clip":
            return lower, upper
        return (
            np.clip(lower, -1 - baseline_actions, 1 - baseline_actions),
            np.clip(upper, -1 - baseline_actions, 1 - baseline_actions),
        )

    def to_yaml(self) -> str:
        """Returns the plan as YAML, to be edited by hand and read by `from_yaml`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Self:
        """Returns the plan written in `text`; a Refusal names the field that is wrong."""
        try:
            return cls.model_validate(from_yaml(text))
        except NotYaml as error:
            raise Refusal(f"the bounds plan is not YAML: {error}") from None
        except ValidationError as error:
            raise Refusal.invalid("the bounds plan", error) from None
