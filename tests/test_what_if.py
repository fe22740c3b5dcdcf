"""Policies re-ranked over the weight of one signal, against a case worked by hand."""

import numpy as np
import pytest

from mtf_engine.evaluation.what_if import flips, what_if
from mtf_engine.questions.what_if import reward_what_if
from mtf_engine.registry import BASELINE
from mtf_engine.spec import RewardSpec

LABELS = np.array([1, 1, 0])
LIKED = np.array([1.0, 0.0, 0.0])
SCORES = {"likes": np.array([3.0, 1.0, 2.0]), "plain": np.array([1.0, 3.0, 2.0])}
"""One puts the liked impression above the negative, the other the one that was not liked."""
USERS = np.zeros(3, int)


def test_the_weight_of_a_signal_moves_weighted_gauc_as_by_hand() -> None:
    reward = RewardSpec(weights={"like": 1.0})
    found = what_if(SCORES, LABELS, {"like": LIKED}, USERS, reward, "like", weights=(0.0, 1.0))
    assert found.stands == 1.0
    # pairs (liked, negative) and (other, negative) weigh 1 + w and 1
    assert found.gaucs["likes"] == pytest.approx((1 / 2, 2 / 3))
    assert found.gaucs["plain"] == pytest.approx((1 / 2, 1 / 3))
    assert found.flips == (), "they part at 0, and do not cross"


def test_a_flip_is_named_where_the_lines_cross() -> None:
    reward = RewardSpec(weights={"like": 0.2})
    found = what_if(SCORES, LABELS, {"like": LIKED}, USERS, reward, "like", weights=(-0.5, 0.5))
    (flip,) = found.flips
    assert (flip.ahead, flip.behind) == ("likes", "plain")
    low, high = 2 * 0.5 / 1.5 - 1, 2 * 1.5 / 2.5 - 1  # difference of the two at both ends
    assert flip.weight == pytest.approx(-0.5 - low / (high - low))
    back = list(flips((0.0, 1.0, 2.0), {"a": (1.0, 0.0, 1.0), "b": (0.5, 0.5, 0.5)}))
    assert [(one.weight, one.ahead) for one in back] == [(0.5, "b"), (1.5, "a")]


def test_weights_that_no_reward_may_have_are_left_out() -> None:
    reward = RewardSpec(weights={"like": 0.2, "skip": -0.5})
    signals = {"like": LIKED, "skip": 1 - LIKED}
    found = what_if(SCORES, LABELS, signals, USERS, reward, "skip")
    assert found.weights[-1] == 0 and found.weights[0] == pytest.approx(-0.875), "-1 is not reached"
    assert list(found.weights) == sorted(found.weights)


def test_where_the_weight_stands_the_score_is_that_of_the_evaluation(small_workspace) -> None:
    (training,) = small_workspace.registry.runs(kind="train")
    (evaluated,) = small_workspace.registry.runs(kind="evaluate")
    found = reward_what_if(small_workspace, [BASELINE, training.id], str(evaluated.dataset_id), "like")
    own = found.weights.index(next(w for w in found.weights if w == pytest.approx(found.stands)))
    expected = {row["run_id"]: row["weighted_gauc"] for row in evaluated.result["policies"]}
    assert {name: values[own] for name, values in found.gaucs.items()} == pytest.approx(expected)
