"""An evaluation's scores as the frames that its charts and tables show."""

from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.evaluation.off_policy import ESTIMATORS, NOT_ENOUGH
from mtf_engine.registry import BASELINE, RunRow, is_fixed, run_of
from pages.shared import words

Runs = dict[str, RunRow]
"""Runs by id: what gives a policy its name and its method's colour."""
FIXED = "fixed"
"""The method of a policy that is one action for everybody."""

SCORE = {"weighted_gauc": "weighted GAUC", "ci_low": "low", "ci_high": "high"}
DIFFERENCE = {"value": "difference", "ci_low": "low", "ci_high": "high"}
MEASURED = ("weighted GAUC", "difference", "low", "high", "probability best", "probability better")


def named(run_id: str, runs: Runs, floors: Collection[str] = ()) -> dict[str, str]:
    """Returns what every row about a policy starts with: its name, marked where it is a floor, its method, its id."""
    run = runs.get(run_of(run_id))
    algo = (run.algo if run else None) or (FIXED if is_fixed(run_id) else BASELINE)
    floor = " (floor)" if run_id in floors else ""
    return {"policy": words.policy_title(run_id, runs) + floor, "algo": algo, "run_id": run_id}


def narrowed(result: EvaluationResult, policies: Collection[str]) -> EvaluationResult:
    """Returns `result` with these policies alone, in this order; probabilities stay those among all."""
    found = {policy.run_id: policy for policy in result.policies}
    update = {"policies": tuple(found[run_id] for run_id in policies)}
    for name in ("differences", "segment_differences"):
        pairs = getattr(result, name)
        update[name] = tuple(d for d in pairs if d.run_id in policies and d.base in policies)
    return result.model_copy(update=update)


def scores(result: EvaluationResult, group: str, runs: Runs) -> pd.DataFrame:
    """Returns weighted GAUC of each policy over groups of `group` (user or request), one row a policy."""
    used, left_out = f"{group}s_used", f"{group}s_left_out"
    grouped = [(policy, policy if group == "user" else policy.by_request) for policy in result.policies]
    return _frame(
        {
            **named(policy.run_id, runs, result.floors),
            **{title: getattr(score, field) for field, title in SCORE.items()},
            "probability best": score.probability_best,
            used.replace("_", " "): getattr(score, used),
            left_out.replace("_", " "): getattr(score, left_out),
        }
        for policy, score in grouped
    )


def differences(result: EvaluationResult, group: str, base: str, runs: Runs) -> pd.DataFrame:
    """Returns weighted GAUC of each other policy minus that of `base`, paired by user."""
    return _frame(
        _difference(pair, runs, result)
        for pair in result.differences
        if (pair.base, pair.group) == (base, group)
    )


def segment_scores(result: EvaluationResult, group: str, runs: Runs) -> pd.DataFrame:
    """Returns weighted GAUC of each policy among the users of each segment, one row a segment and policy."""
    return _frame(
        {
            "segment": score.segment,
            **named(policy.run_id, runs, result.floors),
            **{title: getattr(score, field) for field, title in SCORE.items()},
            "probability best": score.probability_best,
            "groups used": score.groups_used,
            "groups left out": score.groups_left_out,
        }
        for policy in result.policies
        for score in policy.by_segment
        if score.group == group
    )


def segment_differences(result: EvaluationResult, group: str, base: str, runs: Runs) -> pd.DataFrame:
    """Returns the differences to `base` among the users of each segment."""
    return _frame(
        {"segment": pair.segment, **_difference(pair, runs, result)}
        for pair in result.segment_differences
        if (pair.base, pair.group) == (base, group)
    )


def off_policy(result: EvaluationResult, runs: Runs) -> pd.DataFrame:
    """Returns what each estimator tells of each policy, one row each; NaN and why where it tells nothing."""
    frame = pd.DataFrame(
        {
            "estimator": one.estimator,
            **named(policy.run_id, runs),
            "session value": one.value,
            "low": one.ci_low,
            "high": one.ci_high,
            "effective sample size": one.ess,
            "share in support": one.in_support,
            "told": NOT_ENOUGH if one.value is None else "yes",
        }
        for policy in result.policies
        for one in policy.off_policy
    )
    order = {name: i for i, name in enumerate(ESTIMATORS)}
    frame = frame.sort_values("estimator", key=lambda names: names.map(order), kind="stable")
    return frame.astype({"session value": float, "low": float, "high": float})


def ladder(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row a policy and a column an estimator, of a frame of `off_policy`: value and interval in words."""
    cells = [
        NOT_ENOUGH if pd.isna(value) else f"{value:.4g} ({low:.4g} to {high:.4g})"
        for value, low, high in zip(frame["session value"], frame["low"], frame["high"], strict=True)
    ]
    wide = frame.assign(cell=cells).pivot(index="policy", columns="estimator", values="cell")
    kept = wide.loc[list(dict.fromkeys(frame["policy"])), list(dict.fromkeys(frame["estimator"]))]
    return kept.reset_index().rename_axis(columns=None)


def searches(policies: Iterable[str], runs: Runs) -> pd.DataFrame:
    """Returns what each policy that was found by search was searched for, and what that took, one row each."""
    found = {policy: runs[run_of(policy)] for policy in policies if run_of(policy) in runs}
    rows = [
        {"policy": words.policy_title(policy, runs), "fitness": run.config["fitness"]}
        | {name.replace("_", " "): value for name, value in run.result["search"].items()}
        for policy, run in found.items()
        if run.result and run.result.get("search")
    ]
    return pd.DataFrame(rows)


def _difference(pair: Any, runs: Runs, result: EvaluationResult) -> dict[str, Any]:
    return {
        **named(pair.run_id, runs, result.floors),
        **{title: getattr(pair, field) for field, title in DIFFERENCE.items()},
        "probability better": pair.probability_better,
        "resolvable gap": pair.resolvable_gap,
    }


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows as a frame in which what was not measured is NaN."""
    frame = pd.DataFrame(list(rows))
    return frame.astype({name: float for name in MEASURED if name in frame})
