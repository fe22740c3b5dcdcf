"""The search behind the learning rates and the steps of the `laptop` presets: session reward of what each trains.

One uniformly explored log of the session environment and for every method the same budget: its training with all
learning rates as they are and multiplied by each of the factors, looked at after each number of steps. The score
is the mean reward of sessions of new users, relative to the baseline's with the same users; no comparison draws
these users or this log.

    python benchmarks/tuning.py [--methods integrated_rl ddpg] [--requests 140000] [--factors 0.333 1 3]
        [--steps 500 1000 2000] [--sessions 10000] [--seeds 2] [--set NAME=VALUE]
"""

import argparse
import itertools
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.algos import ALGOS
from mtf_engine.commands.options import parse_settings
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.play import play
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import DEFAULT_WORLD, names
from mtf_engine.learning.config import OffPolicyConfig
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.policies.policy import Policy
from mtf_engine.runs.storage import live_policy
from mtf_engine.spec import BoundsPlan, Refusal

HALF_WIDTH = 0.15
EXPLORED_SEED, TEST_SEED = 11, 12
WORKERS = 2
LEARNING = [name for name in ALGOS if issubclass(ALGOS[name].Config, OffPolicyConfig)]


class Case(NamedTuple):
    """One training."""

    method: str
    factor: float
    seed: int


def settings(method: str, factor: float) -> dict[str, str]:
    """Returns every learning rate of the method's `laptop` preset times `factor`, as text."""
    config = make_config(method, "laptop", {}, 0).model_dump()
    return {name: f"{rate * factor:.3g}" for name, rate in config.items() if name.endswith("learning_rate")}


def session_rewards(policy: Policy, world: str, n_sessions: int) -> NDArray[np.float64]:
    """Returns the total reward of each of `n_sessions` sessions, the same users for any `policy`."""
    env = SessionEnvironment(SessionConfig(world=world))
    return play(env, policy, *env.visits(0, n_sessions, TEST_SEED)).rewards


def trained(
    path: Path, world: str, steps: Sequence[int], n_sessions: int, changed: dict[str, str], case: Case
) -> tuple[list[NDArray[np.float64]], float]:
    """Returns the session rewards after each of `steps`, and seconds; fewer where the training diverged."""
    own = settings(case.method, case.factor)
    own |= {"n_steps": f"{max(steps)}", "log_every": f"{math.gcd(*steps)}"} | changed
    transitions = Dataset.open(path).transitions()
    algo = ALGOS[case.method](make_config(case.method, "laptop", own, case.seed), transitions)
    rewards, start = [], time.perf_counter()
    try:
        for metrics in fit(algo, transitions):
            if metrics["step"] in steps:
                rewards.append(session_rewards(algo.policy, world, n_sessions))
    except Refusal as refusal:
        print(f"{case}: {refusal}", file=sys.stderr)
    return rewards, time.perf_counter() - start


def cells(
    found: Sequence[list[NDArray[np.float64]]], steps: Sequence[int], base: NDArray[np.float64]
) -> list[str]:
    """Returns the relative gain over `base` after each of `steps`, mean over seeds with its interval over users."""
    told = []
    for at in range(len(steps)):
        if any(len(rewards) <= at for rewards in found):
            told.append("diverged")
            continue
        gains = np.mean([rewards[at] for rewards in found], axis=0) - base
        half = 1.96 * gains.std(ddof=1) / np.sqrt(len(base))
        seeds = ", ".join(f"{rewards[at].mean() / base.mean() - 1:+.1%}" for rewards in found)
        told.append(f"{gains.mean() / base.mean():+.2%} ± {half / base.mean():.2%} ({seeds})")
    return told


def main(options: argparse.Namespace) -> None:
    """Prints the gain of each method and factor after each number of steps as a markdown table."""
    env, steps = SessionEnvironment(SessionConfig(world=options.world)), sorted(options.steps)
    baseline = live_policy(env)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    collection = Collection(plan=plan, n_requests=options.requests, seed=EXPLORED_SEED)
    cases = [Case(*one) for one in itertools.product(options.methods, options.factors, range(options.seeds))]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool,
    ):
        write_dataset(
            Path(folder), "log", collection.meta(env, "log", "session"), collect(env, baseline, collection)
        )
        changed = parse_settings(options.set)
        work = partial(trained, Path(folder) / "log.duckdb", options.world, steps, options.sessions, changed)
        found = dict(zip(cases, pool.map(work, cases), strict=True))
    base = session_rewards(baseline, options.world, options.sessions)
    print(
        f"Synthetic sessions, world {options.world}: {options.requests:,} explored requests, {options.seeds} "
        f"seeds, {options.sessions:,} test sessions; {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, one thread a training. Baseline: {base.mean():.2f} a "
        "session. Interval: 95 %, paired by user; each seed in brackets.\n"
    )
    print(f"| method | learning rates | {' | '.join(f'{step:,} steps' for step in steps)} | seconds |")
    print("| --- " * (3 + len(steps)) + "|")
    for method, factor in itertools.product(options.methods, options.factors):
        of_seeds = [found[Case(method, factor, seed)] for seed in range(options.seeds)]
        told = cells([rewards for rewards, _ in of_seeds], steps, base)
        seconds = np.mean([seconds for _, seconds in of_seeds])
        print(f"| `{method}` | x {factor:g} | {' | '.join(told)} | {seconds:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=LEARNING, default=LEARNING)
    parser.add_argument("--world", choices=names(), default=DEFAULT_WORLD)
    parser.add_argument("--requests", type=int, default=140_000)
    parser.add_argument("--factors", type=float, nargs="+", default=[1 / 3, 1.0, 3.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 1_000, 2_000])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of every method")
    main(parser.parse_args())
