"""What an evaluation finds: policies on the same rows, and every ordered pair of them."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from mtf_engine.evaluation.calibration import Calibration
from mtf_engine.evaluation.deviation import Deviation
from mtf_engine.evaluation.disagreement import Disagreement
from mtf_engine.evaluation.off_policy import OffPolicyEstimate, OffPolicyRows
from mtf_engine.spec import Spec

Group = Literal["user", "request"]
GROUPS: tuple[Group, ...] = ("user", "request")
NO_IMPRESSIONS = (
    "This log has no impressions, which weighted GAUC ranks: compare policies on it by their actions, or by an A/B "
    "test in the environment that it is from."
)


class RequestScore(Spec):
    """Weighted GAUC over requests instead of users: what is compared is what was shown together."""

    weighted_gauc: float | None
    ci_low: float | None
    ci_high: float | None
    probability_best: float | None
    requests_used: int
    requests_left_out: int


class SegmentScore(Spec):
    """Weighted GAUC of the users of one segment, over groups of one kind."""

    segment: str
    group: Group
    weighted_gauc: float | None
    ci_low: float | None
    ci_high: float | None
    probability_best: float | None
    groups_used: int
    groups_left_out: int
    weight_used: float


class PolicyEvaluation(Spec):
    """One policy: weighted GAUC by user (the paper's) with its 95 % interval, and its actions.

    A score is None where no group has both classes, an interval also where fewer than two users do.
    `probability_best` is the share of bootstrap draws in which it is the highest of all policies evaluated.
    """

    run_id: str
    split: str
    weighted_gauc: float | None
    ci_low: float | None
    ci_high: float | None
    probability_best: float | None
    users_used: int
    users_left_out: int
    weight_used: float
    weight_left_out: float
    by_request: RequestScore
    by_segment: tuple[SegmentScore, ...]
    differs: tuple[str, ...] = Field(
        default=(), description="in what the rows are not those it was trained on, as sentences"
    )
    deviation: Deviation
    deviation_by_segment: dict[str, Deviation]
    disagreement: Disagreement | None
    off_policy: tuple[OffPolicyEstimate, ...] = Field(
        default=(), description="what a session would bring under it, where that was asked; floors are not"
    )


class PairedDifference(Spec):
    """Weighted GAUC of `run_id` minus that of `base` on the same groups, resampled with the same users.

    `resolvable_gap` is the smallest true difference that these rows would show with 80 % power at 5 %.
    """

    run_id: str
    base: str
    group: Group
    value: float | None
    ci_low: float | None
    ci_high: float | None
    probability_better: float | None
    resolvable_gap: float | None


class SegmentDifference(PairedDifference):
    """The same among the users of one segment."""

    segment: str


def alike(differs: Iterable[tuple[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Returns by sentence on what differs the policies it is said of, from each policy's id and sentences."""
    told: dict[str, list[str]] = {}
    for run_id, sentences in differs:
        for sentence in sentences:
            told.setdefault(sentence, []).append(run_id)
    return told


class EvaluationResult(Spec):
    """Policies on the same rows, and every ordered pair of them; by segment where there are several.

    `calibrations` holds, by run id, how the critics of a training answer to the log they were trained on.
    """

    split: str
    n_requests: int
    n_impressions: int
    n_users: int
    n_bootstrap: int
    seed: int
    baseline_actions: Literal["logged", "zero"]
    """What deviations start from: the log's baseline actions, or the action 0 where it has none."""
    segments: tuple[str, ...]
    policies: tuple[PolicyEvaluation, ...]
    differences: tuple[PairedDifference, ...]
    segment_differences: tuple[SegmentDifference, ...]
    floors: tuple[str, ...] = ()
    """Those of the policies that are floors: any other has to beat them, or it has learned nothing that counts."""
    floors_from: str | None = None
    """The dataset on whose training rows the floors were chosen and fitted; None: there are none."""
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    off_policy: OffPolicyRows | None = None
    """How policies were evaluated off-policy, and on what; None: they were not."""

    @property
    def no_gauc(self) -> str | None:
        """Why no policy has a weighted GAUC, where the rows hold no impressions."""
        return None if self.n_impressions else NO_IMPRESSIONS

    def summary(self) -> dict[str, Any]:
        """Returns the scores and differences as JSON-able values, without what is only drawn."""
        pictures = {"deviation", "deviation_by_segment", "disagreement"}
        told = self.model_dump(mode="json", exclude={"policies": {"__all__": pictures}, "calibrations": True})
        return told | {"no_gauc": self.no_gauc}
