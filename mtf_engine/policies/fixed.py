"""Policies that are no runs: one action for everybody, and its name says which.

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

from mtf_engine.fusion import action_of
from mtf_engine.registry import DEFAULT
from mtf_engine.spec import MOST, FusionSpec, Refusal


def fixed_action(name: str, spec: FusionSpec) -> NDArray[np.float64]:
    """Returns the action [d] of the policy `name`, in [-1, 1]; a Refusal where `spec` has no such weights."""
    kind, _, told = name.partition(":")
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


def one_head(spec: FusionSpec, prediction: str) -> NDArray[np.float64]:
    """Returns the action [d] that ranks by `prediction` alone."""
    heads = [d.prediction for d in spec.dimensions if d.kind == "pow"]
    if prediction not in heads:
        raise Refusal(f"there is no prediction {prediction!r} with a pow; there are {', '.join(heads)}")
    alone = [(d.kind, d.prediction) == ("pow", prediction) for d in spec.dimensions]
    ends = [max(d.low, d.high, key=abs) for d in spec.dimensions]
    return action_of(spec, np.where(alone, ends, 0.0))


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
