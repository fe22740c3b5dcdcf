"""An evaluation's result as the frames that its charts and tables show."""

import numpy as np
import pandas as pd

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.registry import BASELINE, RunRow
from pages.shared import words

Runs = dict[str, RunRow]
"""Runs by id: what gives a policy its name and its method's colour."""


def algo_of(run_id: str, runs: Runs) -> str:
    """Returns the method behind a policy, `baseline` where there is no run."""
    run = runs.get(run_id)
    return (run.algo if run else None) or BASELINE


def scores(result: EvaluationResult, group: str, runs: Runs) -> pd.DataFrame:
    """Returns weighted GAUC of each policy over groups of `group` (user or request), one row a policy."""
    used, left_out = f"{group}s_used", f"{group}s_left_out"
    grouped = [(policy, policy if group == "user" else policy.by_request) for policy in result.policies]
    return pd.DataFrame(
        {
            "label": words.policy_title(policy.run_id, runs),
            "algo": algo_of(policy.run_id, runs),
            "value": score.weighted_gauc,
            "low": score.ci_low,
            "high": score.ci_high,
            used: getattr(score, used),
            left_out: getattr(score, left_out),
            "run_id": policy.run_id,
        }
        for policy, score in grouped
    ).astype({"value": float, "low": float, "high": float})


def differences(result: EvaluationResult, group: str, base: str, runs: Runs) -> pd.DataFrame:
    """Returns weighted GAUC of each other policy minus that of `base`, paired by user."""
    return pd.DataFrame(
        [
            {
                "label": words.policy_title(pair.run_id, runs),
                "algo": algo_of(pair.run_id, runs),
                "value": pair.value,
                "low": pair.ci_low,
                "high": pair.ci_high,
                "probability_better": pair.probability_better,
                "run_id": pair.run_id,
            }
            for pair in result.differences
            if pair.base == base and pair.group == group
        ]
    ).astype({"value": float, "low": float, "high": float})


def deviation_bins(result: EvaluationResult, run_id: str, signed: bool) -> pd.DataFrame:
    """Returns one row a bin: dimension, left, right, share of requests; cut where nothing lies."""
    deviation = _policy(result, run_id).deviation
    first = -2.0 if signed else 0.0
    counts = np.array([d.drift_counts if signed else d.counts for d in deviation.dimensions])
    left = first + deviation.bin_width * np.arange(counts.shape[1])
    limit = _reach(deviation.dimensions, left[counts.any(0)], deviation.bin_width)
    shown = (left >= -limit - 1e-9) & (left < limit - 1e-9)
    return pd.concat(
        pd.DataFrame(
            {
                "dimension": dimension.name,
                "left": left[shown],
                "right": left[shown] + deviation.bin_width,
                "share": row[shown] / max(deviation.n_requests, 1),
            }
        )
        for dimension, row in zip(deviation.dimensions, counts, strict=True)
    )


def _reach(dimensions, filled: np.ndarray, bin_width: float) -> float:
    """Returns how far from 0 the picture reaches: past every filled bin and past the bounds."""
    bounds = [max(-d.bounds.lower, d.bounds.upper) for d in dimensions if d.bounds]
    return max(max(bounds, default=0.0) * 1.5, np.abs(filled).max(initial=0.0) + 2 * bin_width)


def bounds_of(result: EvaluationResult, run_id: str) -> tuple[list[float], list[float]] | None:
    """Returns the lower and upper bound per dimension, None where the log has none."""
    uses = [dimension.bounds for dimension in _policy(result, run_id).deviation.dimensions]
    known = [use for use in uses if use]
    return ([use.lower for use in known], [use.upper for use in known]) if len(known) == len(uses) else None


def deviation_table(result: EvaluationResult, run_id: str) -> pd.DataFrame:
    """Returns one row a dimension: size and drift of the deviation, and where it lies in the bounds."""
    return pd.DataFrame(
        {
            "dimension": dimension.name,
            "mean size": dimension.mean,
            **{f"size {q}": value for q, value in dimension.quantiles.items()},
            "mean drift": dimension.drift_mean,
            "lower": dimension.bounds and dimension.bounds.lower,
            "upper": dimension.bounds and dimension.bounds.upper,
            "share outside": dimension.bounds and dimension.bounds.share_outside,
            "share at the wall": dimension.bounds and dimension.bounds.share_at_wall,
        }
        for dimension in _policy(result, run_id).deviation.dimensions
    )


def disagreement_profile(result: EvaluationResult, runs: Runs) -> pd.DataFrame:
    """Returns the critics' disagreement along rays: one row a policy and distance, 0 standing for inside."""
    return pd.DataFrame(
        [
            {
                "label": words.policy_title(policy.run_id, runs),
                "algo": algo_of(policy.run_id, runs),
                "distance": distance,
                "mean": spread.std_mean,
                "low": spread.std_quantiles[0],
                "high": spread.std_quantiles[1],
                "actions": spread.count,
            }
            for policy in result.policies
            if (found := policy.disagreement)
            for distance, spread in [
                *([(0.0, found.ray_inside)] if found.ray_inside else []),
                *(((part.above + part.up_to) / 2, part.spread) for part in found.profile),
            ]
        ],
        columns=["label", "algo", "distance", "mean", "low", "high", "actions"],
    )


def own_disagreement(result: EvaluationResult, runs: Runs) -> pd.DataFrame:
    """Returns the critics' disagreement about each policy's own actions, inside and outside the bounds."""
    return pd.DataFrame(
        [
            {
                "policy": words.policy_title(policy.run_id, runs),
                "actions": place,
                "requests": spread.count,
                "std over critics": spread.std_mean,
                "std 5 %": spread.std_quantiles[0],
                "std 95 %": spread.std_quantiles[1],
                "mean Q": spread.q_mean,
            }
            for policy in result.policies
            if (found := policy.disagreement)
            for place, spread in (("inside", found.inside), ("outside", found.outside))
            if spread
        ]
    )


def _policy(result: EvaluationResult, run_id: str):
    return next(policy for policy in result.policies if policy.run_id == run_id)
