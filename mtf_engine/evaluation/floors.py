"""Floors: what ranks without having learned, chosen on training rows: the best single head, and a regression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtf_engine.evaluation.ranking import Ranking, undefined
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.fixed import one_head
from mtf_engine.registry import REGRESSION


def floors(rows: EvaluationRows) -> tuple[str, ...]:
    """Returns the policies that any other has to beat: the single prediction that ranks `rows` best, and `regression`.

    The first by weighted GAUC by user, as `best_single_head` searches. Empty where that is undefined of `rows`, so
    that nothing tells one from another.
    """
    if undefined(rows):
        return ()
    ranking = Ranking(rows)
    heads = [d.prediction for d in rows.fusion.dimensions if d.kind == "pow"]
    best = max(heads, key=lambda head: ranking(_Everybody(one_head(rows.fusion, head))))
    return f"head:{best}", REGRESSION


@dataclass(frozen=True)
class _Everybody:
    action: NDArray[np.float64]

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tile(self.action.astype(np.float32), (len(observations), 1))
