"""A workspace of the last release opens: it is listed, evaluated, resumed, exported and shown.

`tests/fixtures/workspace-0.1.0.tar.xz` was written by the commands of commit 2e9a608: a log of two sessions, a training
of it with its evaluation, one that was cancelled, and a round.
"""

import tarfile
from pathlib import Path

import pytest

from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from tests.test_cli import Shell
from tests.test_pages import opened

OLD = Path(__file__).parent / "fixtures/workspace-0.1.0.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Shell:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD) as kept:
        kept.extraction_filter = getattr(tarfile, "data_filter", None)  # of 3.11.4 and later
        kept.extractall(folder)
    return Shell(folder / "w")


def of(old: Shell, name: str) -> str:
    """Returns the id of the run of that name."""
    return next(run["run_id"] for run in old("runs", "list") if run["name"] == name)


def test_its_runs_and_logs_are_listed(old):
    kinds = [run["kind"] for run in old("runs", "list")]
    assert kinds == ["evaluate", "train", "collect", "progressive", "evaluate", "train", "train", "collect"]
    assert old("doctor")["ledger_mismatches"] == []


def test_what_its_runs_read_and_write_is_known(old):
    runs = {run.name: run for run in old.workspace.registry.runs()}
    explored = old.workspace.dataset("explored").id
    assert runs["explored"].writes_dataset and runs["explored"].reads_datasets == ()
    assert not runs["trained"].writes_dataset and runs["trained"].reads_datasets == (explored,)
    assert runs["on explored"].reads_policies == (runs["trained"].id,)


def test_a_policy_is_evaluated_as_it_was(old, in_process):
    then = {
        row["run_id"]: row for row in old.workspace.registry.run(of(old, "on explored")).result["policies"]
    }
    scores = old("evaluate", of(old, "trained"), "baseline", "--on", "explored", "--no-floors")
    now = {row["run_id"]: row for row in scores}
    assert now.keys() == then.keys()
    for policy, row in now.items():
        assert row["weighted_gauc"] == pytest.approx(then[policy]["weighted_gauc"], abs=1e-6)


def test_a_training_goes_on_to_its_end(old, in_process):
    run_id = of(old, "stopped")
    assert old.workspace.registry.run(run_id).step == 2_000
    old("runs", "resume", run_id)
    run = executor.wait(old.workspace, run_id)
    assert (run.state, run.step) == (RunState.COMPLETED, 3_000)


@pytest.mark.slow
def test_a_policy_is_exported_and_verified(old, in_process, tmp_path):
    assert old("export", of(old, "trained"), "--to", str(tmp_path / "policy.zip"))["ok"]
    assert old("verify", str(tmp_path / "policy.zip"))["ok"]


@pytest.mark.parametrize("page", ["runs", "datasets", "compare", "rounds", "critics"])
def test_its_pages_open(old, page, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(old.workspace.path))
    opened(page)
