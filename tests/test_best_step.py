"""The best step by validation: what is scored, what is kept, and that a kill loses nothing of it."""

import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.evaluation import evaluate
from mtf_engine.evaluation.ranking import undefined
from mtf_engine.learning.best_step import Validation
from mtf_engine.learning.config import SCORE
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.policy import Policy
from tests.problems import N_FEATURES, sessions

LOG = sessions()
N_USERS, PER_USER, SHOWN = 40, 3, 4


def rows(label=None) -> EvaluationRows:
    """Returns 40 users' requests of random impressions."""
    generator = np.random.default_rng(1)
    n = N_USERS * PER_USER
    request = np.repeat(np.arange(n), SHOWN)
    return EvaluationRows(
        split="validation",
        request_id=np.arange(n),
        user=np.repeat(np.arange(N_USERS), PER_USER),
        segment=np.full(n, "all"),
        observations=generator.normal(size=(n, N_FEATURES)).astype(np.float32),
        baseline_actions=None,
        lower=None,
        upper=None,
        request=request,
        predictions=generator.uniform(size=(len(request), len(LOG.fusion.predictions))).astype(np.float32),
        reward=generator.uniform(size=len(request)),
        label=generator.uniform(size=len(request)) < 0.5 if label is None else np.full(len(request), label),
        fusion=LOG.fusion,
        feature_names=LOG.feature_names,
    )


def trainer(**changes):
    small = {"n_critics": "2", "hidden": "4", "batch_size": "8", "n_steps": "12", "log_every": "3"}
    small |= {"validate_every": "2", "checkpoint_every": "5", "actor_learning_rate": "0.05"}
    config = make_config("integrated_rl", "laptop", small | changes, seed=0)
    return ALGOS["integrated_rl"](config, LOG)


def scores(metrics) -> dict[int, float]:
    return {row["step"]: row[SCORE] for row in metrics if SCORE in row}


def test_a_score_is_the_evaluations_weighted_gauc():
    validation, policy = Validation.of(rows()), trainer().policy
    (evaluated,) = evaluate({"it": policy}, rows(), n_bootstrap=2).policies
    assert validation.score(policy) == evaluated.weighted_gauc


def test_steps_are_scored_regularly_at_the_start_and_at_the_end():
    metrics = list(fit(trainer(n_steps="11"), LOG, validation=Validation.of(rows())))
    assert list(scores(metrics)) == [0, 2, 4, 6, 8, 10, 11]
    assert [row["step"] for row in metrics] == [0, 2, 3, 4, 6, 8, 9, 10, 11]


def test_the_policy_of_the_highest_score_is_kept_with_its_step(tmp_path):
    algo, validation, policies = trainer(), Validation.of(rows()), {}
    found = []
    for row in fit(algo, LOG, validation=validation):
        found.append(row)
        policies[row["step"]] = algo.policy.act(LOG[:].observations)
    trained = {step: score for step, score in scores(found).items() if step > 0}
    assert len(set(trained.values())) > 1, "all steps score alike, so this shows nothing"
    assert validation.best_step == max(trained, key=trained.get) < 12
    assert validation.best_score == max(trained.values())
    assert validation.start_score == found[0][SCORE]
    validation.save_best(tmp_path / "best.safetensors")
    best = Policy.load(tmp_path / "best.safetensors")
    np.testing.assert_array_equal(best.act(LOG[:].observations), policies[validation.best_step])
    assert best.info == algo.policy.info | {"step": validation.best_step}


def test_scoring_does_not_change_the_training():
    scored, alone = trainer(), trainer()
    list(fit(scored, LOG, validation=Validation.of(rows())))
    list(fit(alone, LOG))
    for a, b in zip(scored.actor.parameters(), alone.actor.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rows_seen", [1, 5, 8])
def test_a_resumed_training_keeps_the_best_step_of_the_whole(tmp_path, rows_seen):
    whole, resumed = Validation.of(rows()), Validation.of(rows())
    metrics = list(fit(trainer(), LOG, tmp_path / "whole.pt", whole))
    list(islice(fit(trainer(), LOG, tmp_path / "killed.pt", Validation.of(rows())), rows_seen))
    again = list(fit(trainer(), LOG, tmp_path / "killed.pt", resumed))
    assert scores(metrics).items() >= scores(again).items()
    assert (resumed.best_step, resumed.best_score) == (whole.best_step, whole.best_score)
    assert resumed.start_score == whole.start_score
    whole.save_best(tmp_path / "a")
    resumed.save_best(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_checkpoint_from_before_there_was_validation_goes_on(tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(islice(fit(trainer(), LOG, path), 3))
    saved = torch.load(path, weights_only=True)
    del saved["validation"], saved["config"]["validate_every"]
    torch.save(saved, path)
    (tmp_path / "hashes.txt").unlink()
    validation = Validation.of(rows())
    metrics = list(fit(trainer(validate_every="250"), LOG, path, validation))
    assert list(scores(metrics)) == [12]
    assert validation.best_step == 12 and validation.start_score is None


def test_where_weighted_gauc_is_undefined_there_is_no_validation_and_a_reason():
    lost = replace(rows(), reward=np.where(rows().label, 1e6, -1e6))
    nothing = {name: np.zeros(0) for name in ("reward", "label")}
    empty = replace(rows(), request=np.zeros(0, int), predictions=np.zeros((0, 2), np.float32), **nothing)
    for why, undefined_rows in (
        ("a reward is -1e\\+06: -1 or less", lost),
        ("the log has no impressions", empty),
        ("no user has impressions of both classes", rows(label=True)),
    ):
        assert Validation.of(undefined_rows) is None
        assert re.search(why, undefined(undefined_rows))
    assert undefined(rows()) is None
