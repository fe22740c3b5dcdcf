"""Rounds killed at 10 random moments and resumed each time end like rounds that were left alone.

    python benchmarks/resume_rounds.py [--kills 10] [--rounds 5] [--sessions 200] [--steps 1000] [--seed 0]

Exits with 1 unless logs, networks, optimisers, random states, metrics and figures are equal to the bit,
wall-clock columns aside.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import resume
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.workspace import Workspace


def main(folder: Path, n_kills: int, n_rounds: int, n_sessions: int, n_steps: int, seed: int) -> int:
    """Prints where the kills hit and what differs; returns the exit code."""
    workspace, generator = Workspace(folder), np.random.default_rng(seed)
    whole, killed = (play(workspace, n_rounds, n_sessions, n_steps) for _ in range(2))
    executor.cancel(workspace, killed)
    seconds = executor.completed(workspace, executor.wait(workspace, whole)).seconds or 0
    executor.wait(workspace, killed)
    executor.resume(workspace, killed)
    print("| kill | parts done | seconds later | at work |\n|---|---|---|---|")
    n_parts = len(parts(workspace, whole))
    for i in range(n_kills):
        n_done, moment = i * n_parts // n_kills, generator.uniform(0, 1.5 * seconds / n_parts)
        at_work = kill(workspace, killed, moment, n_done)
        print(f"| {i + 1} | {n_done} | {moment:.1f} | {at_work} |", flush=True)
        executor.resume(workspace, killed)
    executor.completed(workspace, executor.wait(workspace, killed))
    different = differences(workspace, whole, killed)
    print(f"\n{n_kills} kills in {n_rounds} rounds; different: {', '.join(different) or 'nothing'}.")
    return bool(different)


def play(workspace: Workspace, n_rounds: int, n_sessions: int, n_steps: int) -> str:
    """Returns the id of a run of rounds with the laptop's 24 critics and frequent checkpoints."""
    settings = {"n_steps": str(n_steps), "checkpoint_every": "20", "log_every": "10"}
    return submit_progressive(
        workspace,
        env="session",
        rounds=n_rounds,
        sessions_per_round=n_sessions,
        algo="integrated_rl",
        preset="laptop",
        settings=settings,
        train_on="cumulative",
        promote="always",
        ab_users=0,
        seed=1,
        name="rounds",
    )


def kill(workspace: Workspace, run_id: str, seconds: float, n_done: int = 0) -> str:
    """Kills the worker of a run so long after its start, or after `n_done` parts; returns what it was at."""
    deadline = time.monotonic() + 600
    while (run := workspace.registry.run(run_id)).pid is None or run.state is not RunState.RUNNING:
        executor.reconcile(workspace)
        if time.monotonic() > deadline or run.state is RunState.COMPLETED:
            sys.exit(f"{run_id} is {run.state}, so there is nothing to kill; give more --steps")
        time.sleep(0.01)
    while n_done and n_completed(workspace, run_id) < n_done:
        time.sleep(0.02)
    time.sleep(seconds)
    parts = workspace.registry.runs(parent_id=run_id)
    os.kill(run.pid, signal.SIGKILL)
    if executor.wait(workspace, run_id).state is not RunState.INTERRUPTED:
        sys.exit(f"{run_id} ended before it was killed; give more --steps")
    at = [f"{part.kind} of {part.name}" for part in parts if part.state is RunState.RUNNING]
    return at[0] if at else "between two parts"


def n_completed(workspace: Workspace, run_id: str) -> int:
    """Returns how many parts of a run are completed."""
    return sum(part.state is RunState.COMPLETED for part in workspace.registry.runs(parent_id=run_id))


def differences(workspace: Workspace, one: str, other: str) -> list[str]:
    """Returns what differs between two runs of rounds: their logs, their trainings, their figures."""
    ours, theirs = (parts(workspace, run_id) for run_id in (one, other))
    if list(ours) != list(theirs):
        return ["parts"]
    different = [] if figures(workspace, one) == figures(workspace, other) else ["figures"]
    hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
    for name, mine in ours.items():
        its = theirs[name]
        if mine.kind in ("collect", "join") and hashes[str(mine.dataset_id)] != hashes[str(its.dataset_id)]:
            different.append(f"{name}: rows")
        if mine.kind == "train":
            folders = workspace.run_dir(mine.id), workspace.run_dir(its.id)
            different += [f"{name}: {what}" for what in resume.differences(*folders)]
    return different


def parts(workspace: Workspace, run_id: str) -> dict[str, RunRow]:
    """Returns the parts of a run by what they are, in the order of their start."""
    return {f"{run.kind} {run.name}": run for run in reversed(workspace.registry.runs(parent_id=run_id))}


def figures(workspace: Workspace, run_id: str) -> str:
    """Returns the result of a run of rounds, its ids replaced by what they name."""
    text = json.dumps(workspace.registry.run(run_id).result)
    for name, run in parts(workspace, run_id).items():
        text = text.replace(run.id, name)
        if run.kind in ("collect", "join"):
            text = text.replace(str(run.dataset_id), f"log of {name}")
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill rounds at random moments and resume them each time.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.kills, options.rounds, options.sessions, options.steps)
        sys.exit(main(Path(folder), *sizes, options.seed))
