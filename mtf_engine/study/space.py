"""The space of a search over a method's settings: for each a range of numbers or some choices, read from text."""

import math
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field
from pydantic.fields import FieldInfo

from mtf_engine.spec import Refusal, Spec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from mtf_engine.learning.config import TrainerConfig

Value = int | float | str | None
"""Of a setting: a number, or the text that `--set` takes; None where it is left empty."""
NOT_TUNED = {
    "seed": "every trial has the seed of the search (--seed)",
    "n_threads": "it changes how fast a training is and not what it learns",
    "device": "it changes how fast a training is and not what it learns",
    "checkpoint_every": "it changes nothing that a training learns",
    "log_every": "it changes nothing that a training learns",
    "validate_every": "who is scored more often has a higher best score by chance",
}
"""Settings that no search is over, and why."""
DIGITS = 4
"""Of a number that is proposed, so that people can read and type it."""


class Range(Spec):
    """Numbers from `low` to `high`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holds(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def written(self, value: Any) -> Value:
        """Returns a value of a config as trials tell it."""
        return value if isinstance(value, int | float | None) else text_of(value)

    def proposed(self, value: Any) -> Value:
        """Returns a number that Optuna drew in few digits, still inside."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    @property
    def tried(self) -> tuple[str, ...]:
        """The ends, as `--set` takes them."""
        return tuple(text_of(int(end) if self.whole else end) for end in (self.low, self.high))

    @property
    def distribution(self) -> "BaseDistribution":
        """The range as Optuna knows it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


class Choices(Spec):
    """Values that a setting may have, as `--set` takes them."""

    tried: tuple[str, ...] = Field(min_length=2)

    def holds(self, value: Value) -> bool:
        return value in self.tried

    def written(self, value: Any) -> Value:
        """Returns a value of a config as trials tell it."""
        return text_of(value)

    def proposed(self, value: Any) -> Value:
        """Returns a choice as it is."""
        return str(value)

    @property
    def distribution(self) -> "BaseDistribution":
        """The choices as Optuna knows them."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.tried)


Space = Mapping[str, Range | Choices]


def read_space(algo: str, preset: str, fixed: Mapping[str, str], search: Mapping[str, str]) -> Space:
    """Returns the space that `search` asks for by setting: `LOW..HIGH`, `LOW..HIGH log`, or `A,B,C`.

    Choices that have commas are parted by `|`. A Refusal where a setting is unknown, not tuned or `fixed` as well,
    and where the method's config does not take an end of a range or a choice.
    """
    from mtf_engine.learning.training import make_config

    if not search:
        raise Refusal("there is nothing to search; name a setting and what to try, as in n_critics=2,8,24")
    config = type(make_config(algo, preset, fixed, seed=0))
    for name in search:
        _check_name(algo, config, name, fixed)
    space = {name: _read(name, text, config.model_fields[name]) for name, text in search.items()}
    first = {**fixed, **{name: span.tried[0] for name, span in space.items()}}
    return {name: _checked(algo, preset, first, name, span) for name, span in space.items()}


def _check_name(algo: str, config: "type[TrainerConfig]", name: str, fixed: Mapping[str, str]) -> None:
    if name not in config.model_fields:
        raise Refusal(f"{algo} has no setting {name}; it can search {', '.join(tunable(config))}")
    if name in NOT_TUNED:
        raise Refusal(f"{name} is not tuned: {NOT_TUNED[name]}; leave it out of the search")
    if name in fixed:
        raise Refusal(f"{name} is set to {fixed[name]} and searched as well; leave one of them out")


def _read(name: str, text: str, field: FieldInfo) -> Range | Choices:
    """Returns what a text says is tried of a setting, whose limits are not looked at yet."""
    low, between, high = text.partition("..")
    if between:
        return _range(name, text, low, high, types_of(field))
    parted = "|" if "|" in text or tuple in types_of(field) else ","
    choices = tuple(part.strip() for part in text.split(parted) if part.strip())
    if len(choices) < 2:
        raise Refusal(
            f"{name} has {choices[0] if choices else 'nothing'} to try; write {name}=A,B,C or {name}=LOW..HIGH, or "
            "fix it instead (--set)"
        )
    return Choices(tried=choices)


def _range(name: str, text: str, low: str, high: str, types: set[Any]) -> Range:
    high, log = (high.strip().removesuffix("log"), high.strip().endswith("log"))
    if not types & {int, float}:
        raise Refusal(f"{name} is no number, so it has no range {text}; write the choices: {name}=A,B")
    ends = _number(low), _number(high)
    if not all(map(math.isfinite, ends)):
        raise Refusal(f"{name}={text} cannot be read; write {name}=LOW..HIGH or {name}=LOW..HIGH log")
    whole = float not in types
    if whole and not all(end.is_integer() for end in ends):
        raise Refusal(f"{name} is a whole number, and {text} has another; write whole numbers")
    if not ends[0] < ends[1]:
        raise Refusal(f"{name}={text} is empty; write the lower end first, and a higher one behind it")
    if log and ends[0] <= 0:
        raise Refusal(f"{name}={text} has no logarithm at {ends[0]:g}; begin above 0, or leave log out")
    return Range(low=ends[0], high=ends[1], log=log, whole=whole)


def _number(text: str) -> float:
    """Returns the number that a text is; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _checked(
    algo: str, preset: str, first: Mapping[str, str], name: str, span: Range | Choices
) -> Range | Choices:
    """Returns the span, its choices as the config writes them; a Refusal where the config does not take one."""
    from mtf_engine.learning.training import make_config

    configs = [make_config(algo, preset, {**first, name: value}, seed=0) for value in span.tried]
    if isinstance(span, Range):
        return span
    values = tuple(text_of(getattr(config, name)) for config in configs)
    if len(set(values)) < len(values):
        raise Refusal(f"{name} names a choice twice: {', '.join(values)}; name each once")
    return Choices(tried=values)


def tunable(config: "type[TrainerConfig]") -> list[str]:
    """Returns the settings that can be searched."""
    return [name for name in config.model_fields if name not in NOT_TUNED]


def suggested(field: FieldInfo, default: Any) -> str:
    """Returns what to try of a setting around its `default`, to be changed; empty where nothing suggests itself."""
    if get_origin(field.annotation) is Literal:
        return ",".join(map(str, get_args(field.annotation)))
    if isinstance(default, tuple):
        return "|".join(text_of(tuple(max(1, int(n * by)) for n in default)) for by in (0.5, 1, 2))
    if isinstance(default, bool) or not isinstance(default, int | float):
        return ""
    least, above, most = _limits(field)
    if isinstance(default, int):
        first, last = int(max(default // 4, least)), int(min(default * 4, most))
        return f"{first}..{last} log" if 0 < first < last else ""
    if above and default * 10 <= most:
        return f"{text_of(default / 10)}..{text_of(default * 10)} log"
    low = max(least, default / 3) if most < math.inf else max(least, 0.0)
    return f"{text_of(low)}..{text_of(min(3 * (default or 1), most))}"


def _limits(field: FieldInfo) -> tuple[float, bool, float]:
    """Returns the least value of a setting, whether it is excluded, and the most, a little less where excluded."""
    least, above, most = -math.inf, False, math.inf
    for limit in field.metadata:
        match limit:
            case Ge(ge=float() | int() as low) | Gt(gt=float() | int() as low):
                least, above = low, isinstance(limit, Gt)
            case Le(le=float() | int() as high):
                most = high
            case Lt(lt=float() | int() as high):
                most = 0.99 * high
    return least, above, most


def types_of(field: FieldInfo) -> set[Any]:
    """Returns the types that a setting may have, without what limits them."""
    return _types(field.annotation)


def _types(annotation: Any) -> set[Any]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin in (Union, UnionType):
        return set().union(*map(_types, inner))
    return {origin or annotation}


def text_of(value: Any) -> str:
    """Returns a value as `--set` takes it."""
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else str(value)
