"""A training's memory does not grow with its log: the peak of what its worker holds, on logs of several sizes.

    python benchmarks/training_memory.py [--requests 200000 2000000] [--steps 500] [--algo integrated_rl]

What counts is anonymous memory, which the machine cannot take back; mapped files are its page cache. Linux alone
tells them apart. Exits with 1 unless the largest log takes at most a tenth more than LARGEST_MB.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.registry import Workspace
from mtf_engine.runs import executor
from mtf_engine.runs.estimates import LOG_MB, PROCESS_MB
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.train import submit_train

LARGEST_MB = PROCESS_MB + LOG_MB
SECONDS_BETWEEN_LOOKS = 0.02


def main(folder: Path, sizes: list[int], n_steps: int, algo: str) -> int:
    """Prints a row a size; returns the exit code."""
    workspace = Workspace(folder)
    print(
        "| requests | peak MiB | of files | seconds, writing the map | and without |\n|--:|--:|--:|--:|--:|"
    )
    for n_requests in sizes:
        name = f"log-{n_requests}"
        collected = submit_collect(
            workspace, env="session", explore="uniform", n_requests=n_requests, name=name
        )
        executor.completed(workspace, executor.wait(workspace, collected))
        (first, files, seconds), (again, _, later) = (
            train(workspace, name, n_steps, algo, seed) for seed in (1, 2)
        )
        peak = max(first, again)
        print(f"| {n_requests:,} | {peak} | {files} | {seconds:.0f} | {later:.0f} |", flush=True)
    return peak > 1.1 * LARGEST_MB


def train(workspace: Workspace, dataset: str, n_steps: int, algo: str, seed: int) -> tuple[int, int, float]:
    """Returns the peaks of the worker's anonymous memory and of its mapped files, MiB, and its seconds."""
    settings = {"n_steps": str(n_steps)}
    run_id = submit_train(workspace, dataset, algo=algo, preset="laptop", settings=settings, seed=seed)
    anonymous = mapped = 0
    for (run,) in executor.watch(workspace, run_id, poll_seconds=0.0):
        status = Path(f"/proc/{run.pid}/status")
        held = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
        if "RssAnon" in held:
            anonymous = max(anonymous, int(held["RssAnon"].split()[0]) // 1024)
            mapped = max(mapped, int(held["RssFile"].split()[0]) // 1024)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return anonymous, mapped, executor.completed(workspace, run).seconds or 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--algo", default="integrated_rl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(folder), options.requests, options.steps, options.algo))
