"""The search behind the learning rates and the steps of the `laptop` preset: session reward of what each trains.

One uniformly explored log of the session environment, one training for each pair of learning rates, and for
its policy after each number of steps the mean reward of sessions of new users, relative to the baseline's with
the same users.

    python benchmarks/learning_rates.py [--requests 140000] [--steps 500 1000 2000 5000] [--sessions 10000]
        [--seeds 1]
"""

import argparse
import itertools
import math
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.algos import ALGOS
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.play import play
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.policy import Policy
from mtf_engine.spec import BoundsPlan
from mtf_engine.training import fit, make_config

RATES = ((3e-4, 1e-4), (1e-3, 1e-4), (3e-3, 1e-4), (1e-3, 3e-5), (1e-3, 3e-4))
"""Of the critics and of the actor."""
HALF_WIDTH = 0.15
EXPLORED_SEED, TEST_SEED = 11, 12
WORKERS = 2


def session_rewards(policy: Policy, n_sessions: int) -> NDArray[np.float64]:
    """Returns the total reward of each of `n_sessions` sessions, the same users for any `policy`."""
    env = SessionEnvironment()
    return play(env, policy, *env.visits(0, n_sessions, TEST_SEED)).rewards


def trained(
    path: Path, steps: Sequence[int], n_sessions: int, case: tuple[tuple[float, float], int]
) -> list[NDArray[np.float64]]:
    """Returns the session rewards after each of `steps` of a training with the rates and the seed of `case`."""
    (critic, actor), seed = case
    settings = {
        "critic_learning_rate": f"{critic}",
        "actor_learning_rate": f"{actor}",
        "n_steps": f"{max(steps)}",
        "log_every": f"{math.gcd(*steps)}",
    }
    transitions = Dataset.open(path).transitions()
    algo = ALGOS["integrated_rl"](make_config("integrated_rl", "laptop", settings, seed), transitions)
    logged = (metrics["step"] for metrics in fit(algo, transitions))
    return [session_rewards(algo.policy, n_sessions) for step in logged if step in steps]


def main(n_requests: int, steps: Sequence[int], n_sessions: int, n_seeds: int) -> None:
    """Prints the gain of each pair of learning rates after each number of steps as a markdown table."""
    env = SessionEnvironment()
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    collection = Collection(plan=plan, n_requests=n_requests, seed=EXPLORED_SEED)
    cases = list(itertools.product(RATES, range(n_seeds)))
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS) as pool:
        write_dataset(
            Path(folder), "log", collection.meta(env, "log", "session"), collect(env, baseline, collection)
        )
        work = partial(trained, Path(folder) / "log.duckdb", sorted(steps), n_sessions)
        rewards = list(pool.map(work, cases))
    base = session_rewards(baseline, n_sessions)
    print(
        f"Synthetic sessions: {n_requests:,} explored requests, {n_seeds} seeds, {n_sessions:,} test sessions; "
        f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"one thread a training. Baseline: {base.mean():.2f} a session. Interval: 95 %, paired by user.\n"
    )
    print(f"| critic | actor | {' | '.join(f'{step:,} steps' for step in sorted(steps))} |")
    print("| --- " * (2 + len(steps)) + "|")
    for rates, group in itertools.groupby(zip(cases, rewards, strict=True), lambda pair: pair[0][0]):
        gains = np.mean([rewards for _, rewards in group], axis=0) - base
        halves = 1.96 * gains.std(axis=1, ddof=1) / np.sqrt(n_sessions)
        cells = (
            f"{gain:+.2%} ± {half:.2%}"
            for gain, half in zip(gains.mean(axis=1) / base.mean(), halves / base.mean(), strict=True)
        )
        print(f"| {rates[0]:g} | {rates[1]:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=140_000)
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 1_000, 2_000, 5_000])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.requests, arguments.steps, arguments.sessions, arguments.seeds)
