"""Workers that fall asleep at the worst moment, between their look at the fence and what they write next.

`python -m tests.stale WORKSPACE RUN...` works on each run as a cluster's worker, in a process of its own.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from mtf_engine import sealed
from mtf_engine.disk import guarded
from mtf_engine.runs import files, metrics, worker
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.ray_jobs import ATTEMPT
from mtf_engine.workspace import Workspace

STEPS = 6
SLEEPS_AT = 3
MOMENTS = ("checkpoint", "its hash", "row of metrics", "registry")


def work(job: worker.Job, config: dict[str, Any]) -> dict[str, Any]:
    """Writes what a training does, step by step, and sleeps in the middle of its first attempt."""

    def rows() -> Iterator[dict[str, Any]]:
        for step in range(STEPS):
            asleep = config["sleeps"] if step == SLEEPS_AT and job.run.attempt == 1 else ""
            sealed_at = {"its hash": 1, "checkpoint": 2}.get(asleep, 0)
            with guarded(_Sleeper(sealed_at)):
                sealed.write(job.folder / files.CHECKPOINT, f"{step} of {job.run.attempt}".encode())
            if asleep == "registry":
                _sleep()
            with guarded(_Sleeper(asleep == "row of metrics")):
                metrics.append(job.folder, {"step": 100 + step, "attempt": job.run.attempt})
            yield {"step": step}

    for row in job.logged(rows()):
        job.progress(row["step"], STEPS)
    return {"attempt": job.run.attempt}


class _Sleeper:
    """A guard that is asked after the fence's, and falls asleep when it is asked so often; at 0 never."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            _sleep()


def _sleep() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


KIND = RunKind("sleep", None, work, checkpoints=True)


def main(path: str, *run_ids: str) -> None:
    """Prints the processes by run, then how each has ended."""
    pids = {}
    for run_id in run_ids:
        if pid := os.fork():
            pids[run_id] = pid
            continue
        os.environ[ATTEMPT] = "1"
        os.dup2(os.open(f"{path}/{run_id}.log", os.O_WRONLY | os.O_CREAT, 0o600), 1)
        worker.run_job(Workspace(path), run_id, {KIND.name: KIND})
        os._exit(0)
    print(json.dumps(pids), flush=True)
    ended = {run_id: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for run_id, pid in pids.items()}
    print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
