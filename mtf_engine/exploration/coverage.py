"""The coverage certificate: does an explored log cover its boxes evenly, or as its mixture says, and if not, why."""

from collections.abc import Sequence

from pydantic import Field

from mtf_engine.exploration import coverage_rules as rules
from mtf_engine.exploration import coverage_tests as tests
from mtf_engine.exploration.coverage_counts import CoverageCounts
from mtf_engine.exploration.coverage_rules import Check, ExploredLog
from mtf_engine.spec import Refusal, Spec

CHECKS = (
    rules.enough_rows, rules.control_at_baseline, rules.constant_dimensions, rules.declared_bounds,
    rules.clipping, rules.duplicates, tests.gaps, tests.shift, tests.uniformity, rules.outside, tests.reach,
    tests.dependence, tests.pairs,
)  # fmt: skip
"""From causes to effects: a defect trips checks downstream of its own too."""

OF_PLACES = ("gaps", "shift", "uniformity", "outside", "reach", "dependence", "pairs")


class Certificate(Spec):
    """Whether a log's exploration is uniform in its boxes, or its mixture's; `checks` go from causes to effects."""

    n_requests: int
    n_explored: int
    n_control: int = Field(description="rows of control users, left out")
    fixed: tuple[str, ...] = Field(description="dimensions whose box has width 0, left out")
    alpha: float
    checks: tuple[Check, ...]
    passed: bool
    reason: str = Field(description="of the first check that fails")

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if not check.passed)


def certify_coverage(counts: CoverageCounts, names: Sequence[str]) -> Certificate:
    """Returns the certificate of the log that was counted, whose dimensions have `names`.

    The rows are the unit: every request is explored by a draw of its own, whoever the user. Six checks are
    tests (gaps, shift, uniformity, reach, dependence, pairs); each has a sixth of ALPHA, corrected by Holm
    over its dimensions or pairs, so an evenly explored log fails with probability at most ALPHA. The others
    have fixed thresholds. A defect trips checks downstream of it too: the first to fail is the reason. Where the log
    declares a mixture, a dimension's box is from 0 to 1, the quantiles of its draws.
    """
    if len(names) != len(counts.on_wall):
        raise Refusal(f"coverage: {len(names)} names for {len(counts.on_wall)} dimensions; give one for each")
    log = ExploredLog(counts, names)
    checks = tuple(_placed(check(log), counts) for check in CHECKS)
    good = "are drawn as their mixture says" if counts.quantiles else "cover their boxes evenly"
    failed = next((check for check in checks if not check.passed), None)
    return Certificate(
        n_requests=counts.n_requests,
        n_explored=counts.n_explored,
        n_control=counts.n_control,
        fixed=tuple(n for n, free in zip(names, log.rows > 0, strict=True) if not free),
        alpha=tests.ALPHA,
        checks=checks,
        passed=failed is None,
        reason=failed.reason if failed else f"{counts.n_explored:,} rows {good}",
    )


def _placed(check: Check, counts: CoverageCounts) -> Check:
    """Returns a check that says of what its box is, where that is not the logged one."""
    if check.passed or not counts.quantiles or check.name not in OF_PLACES:
        return check
    return check.model_copy(update={"reason": f"in quantiles of the declared mixture, {check.reason}"})
