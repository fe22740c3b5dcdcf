"""How policies would rank if the reward weighed one feedback signal otherwise (formula 2), and where that flips."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from pydantic import ValidationError

from mtf_engine.evaluation.weighted_gauc import weighted_gauc
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import RewardSpec, Spec

POINTS = 13
REACH = 3
"""How many times its weight a signal is followed to."""
UNWEIGHTED_REACH = 0.5


class Flip(Spec):
    """The weight at which two policies change places: `ahead` is the better one above it, `behind` below it."""

    weight: float
    ahead: str
    behind: str


class WhatIf(Spec):
    """Weighted GAUC of policies over the weight of one signal, and every place where two of them change places."""

    signal: str
    stands: float
    """The weight that the log's own reward gives it."""
    weights: tuple[float, ...]
    gaucs: dict[str, tuple[float | None, ...]]
    flips: tuple[Flip, ...]


def what_if(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    signals: Mapping[str, np.ndarray],
    users: np.ndarray,
    reward: RewardSpec,
    signal: str,
    weights: Sequence[float] | None = None,
) -> WhatIf:
    """Returns weighted GAUC under each of `weights` of `signal`, the others as `reward` has them.

    `scores` [m] of each policy, `labels`, `signals` and `users` are of the same m impressions. The labels do
    not depend on the weights, the sample weights reward + 1 do. Without `weights`, those from 0 to three
    times its own; weights under which an impression could fall to -1 are left out.
    """
    asked = np.linspace(0, REACH * reward.weights.get(signal, 0.0) or UNWEIGHTED_REACH, POINTS)
    specs = {
        weight: spec for weight in weights or asked.tolist() if (spec := _weighed(reward, signal, weight))
    }
    found: dict[str, list[float | None]] = {name: [] for name in scores}
    for spec in specs.values():
        sample_weights = impression_rewards(spec, signals) + 1
        for name, own in scores.items():
            found[name].append(weighted_gauc(own, labels, sample_weights, users).value)
    return WhatIf(
        signal=signal,
        stands=reward.weights.get(signal, 0.0),
        weights=tuple(sorted(specs)),
        gaucs={name: tuple(_by_weight(values, list(specs))) for name, values in found.items()},
        flips=tuple(flips(sorted(specs), {n: _by_weight(v, list(specs)) for n, v in found.items()})),
    )


def flips(weights: Sequence[float], values: Mapping[str, Sequence[float | None]]) -> Iterator[Flip]:
    """Yields where two lines of `values` over increasing `weights` cross, straight from point to point."""
    for one, other in combinations(values, 2):
        gaps = [
            (weight, a - b)
            for weight, a, b in zip(weights, values[one], values[other], strict=True)
            if a is not None and b is not None and a != b
        ]
        for (low, before), (high, after) in pairwise(gaps):
            if before * after < 0:
                where = low + (high - low) * before / (before - after)
                ahead, behind = (one, other) if after > 0 else (other, one)
                yield Flip(weight=where, ahead=ahead, behind=behind)


def _weighed(reward: RewardSpec, signal: str, weight: float) -> RewardSpec | None:
    """Returns the reward with another weight of a signal; None where an impression could then fall to -1."""
    try:
        return RewardSpec(weights={**reward.weights, signal: weight}, valid_seconds=reward.valid_seconds)
    except ValidationError:
        return None


def _by_weight(values: Sequence[float | None], weights: Sequence[float]) -> list[float | None]:
    return [values[i] for i in np.argsort(weights)]
