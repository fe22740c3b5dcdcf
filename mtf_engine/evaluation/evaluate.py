"""evaluate: policies on logged rows, by weighted GAUC with intervals, deviation and disagreement."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from mtf_engine.evaluation.deviation import Deviation, deviation
from mtf_engine.evaluation.disagreement import MAX_REQUESTS, Critics, Disagreement, disagreement
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
from mtf_engine.evaluation.segments import Segments
from mtf_engine.evaluation.standing import EVERYONE, Gaucs, Standing, standings
from mtf_engine.evaluation.weighted_gauc import weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.reading import LoggedActions, logged_actions, logged_states, reading
from mtf_engine.spec import BoundsPlan

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policies.policy import Policy

CHUNK = 500_000
"""Impressions scored at once."""

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
    read = {run_id: reading(policy, rows) for run_id, policy in policies.items()}
    acted = {run_id: logged_actions(policy, read[run_id].rows) for run_id, policy in policies.items()}
    gaucs = {run_id: _gaucs(policy, acted[run_id], read[run_id].rows) for run_id, policy in policies.items()}
    segments = Segments.of(rows)
    standing = standings(gaucs, rows, segments, n_bootstrap, np.random.default_rng(seed))
    pairs = [(run_id, base, group) for run_id, base in permutations(policies, 2) for group in GROUPS]
    return EvaluationResult(
        split=rows.split,
        n_requests=len(rows.request_id),
        n_impressions=len(rows.request),
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
                differs=read[run_id].differs,
                **_acted(
                    policy, acted[run_id].actions, read[run_id].rows, segments, (critics or {}).get(run_id)
                ),
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


def _gaucs(policy: "Policy", acted: LoggedActions, rows: EvaluationRows) -> Gaucs:
    """Returns the weighted GAUC of the log final scores under the actions, computed in float64."""
    scores = np.empty(len(rows.request))
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        predictions = rows.predictions[part].astype(np.float64)
        actions = acted.actions[acted.own[part]]
        scores[part] = log_final_score(policy.fusion, actions, predictions, typical=acted.typical)
    groups = {"user": rows.impression_user, "request": rows.request}
    return {group: weighted_gauc(scores, rows.label, rows.reward + 1, groups[group]) for group in GROUPS}


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
    policy: "Policy", actions: np.ndarray, rows: EvaluationRows, segments: Segments, critics: Critics | None
) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say where its actions lie, one a request or one an impression."""
    of_request = np.zeros((len(rows.observations), policy.fusion.n_actions), np.float32)
    baseline_actions = of_request if rows.baseline_actions is None else rows.baseline_actions
    bounds = _bounds(policy, baseline_actions, rows)
    if policy.action_level == "item":
        baseline_actions = baseline_actions[rows.request]
        bounds = bounds and (bounds[0][rows.request], bounds[1][rows.request])
        segments = replace(segments, of_request=segments.of_request[rows.request])

    def of(chosen: slice | np.ndarray) -> Deviation:
        known = bounds and (bounds[0][chosen], bounds[1][chosen])
        return deviation(policy.fusion.names, actions[chosen], baseline_actions[chosen], known)

    return {
        "deviation": of(slice(None)),
        "deviation_by_segment": {
            name: of(segments.of_request == s) for s, name in enumerate(segments.told_apart)
        },
        "disagreement": _disagreement(critics, policy, rows, segments, baseline_actions, *bounds, actions)
        if critics and bounds
        else None,
    }


def _disagreement(
    critics: Critics, policy: "Policy", rows: EvaluationRows, segments: Segments, *context: np.ndarray
) -> Disagreement:
    """Returns the disagreement about the policy's actions; `context`: baseline actions, bounds and actions, [n, d]."""
    asked = np.unique(np.linspace(0, len(context[0]) - 1, min(len(context[0]), MAX_REQUESTS)).astype(int))
    return disagreement(
        critics,
        logged_states(policy, rows, asked),
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
