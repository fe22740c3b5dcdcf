"""The search behind the learning rates of the `laptop` preset: session reward of what each pair trains.

One uniformly explored log of the session environment, one training for each pair of learning rates, and for
each policy the mean reward of sessions of new users, relative to the baseline's with the same users.

    python benchmarks/learning_rates.py [--requests 60000] [--steps 5000] [--sessions 10000] [--seeds 1]
"""

import argparse
import itertools
import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.algos import ALGOS
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.policy import Policy
from mtf_engine.spec import BoundsPlan
from mtf_engine.training import fit, make_config

CRITIC, ACTOR = (3e-4, 1e-3, 3e-3), (3e-5, 1e-4, 3e-4)
HALF_WIDTH = 0.15
EXPLORED_SEED, TEST_SEED = 11, 12
WORKERS = 2


def session_rewards(policy: Policy, n_sessions: int) -> np.ndarray:
    """Returns the total reward of each of `n_sessions` sessions, the same users for any `policy`."""
    env = SessionEnvironment()
    users, numbers = env.visits(0, n_sessions, TEST_SEED)
    env.reset(users, numbers)
    total = np.zeros(n_sessions)
    while len(active := env.active):
        step = env.step(policy.act(env.observe()))
        total[active.sessions] += step.rewards
    return total


def trained(path: Path, n_steps: int, n_sessions: int, case: tuple[float, float, int]) -> np.ndarray:
    """Returns the session rewards of the policy trained with a critic rate, an actor rate and a seed."""
    critic, actor, seed = case
    settings = {
        "critic_learning_rate": f"{critic}",
        "actor_learning_rate": f"{actor}",
        "n_steps": f"{n_steps}",
    }
    transitions = Dataset.open(path).transitions()
    algo = ALGOS["integrated_rl"](make_config("integrated_rl", "laptop", settings, seed), transitions)
    for _ in fit(algo, transitions):
        pass
    return session_rewards(algo.policy, n_sessions)


def main(n_requests: int, n_steps: int, n_sessions: int, n_seeds: int) -> None:
    """Prints the gain of each pair of learning rates as a markdown table."""
    env = SessionEnvironment()
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    collection = Collection(plan=plan, n_requests=n_requests, seed=EXPLORED_SEED)
    cases = list(itertools.product(CRITIC, ACTOR, range(n_seeds)))
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS) as pool:
        write_dataset(
            Path(folder), "log", collection.meta(env, "log", "session"), collect(env, baseline, collection)
        )
        rewards = list(pool.map(partial(trained, Path(folder) / "log.duckdb", n_steps, n_sessions), cases))
    base = session_rewards(baseline, n_sessions)
    print(
        f"Synthetic sessions: {n_requests:,} explored requests, {n_steps:,} steps, {n_seeds} seeds, "
        f"{n_sessions:,} test sessions; {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, one thread a training. "
        f"Baseline: {base.mean():.2f} a session. Interval: 95 %, paired by user.\n"
    )
    print("| critic | actor | session reward against the baseline |\n| --- | --- | --- |")
    for (critic, actor), group in itertools.groupby(
        zip(cases, rewards, strict=True), lambda pair: pair[0][:2]
    ):
        gain = np.mean([reward for _, reward in group], axis=0) - base
        half = 1.96 * gain.std(ddof=1) / np.sqrt(n_sessions)
        print(f"| {critic:g} | {actor:g} | {gain.mean() / base.mean():+.2%} ± {half / base.mean():.2%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.requests, arguments.steps, arguments.sessions, arguments.seeds)
