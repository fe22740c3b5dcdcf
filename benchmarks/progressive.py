"""One round against five at equal sessions and equal gradient steps, in the session environment.

    python benchmarks/progressive.py [--sessions 20000] [--steps 2000] [--seeds 5] [--users 20000]

For each seed: IntegratedRL (`laptop`, 24 critics) on one uniformly explored log, and five rounds that share its
sessions and steps; then an A/B test of both against the default weights on users neither has seen. Beside them
the best weights that a search found. Prints the table of README; with `--workspace DIR` a second call does
only what is missing. Intervals are over seeds.
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

import pandas as pd
import psutil
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments import Acting
from mtf_engine.environments.optima import NAMES, Optima
from mtf_engine.environments.properties import Properties
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.environments.world import Floats
from mtf_engine.evaluation.abtest import METRICS, ab_test
from mtf_engine.jobs import executor, submissions
from mtf_engine.jobs.storage import open_policy
from mtf_engine.registry import BASELINE, RunRow, Workspace

ROUNDS = 5
AB_SEED = 1_000
"""Of the first test users; those of the logs have the seeds of trainings and rounds."""
ARMS = {"one": "IntegratedRL, one round", "rounds": f"IntegratedRL, {ROUNDS} rounds"}
FOUND = ("box", "everywhere", "segments")


class FoundWeights:
    """Acts as a search on the environment found best; it alone may look up whom it serves."""

    def __init__(self, env: SessionEnvironment, optima: Optima, name: str) -> None:
        self.env, self.optima, self.name = env, optima, name

    def act(self, observations: Floats) -> Floats:
        """Returns the weights [n, d] of the sessions that wait."""
        return self.optima.actions(self.name, self.env.active.segments)


def started(
    workspace: Workspace, kind: str, name: str, submit: Callable[..., str], **settings: Any
) -> RunRow:
    """Returns the run of that kind and name, submitted or resumed where it is not done."""
    known = [run for run in workspace.registry.runs(kind=kind) if run.name == name]
    run = known[0] if known else workspace.registry.run(submit(workspace, name=name, **settings))
    if run.state.can_resume:
        executor.resume(workspace, run.id)
    return run


def finished(workspace: Workspace, run: RunRow) -> RunRow:
    """Returns the run once it is completed; a failed one is refused."""
    return executor.completed(workspace, executor.wait(workspace, run.id))


def trained(workspace: Workspace, n_sessions: int, n_steps: int, n_seeds: int) -> dict[str, list[str]]:
    """Returns the policies of each arm, one a seed, trained two at a time."""
    training = {"algo": "integrated_rl", "preset": "laptop", "settings": {"n_steps": str(n_steps)}}
    log = {"env": "session", "explore": "uniform", "n_sessions": n_sessions}
    rounds = {"env": "session", "rounds": ROUNDS, "sessions_per_round": n_sessions // ROUNDS, **training}
    seeds = range(n_seeds)
    logs = [
        started(workspace, "collect", f"log {s}", submissions.submit_collect, seed=s, **log) for s in seeds
    ]
    in_rounds = [
        started(workspace, "progressive", f"rounds {s}", submissions.submit_progressive, seed=s, **rounds)
        for s in seeds
    ]
    in_one = []
    for seed, run in enumerate(logs):
        dataset = finished(workspace, run).dataset_id
        in_one.append(
            started(
                workspace,
                "train",
                f"one {seed}",
                submissions.submit_train,
                dataset=dataset,
                seed=seed,
                **training,
            )
        )
    return {
        "one": [finished(workspace, run).id for run in in_one],
        "rounds": [(finished(workspace, run).result or {})["promoted"] for run in in_rounds],
    }


def gains(workspace: Workspace, policies: dict[str, list[str]], n_users: int) -> dict[str, pd.DataFrame]:
    """Returns for each arm the relative gain over the default weights, a row a seed, a column a metric."""
    env = SessionEnvironment(n_threads=os.cpu_count() or 1)
    optima = Properties.stored().optima
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in (*policies, *FOUND)}
    for seed, ids in enumerate(zip(*policies.values(), strict=True)):
        arms: dict[str, Acting] = {name: FoundWeights(env, optima, name) for name in FOUND}
        arms |= {arm: open_policy(workspace, run_id, env) for arm, run_id in zip(policies, ids, strict=True)}
        arms[BASELINE] = open_policy(workspace, BASELINE, env)
        test = ab_test(env, arms, BASELINE, n_users, (AB_SEED + seed,))
        for arm, of_seeds in rows.items():
            of_seeds.append({metric: test.effect(arm, metric).relative or 0.0 for metric in METRICS})
    return {arm: pd.DataFrame(of_seeds) for arm, of_seeds in rows.items()}


def over_seeds(values: pd.Series) -> str:
    """Returns the mean, its 95 % interval by Student's t, and the p-value against 0."""
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval()
    return f"{values.mean():+.2%} ({low:+.2%} to {high:+.2%}), p {test.pvalue:.2g}"


def report(found: dict[str, pd.DataFrame]) -> str:
    """Returns the gains over the default weights, and of five rounds over one, as a markdown table."""
    lines = [f"| | {' | '.join(METRICS)} |".replace("_", " "), "| --- " * (1 + len(METRICS)) + "|"]
    for arm, frame in found.items():
        cells = " | ".join(over_seeds(frame[metric]) for metric in METRICS)
        lines.append(f"| {ARMS.get(arm) or NAMES[arm]} | {cells} |")
    cells = " | ".join(over_seeds(found["rounds"][metric] - found["one"][metric]) for metric in METRICS)
    lines.append(f"| {ROUNDS} rounds, minus one round | {cells} |")
    return "\n".join(lines)


def main(workspace: Workspace, options: argparse.Namespace) -> None:
    """Trains, tests and prints."""
    start = time.monotonic()
    policies = trained(workspace, options.sessions, options.steps, options.seeds)
    minutes = (time.monotonic() - start) / 60
    found = gains(workspace, policies, options.users)
    print(
        f"Synthetic. {options.sessions:,} sessions, {options.steps:,} steps, {options.seeds} seeds, trained in "
        f"{minutes:.0f} minutes; A/B on {options.users:,} users a seed; {platform.machine()}, "
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB. Relative to the default "
        f"weights, 95 % interval over seeds.\n\n{report(found)}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--workspace", type=Path, help="kept, so that a second call does what is missing")
    arguments = parser.parse_args()
    if arguments.workspace:
        main(Workspace(arguments.workspace), arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Workspace(Path(folder)), arguments)
