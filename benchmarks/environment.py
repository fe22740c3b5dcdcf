"""Measures the session environment: requests per second and peak memory, by threads, processes and sessions.

Beside it, in the same run, sardine-rec's environment stepped one by one, in a virtual environment of its own
that this script creates (`.venv-sardine`).

A request is everything a collection needs of the environment: the observation, 60 candidates with their
predictions, scores, 6 impressions with feedback, reward and the user's next state. Each line is one or more
processes of its own, so that its peak memory is its own; several play their part of the sessions at once, on one
thread each, and the slowest of them counts.

    python benchmarks/environment.py [--sessions 1000 10000 100000 1000000] [--threads 1 2] [--processes 2]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
from peers import peer_python

sys.path.insert(0, str(Path(__file__).parent.parent))


from mtf_engine.environments.names import FIRST_WORLD
from mtf_engine.environments.session import SessionConfig, SessionEnvironment

ROOT = Path(__file__).parent.parent
PEER_SECONDS = 10
TARGET = 100_000
"""Requests a second, on two cores."""


def measure(begin: int, end: int, n_threads: int) -> dict[str, float]:
    """Returns requests, seconds and peak memory (MB) of playing a range of sessions under the default weights."""
    env = SessionEnvironment(SessionConfig(world=FIRST_WORLD), n_threads)
    requests, start = 0, time.perf_counter()
    for first in range(begin, end, env.batch):
        env.reset(*env.visits(first, min(env.batch, end - first), seed=0))
        while n := len(env.active):
            env.observe()
            env.step(np.zeros((n, env.fusion.n_actions), np.float32))
            requests += n
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"requests": requests, "seconds": seconds, "peak_mb": peak}


def in_own_processes(n_sessions: int, n_threads: int, n_processes: int) -> dict[str, float]:
    """Returns requests, the most seconds and the summed memory of fresh processes, one thread for any BLAS call."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    edges = [i * n_sessions // n_processes for i in range(n_processes + 1)]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--one", str(begin), str(end), str(n_threads)],
            env=env,
            stdout=subprocess.PIPE,
        )
        for begin, end in pairwise(edges)
    ]
    rows = [json.loads(process.communicate()[0]) for process in started]
    return {
        "requests": sum(row["requests"] for row in rows),
        "seconds": max(row["seconds"] for row in rows),
        "peak_mb": sum(row["peak_mb"] for row in rows),
    }


def peer() -> dict[str, float]:
    """Returns what sardine-rec does in ten seconds."""
    python = peer_python("sardine", "sardine-rec==1.0.8", "numpy==2.4.6")
    command = [python, "-W", "ignore", ROOT / "benchmarks" / "sardine_steps.py", str(PEER_SECONDS)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the table; exits with 1 where two threads stay below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--processes", type=int, nargs="*", default=[2], help="beside one, on one thread each"
    )
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'sessions':>10} {'processes':>9} {'threads':>7} {'requests':>10} {'requests/s':>10} {'peak MB':>8}"
    )
    slowest = float("inf")
    for n_sessions in args.sessions:
        for n_processes, n_threads in [*((1, n) for n in args.threads), *((n, 1) for n in args.processes)]:
            row = in_own_processes(n_sessions, n_threads, n_processes)
            n, rate, peak = row["requests"], row["requests"] / row["seconds"], row["peak_mb"]
            print(
                f"{n_sessions:>10,} {n_processes:>9} {n_threads:>7} {n:>10,} {rate:>10,.0f} {peak:>8.0f}",
                flush=True,
            )
            slowest = min(slowest, rate) if n_processes == 2 else slowest
    other = peer()
    print(
        f"{other['environment']}, {other['items']:,} items, {other['shown']} shown, one by one: "
        f"{other['rate']:,.0f} requests/s"
    )
    if slowest < TARGET:
        sys.exit(f"{slowest:,.0f} requests/s by 2 processes, below {TARGET:,}")


if __name__ == "__main__":
    main()
