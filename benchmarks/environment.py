"""Measures the session environment: requests per second and peak memory, by threads and number of sessions.

Beside it, in the same run, sardine-rec's environment stepped one by one, in a virtual environment of its own
that this script creates (`.venv-sardine`).

A request is everything a collection needs of the environment: the observation, 60 candidates with their
predictions, scores, 6 impressions with feedback, reward and the user's next state. Each line is a process of
its own, so that its peak memory is its own.

    python benchmarks/environment.py [--sessions 1000 10000 100000 1000000] [--threads 1 2]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from peers import peer_python

sys.path.insert(0, str(Path(__file__).parent.parent))


from mtf_engine.environments.names import FIRST_WORLD
from mtf_engine.environments.session import SessionConfig, SessionEnvironment

ROOT = Path(__file__).parent.parent
PEER_SECONDS = 10
TARGET = 30_000
"""Requests a second, on two threads."""


def measure(n_sessions: int, n_threads: int) -> dict[str, float]:
    """Returns requests, seconds and peak memory (MB) of playing `n_sessions` under the default weights."""
    env = SessionEnvironment(SessionConfig(world=FIRST_WORLD), n_threads)
    requests, start = 0, time.perf_counter()
    for first in range(0, n_sessions, env.batch):
        env.reset(*env.visits(first, min(env.batch, n_sessions - first), seed=0))
        while n := len(env.active):
            env.observe()
            env.step(np.zeros((n, env.fusion.n_actions), np.float32))
            requests += n
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"requests": requests, "seconds": seconds, "peak_mb": peak}


def in_own_process(n_sessions: int, n_threads: int) -> dict[str, float]:
    """Returns what `measure` returns in a fresh process, with one thread for any BLAS call."""
    command = [sys.executable, __file__, "--one", str(n_sessions), str(n_threads)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


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
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}")
    print(f"{'sessions':>10} {'threads':>7} {'requests':>10} {'requests/s':>10} {'peak MB':>8}")
    slowest = float("inf")
    for n_sessions in args.sessions:
        for n_threads in args.threads:
            row = in_own_process(n_sessions, n_threads)
            n, rate, peak = row["requests"], row["requests"] / row["seconds"], row["peak_mb"]
            print(f"{n_sessions:>10,} {n_threads:>7} {n:>10,} {rate:>10,.0f} {peak:>8.0f}", flush=True)
            slowest = min(slowest, rate) if n_threads == 2 else slowest
    other = peer()
    print(
        f"{other['environment']}, {other['items']:,} items, {other['shown']} shown, one by one: "
        f"{other['rate']:,.0f} requests/s"
    )
    if slowest < TARGET:
        sys.exit(f"{slowest:,.0f} requests/s on 2 threads, below {TARGET:,}")


if __name__ == "__main__":
    main()
