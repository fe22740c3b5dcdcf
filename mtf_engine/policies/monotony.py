"""Monotony: where a policy ranks an item lower, the more of a good thing is predicted of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from mtf_engine.fusion import pows_and_biases
from mtf_engine.spec import FusionSpec, Spec


class NegativePow(Spec):
    """The pow of a positive behaviour's prediction that is negative, or may be by its range."""

    prediction: str
    low: float = Field(description="where its range begins")
    lowest: float = Field(description="the lowest that is served on the requests looked at")
    share: float = Field(description="of these requests on which it is negative")


def sentences(found: Sequence[NegativePow]) -> list[str]:
    """Returns a sentence for each pow that is negative somewhere, and one for all that merely may be."""
    told = [
        f"the pow of {one.prediction}, a positive behaviour, is negative on {one.share:.1%} of the requests, "
        f"{one.lowest:.3g} at the lowest: there an item ranks the lower, the more of it is predicted"
        for one in found
        if one.share
    ]
    if may := [one.prediction for one in found if not one.share]:
        told.append(
            f"by their ranges the pows of positive behaviours may be negative, and are on none of the requests: "
            f"{', '.join(may)}"
        )
    return told


def negative_pows(
    fusion: FusionSpec, actions: np.ndarray, reward: Mapping[str, float] | None = None
) -> tuple[NegativePow, ...]:
    """Returns what is negative, or may be, of the pows of positive behaviours under `actions` [n, d].

    A behaviour is positive where its weight in the `reward` is; where that has none of its name, unless the range of
    its pow ends at 0, as that of a negative behaviour does.
    """
    pows, _ = pows_and_biases(fusion, actions)
    weights = reward or {}
    return tuple(
        NegativePow(
            prediction=one.prediction,
            low=one.low,
            lowest=float(served.min(initial=one.high)),
            share=float((served < 0).mean()) if len(served) else 0.0,
        )
        for one in fusion.dimensions
        if one.kind == "pow" and one.low < 0
        if (weights[one.prediction] > 0 if weights.get(one.prediction) else one.high > 0)
        for served in (pows[:, fusion.predictions.index(one.prediction)],)
    )
