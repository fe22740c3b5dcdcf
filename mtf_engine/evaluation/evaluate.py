"""evaluate: policies on logged rows, by weighted GAUC with intervals, deviation and disagreement."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from mtf_engine.evaluation.deviation import Deviation, Tally, told
from mtf_engine.evaluation.disagreement import Critics, disagreement
from mtf_engine.evaluation.result import (
    GROUPS,
    EvaluationResult,
    Group,
    PairedDifference,
    PolicyEvaluation,
    RequestScore,
    SegmentDifference,
    SegmentScore,
)
from mtf_engine.evaluation.sample import Sample
from mtf_engine.evaluation.scored import Acted, Scored, Scoring, scored, together
from mtf_engine.evaluation.segments import Segments
from mtf_engine.evaluation.standing import EVERYONE, Standing, standings
from mtf_engine.logs.schema import EvaluationRows

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policies.policy import Policy

Standings = Mapping[Group, Standing]
Pair = tuple[str, str, Group]
"""A policy, the base it is compared with, and over what."""
PARTS_AT_ONCE = 8


def evaluate(
    policies: Mapping[str, "Policy"],
    rows: EvaluationRows,
    *,
    seed: int = 0,
    n_bootstrap: int = 1_000,
    critics: Mapping[str, Critics] | None = None,
) -> EvaluationResult:
    """Returns how the policies, by run id, rank the impressions that were logged in `rows`.

    Each policy acts on every request, or on every impression where it has weights for each item; an impression's
    score is its log final score under that action, its label whether it was watched long enough, its sample weight
    reward + 1 (IntegratedRL-MTF, arXiv 2404.17589, section 4.3.1). Intervals come from 1,000 Poisson bootstrap draws
    over users, the same for every policy, segment and grouping. `critics` of a run are asked for their disagreement
    where the bounds are known: logged with the rows, or else the plan that the policy was trained with.

    A policy reads the rows by the names of its features and predictions (`policies.reading`), and its result says
    what differs. Refused are one whose features or predictions the rows lack, and an impression whose reward is -1
    or less.
    """
    how = Scoring.of(rows.whole, seed, n_bootstrap)
    return evaluation(policies, scored(policies, rows, how, critics or ()), how, critics=critics)


def evaluation(
    policies: Mapping[str, "Policy"],
    parts: Iterable[Scored],
    how: Scoring,
    *,
    critics: Mapping[str, Critics] | None = None,
) -> EvaluationResult:
    """Returns what `evaluate` does of rows that were scored in parts, given in their order; few are held at once."""
    whole = _whole(parts)
    standing = standings(whole)
    pairs = [(run_id, base, group) for run_id, base in permutations(policies, 2) for group in GROUPS]
    return EvaluationResult(
        split=whole.split,
        n_requests=whole.n_requests,
        n_impressions=whole.n_impressions,
        n_users=whole.n_users,
        n_bootstrap=how.n_bootstrap,
        seed=how.seed,
        baseline_actions="logged" if "baseline_actions" in whole.logged else "zero",
        segments=whole.segments,
        policies=tuple(
            PolicyEvaluation(
                run_id=run_id,
                split=whole.split,
                **_scored(run_id, standing, whole.segments),
                differs=whole.acted[run_id].differs,
                **_acted(policy, whole.acted[run_id], whole.segments, (critics or {}).get(run_id)),
            )
            for run_id, policy in policies.items()
        ),
        differences=tuple(_differences(pairs, standing)),
        segment_differences=tuple(_segment_differences(pairs, standing, whole.segments)),
    )


def _whole(parts: Iterable[Scored]) -> Scored:
    left = iter(parts)
    whole = next(left)
    while some := list(islice(left, PARTS_AT_ONCE)):
        whole = together([whole, *some])
    return whole


def _differences(pairs: Sequence[Pair], standing: Standings) -> Iterator[PairedDifference]:
    for run_id, base, group in pairs:
        found = standing[group].difference(run_id, base)
        yield PairedDifference(run_id=run_id, base=base, group=group, **found)


def _segment_differences(
    pairs: Sequence[Pair], standing: Standings, segments: tuple[str, ...]
) -> Iterator[SegmentDifference]:
    for run_id, base, group in pairs:
        for part, segment in enumerate(segments, start=EVERYONE + 1):
            found = standing[group].difference(run_id, base, part)
            yield SegmentDifference(segment=segment, run_id=run_id, base=base, group=group, **found)


def _scored(run_id: str, standing: Standings, segments: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say how well it ranks."""
    by_user, by_request = (standing[group].gaucs[run_id][EVERYONE] for group in GROUPS)
    return {
        **standing["user"].score(run_id),
        "users_used": by_user.users_used,
        "users_left_out": by_user.users_left_out,
        "weight_used": by_user.weight_used,
        "weight_left_out": by_user.weight_left_out,
        "by_request": RequestScore(
            requests_used=by_request.users_used,
            requests_left_out=by_request.users_left_out,
            **standing["request"].score(run_id),
        ),
        "by_segment": tuple(
            SegmentScore(
                segment=segment,
                group=group,
                groups_used=gauc.users_used,
                groups_left_out=gauc.users_left_out,
                weight_used=gauc.weight_used,
                **standing[group].score(run_id, part),
            )
            for group in GROUPS
            for part, segment in enumerate(segments, start=EVERYONE + 1)
            for gauc in [standing[group].gaucs[run_id][part]]
        ),
    }


def _acted(
    policy: "Policy", acted: Acted, segments: tuple[str, ...], critics: Critics | None
) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say where its actions lie, one a request or one an impression."""

    def of(tally: Tally, sample: Sample) -> Deviation:
        columns = sample.columns
        bounds = (columns["lower"], columns["upper"]) if "lower" in columns else None
        return told(policy.fusion.names, tally, columns["drift"], bounds)

    everyone, *tallies = acted.tallies
    sample = acted.deviating
    return {
        "deviation": of(everyone, sample.everyone),
        "deviation_by_segment": {
            name: of(tally, sample.among(sample.group == s))
            for s, (name, tally) in enumerate(zip(segments, tallies, strict=True))
        },
        "disagreement": disagreement(
            critics,
            **{name: of for name, of in acted.asked.columns.items() if name != "place"},
            segments=Segments(segments, acted.asked.group, np.empty(0, np.int64)),
            reward_scale=policy.info.get("reward_scale", 1.0),
        )
        if critics and acted.asked
        else None,
    }
