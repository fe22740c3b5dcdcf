"""What explored data and rounds bring: the paper's datasets, trained on and A/B tested, in the session environment.

    python benchmarks/progressive.py [--sessions 20000] [--steps 2000] [--seeds 5] [--users 20000]

For each seed `paper-data` makes datasets 1 (Gaussian noise), 1b (of the variance of uniform), 2 (uniform) and 3
(five rounds), of equal sessions and disjoint users. IntegratedRL (`laptop`, 24 critics) is trained on 1, 1b and
2; the policy of 3 is what its fifth round promotes, after as many gradient steps in all. All are A/B tested
against the default weights on users that no log has seen, beside the best weights that a search found; so is
exploring itself, which tells what a log costs while it is collected. Prints the tables of README (100,000 sessions,
5,000 steps); with `--workspace DIR` a second call does only what is missing. Intervals are Student's, over seeds.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments import Acting
from mtf_engine.environments.optima import NAMES
from mtf_engine.environments.properties import Properties
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.environments.world import Floats
from mtf_engine.evaluation.abtest import METRICS, ab_test
from mtf_engine.exploration.policies import explore
from mtf_engine.jobs import executor, submissions
from mtf_engine.jobs.storage import open_dataset, open_policy
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.registry import BASELINE, RunRow, Workspace

AB_SEED = 1_000
"""Of the first test users; those of the logs have the seeds of trainings and rounds."""
DATASETS = {
    "1": "Gaussian, sigma .2 (dataset 1)",
    "1b": "Gaussian of the variance of uniform (1b)",
    "2": "uniform within ±.15 (dataset 2)",
    "3": "uniform, five rounds (dataset 3)",
}
FOUND = ("box", "everywhere", "segments")

Gains = dict[str, pd.DataFrame]
"""By arm, the relative gain over the default weights: a row a seed, a column a metric."""


class FoundWeights:
    """Acts as a search on the environment found best; it alone may look up whom it serves."""

    def __init__(self, env: SessionEnvironment, name: str) -> None:
        self.env, self.optima, self.name = env, Properties.stored().optima, name

    def act(self, observations: Floats) -> Floats:
        """Returns the weights [n, d] of the sessions that wait."""
        return self.optima.actions(self.name, self.env.active.segments)


class Exploring:
    """Acts as the collection of a log did: the policy it went around, and its noise."""

    def __init__(self, env: SessionEnvironment, around: Acting, meta: DatasetMeta, seed: int) -> None:
        self.env, self.around, self.meta = env, around, meta
        self.luck = np.random.default_rng(seed)

    def act(self, observations: Floats) -> Floats:
        """Returns the weights [n, d] of the sessions that wait, explored."""
        assert self.meta.plan is not None
        actions = self.around.act(observations)
        explored = explore(
            self.meta.exploration,
            actions,
            self.meta.plan,
            self.env.active.segments,
            sigma=self.meta.sigma or np.nan,
            control=np.zeros(len(actions), bool),
            luck=self.luck.random(actions.shape),
        )
        return explored.actions


def started(workspace: Workspace, kind: str, name: str, submit: Callable[[], str]) -> RunRow:
    """Returns the run of that kind and name, submitted or resumed where it is not done."""
    known = [run for run in workspace.registry.runs(kind=kind) if run.name == name]
    run = known[0] if known else workspace.registry.run(submit())
    if run.state.can_resume:
        executor.resume(workspace, run.id)
    return run


def finished(workspace: Workspace, run: RunRow) -> RunRow:
    """Returns the run once it is completed; a failed one is refused."""
    return executor.completed(workspace, executor.wait(workspace, run.id))


def made(workspace: Workspace, options: argparse.Namespace) -> list[RunRow]:
    """Returns the run that made the paper's datasets, a run a seed."""
    runs = [
        started(
            workspace,
            "paper-data",
            f"seed {seed}",
            lambda seed=seed: submissions.submit_paper_data(
                workspace,
                name=f"seed {seed}",
                sessions=options.sessions,
                algo="integrated_rl",
                preset="laptop",
                settings={"n_steps": str(options.steps)},
                seed=seed,
            ),
        )
        for seed in range(options.seeds)
    ]
    return [finished(workspace, run) for run in runs]


def rounds_of(workspace: Workspace, made_by: RunRow) -> dict[str, Any]:
    """Returns what the rounds came to that made dataset 3."""
    (run,) = workspace.registry.runs(kind="progressive", parent_id=made_by.id)
    return run.result or {}


def trained(workspace: Workspace, data: list[RunRow], n_steps: int) -> dict[str, list[str]]:
    """Returns the policies of each dataset, one a seed; those of one round are trained two at a time."""
    begun = {
        dataset: [
            started(
                workspace,
                "train",
                f"dataset {dataset}, seed {seed}",
                lambda seed=seed, run=run, dataset=dataset: submissions.submit_train(
                    workspace,
                    name=f"dataset {dataset}, seed {seed}",
                    dataset=(run.result or {})["datasets"][dataset],
                    algo="integrated_rl",
                    preset="laptop",
                    settings={"n_steps": str(n_steps)},
                    seed=seed,
                ),
            )
            for seed, run in enumerate(data)
        ]
        for dataset in ("1", "1b", "2")
    }
    in_one = {dataset: [finished(workspace, run).id for run in runs] for dataset, runs in begun.items()}
    return in_one | {"3": [rounds_of(workspace, run)["promoted"] for run in data]}


def gains(env: SessionEnvironment, of_seeds: list[dict[str, Acting]], n_users: int) -> Gains:
    """Returns what the arms of each seed bring, on test users of that seed."""
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in of_seeds[0]}
    for seed, arms in enumerate(of_seeds):
        test = ab_test(env, arms, BASELINE, n_users, (AB_SEED + seed,))
        for arm in arms.keys() - {BASELINE}:
            rows[arm].append({metric: test.effect(arm, metric).relative or 0.0 for metric in METRICS})
    return {arm: pd.DataFrame(values) for arm, values in rows.items() if arm != BASELINE}


def policies_of(
    workspace: Workspace, env: SessionEnvironment, policies: dict[str, list[str]]
) -> list[dict[str, Acting]]:
    """Returns for each seed the policy of each arm, the best weights found, and the baseline."""
    found: dict[str, Acting] = {name: FoundWeights(env, name) for name in FOUND}
    return [
        {arm: open_policy(workspace, run_id, env) for arm, run_id in zip(policies, ids, strict=True)}
        | found
        | {BASELINE: open_policy(workspace, BASELINE, env)}
        for ids in zip(*policies.values(), strict=True)
    ]


def collections_of(
    workspace: Workspace, env: SessionEnvironment, data: list[RunRow]
) -> list[dict[str, Acting]]:
    """Returns for each seed how each log explored, a round of dataset 3 at a time, and the baseline."""

    def exploring(dataset: str, around: str) -> Exploring:
        meta = open_dataset(workspace, dataset).meta
        return Exploring(env, open_policy(workspace, around, env), meta, seed=AB_SEED)

    return [
        {name: exploring((run.result or {})["datasets"][name], BASELINE) for name in ("1", "1b", "2")}
        | {
            f"3, round {one['number']}": exploring(one["dataset_id"], one["baseline"])
            for one in rounds_of(workspace, run)["rounds"]
        }
        | {BASELINE: open_policy(workspace, BASELINE, env)}
        for run in data
    ]


def with_rounds_averaged(collecting: Gains) -> Gains:
    """Returns the arms, and dataset 3 as the mean of its rounds, which are equally long."""
    rounds = [frame for arm, frame in collecting.items() if arm.startswith("3, ")]
    return {**collecting, "3": sum(rounds[1:], rounds[0]) / len(rounds)}


def over_seeds(values: pd.Series) -> str:
    """Returns the mean, its 95 % interval by Student's t, and the p-value against 0."""
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval()
    return f"{values.mean():+.2%} ({low:+.2%} to {high:+.2%}), p {test.pvalue:.2g}"


def table(rows: dict[str, pd.DataFrame]) -> str:
    """Returns rows of relative differences as a markdown table, a column a metric."""
    lines = [f"| | {' | '.join(METRICS)} |".replace("_", " "), "| --- " * (1 + len(METRICS)) + "|"]
    lines += [
        f"| {name} | {' | '.join(over_seeds(frame[metric]) for metric in METRICS)} |"
        for name, frame in rows.items()
    ]
    return "\n".join(lines)


def report(learned: Gains, collecting: Gains) -> str:
    """Returns the tables of what was learned, how that compares, and what collecting cost."""
    named = {DATASETS.get(arm) or NAMES[arm]: frame for arm, frame in learned.items()}
    pairs = {
        f"{DATASETS[a]}, minus {DATASETS[b]}": learned[a] - learned[b]
        for a, b in (("3", "2"), ("2", "1"), ("2", "1b"))
    }
    spent = {f"{DATASETS.get(arm) or arm}": frame for arm, frame in with_rounds_averaged(collecting).items()}
    return (
        f"Policies trained, against the default weights:\n\n{table(named)}\n\n"
        f"Differences between them:\n\n{table(pairs)}\n\n"
        f"Exploring itself, while the log is collected, against the default weights:\n\n{table(spent)}"
    )


def main(workspace: Workspace, options: argparse.Namespace) -> None:
    """Trains, tests and prints."""
    start = time.monotonic()
    data = made(workspace, options)
    policies = trained(workspace, data, options.steps)
    minutes = (time.monotonic() - start) / 60
    env = SessionEnvironment(n_threads=os.cpu_count() or 1)
    learned = gains(env, policies_of(workspace, env, policies), options.users)
    collecting = gains(env, collections_of(workspace, env, data), options.users)
    print(
        f"Synthetic. {options.sessions:,} sessions, {options.steps:,} steps, {options.seeds} seeds, made and "
        f"trained in {minutes:.0f} minutes; A/B on {options.users:,} users a seed; {platform.machine()}, "
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB. Relative to the default "
        f"weights, 95 % interval over seeds.\n\n{report(learned, collecting)}"
    )


def parsed(doc: str | None) -> argparse.Namespace:
    """Returns the options of this command."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--workspace", type=Path, help="kept, so that a second call does what is missing")
    return parser.parse_args()


def in_workspace(what: Callable[[Workspace, argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Calls `what` on the workspace asked for, or on one that is gone afterwards."""
    if options.workspace:
        what(Workspace(options.workspace), options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            what(Workspace(Path(folder)), options)


if __name__ == "__main__":
    in_workspace(main, parsed(__doc__))
