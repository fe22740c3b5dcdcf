"""How good a policy is: weighted GAUC on logged rows, deviation and disagreement, A/B tests in environments."""

from mtf_engine.evaluation.abtest import ABTest, ab_test
from mtf_engine.evaluation.evaluate import evaluate
from mtf_engine.evaluation.result import EvaluationResult
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc

__all__ = ["ABTest", "EvaluationResult", "WeightedGAUC", "ab_test", "evaluate", "weighted_gauc"]
