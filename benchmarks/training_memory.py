"""Memory does not grow with the log: the peak of what workers hold that collect one and train on it.

    python benchmarks/training_memory.py [--requests 200000 2000000] [--steps 500] [--algo integrated_rl] [--world feed]

What counts is anonymous memory, which the machine cannot take back; mapped files are its page cache. Linux alone
tells them apart. Exits with 1 unless training on the largest log takes at most a tenth more than LARGEST_MB, and
collecting it at most a half more than the 2 GB that writing it is given, beside the process.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.names import session_of
from mtf_engine.environments.world import DEFAULT_WORLD, names
from mtf_engine.logs.datasets import WRITE_MB
from mtf_engine.runs import executor
from mtf_engine.runs.estimates import LOG_MB, PROCESS_MB
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

LARGEST_MB = PROCESS_MB + LOG_MB
SECONDS_BETWEEN_LOOKS = 0.02


def main(folder: Path, options: argparse.Namespace) -> int:
    """Prints a row a size; returns the exit code."""
    workspace = Workspace(folder)
    print(
        "| requests | peak MiB, collecting | peak MiB, training | of files | seconds, writing the map | and without |\n"
        f"{'|--:' * 6}|"
    )
    for n_requests in options.requests:
        name = f"log-{n_requests}"
        log = {"env": session_of(options.world), "explore": "uniform", "n_requests": n_requests, "name": name}
        written, _, _ = peaks(workspace, submit_collect(workspace, **log))
        training = {"algo": options.algo, "preset": "laptop", "settings": {"n_steps": str(options.steps)}}
        (first, files, seconds), (again, _, later) = (
            peaks(workspace, submit_train(workspace, name, **training, seed=seed)) for seed in (1, 2)
        )
        peak = max(first, again)
        row = (f"{n_requests:,}", written, peak, files, f"{seconds:.0f}", f"{later:.0f}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    return peak > 1.1 * LARGEST_MB or written > 1.5 * (PROCESS_MB + WRITE_MB)


def peaks(workspace: Workspace, run_id: str) -> tuple[int, int, float]:
    """Returns the peaks of the worker's anonymous memory and of its mapped files, MiB, and its seconds."""
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
    parser.add_argument("--world", choices=names(), default=DEFAULT_WORLD)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(folder), parser.parse_args()))
