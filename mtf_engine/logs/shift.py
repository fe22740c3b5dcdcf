"""Drift between two logs: which signals, features and predictions moved, and how far."""

from typing import Literal

from pydantic import Field, computed_field

from mtf_engine.logs.distributions import (
    Distribution,
    Kind,
    population_stability_index,
    standardised_difference,
)
from mtf_engine.logs.quality import Quality
from mtf_engine.spec import Spec

SLIGHT_PSI, LARGE_PSI = 0.1, 0.25
"""Customary limits of the population stability index (Siddiqi, Credit Risk Scorecards, 2006)."""
SLIGHT, LARGE = 0.1, 0.2
"""Limits of a standardised difference; 0.2 is the smallest that Cohen calls an effect."""
Verdict = Literal["moved", "moved slightly", "as before"]
ORDER: tuple[Verdict, ...] = ("moved", "moved slightly", "as before")


class Shift(Spec):
    """How far one column of a log lies from the same column of a reference."""

    name: str
    kind: Kind
    mean: float
    reference_mean: float
    difference: float | None = Field(
        description="of the means, in pooled standard deviations; none where neither log varies"
    )
    ci_low: float | None
    ci_high: float | None
    psi: float = Field(description="population stability index")
    luck: float = Field(description="PSI that two samples of one population stay below, 999 times of 1,000")
    verdict: Verdict


class Drift(Spec):
    """The columns of a log against those of a reference, the farthest first."""

    shifts: tuple[Shift, ...]
    only_here: tuple[str, ...] = Field(description="columns that the reference lacks")
    only_there: tuple[str, ...] = Field(description="columns that the reference alone has")

    @computed_field
    def sentence(self) -> str:
        """Which columns moved, in words."""
        if not self.shifts:
            return "The two logs have no column in common."
        moved = [f"{s.name} ({s.kind})" for s in self.shifts if s.verdict == "moved"]
        slightly = sum(s.verdict == "moved slightly" for s in self.shifts)
        rest = f"{len(self.shifts) - len(moved) - slightly} of {len(self.shifts)} columns are as before"
        more = f", {slightly} moved slightly" if slightly else ""
        if not moved:
            return f"No column moved{more}; {rest}."
        named = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
        return f"{len(moved)} moved: {named}{more}; {rest}."


def drift(quality: Quality, reference: Quality) -> Drift:
    """Returns how the columns that both logs have moved from `reference` to `quality`."""
    here, there = ({(d.kind, d.name): d for d in q.distributions} for q in (quality, reference))
    shifts = [_shift(d, there[key]) for key, d in here.items() if key in there]
    return Drift(
        shifts=tuple(sorted(shifts, key=lambda s: (ORDER.index(s.verdict), -s.psi))),
        only_here=tuple(name for kind, name in here if (kind, name) not in there),
        only_there=tuple(name for kind, name in there if (kind, name) not in here),
    )


def _shift(new: Distribution, reference: Distribution) -> Shift:
    difference = standardised_difference(new, reference)
    psi, luck = population_stability_index(new, reference)
    surely = max(difference.low, -difference.high) if difference else 0.0  # as its interval allows
    seen = psi if psi > luck else 0.0
    verdict: Verdict = (
        "moved"
        if surely > LARGE or seen > LARGE_PSI
        else "moved slightly"
        if surely > SLIGHT or seen > SLIGHT_PSI
        else "as before"
    )
    return Shift(
        name=new.name,
        kind=new.kind,
        mean=new.mean,
        reference_mean=reference.mean,
        difference=difference and difference.value,
        ci_low=difference and difference.low,
        ci_high=difference and difference.high,
        psi=psi,
        luck=luck,
        verdict=verdict,
    )
