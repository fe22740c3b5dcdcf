"""The whole way on a real log, by command line: import, explore, train, compare, export, verify.

KuaiRand's folder is named by MTF_KUAIRAND, else it is ../shared/data/kuairand. Prints the table of README.

    python benchmarks/real_log.py [--requests 30000] [--preset laptop] [--workspace DIR]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
KUAIRAND = Path(os.environ.get("MTF_KUAIRAND", ROOT / "../shared/data/kuairand"))
EXPLORATIONS = ("uniform", "gaussian")


class CommandLine:
    """Calls commands in one workspace; returns the JSON they print, and keeps how long each took."""

    def __init__(self, workspace: Path) -> None:
        self.base = [sys.executable, "-m", "mtf_engine", "--workspace", str(workspace), "--json"]
        self.seconds: dict[str, float] = {}

    def __call__(self, *arguments: str) -> Any:
        done = subprocess.run([*self.base, *arguments], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout)

    def timed(self, what: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self.seconds[what] = time.perf_counter() - started
        print(f"{what}: {self.seconds[what]:.1f} s", file=sys.stderr)
        return result


def main(workspace: Path, n_requests: int, preset: str) -> None:
    """Prints the scores and the times as markdown tables."""
    run = CommandLine(workspace)
    real = run.timed("import", lambda: run("dataset", "import", str(KUAIRAND), "--format", "kuairand"))
    explored = {
        explore: run.timed(f"collect, {explore}", partial(collect, run, real, explore, n_requests))
        for explore in EXPLORATIONS
    }
    trained = run.timed("train both, in the background", lambda: train(run, explored, preset))
    scores = run.timed(
        "evaluate", lambda: run("evaluate", *trained.values(), "baseline", "--on", real["dataset_id"])
    )
    bundle = workspace / "policy.zip"
    run.timed("export", lambda: run("export", trained["uniform"], "--to", str(bundle)))
    checked = run.timed("verify", lambda: run("verify", str(bundle)))

    names = {run_id: f"trained on {explore} exploration" for explore, run_id in trained.items()}
    print_scores(scores, names)
    dealt = ", ".join(f"{explore} {d['requests']} in {d['passes']} passes" for explore, d in explored.items())
    print(f"\nThe log: {real['requests']} requests, {real['impressions']} impressions; collected: {dealt}.")
    print(f"The bundle: ok {checked['ok']}, largest difference {checked['max_abs_diff']:.1e}.")
    print_times(run.seconds)


def collect(run: CommandLine, real: dict[str, Any], explore: str, n_requests: int) -> dict[str, Any]:
    """Returns the dataset explored by replaying the training days of the real log."""
    return run(
        "dataset", "collect", "--env", "replay", "--from", real["dataset_id"],
        "--explore", explore, "--requests", str(n_requests), "--seed", "1",
    )  # fmt: skip


def train(run: CommandLine, explored: dict[str, dict[str, Any]], preset: str) -> dict[str, str]:
    """Returns the run ids of the trainings, once both are completed."""
    started = {
        explore: run(
            "train", dataset["dataset_id"], "--algo", "integrated_rl", "--preset", preset,
            "--set", "n_critics=24", "--seed", "1", "--background",
        )["run_id"]
        for explore, dataset in explored.items()
    }  # fmt: skip
    for run_id in started.values():
        while (shown := run("runs", "show", run_id))["state"] in ("queued", "running"):
            time.sleep(2)
        if shown["state"] != "completed":
            sys.exit(f"{run_id} is {shown['state']}: {shown['error']}")
    return started


def print_scores(scores: list[dict[str, Any]], names: dict[str, str]) -> None:
    """Prints weighted GAUC by user and by request, with 95 % intervals, and the gain over the baseline."""
    print("| policy | by user | by request | by user, minus baseline | users used, left out | rows |")
    print("|---|---|---|---|---|---|")
    for score in scores:
        gain = next(
            (d for d in score["differences"] if d["base"] == "baseline" and d["group"] == "user"), None
        )
        columns = (
            names.get(score["run_id"], score["run_id"]),
            interval(score["weighted_gauc"], score),
            interval(score["by_request"]["weighted_gauc"], score["by_request"]),
            interval(gain["value"], gain) if gain else "",
            f"{score['users_used']}, {score['users_left_out']}",
            score["split"],
        )
        print("|", " | ".join(columns), "|")


def interval(value: float, of: dict[str, Any]) -> str:
    """Returns a value with its 95 % interval."""
    return f"{value:.4f} ({of['ci_low']:.4f} to {of['ci_high']:.4f})"


def print_times(seconds: dict[str, float]) -> None:
    """Prints the time of each step and the size of the machine."""
    print("\n| step | seconds |\n|---|---|")
    for what, took in seconds.items():
        print(f"| {what} | {took:.0f} |")
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}"
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    print(f"\nThe whole way took {sum(seconds.values()):.0f} s on {machine}, {versions}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The whole way on a real log, by command line.")
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.workspace or Path(folder), options.requests, options.preset)
