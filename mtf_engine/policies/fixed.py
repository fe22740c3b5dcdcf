"""Policies that are no runs: one action for everybody, and its name says which.

- `regression`: pows by a regression of the label on log-predictions, on training rows of the log that is judged on.
- `default`: the middle of every range.
- `head:NAME`: one prediction alone; its pow is at the end of its range that is farther from 0, all else nearest to 0.
- `constant:1,0,0.5` or `constant:pow_click=1,pow_like=0.5`: these fusion weights, one a dimension in their order, or by
  name; those that are not named are in the middle of their range.
- `random:SEED`: drawn evenly from all ranges.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtf_engine.fusion import PREDICTION_FLOOR, action_of
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.registry import DEFAULT, REGRESSION
from mtf_engine.spec import MOST, FusionSpec, Refusal

SMALLEST = 1e-9
"""Of the largest coefficient of a regression; what is smaller counts as 0."""


def fixed_action(name: str, spec: FusionSpec, rows: EvaluationRows | None = None) -> NDArray[np.float64]:
    """Returns the action [d] of the policy `name`, in [-1, 1]; a Refusal where `spec` has no such weights.

    `rows` are training rows, which `regression` alone is fitted to.
    """
    kind, _, told = name.partition(":")
    if name == REGRESSION:
        if rows is None:
            raise Refusal(
                "regression weights are fitted to training rows, and neither this log nor the one that a policy "
                "learned from has any; name another policy"
            )
        return regressed(rows, rows.label)
    match kind:
        case "head":
            return one_head(spec, told)
        case "constant":
            return action_of(spec, np.array(_weights(name, told.split(","), spec)))
        case "random":
            if not told.isdecimal() or int(told[:20]) > MOST:
                raise Refusal(f"{name!r} has no seed; write random:0, or another whole number up to {MOST}")
            return np.random.default_rng(int(told)).uniform(-1, 1, spec.n_actions)
    assert name == DEFAULT, name
    return np.zeros(spec.n_actions)


def fixed_fits(name: str, spec: FusionSpec) -> bool:
    """Returns whether `spec` has the weights that the policy `name` sets; `regression` fits no log by itself."""
    try:
        fixed_action(name, spec)
    except Refusal:
        return False
    return True


def one_head(spec: FusionSpec, prediction: str) -> NDArray[np.float64]:
    """Returns the action [d] that ranks by `prediction` alone."""
    heads = [d.prediction for d in spec.dimensions if d.kind == "pow"]
    if prediction not in heads:
        raise Refusal(f"there is no prediction {prediction!r} with a pow; there are {', '.join(heads)}")
    alone = [(d.kind, d.prediction) == ("pow", prediction) for d in spec.dimensions]
    ends = [max(d.low, d.high, key=abs) for d in spec.dimensions]
    return action_of(spec, np.where(alone, ends, 0.0))


def regressed(rows: EvaluationRows, target: NDArray) -> NDArray[np.float64]:
    """Returns the action [d] whose pows are in proportion to a least-squares fit of `target` [m] on log-predictions.

    Both are minus their means in the request: formula 1 ranks within a request, and is linear in the logarithms of
    the predictions. A coefficient has the sign that its pow's range allows, or is 0 (bounded least squares). All are
    scaled by one number, so that the first pow reaches the end of its range; this changes no ranking. A range without
    0 is then still held.
    """
    from scipy.optimize import lsq_linear  # a part of a second to load, for this alone

    spec = rows.fusion
    pows = [i for i, d in enumerate(spec.dimensions) if d.kind == "pow"]
    low, high = (np.array([getattr(spec.dimensions[i], end) for i in pows]) for end in ("low", "high"))
    of = [spec.predictions.index(spec.dimensions[i].prediction) for i in pows]
    logs = np.log(rows.predictions[:, of].astype(np.float64).clip(PREDICTION_FLOOR))
    left = _within(np.column_stack([logs, target.astype(np.float64)]), rows.request)
    allowed = np.where(low < 0, -np.inf, 0), np.where(high > 0, np.inf, 0)
    found = lsq_linear(left[:, :-1], left[:, -1], allowed).x
    found[np.abs(found) <= SMALLEST * np.abs(found).max()] = 0
    ends = np.where(found > 0, high, low)
    reach = np.divide(ends, found, out=np.full(len(pows), np.inf), where=found != 0).min()
    real = np.zeros(spec.n_actions)
    real[pows] = found * reach if np.isfinite(reach) else 0
    return action_of(spec, real)


def _within(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns values [m, k] minus the means of their groups, numbered from 0: [m, k]."""
    sizes = np.bincount(groups)
    sums = np.column_stack([np.bincount(groups, column) for column in values.T])
    return values - (sums / np.maximum(sizes, 1)[:, None])[groups]


def _weights(name: str, parts: Sequence[str], spec: FusionSpec) -> list[float]:
    """Returns a fusion weight for each dimension, inside its range."""
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    if not named and len(parts) != spec.n_actions:
        raise Refusal(
            f"{name!r} has {len(parts)} weights, and there are {spec.n_actions} dimensions: {', '.join(spec.names)}"
        )
    if named and (len(named) < len(parts) or not named.keys() <= set(spec.names)):
        raise Refusal(f"{name!r} is not NAME=WEIGHT for some of {', '.join(spec.names)}, each once")
    given: Mapping[str, str] = named or dict(zip(spec.names, parts, strict=True))
    weights = [(d.low + d.high) / 2 for d in spec.dimensions]
    for i, dimension in enumerate(spec.dimensions):
        if (text := given.get(dimension.name)) is not None:
            weights[i] = _number(text)
            if not dimension.low <= weights[i] <= dimension.high:
                raise Refusal(
                    f"{name!r} sets {dimension.name} to {text}; write a number from {dimension.low + 0:g} to "
                    f"{dimension.high + 0:g}"
                )
    return weights


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
