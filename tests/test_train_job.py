"""What a completed training leaves behind: its best step beside its last, what computed it, an estimate."""

import json

import numpy as np
import pytest

import mtf_engine
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunRow
from mtf_engine.runs import estimates, files
from mtf_engine.runs.storage import open_critics, open_dataset, open_policy
from mtf_engine.workspace import Workspace


@pytest.fixture
def training(small_workspace: Workspace) -> RunRow:
    (run,) = small_workspace.registry.runs(kind="train")
    return run


def test_the_best_step_is_a_policy_of_its_own(small_workspace, training):
    best = f"{training.id}@best"
    meta = open_dataset(small_workspace, training.dataset_id).meta
    policy, last = (open_policy(small_workspace, name, meta) for name in (best, training.id))
    assert policy.info == last.info | {"step": training.best_step}
    assert last.info["step"] == training.n_steps and last.info["run_id"] == training.id
    assert training.result["validation"]["best_score"] == training.best_score
    assert open_critics(small_workspace, best) is not None
    if training.best_step == training.n_steps:
        rows = np.zeros((3, len(policy.feature_names)), np.float32)
        np.testing.assert_array_equal(policy.act(rows), last.act(rows))
    assert Policy.load(small_workspace.run_dir(training.id) / files.BEST_POLICY).info == policy.info


def test_a_run_records_what_computed_it(small_workspace, training):
    origin = training.provenance
    dataset = small_workspace.dataset(training.dataset_id)
    assert origin["dataset_hash"] == dataset.content_hash
    assert origin["code"]["version"] == mtf_engine.__version__
    assert {"python", "torch", "duckdb"} <= set(origin["packages"])
    assert origin["n_threads"] == 1 and 100 < origin["peak_memory_mb"] < 10_000
    kept = (small_workspace.run_dir(training.id) / files.PROVENANCE).read_text()
    assert json.loads(kept) == origin and str(small_workspace.path) not in kept
    (collected,) = (
        run for run in small_workspace.registry.runs(kind="collect") if run.dataset_id == dataset.id
    )
    assert collected.provenance["dataset_hash"] == dataset.content_hash, "known once it is written"


def test_a_like_training_is_estimated_as_it_went(small_workspace, training):
    dataset = small_workspace.dataset(training.dataset_id)
    same = estimates.estimate(small_workspace, training.algo, training.config, dataset)
    double = estimates.estimate(
        small_workspace, training.algo, training.config | {"n_steps": 2 * training.n_steps}, dataset
    )
    assert same.basis == f"as in {training.id}" and double.seconds == pytest.approx(2 * same.seconds)
    wide = estimates.estimate(
        small_workspace, training.algo, training.config | {"hidden": [512, 512]}, dataset
    )
    assert wide.seconds > same.seconds and "scaled from" in wide.basis


def test_a_large_log_takes_no_more_memory_than_the_largest_that_is_held(small_workspace, training):
    dataset = small_workspace.dataset(training.dataset_id)
    small, large, larger = (
        estimates.estimate(
            small_workspace, training.algo, training.config, dataset.model_copy(update={"n_requests": n})
        ).memory_mb
        for n in (1_000, 10**7, 10**8)
    )
    assert small < large == larger == estimates.PROCESS_MB + estimates.LOG_MB


def test_without_a_like_training_the_estimate_says_it_is_a_guess(tmp_path, small_workspace, training):
    dataset = small_workspace.dataset(training.dataset_id)
    found = estimates.estimate(Workspace(tmp_path), training.algo, training.config, dataset)
    assert found.seconds > 0 and found.memory_mb > estimates.PROCESS_MB and "a guess" in found.basis
