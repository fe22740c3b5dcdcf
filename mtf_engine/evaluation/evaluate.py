"""evaluate: policies on logged rows, by weighted GAUC with intervals, deviation and disagreement."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from mtf_engine.evaluation.deviation import Deviation, deviation
from mtf_engine.evaluation.disagreement import Critics, Disagreement, disagreement
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
from mtf_engine.evaluation.scored import Acted, Scored, parts_of, scored, together
from mtf_engine.evaluation.segments import Segments
from mtf_engine.evaluation.standing import EVERYONE, Standing, standings
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.spec import BoundsPlan

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policies.policy import Policy

Standings = Mapping[Group, Standing]
Pair = tuple[str, str, Group]
"""A policy, the base it is compared with, and over what."""


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
    n_parts = parts_of(len(rows.request))
    return evaluation(
        policies,
        scored(policies, rows, n_parts, critics or ()),
        seed=seed,
        n_bootstrap=n_bootstrap,
        critics=critics,
    )


def evaluation(
    policies: Mapping[str, "Policy"],
    parts: Sequence[Scored],
    *,
    seed: int = 0,
    n_bootstrap: int = 1_000,
    critics: Mapping[str, Critics] | None = None,
) -> EvaluationResult:
    """Returns what `evaluate` does of rows that were scored in parts, given in the order of `parts_of`."""
    whole = together(parts)
    rows, acted = whole.rows, whole.acted
    segments = Segments.of(rows)
    standing = standings({name: of.gaucs for name, of in acted.items()}, rows, segments, n_bootstrap, seed)
    pairs = [(run_id, base, group) for run_id, base in permutations(policies, 2) for group in GROUPS]
    return EvaluationResult(
        split=rows.split,
        n_requests=len(rows.request_id),
        n_impressions=whole.n_impressions,
        n_users=len(np.unique(rows.user)),
        n_bootstrap=n_bootstrap,
        seed=seed,
        baseline_actions="zero" if rows.baseline_actions is None else "logged",
        segments=segments.told_apart,
        policies=tuple(
            PolicyEvaluation(
                run_id=run_id,
                split=rows.split,
                **_scored(run_id, standing, segments),
                differs=acted[run_id].differs,
                **_acted(policy, acted[run_id], rows, segments, (critics or {}).get(run_id)),
            )
            for run_id, policy in policies.items()
        ),
        differences=tuple(_differences(pairs, standing)),
        segment_differences=tuple(_segment_differences(pairs, standing, segments)),
    )


def _differences(pairs: Sequence[Pair], standing: Standings) -> Iterator[PairedDifference]:
    for run_id, base, group in pairs:
        found = standing[group].difference(run_id, base)
        yield PairedDifference(run_id=run_id, base=base, group=group, **found)


def _segment_differences(
    pairs: Sequence[Pair], standing: Standings, segments: Segments
) -> Iterator[SegmentDifference]:
    for run_id, base, group in pairs:
        for part, segment in enumerate(segments.told_apart, start=EVERYONE + 1):
            found = standing[group].difference(run_id, base, part)
            yield SegmentDifference(segment=segment, run_id=run_id, base=base, group=group, **found)


def _scored(run_id: str, standing: Standings, segments: Segments) -> dict[str, Any]:
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
            for part, segment in enumerate(segments.told_apart, start=EVERYONE + 1)
            for gauc in [standing[group].gaucs[run_id][part]]
        ),
    }


def _acted(
    policy: "Policy", acted: Acted, rows: EvaluationRows, segments: Segments, critics: Critics | None
) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say where its actions lie, one a request or one an impression."""
    if not acted.same_dimensions:
        rows = replace(rows, baseline_actions=None, lower=None, upper=None)
    of_request = np.zeros((len(rows.observations), policy.fusion.n_actions), np.float32)
    baseline_actions = of_request if rows.baseline_actions is None else rows.baseline_actions
    bounds = _bounds(policy, baseline_actions, rows)
    if policy.action_level == "item":
        baseline_actions = baseline_actions[rows.request]
        bounds = bounds and (bounds[0][rows.request], bounds[1][rows.request])
        segments = replace(segments, of_request=segments.of_request[rows.request])

    def of(chosen: slice | np.ndarray) -> Deviation:
        known = bounds and (bounds[0][chosen], bounds[1][chosen])
        return deviation(policy.fusion.names, acted.actions[chosen], baseline_actions[chosen], known)

    return {
        "deviation": of(slice(None)),
        "deviation_by_segment": {
            name: of(segments.of_request == s) for s, name in enumerate(segments.told_apart)
        },
        "disagreement": _disagreement(
            critics, policy, acted, segments, baseline_actions, *bounds, acted.actions
        )
        if critics and bounds
        else None,
    }


def _disagreement(
    critics: Critics, policy: "Policy", acted: Acted, segments: Segments, *context: np.ndarray
) -> Disagreement:
    """Returns the disagreement about the policy's actions; `context`: baseline actions, bounds and actions, [n, d]."""
    asked = acted.asked
    return disagreement(
        critics,
        acted.states,
        *(of[asked] for of in context),
        segments=replace(segments, of_request=segments.of_request[asked]),
        reward_scale=policy.info.get("reward_scale", 1.0),
    )


def _bounds(
    policy: "Policy", baseline_actions: np.ndarray, rows: EvaluationRows
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns lower and upper offsets [r, d]: as logged, else by the policy's own plan, else None."""
    if rows.lower is not None and rows.upper is not None:
        return rows.lower, rows.upper
    if policy.info.get("plan") is None:
        return None
    return BoundsPlan.model_validate(policy.info["plan"]).resolve(baseline_actions, rows.segment)
