"""Runs survive their starters, end as they should, and leave nothing behind: with real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from mtf_engine.jobs import executor, metrics, submissions
from mtf_engine.jobs.storage import open_dataset
from mtf_engine.registry import RunRow, RunState, Workspace
from mtf_engine.spec import Refusal

ROOT = Path(__file__).parent.parent

WALL_CLOCK = {"seconds", "steps_per_second"}
SMALL = {
    "n_steps": "300",
    "checkpoint_every": "20",
    "batch_size": "16",
    "n_critics": "3",
    "hidden": "8",
    "log_every": "10",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one explored dataset, named explored."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    run = executor.wait(workspace, collect(workspace, name="explored"))
    executor.completed(workspace, run)
    return workspace


def collect(workspace: Workspace, *, name: str | None = None, n_requests: int = 600) -> str:
    return submissions.submit_collect(workspace, env="session", n_requests=n_requests, name=name)


def train(workspace: Workspace, **settings: object) -> str:
    texts = SMALL | {name: str(value) for name, value in settings.items()}
    return submissions.submit_train(
        workspace, "explored", algo="integrated_rl", preset="demo", settings=texts, seed=4
    )


def until(
    workspace: Workspace, run_id: str, condition: Callable[[RunRow], bool], seconds: float = 60
) -> RunRow:
    """Returns the run as soon as `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition(run := workspace.registry.run(run_id)):
        assert time.monotonic() < deadline and not run.state.is_finished, run
        time.sleep(0.01)
    return run


def kill(run: RunRow, number: int = signal.SIGKILL) -> None:
    assert run.pid is not None
    os.kill(run.pid, number)


def test_a_training_killed_three_times_ends_like_one_that_was_not(workspace: Workspace) -> None:
    whole = executor.wait(workspace, train(workspace))
    assert whole.state is RunState.COMPLETED

    generator = np.random.default_rng(0)
    run_id = train(workspace)
    for _ in range(3):
        folder, start = workspace.run_dir(run_id), len(metrics.read(workspace.run_dir(run_id)))
        more = int(generator.integers(1, 4))
        kill(until(workspace, run_id, lambda _: len(metrics.read(folder)) >= start + more))
        assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
        (folder / "metrics.jsonl").open("a").write('{"step": 9999, "torn')
        executor.resume(workspace, run_id)
    assert executor.wait(workspace, run_id).state is RunState.COMPLETED
    assert_identical(workspace, whole.id, run_id)


def assert_identical(workspace: Workspace, one: str, other: str) -> None:
    """Weights, optimisers, random states and metrics of two trainings are equal to the bit."""
    folders = [workspace.run_dir(run_id) for run_id in (one, other)]
    logged = [
        [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in metrics.read(folder)]
        for folder in folders
    ]
    assert logged[0] == logged[1]
    flat = [dict(leaves(torch.load(folder / "checkpoint.pt", weights_only=True))) for folder in folders]
    assert flat[0].keys() == flat[1].keys()
    assert any("optimiser" in name for name in flat[0]) and any("generator" in name for name in flat[0])
    different = [n for n in flat[0] if n not in WALL_CLOCK and not torch.equal(flat[0][n], flat[1][n])]
    assert different == []
    for name in ("policy", "critics"):
        networks = [load_file(folder / f"{name}.safetensors") for folder in folders]
        assert all(torch.equal(networks[0][n], networks[1][n]) for n in networks[0] | networks[1])


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yields every number and tensor of a checkpoint by its path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}/{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{i}")
    elif isinstance(value, torch.Tensor | int | float):
        yield path, torch.as_tensor(value)


def test_the_queue_moves_on_two_at_a_time(workspace: Workspace) -> None:
    run_ids = [collect(workspace, n_requests=50) for _ in range(4)]
    most = 0
    for runs in executor.watch(workspace, *run_ids, poll_seconds=0.02):
        most = max(most, sum(run.state is RunState.RUNNING for run in runs))
    assert most == executor.MAX_WORKING == 2
    assert {run.state for run in runs} == {RunState.COMPLETED}
    assert all(a.started_at <= b.started_at for a, b in zip(runs, runs[1:], strict=False))


def test_a_cancelled_training_stops_and_goes_on_where_it_was(workspace: Workspace) -> None:
    run_id = train(workspace, n_steps=100_000)
    until(workspace, run_id, lambda run: run.step > 100)
    executor.cancel(workspace, run_id)
    cancelled = executor.wait(workspace, run_id)
    assert cancelled.state is RunState.CANCELLED
    with pytest.raises(Refusal, match="nothing to cancel"):
        executor.cancel(workspace, run_id)
    with pytest.raises(Refusal, match=f"{run_id} was cancelled at step {cancelled.step} of 100000"):
        executor.completed(workspace, cancelled)

    executor.resume(workspace, run_id)
    folder = workspace.run_dir(run_id)
    kept = metrics.read(folder)
    until(workspace, run_id, lambda run: run.step > cancelled.step)
    kill(workspace.registry.run(run_id), signal.SIGTERM)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    steps = [row["step"] for row in metrics.read(folder)]
    assert steps == sorted(set(steps)) and len(steps) > len(kept)


def test_a_queued_run_is_cancelled_before_it_starts(workspace: Workspace) -> None:
    busy = [train(workspace, n_steps=100_000) for _ in range(executor.MAX_WORKING)]
    waiting = train(workspace)
    assert workspace.registry.run(waiting).state is RunState.QUEUED
    executor.cancel(workspace, waiting)
    assert executor.wait(workspace, waiting).state is RunState.CANCELLED
    for run_id in busy:
        executor.cancel(workspace, run_id)
    assert {executor.wait(workspace, run_id).state for run_id in busy} == {RunState.CANCELLED}
    assert not (workspace.run_dir(waiting) / "run.log").exists()


def test_a_worker_that_ignores_a_cancel_is_killed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "GRACE_SECONDS", 0.5)
    run_id = train(workspace, n_steps=100_000)
    kill(until(workspace, run_id, lambda run: run.step > 0), signal.SIGSTOP)
    executor.cancel(workspace, run_id)
    cancelled = executor.wait(workspace, run_id)
    assert (cancelled.state, cancelled.error) == (RunState.CANCELLED, None)


def test_an_import_cancelled_or_killed_leaves_at_most_a_temp_file(
    workspace: Workspace, kuairand: Path
) -> None:
    before = sorted(workspace.datasets_dir.iterdir())
    run_id = submissions.submit_import(workspace, kuairand, format="kuairand")
    run = until(workspace, run_id, lambda run: run.step > 0)
    temp = workspace.datasets_dir / f".{run.dataset_id}.tmp.duckdb"
    temp.touch()
    executor.reconcile(workspace)
    assert temp.exists(), "a live worker's temp file is its own"
    kill(run)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    executor.reconcile(workspace)
    assert sorted(workspace.datasets_dir.iterdir()) == before


def test_a_refused_import_is_forgotten_by_whoever_reads_its_report(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "requests.csv").touch()
    (tmp_path / "impressions.csv").touch()
    before = [workspace.registry.runs(), workspace.registry.datasets(), sorted(workspace.path.rglob("*/*"))]
    run = executor.wait(workspace, submissions.submit_import(workspace, tmp_path))
    assert run.state is RunState.FAILED
    with pytest.raises(Refusal, match="empty") as told:
        executor.completed(workspace, run)
    assert {defect.code for defect in told.value.defects}
    assert [
        workspace.registry.runs(), workspace.registry.datasets(), sorted(workspace.path.rglob("*/*"))
    ] == before  # fmt: skip


def test_an_unexpected_error_is_kept_for_the_log(workspace: Workspace) -> None:
    run_id = executor.submit(
        workspace, "train", {"no": "config"}, dataset_id="explored", algo="integrated_rl"
    )
    run = executor.wait(workspace, run_id)
    assert (run.state, run.error) == (RunState.FAILED, "internal error, see the log")
    assert "ValidationError" in (workspace.run_dir(run_id) / "run.log").read_text()
    with pytest.raises(Refusal, match=f"runs logs {run_id}"):
        executor.completed(workspace, run)


def test_two_trainings_an_import_and_readers_at_once_lose_nothing(
    workspace: Workspace, kuairand: Path
) -> None:
    run_ids = [
        train(workspace, log_every=1),
        train(workspace, log_every=1),
        submissions.submit_import(workspace, kuairand, format="kuairand"),
    ]

    def look(_: int) -> None:
        """Reads like a dashboard until all runs are finished."""
        own = Workspace(workspace.path)
        while not all(own.registry.run(run_id).state.is_finished for run_id in run_ids):
            executor.reconcile(own)
            metrics.read(own.run_dir(run_ids[0]))
            own.registry.datasets()
            open_dataset(own, "explored").query("SELECT avg(reward) FROM requests")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(look, range(3)))
    runs = [executor.completed(workspace, executor.wait(workspace, run_id)) for run_id in run_ids]
    for run in runs[:2]:
        assert [row["step"] for row in metrics.read(workspace.run_dir(run.id))] == list(range(1, 301))
        assert run.step == 300
    assert open_dataset(workspace, str(runs[2].dataset_id)).n_requests == runs[2].result["requests"]


def test_a_long_lived_starter_keeps_no_zombies(workspace: Workspace) -> None:
    executor.wait(workspace, collect(workspace, n_requests=50))
    deadline = time.monotonic() + 10
    while psutil.Process().children():
        executor.reconcile(workspace)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_outlives_the_process_that_started_it(workspace: Workspace) -> None:
    command = [
        sys.executable,
        "-m",
        "mtf_engine",
        "--workspace",
        workspace.path,
        "--json",
        "train",
        "explored",
    ]
    options = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run([*command, *options, "--background"], cwd=ROOT, capture_output=True, check=True)
    started = json.loads(done.stdout)
    assert started["state"] in ("queued", "running")
    assert executor.wait(workspace, started["run_id"]).state is RunState.COMPLETED


def test_a_run_can_be_worked_on_by_hand(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    run_id = collect(workspace, n_requests=50)
    command = [sys.executable, "-m", "mtf_engine", "--workspace", workspace.path, "run-job", run_id]
    subprocess.run(command, cwd=ROOT, check=True)
    assert workspace.registry.run(run_id).state is RunState.COMPLETED
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (
        1,
        f"{run_id} is completed; only a queued run can be worked on\n",
    )


def test_ctrl_c_cancels_a_foreground_job(workspace: Workspace) -> None:
    command = [sys.executable, "-m", "mtf_engine", "--workspace", workspace.path, "train", "explored"]
    process = subprocess.Popen(
        [*command, "--set", "n_steps=100000"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not (live := workspace.registry.runs(RunState.RUNNING)) or live[0].step == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith(f"{live[0].id} was cancelled at step ")
    assert workspace.registry.run(live[0].id).state is RunState.CANCELLED
