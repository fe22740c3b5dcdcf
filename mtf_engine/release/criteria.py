"""What a round is judged by: a primary metric and guardrails, fixed before the round is played."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationError

from mtf_engine.spec import Refusal, Spec

Metric = Literal[
    "weighted_gauc", "session_reward", "valid_consumption", "duration_time", "share_at_wall", "path"
]
"""A candidate's gain over the baseline of its round in weighted GAUC or, relative, in an A/B test; the share of
its actions at the wall of the bounds, and its distance from the first baseline."""
TESTED: tuple[Metric, ...] = ("session_reward", "valid_consumption", "duration_time")
"""Known where there was an A/B test."""


class Guardrail(Spec):
    """A limit that a candidate must keep, whatever it gains."""

    metric: Metric
    side: Literal["at least", "at most"]
    limit: float

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.side == "at least" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.metric} {self.side} {shown(self.metric, self.limit)}"


def shown(metric: str, value: float) -> str:
    """Returns a figure as people read it: weighted GAUC and paths as they are, changes and shares in percent."""
    if metric in ("weighted_gauc", "path"):
        return f"{value:g}"
    return f"{100 * value:.4g} %"


class Criteria(Spec):
    """The metric whose gain decides, and the guardrails beside it."""

    metric: Metric = "weighted_gauc"
    guardrails: tuple[Guardrail, ...] = Field(default=())

    @classmethod
    def default(cls, env: str, tested: bool) -> "Criteria":
        """Returns the house's: session reward where there is an A/B test, else weighted GAUC.

        No consumption metric may fall by more than 1 %, where `env` has users who consume, nor half of the
        explored weights lie at a wall.
        """
        wall = Guardrail(metric="share_at_wall", side="at most", limit=0.5)
        if not tested:
            return cls(guardrails=(wall,))
        consumption = () if env.startswith("gym:") else TESTED[1:]
        kept = (Guardrail(metric=metric, side="at least", limit=-0.01) for metric in consumption)
        return cls(metric="session_reward", guardrails=(*kept, wall))


def parse_criteria(metric: str | None, guardrails: Sequence[str] | None, env: str, tested: bool) -> Criteria:
    """Returns the house's criteria with another metric or other guardrails where some are given."""
    found = Criteria.default(env, tested)
    own = {
        "metric": metric or found.metric,
        "guardrails": tuple(map(parse_guardrail, guardrails)) if guardrails else found.guardrails,
    }
    try:
        return Criteria.model_validate(own)
    except ValidationError as error:
        raise Refusal.invalid("--metric", error) from None


def parse_guardrail(text: str) -> Guardrail:
    """Returns the guardrail written as `valid_consumption>=-0.01` or `share_at_wall<=0.5`."""
    for sign, side in ((">=", "at least"), ("<=", "at most")):
        metric, found, limit = text.partition(sign)
        if found:
            try:
                values = {"metric": metric.strip(), "side": side, "limit": float(limit)}
                return Guardrail.model_validate(values)
            except ValueError:
                break
    known = ", ".join(Metric.__args__)  # type: ignore[attr-defined]
    raise Refusal(f"--guardrail {text} cannot be read; write METRIC>=NUMBER or <=, with one of {known}")
