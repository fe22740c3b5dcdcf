"""Weighted GAUC of many policies on the same rows, which a search asks for hundreds of times."""

from typing import Any

import numpy as np

from mtf_engine.environments import Acting
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc
from mtf_engine.fusion import LogPredictions
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.reading import logged_actions


def undefined(rows: EvaluationRows) -> str | None:
    """Returns why no weighted GAUC can be told of `rows`, as the rest of a sentence; None where one can."""
    if not len(rows.request):
        return "the log has no impressions, which it ranks"
    if (least := rows.reward.min()) <= -1:
        return f"it weighs an impression by its reward + 1, and a reward is {least:g}: -1 or less"
    if not Ranking(rows).n_valid:
        return "no user has impressions of both classes"
    return None


class Ranking:
    """How well a policy ranks the impressions of `rows`; what no policy changes is computed once.

    `n_valid` are the users with impressions of both classes, who alone tell policies apart.
    """

    def __init__(self, rows: EvaluationRows) -> None:
        self.rows = rows
        self._predictions = LogPredictions(rows.fusion, rows.predictions)
        self._weight, self._user = rows.reward + 1, rows.impression_user
        self.n_valid = self._gauc(np.zeros(len(rows.label))).users_used

    def __call__(self, policy: Acting) -> float:
        """Returns the weighted GAUC by user (IntegratedRL-MTF, arXiv 2404.17589, section 4.3.1)."""
        value = self._gauc(self._predictions.log_final_score(*logged_actions(policy, self.rows))).value
        assert value is not None, "without valid users nobody asks; which they are does not depend on scores"
        return value

    def _gauc(self, scores: Any) -> WeightedGAUC:
        return weighted_gauc(scores, self.rows.label, self._weight, self._user)

    @property
    def size(self) -> dict[str, int]:
        """Returns of how many users and impressions the value is."""
        return {"users": len(np.unique(self.rows.user)), "impressions": len(self.rows.request)}
