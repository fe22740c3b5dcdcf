"""Runs survive their starters, end as they should, leave nothing behind: real processes, real signals."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks import resume
from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import executor, files, lock, metrics
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import KIND, imported, submit_import
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import REGISTRY_URL, Workspace
from tests import postgres
from tests.fixtures.logs import clean, write
from tests.waiting import PATIENCE, wait_until
from tests.workspaces import copy_workspace, move_registry, stop_all

ROOT = Path(__file__).parent.parent
SMALL = {"n_steps": "200", "checkpoint_every": "10", "log_every": "5", "validate_every": "20"}
SMALL |= {"batch_size": "16", "n_critics": "3", "hidden": "8"}
LONG = 600
"""Steps of a training that is killed on the way, however late whoever kills it gets the processor."""
ENDLESS = 10_000_000


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def workspace(
    request: pytest.FixtureRequest, small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A workspace with the dataset `explored`; no run of it outlives the tests."""
    path = tmp_path_factory.mktemp("jobs") / "workspace"
    workspace = copy_workspace(small_workspace, path)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "postgresql":
            url = postgres.new_database(request.getfixturevalue("server"))
            move_registry(workspace, url)
            (path / "registry.sqlite").unlink()
            patch.setenv(REGISTRY_URL, url)
            workspace = Workspace(path)
        yield workspace
        stop_all(workspace)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 24 requests as two CSV files."""
    return write(clean(), tmp_path / "log")


def import_log(workspace: Workspace, log: Path) -> str:
    return submit_import(workspace, log, mapping=log / "mapping.yaml")


def train(workspace: Workspace, **settings: object) -> str:
    texts = SMALL | {name: str(value) for name, value in settings.items()}
    return submit_train(workspace, "explored", algo="integrated_rl", preset="demo", settings=texts, seed=4)


def until(workspace: Workspace, run_id: str, condition: Callable[[RunRow], bool]) -> RunRow:
    """Returns the live run as soon as `condition` holds."""

    def found() -> RunRow | None:
        run = workspace.registry.run(run_id)
        if condition(run):
            return run
        assert not run.state.is_finished, run
        return None

    return wait_until(found, f"{run_id} comes so far", 0.02)


def kill(run: RunRow, number: int = signal.SIGKILL) -> None:
    assert run.pid is not None
    os.kill(run.pid, number)


@pytest.mark.slow
def test_a_training_killed_three_times_ends_like_one_that_was_not(workspace: Workspace) -> None:
    whole, killed = (train(workspace, n_steps=LONG) for _ in range(2))
    folder, generator = workspace.run_dir(killed), np.random.default_rng(0)
    for _ in range(3):
        enough = len(metrics.read(folder)) + int(generator.integers(1, 5))
        kill(until(workspace, killed, lambda _, n=enough: len(metrics.read(folder)) >= n))
        assert executor.wait(workspace, killed).state is RunState.INTERRUPTED
        with (folder / "metrics.jsonl").open("a") as torn:
            torn.write('{"step": 9999, "critic_l')
        executor.resume(workspace, killed)
    assert {executor.wait(workspace, run_id).state for run_id in (whole, killed)} == {RunState.COMPLETED}
    assert resume.differences(workspace.run_dir(whole), folder) == []
    assert resume.logged(folder)[-1]["step"] == LONG
    saved = resume.tensors(folder / "checkpoint.pt")
    assert any("optimiser" in name for name in saved) and any("generator" in name for name in saved)


def stop_between_writes(workspace: Workspace, run: RunRow) -> None:
    """Stops a worker while it does not write to the registry, which would wait for it."""

    file = workspace.path / "registry.sqlite"

    def is_stopped() -> bool:
        kill(run, signal.SIGSTOP)
        if not file.exists():  # of a server one waits for the row alone, which cancelling does
            return True
        with contextlib.closing(sqlite3.connect(file, timeout=0.2)) as registry:
            try:
                registry.execute("BEGIN IMMEDIATE")
                return True
            except sqlite3.OperationalError:
                kill(run, signal.SIGCONT)
                return False

    wait_until(is_stopped, "the worker stops between two writes")


def test_two_work_at_a_time_and_the_queue_moves_on(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two busy workers one obeys a cancel and one is deaf; of two that wait one is cancelled."""
    deaf, busy, unwanted = (train(workspace, n_steps=ENDLESS) for _ in range(3))
    waiting = import_log(workspace, log)
    states = [workspace.registry.run(run_id).state for run_id in (deaf, busy, unwanted, waiting)]
    assert executor.MAX_WORKING == 2
    assert states == [RunState.RUNNING, RunState.RUNNING, RunState.QUEUED, RunState.QUEUED]

    executor.cancel(workspace, unwanted)
    assert workspace.registry.run(unwanted).state is RunState.CANCELLED
    stop_between_writes(workspace, until(workspace, deaf, lambda run: run.step > 0))
    until(workspace, busy, lambda run: run.step > 0)
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.3)
    executor.cancel(workspace, busy)
    executor.cancel(workspace, deaf)
    *_, runs = executor.watch(workspace, deaf, busy, unwanted, waiting)
    assert [run.state for run in runs] == [*[RunState.CANCELLED] * 3, RunState.COMPLETED]
    assert {run.error for run in runs} == {None}
    with pytest.raises(Refusal, match="nothing to cancel"):
        executor.cancel(workspace, waiting)

    def are_gone() -> bool:
        executor.reconcile(workspace)
        return not any(psutil.pid_exists(run.pid) for run in runs if run.pid)

    wait_until(are_gone, "a long-lived starter keeps no zombies")


def test_no_process_is_signalled_but_the_worker_that_holds_the_lock(workspace: Workspace) -> None:
    """A worker elsewhere is deaf and overdue; its number is, on this machine, that of somebody else's process."""
    run_id = executor.submit(workspace, KIND, {}, parent_id=workspace.registry.runs(kind="train")[0].id)
    with subprocess.Popen(["sleep", "600"]) as somebody:
        long_ago = now() - timedelta(days=1)
        workspace.registry.update_run(
            run_id, state=RunState.RUNNING, pid=somebody.pid, cancel_requested_at=long_ago
        )
        held = lock.take(workspace.run_dir(run_id) / files.LOCK)
        assert held is not None
        executor.reconcile(workspace)
        assert somebody.poll() is None
        somebody.kill()
        os.close(held)
    executor.reconcile(workspace)
    assert workspace.registry.run(run_id).state is RunState.CANCELLED


def test_a_cancelled_training_stops_and_goes_on_where_it_was(workspace: Workspace) -> None:
    run_id = train(workspace, n_steps=ENDLESS)
    until(workspace, run_id, lambda run: run.step > 100)
    executor.cancel(workspace, run_id)
    cancelled = executor.wait(workspace, run_id)
    assert cancelled.state is RunState.CANCELLED
    with pytest.raises(Refusal, match=f"{run_id} was cancelled at step {cancelled.step} of {ENDLESS}"):
        executor.completed(workspace, cancelled)

    executor.resume(workspace, run_id)
    kill(until(workspace, run_id, lambda run: run.step > cancelled.step), signal.SIGTERM)
    told = executor.wait(workspace, run_id)
    assert told.state is RunState.INTERRUPTED and "resume" in str(told.error)
    steps = [row["step"] for row in metrics.read(workspace.run_dir(run_id))]
    assert steps == list(range(0, steps[-1] + 1, 5)) and steps[-1] > cancelled.step
    assert "Traceback" not in (workspace.run_dir(run_id) / files.LOG).read_text(), "to be stopped is no error"


def test_a_killed_import_leaves_at_most_a_temp_file(workspace: Workspace, log: Path) -> None:
    before = sorted(workspace.datasets_dir.iterdir())
    run_id = import_log(workspace, log)
    run = until(workspace, run_id, lambda run: run.pid is not None)
    kill(run, signal.SIGSTOP)
    temp = workspace.datasets_dir / f".{run.dataset_id}.tmp.duckdb"
    temp.touch()
    executor.reconcile(workspace)
    assert temp.exists(), "a live worker's temp file is its own"
    kill(run)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    assert sorted(workspace.datasets_dir.iterdir()) == before
    executor.resume(workspace, run_id)
    completed = executor.completed(workspace, executor.wait(workspace, run_id))
    assert open_dataset(workspace, str(completed.dataset_id)).n_requests == 24


def test_what_is_computed_of_a_log_is_swept_once_its_writer_is_gone(workspace: Workspace) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    row = workspace.registry.datasets()[0]
    live, dead = (
        workspace.datasets_dir / f".{row.id}.tmp.{pid}.7.signal.json" for pid in (os.getpid(), ended.pid)
    )
    live.touch()
    dead.touch()
    executor.reconcile(workspace)
    assert live.exists() and not dead.exists()
    live.unlink()


def test_a_refused_import_is_forgotten_by_whoever_reads_its_report(workspace: Workspace, log: Path) -> None:
    (log / "requests.csv").write_text("")
    before = contents(workspace)
    run = executor.wait(workspace, import_log(workspace, log))
    assert run.state is RunState.FAILED
    with pytest.raises(Refusal, match=r"requests.csv: holds no bytes") as told:
        imported(workspace, run)
    assert told.value.defects and str(told.value) == run.error
    assert contents(workspace) == before


def contents(workspace: Workspace) -> list[Any]:
    files = sorted(path for path in workspace.path.rglob("*/*"))
    rows = workspace.registry.runs(), workspace.registry.datasets(), workspace.registry.deletions()
    return [*rows, files]


def test_an_unexpected_error_is_kept_for_the_log(workspace: Workspace) -> None:
    run = executor.wait(workspace, executor.submit(workspace, KIND, {"no": "config"}))
    assert (run.state, run.error) == (RunState.FAILED, "internal error, see the log")
    assert "ValidationError" in (workspace.run_dir(run.id) / "run.log").read_text()
    with pytest.raises(Refusal, match=f"runs logs {run.id}"):
        executor.completed(workspace, run)


@pytest.mark.slow
def test_two_trainings_an_import_and_readers_at_once_lose_nothing(
    workspace: Workspace, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "MAX_WORKING", 3)
    run_ids = [train(workspace, log_every=1), train(workspace, log_every=1)]
    run_ids.append(import_log(workspace, log))

    def look(_: int) -> None:
        """Reads like a dashboard until all runs are finished."""
        own = Workspace(workspace.path)
        while not all(own.registry.run(run_id).state.is_finished for run_id in run_ids):
            executor.reconcile(own)
            metrics.read(own.run_dir(run_ids[0]))
            open_dataset(own, "explored").query("SELECT avg(reward) FROM requests")
            time.sleep(0.1)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(look, range(3)))
    *trained, imported = (executor.completed(workspace, workspace.registry.run(i)) for i in run_ids)
    for run in trained:
        assert [row["step"] for row in metrics.read(workspace.run_dir(run.id))] == list(range(201))
        assert run.step == run.n_steps == 200
    assert workspace.dataset(str(imported.dataset_id)).n_requests == 24


def test_a_run_outlives_the_command_that_started_it(workspace: Workspace) -> None:
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run(
        [*command(workspace, "--json", "train", "explored", "--background"), *settings],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    started = json.loads(done.stdout)
    assert started["state"] in ("queued", "running")
    assert executor.wait(workspace, started["run_id"]).state is RunState.COMPLETED


@pytest.mark.slow
def test_a_run_can_be_worked_on_by_hand(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")  # where no other run's worker takes up what is queued
    run_id = import_log(workspace, log)
    by_hand = command(workspace, "run-job", run_id)
    subprocess.run(by_hand, cwd=ROOT, check=True)
    assert workspace.registry.run(run_id).state is RunState.COMPLETED
    again = subprocess.run(by_hand, cwd=ROOT, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (
        1,
        f"{run_id} is completed; only a queued run can be worked on\n",
    )


def heed_ctrl_c() -> None:
    """Undoes what a shell does to commands in its background, the tests themselves among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_cancels_a_foreground_job(workspace: Workspace) -> None:
    n_before = len(workspace.registry.runs())
    foreground = subprocess.Popen(
        command(workspace, "train", "explored", "--set", f"n_steps={ENDLESS}"),
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 (the child runs nothing else before it is replaced)
    )  # fmt: skip
    wait_until(lambda: len(workspace.registry.runs()) > n_before, "the training is queued")
    run_id = workspace.registry.runs()[0].id
    until(workspace, run_id, lambda run: run.step > 0)
    foreground.send_signal(signal.SIGINT)
    _, stderr = foreground.communicate(timeout=PATIENCE)
    assert foreground.returncode == 1
    assert stderr.startswith(f"{run_id} was cancelled at step ")
    assert workspace.registry.run(run_id).state is RunState.CANCELLED


def command(workspace: Workspace, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mtf_engine", "--workspace", str(workspace.path), *arguments]
