"""How good a policy is on logged rows: weighted GAUC, its intervals, deviation and disagreement."""

from mtf_engine.evaluation.evaluate import evaluate
from mtf_engine.evaluation.result import EvaluationResult
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc

__all__ = ["EvaluationResult", "WeightedGAUC", "evaluate", "weighted_gauc"]
