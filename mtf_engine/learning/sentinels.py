"""Sentinels: what a training's metrics say is wrong, as sentences. Pure functions with stated thresholds."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from mtf_engine.learning.config import SCORE

SHARE = 0.2
"""`early` and `late` are means over this share of the logged rows, the first and the last."""
FEWEST_ROWS = 10
"""A metric with fewer values than this has no trend."""

LARGEST_Q = 1.5
"""Multiple of the largest possible return beyond which Q must be wrong."""
LOSS_GROWTH = 2.0
"""Late over early loss of the critics. It rises in good trainings too, by up to a half: they start at the mean
return, and their targets come to differ as they learn."""
GROWTH = 3.0
"""Late disagreement over the median of the first half, beyond which it explodes."""
FLOOR = 0.1
"""Disagreement below this many standard deviations of the return explodes nowhere."""
BLIND = 1.05
"""Disagreement outside over inside the bounds, up to which the critics do not tell them apart."""
AT_WALL, OUTSIDE = 0.5, 0.25
"""Shares of requests in one dimension."""
FAR = 2.0
"""Standard deviations of the logged actions that the actor may be away from the centre of the bounds."""
WIDEST_GAP = 1.0
"""CQL: standard deviations of the return by which Q of the policy's actions may exceed that of logged ones."""
ALPHA = (1e-3, 1e3)
"""CQL: range of alpha where it is learned; beyond it the threshold is out of reach."""
ALL_ALIKE, AT_LIMIT = 0.02, 0.5
"""BatchRL-MTF: half widths that its candidates must spread, and share of perturbations at their limit."""
CAPPED, FEW, ALIKE = 0.1, 0.05, 0.97
"""IQL: share of weights at their cap, and the range of their effective sample size, as share of the batch."""
STILL_RISING = 0.1
"""Share of a search's whole gain in fitness that its late rows brought."""
SETTLED = 0.01
"""Late step size of the mutations over the first."""
PAST_BEST = 0.005
"""Weighted GAUC below the best step's, beyond which the last policy is worse."""
SLOWER = 2.0
"""Late seconds a step over early."""

NAMED = 3
"""Dimensions that a sentence names; it counts the others."""


class Sentinel(NamedTuple):
    """One thing that is wrong: its name, and a sentence with the numbers and what to do."""

    key: str
    sentence: str


def sentinels(rows: Sequence[Mapping[str, Any]]) -> list[Sentinel]:
    """Returns what is wrong by the logged rows of one training, the gravest first; nothing if all is well.

    A rule whose metrics are not logged says nothing, so every method may log what it has.
    """
    frame = pd.DataFrame(rows)
    said = ((rule.__name__.lstrip("_"), rule(frame)) for rule in RULES)
    return [Sentinel(key, sentence) for key, sentence in said if sentence]


def _critics_diverge(frame: pd.DataFrame) -> str | None:
    times = _ratio(abs(_late(frame, "q_mean")), _late(frame, "largest_return"))
    if times > LARGEST_Q:
        return (
            f"Q is {times:.1f} times the largest possible return: the critics diverge; "
            "lower critic_learning_rate or tau."
        )
    return None


def _disagreement_explodes(frame: pd.DataFrame) -> str | None:
    spread = _trend(frame, "q_std_inside")
    late = _late_mean(spread)
    times = _ratio(late, float(spread.head(len(spread) // 2).median()))
    if late > FLOOR and times > GROWTH:
        return (
            f"Inside the bounds the critics disagree {times:.1f} times as much as in the first half of the "
            f"steps, by {late:.2g} standard deviations of the return: they fall apart; lower "
            "critic_learning_rate."
        )
    return None


def _loss_grows(frame: pd.DataFrame) -> str | None:
    loss = _trend(frame, "critic_loss")
    early, late = _early_mean(loss), _late_mean(loss)
    if (times := _ratio(late, early)) > LOSS_GROWTH:
        return (
            f"The critics' loss has grown {times:.1f} times, from {early:.3g} to {late:.3g}: they run after "
            "their own targets; lower critic_learning_rate or tau."
        )
    return None


def _bounds_unseen(frame: pd.DataFrame) -> str | None:
    outside, inside = (_trend(frame, f"q_std_{where}") for where in ("outside", "inside"))
    times = _ratio(_late_mean(outside), _late_mean(inside))
    if times <= BLIND:
        return (
            f"The critics disagree as little outside the bounds as inside, {times:.2f} times: "
            "their disagreement does not hold the actor back."
        )
    return None


def _actor_outside(frame: pd.DataFrame) -> str | None:
    if found := _dimensions(frame, "share_outside/", OUTSIDE):
        return (
            f"The actor leaves the bounds in {found}; raise eta or lower perturbation where the method has it, "
            "or explore wider bounds."
        )
    return None


def _actor_at_the_wall(frame: pd.DataFrame) -> str | None:
    if found := _dimensions(frame, "share_at_wall/", AT_WALL):
        return f"The actor sits at the wall in {found}; better weights may lie beyond the bounds."
    return None


def _actor_far_from_data(frame: pd.DataFrame) -> str | None:
    if (distance := _late(frame, "distance_from_data")) > FAR:
        return (
            f"The actor is {distance:.1f} standard deviations of the logged actions away from their centre, "
            "where its critics have seen next to nothing: trust an A/B test, not its Q."
        )
    return None


def _gap_too_wide(frame: pd.DataFrame) -> str | None:
    if (gap := _late(frame, "cql_gap")) > WIDEST_GAP:
        return (
            f"Q of the policy's actions is {gap:.1f} standard deviations of the return above that of the logged "
            "ones: it is not conservative; raise alpha."
        )
    return None


def _alpha_out_of_range(frame: pd.DataFrame) -> str | None:
    (low, high), alphas = ALPHA, _values(frame, "cql_alpha")
    alpha = _late_mean(alphas) if alphas.nunique() > 1 else math.nan  # else it is fixed
    if alpha < low:
        return f"alpha has fallen to {alpha:.2g}, so nothing holds Q down; lower lagrange_threshold."
    if alpha > high:
        return f"alpha has grown to {alpha:.2g} and drowns the rewards; raise lagrange_threshold."
    return None


def _candidates_alike(frame: pd.DataFrame) -> str | None:
    if (spread := _late(frame, "candidate_spread")) < ALL_ALIKE:
        return (
            f"The candidates of a request spread by {spread:.3f} half widths: there is nothing to choose from; "
            "lower kl_weight."
        )
    return None


def _perturbation_at_limit(frame: pd.DataFrame) -> str | None:
    if (share := _late(frame, "share_saturated")) > AT_LIMIT:
        return (
            f"{share:.0%} of the perturbations are at their limit: it alone decides how far the policy goes; "
            "lower actor_learning_rate."
        )
    return None


def _weights_capped(frame: pd.DataFrame) -> str | None:
    if (share := _late(frame, "share_capped")) > CAPPED:
        return f"{share:.0%} of the weights are cut at their cap and count alike; lower temperature."
    return None


def _few_weights_count(frame: pd.DataFrame) -> str | None:
    if (share := _late(frame, "effective_sample_size")) < FEW:
        return f"The weights are worth {share:.1%} of a batch: the actor imitates a few; lower temperature."
    return None


def _weights_alike(frame: pd.DataFrame) -> str | None:
    if (share := _late(frame, "effective_sample_size")) > ALIKE:
        return (
            f"The weights are worth {share:.1%} of a batch, nearly alike: the actor imitates the log as it is; "
            "raise temperature."
        )
    return None


def _search_still_rises(frame: pd.DataFrame) -> str | None:
    best = _trend(frame, "fitness_best")
    late = best.tail(max(1, int(SHARE * len(best))) + 1)
    share = _ratio(_span(late), _span(best))
    if share > STILL_RISING:
        return (
            f"The last {SHARE:.0%} of the steps brought {share:.0%} of the search's gain in fitness: "
            "it has not settled; set more n_steps."
        )
    return None


def _search_has_settled(frame: pd.DataFrame) -> str | None:
    sigma = _trend(frame, "sigma")
    if len(sigma) and (times := sigma.iloc[-1] / sigma.iloc[0]) < SETTLED:
        return (
            f"The mutations' step size has fallen to {times:.1%} of the first: the search has settled; "
            "fewer n_steps end at the same policy."
        )
    return None


def _no_gain(frame: pd.DataFrame) -> str | None:
    scores = _scores(frame)
    if 0 in scores.index and (best := scores.drop(0).max()) <= scores[0]:
        return (
            "No step ranks validation users better than the policy it started from: "
            f"weighted GAUC {best:.4f} at best, {scores[0]:.4f} at the start."
        )
    return None


def _past_its_best(frame: pd.DataFrame) -> str | None:
    scores = _scores(frame).drop(0, errors="ignore")
    if not scores.empty and scores.iloc[-1] < scores.max() - PAST_BEST:
        return (
            f"Weighted GAUC of validation users has fallen from {scores.max():.4f} at step "
            f"{int(scores.idxmax()):,} to {scores.iloc[-1]:.4f}: use the best step's policy, or fewer steps."
        )
    return None


def _slowed_down(frame: pd.DataFrame) -> str | None:
    pace = _trend(frame, "steps_per_second")
    if "fitness_best" in frame:  # a search that weighs all its trials so far slows down by nature
        return None
    if (times := _ratio(_early_mean(pace), _late_mean(pace))) > SLOWER:
        return f"A step takes {times:.1f} times as long as at first: something else uses this machine."
    return None


RULES: tuple[Callable[[pd.DataFrame], str | None], ...] = (
    _critics_diverge,
    _disagreement_explodes,
    _loss_grows,
    _bounds_unseen,
    _actor_outside,
    _actor_at_the_wall,
    _actor_far_from_data,
    _gap_too_wide,
    _alpha_out_of_range,
    _candidates_alike,
    _perturbation_at_limit,
    _weights_capped,
    _few_weights_count,
    _weights_alike,
    _search_still_rises,
    _search_has_settled,
    _no_gain,
    _past_its_best,
    _slowed_down,
)


def _values(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].dropna() if name in frame else pd.Series(dtype=float)


def _trend(frame: pd.DataFrame, name: str) -> pd.Series:
    """Returns the values of a metric, none where they are too few: what is computed of none is NaN."""
    values = _values(frame, name)
    return values if len(values) >= FEWEST_ROWS else values[:0]


def _early_mean(values: pd.Series) -> float:
    return float(values.head(max(1, int(SHARE * len(values)))).mean())


def _late_mean(values: pd.Series) -> float:
    return float(values.tail(max(1, int(SHARE * len(values)))).mean())


def _span(values: pd.Series) -> float:
    return float(values.iloc[-1] - values.iloc[0]) if len(values) else math.nan


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan


def _late(frame: pd.DataFrame, name: str) -> float:
    return _late_mean(_values(frame, name))


def _scores(frame: pd.DataFrame) -> pd.Series:
    """Returns the validation score by step."""
    return frame.set_index("step")[SCORE].dropna() if SCORE in frame else pd.Series(dtype=float)


def _dimensions(frame: pd.DataFrame, prefix: str, limit: float) -> str:
    """Returns the dimensions whose late share of requests is over `limit`, largest first; "" if none is."""
    shares = {name.removeprefix(prefix): _late(frame, name) for name in frame if str(name).startswith(prefix)}
    over = sorted((share, name) for name, share in shares.items() if share > limit)[::-1]
    named = [f"{name} ({share:.0%} of requests)" for share, name in over[:NAMED]]
    more = [f"{len(over) - NAMED} more dimensions"] if len(over) > NAMED else []
    return ", ".join(named + more)
