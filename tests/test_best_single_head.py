"""The best single head: each prediction alone, and their regression, inside the ranges of the weights."""

from dataclasses import replace

import numpy as np
import pytest

from mtf_engine.algos import ALGOS
from mtf_engine.algos.best_single_head import single_heads
from mtf_engine.evaluation.floors import floors
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.fusion import pows_and_biases
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.fixed import fixed_action, regressed
from mtf_engine.spec import FusionDimension, FusionSpec, Refusal
from mtf_engine.work.fitness import open_fitness
from tests.problems import N_FEATURES, sessions

MIXED = FusionSpec(
    predictions=("a", "b", "c"),
    dimensions=(
        FusionDimension.power("a"),
        FusionDimension.power("b", negative=True),
        FusionDimension.power("c", (0.5, 1.5)),
        FusionDimension.bias("c"),
    ),
)


def test_a_single_head_has_all_other_weights_as_near_nothing_as_they_may() -> None:
    real = [pows_and_biases(MIXED, np.float32([action])) for action in single_heads(MIXED)]
    pows, biases = (np.concatenate(part) for part in zip(*real, strict=True))
    np.testing.assert_allclose(pows, [[2, 0, 0.5], [0, -2, 0.5], [0, 0, 1.5]], atol=1e-6)
    np.testing.assert_allclose(biases, 0, atol=1e-6)


def impressions(coefficients, n=6_000, k=6) -> EvaluationRows:
    """Impressions whose reward is linear in the logarithms of their predictions, beside a level of the request."""
    generator = np.random.default_rng(0)
    request = np.repeat(np.arange(n // k), k)
    predictions = generator.uniform(0.05, 1, (n, 3)).astype(np.float32)
    level = generator.normal(0, 5, n // k)
    reward = level[request] + np.log(predictions) @ coefficients + generator.normal(0, 0.3, n)
    users = np.arange(n // k) % 200
    return EvaluationRows(
        split="train", request_id=np.arange(n // k), user=users, segment=np.full(n // k, "all"),
        observations=np.zeros((n // k, N_FEATURES), np.float32), baseline_actions=None, lower=None, upper=None,
        request=request, predictions=predictions, reward=np.exp(reward / 20), label=reward > level[request],
        fusion=MIXED, feature_names=tuple(f"feature_{i}" for i in range(N_FEATURES)),
    )  # fmt: skip


def test_the_regression_weighs_predictions_by_what_they_tell_of_the_reward() -> None:
    rows = impressions(np.array([0.5, -1.0, 0.25]))
    action = regressed(rows, rows.reward)
    pows, biases = pows_and_biases(MIXED, np.float32([action]))
    np.testing.assert_allclose(pows, [[1, -2, 0.5]], atol=0.1)
    np.testing.assert_allclose(biases, 0, atol=1e-6)
    rows = impressions(np.array([0.5, 1.0, 0.5]))
    wrong_sign = regressed(rows, rows.reward)
    pows, _ = pows_and_biases(MIXED, np.float32([wrong_sign]))
    np.testing.assert_allclose(pows, [[1.5, 0, 1.5]], atol=0.15)


def test_floors_are_the_head_that_ranks_training_rows_best_and_a_regression_of_the_label() -> None:
    rows = impressions(np.array([0.5, -1.0, 0.25]))
    assert floors(rows) == ("head:b", "regression")
    pows, _ = pows_and_biases(MIXED, np.float32([fixed_action("regression", MIXED, rows)]))
    np.testing.assert_allclose(pows, [[1, -2, 0.5]], atol=0.2)
    assert floors(replace(rows, label=np.ones(len(rows.label), bool))) == ()
    assert floors(replace(rows, reward=np.r_[-2.0, rows.reward[1:]])) == (), (
        "no weighted GAUC, and no refusal"
    )
    with pytest.raises(Refusal, match="neither this log nor the one that a policy learned from has any"):
        fixed_action("regression", MIXED)


def head(rows: EvaluationRows, **settings: str):
    """Returns the best single head after its training on the weighted GAUC of `rows`."""
    log = sessions(n_actions=4)
    log.fusion = MIXED
    algo = ALGOS["best_single_head"](make_config("best_single_head", "laptop", settings, seed=0), log)
    list(fit(algo, Ranking(rows)))
    return algo


def test_of_single_heads_the_one_that_ranks_best_is_kept_and_the_regression_ranks_better() -> None:
    rows = impressions(np.array([0.5, -1.0, 0.25]))
    single = head(rows)
    pows, _ = pows_and_biases(MIXED, single.policy.act(rows.observations[:1]))
    np.testing.assert_allclose(pows, [[0, -2, 0.5]], atol=1e-6)
    assert single.trials.fitness[:3] == single.trials.fitness[3:6], "all were tried, and again from the first"
    weighed = head(rows, weights="regression", n_steps="1")
    assert Ranking(rows)(weighed.policy) > Ranking(rows)(single.policy) + 0.02


def test_a_regression_needs_impressions(small_workspace) -> None:
    config = make_config("best_single_head", "demo", {"weights": "regression"}, seed=0)
    with pytest.raises(Refusal, match="needs impressions to learn from; set fitness=weighted_gauc"):
        next(fit(ALGOS["best_single_head"](config, sessions()), lambda policy: 0.0))
    fitness = open_fitness(small_workspace, "explored", config.model_dump())
    assert np.abs(regressed(fitness.rows, fitness.rows.reward)).max() <= 1
