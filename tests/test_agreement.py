"""Weighted GAUC and an A/B test are laid beside each other, pair by pair."""

import pytest

from mtf_engine.evaluation import ABTest
from mtf_engine.evaluation.agreement import agreement
from mtf_engine.evaluation.result import PairedDifference
from mtf_engine.registry import BASELINE


@pytest.fixture
def told(small_workspace):
    """The evaluation and the A/B test of one training."""
    runs = small_workspace.registry.runs
    (evaluation,), (test,) = runs(kind="evaluate"), runs(kind="abtest")
    return list(
        map(PairedDifference.model_validate, evaluation.result["differences"])
    ), ABTest.model_validate(test.result)


def with_reward(test: ABTest, relative: float) -> ABTest:
    effects = (
        effect.model_copy(update={"relative": relative}) if effect.metric == "session_reward" else effect
        for effect in test.effects
    )
    return test.model_copy(update={"effects": tuple(effects)})


def test_both_are_told_and_whether_they_order_alike(told):
    differences, test = told
    (pair,) = (d for d in differences if (d.base, d.group) == (BASELINE, "user"))
    sign = 1 if pair.value > 0 else -1
    same, other = (agreement(differences, with_reward(test, s * sign * 0.01)) for s in (1, -1))
    assert (same.alike, same.pairs, other.alike) == (1, 1, 0)
    assert (
        same.policies[0].gauc_difference == pair.value and same.policies[0].reward_difference == sign * 0.01
    )
    assert "order the policies alike" in same.sentence and "0 of 1 pairs" in other.sentence


def test_equal_values_are_ordered_alike_by_equal_values_only(told):
    differences, test = told
    same = [pair.model_copy(update={"value": 0.0}) for pair in differences]
    assert agreement(same, with_reward(test, 0.0)).alike == 1
    assert agreement(same, with_reward(test, 0.01)).alike == 0


def test_nothing_is_said_where_no_policy_has_both_values(told):
    differences, test = told
    assert agreement([pair.model_copy(update={"value": None}) for pair in differences], test) is None
    assert agreement(differences, with_reward(test, None)) is None


def test_policies_that_were_not_tested_together_are_not_compared(told):
    differences, test = told
    assert agreement(differences, test.model_copy(update={"policies": (BASELINE,)})) is None
    assert agreement(differences, test.model_copy(update={"metrics": ("return",)})) is None
