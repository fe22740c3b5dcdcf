"""How many logged impressions a replayed request should offer: chosen on validation days, never on test days.

For every setting `CANDIDATES/SHOWN/REQUESTS` and seed the training days of KuaiRand are replayed under uniform
exploration, IntegratedRL (`laptop`, 24 critics) is trained on that log, and its policy scored by weighted GAUC on
the *validation* days, minus the baseline's. Beside it the signal of the log, chi2 of ten slopes where 10 is none.
KuaiRand's folder is named by MTF_KUAIRAND, else it is ../shared/data/kuairand.

    python benchmarks/replay_settings.py [--settings 8/3/5 20/3/5] [--sessions 7500] [--seeds 3] [--set NAME=VALUE]
"""

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.compared import KUAIRAND
from benchmarks.progressive import over_seeds
from mtf_engine.algos import ALGOS
from mtf_engine.commands.options import parse_settings
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.aggregates import signal
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan

HALF_WIDTH = 0.15
WORKERS = 2


class Found(NamedTuple):
    """What one training came to."""

    gauc_gain: float
    chi2: float
    transitions: int
    users_left_out: int
    users: int


def trained(folder: Path, n_sessions: int, changed: dict[str, str], case: tuple[str, int]) -> Found:
    """Explores, trains and scores one setting with one seed."""
    text, seed = case
    source = Dataset.open(folder / "real.duckdb")
    env = ReplayEnvironment(source, ReplayConfig.named(f"replay:{text}"), seed=seed)
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    how = Collection(plan=plan, n_sessions=n_sessions, seed=seed)
    name = f"{text.replace('/', '-')}-{seed}"
    write_dataset(folder, name, how.meta(env, name, "replay"), collect(env, baseline, how))
    log = Dataset.open(folder / f"{name}.duckdb")
    transitions = log.transitions()
    algo = ALGOS["integrated_rl"](make_config("integrated_rl", "laptop", changed, seed), transitions)
    for _ in fit(algo, transitions):
        pass
    score = Ranking(source.evaluation_rows("validation"))
    gain = score(algo.policy) - score(baseline)
    return Found(gain, signal(log).everybody.chi2, len(transitions), env.n_users_left_out, len(env.log.users))


def main(options: argparse.Namespace) -> None:
    """Prints a row a setting as a markdown table."""
    log = read_log(KUAIRAND, "kuairand")
    cases = [(text, seed) for text in options.settings for seed in range(options.seeds)]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool,
    ):
        write_dataset(Path(folder), "real", log.meta, log.batches)
        changed = parse_settings(options.set)
        work = partial(trained, Path(folder), options.sessions, changed)
        found = dict(zip(cases, pool.map(work, cases), strict=True))
    print(
        f"Replayed KuaiRand, training days: {options.sessions:,} sessions of uniform exploration, {options.seeds} "
        f"seeds, scored on validation days; {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB. Weighted GAUC minus the baseline's, 95 % interval over "
        "seeds.\n"
    )
    head = [
        "candidates / shown / requests",
        "weighted GAUC",
        "each seed",
        "chi2",
        "transitions",
        "users left out",
    ]
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
    for text in options.settings:
        own = pd.DataFrame([found[text, seed] for seed in range(options.seeds)])
        cells = [
            text,
            over_seeds(own["gauc_gain"], "+.4f"),
            ", ".join(f"{value:+.4f}" for value in own["gauc_gain"]),
            f"{own['chi2'].mean():.0f}",
            f"{own['transitions'].mean():,.0f}",
            f"{own['users_left_out'].max():,} of {own['users'].max():,}",
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=["8/3/5", "12/3/5", "20/3/5", "20/1/5", "40/3/3"])
    parser.add_argument("--sessions", type=int, default=7_500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    main(parser.parse_args())
