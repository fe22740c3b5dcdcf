"""Tables of progressive rounds: one row a round, two rounds side by side, predicted beside realised."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mtf_engine.registry import RunRow
from mtf_engine.release.rounds import Estimate, Round, reward_effect
from mtf_engine.spec import BoundsPlan
from pages.shared import words

DISTANCE, AT_WALL = "distance from the first baseline", "share at the wall"
GAUC, AB_GAIN = "weighted GAUC", "A/B session reward"
METRICS = {
    "valid_consumption": "user valid consumption",
    "duration_time": "user duration time",
    "session_reward": "session reward",
}


def box_text(plan: BoundsPlan) -> str:
    """Returns a plan in a few signs: its half width where that is one number, else its range of edges."""
    edges = {*plan.upper, *(-low for low in plan.lower)}
    text = f"±{plan.upper[0]:g}" if len(edges) == 1 else f"{min(plan.lower):g} to {max(plan.upper):g}"
    return text + (f", {len(plan.segments)} segments of their own" if plan.segments else "")


def interval_text(found: Estimate | None, form: str = "{:.4f}") -> str:
    """Returns a figure with its interval, as text."""
    if found is None or found.value is None:
        return "-"
    if found.ci_low is None:
        return form.format(found.value)
    return f"{form.format(found.value)} ({form.format(found.ci_low)} to {form.format(found.ci_high)})"


def table(rounds: Sequence[Round], runs: Mapping[str, RunRow]) -> pd.DataFrame:
    """Returns one row a round."""
    return pd.DataFrame([_row(one, dict(runs)) for one in rounds])


def _row(one: Round, runs: dict[str, RunRow]) -> dict[str, Any]:
    gain = reward_effect(one.effects)
    return {
        "round": one.number,
        "baseline": words.policy_title(one.baseline, runs),
        "bounds": box_text(one.plan),
        "sessions": one.sessions,
        "steps": one.steps,
        GAUC: one.policy.gauc.value,
        "difference": one.policy.difference.value,
        "low": one.policy.difference.ci_low,
        "high": one.policy.difference.ci_high,
        AB_GAIN: gain and gain.relative,
        "A/B low": gain and gain.ci_low,
        "A/B high": gain and gain.ci_high,
        DISTANCE: one.policy.path,
        AT_WALL: one.policy.share_at_wall,
        "promoted": words.policy_title(one.candidate, runs) if one.promoted else "the baseline stays",
        "why": one.why,
    }


def short(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns `frame` as a page has room for it: what decides first, each interval in one column behind its figure."""
    found = frame.copy()
    for of, low, high, title, form in (
        ("difference", "low", "high", "95 %", "+.4f"),
        (AB_GAIN, "A/B low", "A/B high", "A/B 95 %", "+.1%"),
    ):
        if of in found:
            ends = zip(found.pop(low), found.pop(high), strict=True)
            said = ["" if pd.isna(a) or pd.isna(b) else f"{a:{form}} to {b:{form}}" for a, b in ends]
            found.insert(found.columns.get_loc(of) + 1, title, said)
    first = ["round", "promoted"]
    late = ["baseline", "bounds", "sessions", "steps", DISTANCE, "why"]
    return found[[*first, *found.columns.drop([*first, *late]), *late]]


def side_by_side(one: Round, other: Round, runs: dict[str, RunRow]) -> pd.DataFrame:
    """Returns what two rounds did and found, a row each thing and a column each round."""
    columns = {f"round {r.number}": _told(r, runs) for r in (one, other)}
    return pd.DataFrame(columns).rename_axis("what").reset_index()


def _told(one: Round, runs: dict[str, RunRow]) -> dict[str, str]:
    effects = {
        f"A/B {METRICS.get(effect.metric, effect.metric)}": interval_text(
            Estimate(value=effect.relative, ci_low=effect.ci_low, ci_high=effect.ci_high, n_users=0),
            "{:+.2%}",
        )
        for effect in one.effects
    }
    return {
        "explored around": words.policy_title(one.baseline, runs),
        "bounds": box_text(one.plan),
        "sessions, requests": f"{one.sessions:,}, {one.requests:,}",
        "gradient steps": f"{one.steps:,}",
        "session reward of control users": interval_text(one.log.control_reward, "{:.2f}"),
        "session reward of explored users": interval_text(one.log.explored_reward, "{:.2f}"),
        "weighted GAUC of the candidate": interval_text(one.policy.gauc),
        "weighted GAUC of the baseline": interval_text(one.policy.baseline_gauc),
        "difference": interval_text(one.policy.difference, "{:+.4f}"),
        **effects,
        DISTANCE: f"{one.policy.path:.3g}",
        "share at the wall": f"{one.policy.share_at_wall:.1%}",
        "decided": "promoted" if one.promoted else "not promoted",
        "why": one.why,
    }


def predicted(rounds: Sequence[Round], earlier: Sequence[Round], runs: dict[str, RunRow]) -> pd.DataFrame:
    """Returns what was estimated of each baseline of `rounds`, beside what its control users then did.

    The estimate is of the round that trained it: one of these, or one of an `earlier` run.
    """
    by_candidate = {one.candidate: one for one in (*earlier, *rounds)}
    pairs = [(by_candidate[later.baseline], later) for later in rounds if later.baseline in by_candidate]
    return pd.DataFrame(
        [
            {
                "policy": words.policy_title(later.baseline, runs),
                "estimated in round": made.number,
                "measured in round": later.number,
                "figure": what,
                **_ends("predicted", before),
                **_ends("realised", after),
            }
            for made, later in pairs
            for what, before, after in (
                ("discounted session reward", made.policy.predicted_return, later.log.control_return),
                (GAUC, made.policy.gauc, later.log.control_gauc),
            )
        ]
    )


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    return {
        name: found and found.value,
        f"{name} low": found and found.ci_low,
        f"{name} high": found and found.ci_high,
    }


def walked(rounds: Sequence[Round], names: Sequence[str]) -> pd.DataFrame:
    """Returns the mean |action - first baseline| of each dimension, one row a round, and over all of them."""
    rows = [
        {"round": one.number, **dict(zip(names, one.policy.walked, strict=True)), "all": one.policy.path}
        for one in rounds
    ]
    return pd.DataFrame(rows)
