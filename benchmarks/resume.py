"""A training killed at 20 random moments and resumed each time ends like one that was left alone.

    python benchmarks/resume.py [--kills 20] [--steps 1000] [--seed 0]

Exits with 1 unless weights, optimisers, random states and metrics are equal to the bit, wall-clock columns
aside.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.registry import RunState
from mtf_engine.runs import executor, files, metrics
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

WALL_CLOCK = {"seconds", "steps_per_second"}
STARTING = 0.2
"""Share of kills that hit a worker while it starts."""


def main(folder: Path, n_kills: int, n_steps: int, seed: int) -> int:
    """Prints where the kills hit and what differs; returns the exit code."""
    workspace, generator = Workspace(folder), np.random.default_rng(seed)
    collected = submit_collect(workspace, env="session", n_requests=5_000, name="explored")
    executor.completed(workspace, executor.wait(workspace, collected))
    whole = train(workspace, n_steps)
    executor.completed(workspace, executor.wait(workspace, whole))
    killed = train(workspace, n_steps)
    print("| kill | at step | seconds after the start |\n|---|---|---|")
    for i in range(n_kills):
        step, seconds = kill(workspace, killed, n_steps, n_kills - i, generator)
        print(f"| {i + 1} | {step} | {seconds:.1f} |", flush=True)
        executor.resume(workspace, killed)
    executor.completed(workspace, executor.wait(workspace, killed))
    different = differences(workspace.run_dir(whole), workspace.run_dir(killed))
    print(f"\n{n_kills} kills in {n_steps} steps; different: {', '.join(different) or 'nothing'}.")
    return bool(different)


def train(workspace: Workspace, n_steps: int) -> str:
    """Returns the id of a training with the laptop's 24 critics and frequent checkpoints."""
    settings = {"n_steps": str(n_steps), "checkpoint_every": "20", "log_every": "10"}
    return submit_train(
        workspace, "explored", algo="integrated_rl", preset="laptop", settings=settings, seed=1
    )


def kill(
    workspace: Workspace, run_id: str, n_steps: int, kills_left: int, generator: np.random.Generator
) -> tuple[int, float]:
    """Kills the worker at a random moment; returns the last logged step and the seconds it had lived."""
    folder, started = workspace.run_dir(run_id), time.monotonic()
    if generator.random() < STARTING:
        time.sleep(generator.uniform(0, 3))
    else:
        fair_share = max(1, (n_steps // 10 - len(metrics.read(folder))) // (kills_left + 1))
        enough = len(metrics.read(folder)) + int(generator.integers(0, 2 * fair_share))
        while len(metrics.read(folder)) < enough or not grows(folder, started):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
    os.kill(workspace.registry.run(run_id).pid or 0, signal.SIGKILL)
    seconds = time.monotonic() - started
    if executor.wait(workspace, run_id).state is not RunState.INTERRUPTED:
        sys.exit(f"{run_id} ended before it was killed; give more --steps")
    return max((row["step"] for row in metrics.read(folder)), default=0), seconds


def grows(folder: Path, since: float) -> bool:
    """Returns whether metrics were written after `since`, on the monotonic clock."""
    path = folder / files.METRICS
    return path.exists() and time.time() - path.stat().st_mtime < time.monotonic() - since


def differences(one: Path, other: Path) -> list[str]:
    """Returns what differs between two trainings, by their run folders: metrics, checkpoints, networks."""
    different = [] if logged(one) == logged(other) else ["metrics"]
    for name in (files.CHECKPOINT, files.POLICY, files.BEST_POLICY, files.CRITICS):
        ours, theirs = tensors(one / name), tensors(other / name)
        different += [f"{name}:{key}" for key in sorted(ours.keys() ^ theirs.keys())]
        both = sorted(ours.keys() & theirs.keys() - WALL_CLOCK)
        different += [f"{name}:{key}" for key in both if not torch.equal(ours[key], theirs[key])]
    return different


def logged(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics without their wall-clock columns."""
    return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in metrics.read(folder)]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Returns every tensor and number of a checkpoint or network, by its path inside."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return dict(_leaves(torch.load(path, weights_only=True)))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, dict | list | tuple):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}/{name}" if path else str(name))
    elif isinstance(value, torch.Tensor | int | float):
        yield path, torch.as_tensor(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill a training at random moments and resume it each time.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(folder), options.kills, options.steps, options.seed))
