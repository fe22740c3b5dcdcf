"""How far policies deviate, and what their critics say, as the frames that charts and tables show."""

from typing import TypeVar

import numpy as np
import pandas as pd

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.evaluation.calibration import Calibration
from mtf_engine.evaluation.critic_pairs import CriticPairs
from mtf_engine.evaluation.deviation import Deviation
from mtf_engine.evaluation.disagreement import Spreads
from mtf_engine.registry import BASELINE
from pages.shared.results import Runs, named

Found = TypeVar("Found")
Named = dict[str, tuple[dict[str, str | None], Found]]
"""What was found of each policy, by run id, with how charts name it (policy, algo)."""
MOST_CELLS = 5_000
"""Bins of all dimensions and policies together that go to the browser."""


def deviations(result: EvaluationResult, segment: str, runs: Runs) -> Named[Deviation]:
    """Returns, by run id, the name and the deviation of each policy but the baseline, among a segment."""
    return {
        policy.run_id: (
            named(policy.run_id, runs),
            policy.deviation_by_segment[segment] if segment else policy.deviation,
        )
        for policy in result.policies
        if policy.run_id != BASELINE
    }


def deviation_bins(found: Named[Deviation], signed: bool) -> pd.DataFrame:
    """Returns one row a policy, dimension and bin: left, right, share of requests; cut where nothing lies.

    Bins are put together until there are at most `MOST_CELLS`.
    """
    first = -2.0 if signed else 0.0
    reach = max(_reach(deviation) for _, deviation in found.values())
    frames = []
    for name, deviation in found.values():
        counts = np.array([d.drift_counts if signed else d.counts for d in deviation.dimensions])
        left = first + deviation.bin_width * np.arange(counts.shape[1])
        shown = np.flatnonzero((left >= -reach - 1e-9) & (left < reach - 1e-9))
        together = -(-len(shown) * len(counts) * len(found) // MOST_CELLS)
        starts = shown[::together]
        share = np.add.reduceat(counts[:, : shown[-1] + 1], starts, axis=1) / max(deviation.n_requests, 1)
        width = deviation.bin_width * np.diff(starts, append=shown[-1] + 1)
        for dimension, row in zip(deviation.dimensions, share, strict=True):
            bins = {"left": left[starts], "right": left[starts] + width, "share": row}
            frames.append(pd.DataFrame({**name, "dimension": dimension.name, **bins}))
    return pd.concat(frames, ignore_index=True)


def _reach(deviation: Deviation) -> float:
    """Returns how far from 0 the picture reaches: past every filled bin and past the bounds."""
    filled = [
        (np.flatnonzero(d.counts).max(initial=0) + 2) * deviation.bin_width for d in deviation.dimensions
    ]
    bounds = [1.5 * max(-d.bounds.lower, d.bounds.upper) for d in deviation.dimensions if d.bounds]
    return min(2.0, np.ceil(max(filled + bounds) / deviation.bin_width) * deviation.bin_width)


def deviation_table(found: Named[Deviation]) -> pd.DataFrame:
    """Returns one row a policy and dimension: how far actions deviate, and where they lie in the bounds."""
    return pd.DataFrame(
        {
            "policy": name["policy"],
            "dimension": dimension.name,
            "mean size": dimension.mean,
            **{f"{float(q):.0%} quantile": value for q, value in dimension.quantiles.items()},
            "mean drift": dimension.drift_mean,
            "lower": dimension.bounds and dimension.bounds.lower,
            "upper": dimension.bounds and dimension.bounds.upper,
            "share outside": dimension.bounds and dimension.bounds.share_outside,
            "share at the wall": dimension.bounds and dimension.bounds.share_at_wall,
        }
        for name, deviation in found.values()
        for dimension in deviation.dimensions
    )


def spreads(result: EvaluationResult, segment: str, runs: Runs) -> Named[Spreads]:
    """Returns, by run id, the name and the critics' spread of each policy with an ensemble."""
    return {
        policy.run_id: (
            named(policy.run_id, runs),
            policy.disagreement.by_segment[segment] if segment else policy.disagreement,
        )
        for policy in result.policies
        if policy.disagreement and len(policy.disagreement.pairs.levels) > 1
    }


def histogram(result: EvaluationResult, run_id: str, critic: int | None) -> pd.DataFrame:
    """Returns how many points of the rays differ how much: left, right, inside %, outside %, one row a bin.

    Together, or one critic's difference to the mean of all. Empty for an evaluation of an earlier version.
    """
    (policy,) = (policy for policy in result.policies if policy.run_id == run_id)
    found = policy.disagreement and policy.disagreement.histograms
    if not found:
        return pd.DataFrame()
    edges = found.edges if critic is None else found.critic_edges
    inside = found.inside if critic is None else found.critic_inside[critic]
    outside = found.outside if critic is None else found.critic_outside[critic]
    shares = {
        name: 100 * np.array(counts) / max(sum(counts), 1)
        for name, counts in (("inside, %", inside), ("outside, %", outside))
    }
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], **shares})


def by_segment(result: EvaluationResult, run_id: str) -> Named[Spreads]:
    """Returns, by segment, its name and the spread of the critics of one policy."""
    (policy,) = (policy for policy in result.policies if policy.run_id == run_id)
    parts = policy.disagreement.by_segment if policy.disagreement else {}
    return {segment: ({"policy": segment, "algo": None}, found) for segment, found in parts.items()}


def profile(found: Named[Spreads]) -> pd.DataFrame:
    """Returns the critics' disagreement along rays: one row a policy or segment, and distance."""
    columns = ["policy", "algo", "distance", "std over critics", "std 5 %", "std 95 %", "mean Q", "actions"]
    return pd.DataFrame(
        [
            {
                **name,
                "distance": distance,
                "std over critics": spread.std_mean,
                "std 5 %": spread.std_quantiles[0],
                "std 95 %": spread.std_quantiles[1],
                "mean Q": spread.q_mean,
                "actions": spread.count,
            }
            for name, parts in found.values()
            for distance, spread in _along(parts)
        ],
        columns=columns,
    )


def own_actions(found: Named[Spreads]) -> pd.DataFrame:
    """Returns the critics' disagreement about each policy's own actions, inside and outside the bounds."""
    return pd.DataFrame(
        {
            "policy": name["policy"],
            "own actions": place,
            "requests": spread.count,
            "std over critics": spread.std_mean,
            "std 5 %": spread.std_quantiles[0],
            "std 95 %": spread.std_quantiles[1],
            "mean Q": spread.q_mean,
        }
        for name, parts in found.values()
        for place, spread in (("inside", parts.inside), ("outside", parts.outside))
        if spread
    )


def each_critic(parts: Spreads) -> pd.DataFrame:
    """Returns one row a critic and distance (0 is inside): bias and size of its difference to all."""
    return pd.DataFrame(
        {"critic": i, "distance": distance, "bias": bias, "size": size}
        for distance, spread in _along(parts)
        for i, (bias, size) in enumerate(zip(spread.biases, spread.deviations, strict=True), start=1)
    )


def critic_table(parts: Spreads, calibration: Calibration | None) -> pd.DataFrame:
    """Returns one row a critic: its difference to all about the policy's own actions, and its error."""
    columns = {
        f"{what} {place}": values
        for place, spread in (("inside", parts.inside), ("outside", parts.outside))
        if spread
        for what, values in (("bias", spread.biases), ("size", spread.deviations))
    }
    if calibration:
        columns["error"] = calibration.errors
    frame = pd.DataFrame(columns)
    frame.insert(0, "critic", np.arange(1, len(frame) + 1))
    return frame


def _along(parts: Spreads) -> list[tuple[float, object]]:
    """Returns the spreads along rays with their distance beyond the bounds, 0 standing for inside."""
    inside = [(0.0, parts.ray_inside)] if parts.ray_inside else []
    return [*inside, *(((part.above + part.up_to) / 2, part.spread) for part in parts.profile)]


def two_critics(pairs: CriticPairs, first: int, second: int) -> pd.DataFrame:
    """Returns how many actions have which Q by critic `first` (rows) and `second` (columns), NaN for none."""
    middles = ((np.array(pairs.edges[1:]) + pairs.edges[:-1]) / 2).round(6)
    counts = pairs.counts(first, second).astype(float)
    counts[counts == 0] = np.nan
    return pd.DataFrame(counts, middles, middles)


def least_alike(pairs: CriticPairs) -> tuple[int, int]:
    """Returns the two critics whose Q correlate least."""
    known = np.array(pairs.correlation, float)
    known[np.tril_indices(len(known))] = np.nan
    if np.isnan(known).all():
        return 0, 1
    first, second = np.unravel_index(np.nanargmin(known), known.shape)
    return int(first), int(second)


def calibration_bins(calibration: Calibration) -> pd.DataFrame:
    """Returns one row a bin of steps with similar Q: its mean, and the mean return with its interval."""
    return pd.DataFrame(
        {
            "mean Q": part.q_mean,
            "mean return": part.return_mean,
            "low": part.ci_low,
            "high": part.ci_high,
            "steps": part.count,
        }
        for part in calibration.bins
    ).astype({"low": float, "high": float})
