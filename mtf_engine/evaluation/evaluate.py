"""evaluate: policies on logged rows, by weighted GAUC with intervals, deviation and disagreement."""

from collections.abc import Mapping
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtf_engine.evaluation.bootstrap import interval, poisson_bootstrap, probability_above_zero, user_sums
from mtf_engine.evaluation.deviation import Deviation, deviation
from mtf_engine.evaluation.disagreement import Critics, Disagreement, disagreement
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.spec import BoundsPlan, Spec

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policy import Policy

CHUNK = 500_000
"""Impressions scored at once."""

Group = Literal["user", "request"]
GROUPS: tuple[Group, ...] = ("user", "request")
Gaucs = dict[Group, WeightedGAUC]
Draws = dict[Group, np.ndarray]


class RequestScore(Spec):
    """Weighted GAUC over requests instead of users: what is compared is what was shown together."""

    weighted_gauc: float | None
    ci_low: float | None
    ci_high: float | None
    requests_used: int
    requests_left_out: int


class PolicyEvaluation(Spec):
    """One policy: weighted GAUC by user (the paper's) with its 95 % interval, and its actions.

    A score is None where no group has both classes, an interval also where fewer than two users do.
    """

    run_id: str
    split: str
    weighted_gauc: float | None
    ci_low: float | None
    ci_high: float | None
    users_used: int
    users_left_out: int
    weight_used: float
    weight_left_out: float
    by_request: RequestScore
    deviation: Deviation
    disagreement: Disagreement | None


class PairedDifference(Spec):
    """Weighted GAUC of `run_id` minus that of `base` on the same groups, resampled with the same users."""

    run_id: str
    base: str
    group: Group
    value: float | None
    ci_low: float | None
    ci_high: float | None
    probability_better: float | None


class EvaluationResult(Spec):
    """Policies on the same rows, and every ordered pair of them."""

    split: str
    n_requests: int
    n_impressions: int
    n_users: int
    n_bootstrap: int
    seed: int
    baseline_actions: Literal["logged", "zero"]
    """What deviations start from: the log's baseline actions, or the action 0 where it has none."""
    policies: tuple[PolicyEvaluation, ...]
    differences: tuple[PairedDifference, ...]


def evaluate(
    policies: Mapping[str, "Policy"],
    rows: EvaluationRows,
    *,
    seed: int = 0,
    n_bootstrap: int = 1_000,
    critics: Mapping[str, Critics] | None = None,
) -> EvaluationResult:
    """Returns how the policies, by run id, rank the impressions that were logged in `rows`.

    Each policy acts on every request; an impression's score is its log final score under that action, its
    label whether it was watched long enough, its sample weight reward + 1 (IntegratedRL-MTF, arXiv
    2404.17589, section 4.3.1). Intervals come from 1,000 Poisson bootstrap draws over users, the same for
    every policy and both groupings. `critics` of a run are asked for their disagreement where the bounds are
    known: logged with the rows, or else the plan that the policy was trained with.

    Refused are a policy with other features or another fusion than the rows, and an impression whose reward
    is -1 or less.
    """
    actions = {}
    for run_id, policy in policies.items():
        policy.check(rows.fusion, rows.feature_names)
        actions[run_id] = policy.act(rows.observations)
    gaucs = {run_id: _gaucs(policy, actions[run_id], rows) for run_id, policy in policies.items()}
    draws = _draws(gaucs, rows, n_bootstrap, np.random.default_rng(seed))
    return EvaluationResult(
        split=rows.split,
        n_requests=len(rows.request_id),
        n_impressions=len(rows.request),
        n_users=len(np.unique(rows.user)),
        n_bootstrap=n_bootstrap,
        seed=seed,
        baseline_actions="zero" if rows.baseline_actions is None else "logged",
        policies=tuple(
            PolicyEvaluation(
                run_id=run_id,
                split=rows.split,
                **_scored(gaucs[run_id], draws[run_id]),
                **_acted(policy, actions[run_id], rows, (critics or {}).get(run_id)),
            )
            for run_id, policy in policies.items()
        ),
        differences=tuple(
            _difference(run_id, base, group, gaucs, draws)
            for run_id, base in permutations(policies, 2)
            for group in GROUPS
        ),
    )


def _gaucs(policy: "Policy", actions: np.ndarray, rows: EvaluationRows) -> Gaucs:
    """Returns the weighted GAUC of the log final scores under `actions` [r, d], computed in float64."""
    scores = np.empty(len(rows.request))
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        predictions = rows.predictions[part].astype(np.float64)
        scores[part] = log_final_score(policy.fusion, actions[rows.request[part]], predictions)
    groups = {"user": rows.impression_user, "request": rows.request}
    return {group: weighted_gauc(scores, rows.label, rows.reward + 1, groups[group]) for group in GROUPS}


def _draws(
    gaucs: Mapping[str, Gaucs], rows: EvaluationRows, n_bootstrap: int, generator: np.random.Generator
) -> dict[str, Draws]:
    """Returns bootstrap draws [n_bootstrap] of every policy and grouping, from the same counts of users."""
    n_users = int(rows.user.max(initial=-1)) + 1
    user_of = {"user": np.arange(n_users), "request": rows.user}
    sums = [user_sums(gaucs[run_id][group], user_of[group], n_users) for run_id in gaucs for group in GROUPS]
    numerators, denominators = (np.stack(part) for part in zip(*sums, strict=True))
    columns = iter(poisson_bootstrap(numerators, denominators, n_bootstrap, generator).T)
    return {run_id: {group: next(columns) for group in GROUPS} for run_id in gaucs}


def _scored(gaucs: Gaucs, draws: Draws) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say how well it ranks."""
    by_user, by_request = gaucs["user"], gaucs["request"]
    ci_low, ci_high = interval(draws["user"])
    request_low, request_high = interval(draws["request"])
    return {
        "weighted_gauc": by_user.value,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "users_used": by_user.users_used,
        "users_left_out": by_user.users_left_out,
        "weight_used": by_user.weight_used,
        "weight_left_out": by_user.weight_left_out,
        "by_request": RequestScore(
            weighted_gauc=by_request.value,
            ci_low=request_low,
            ci_high=request_high,
            requests_used=by_request.users_used,
            requests_left_out=by_request.users_left_out,
        ),
    }


def _acted(
    policy: "Policy", actions: np.ndarray, rows: EvaluationRows, critics: Critics | None
) -> dict[str, Any]:
    """Returns the fields of a PolicyEvaluation that say where its actions [r, d] lie."""
    baseline_actions = np.zeros_like(actions) if rows.baseline_actions is None else rows.baseline_actions
    bounds = _bounds(policy, baseline_actions, rows)
    return {
        "deviation": deviation(policy.fusion.names, actions, baseline_actions, bounds),
        "disagreement": disagreement(critics, rows.observations, baseline_actions, *bounds, actions)
        if critics and bounds
        else None,
    }


def _bounds(
    policy: "Policy", baseline_actions: np.ndarray, rows: EvaluationRows
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns lower and upper offsets [r, d]: as logged, else by the policy's own plan, else None."""
    if rows.lower is not None and rows.upper is not None:
        return rows.lower, rows.upper
    if policy.info.get("plan") is None:
        return None
    return BoundsPlan.model_validate(policy.info["plan"]).resolve(baseline_actions, rows.segment)


def _difference(
    run_id: str, base: str, group: Group, gaucs: Mapping[str, Gaucs], draws: Mapping[str, Draws]
) -> PairedDifference:
    value, base_value = gaucs[run_id][group].value, gaucs[base][group].value
    difference = draws[run_id][group] - draws[base][group]
    ci_low, ci_high = interval(difference)
    return PairedDifference(
        run_id=run_id,
        base=base,
        group=group,
        value=None if value is None or base_value is None else value - base_value,
        ci_low=ci_low,
        ci_high=ci_high,
        probability_better=probability_above_zero(difference),
    )
