"""What was looked into about rounds: bounds, training data, control users, steps and the rule of promotion.

    python benchmarks/progressive_variants.py [--sessions 20000] [--steps 2000] [--seeds 5] [--users 20000]

The five rounds of `benchmarks/progressive.py`, on the same users, with one thing changed at a time, and one round
with the widest bounds; A/B tested as there. With `--workspace DIR` a second call does only what is missing, and
takes over what `progressive.py` made in the same folder. Prints the table of docs/benchmarks.md.
"""

import argparse
import os
import platform
from typing import Any

import psutil
from progressive import DATASETS, finished, gains, in_workspace, made, parsed, rounds_of, started, table

from mtf_engine.environments import Acting
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.jobs import submissions
from mtf_engine.jobs.paper_data import ROUNDS, group_seed
from mtf_engine.jobs.storage import open_policy
from mtf_engine.registry import BASELINE, RunRow, Workspace

AS_IT_IS = DATASETS["3"]
VARIANTS: dict[str, dict[str, Any]] = {
    "bounds ±.3": {"half_width": 0.3},
    "each round trained on all logs so far": {"train_on": "cumulative"},
    "bounds ±.3, trained on all logs so far": {"half_width": 0.3, "train_on": "cumulative"},
    "no control users": {"control_share": 0.0},
    "four times the steps": {"steps": 4},
    "promoted if better in an A/B test of 2,000 more users": {"promote": "if-better", "ab_users": 2_000},
    "one round, bounds ±.3": {"rounds": 1, "half_width": 0.3},
}


def begun(workspace: Workspace, options: argparse.Namespace, name: str, seed: int) -> RunRow:
    """Returns the run that plays the rounds of a variant."""
    changes = {"rounds": ROUNDS, **VARIANTS[name]}
    n_steps = options.steps * changes.pop("steps", 1)
    return started(
        workspace,
        "progressive",
        f"{name}, seed {seed}",
        lambda: submissions.submit_progressive(
            workspace,
            name=f"{name}, seed {seed}",
            env="session",
            algo="integrated_rl",
            preset="laptop",
            settings={"n_steps": str(n_steps)},
            sessions_per_round=options.sessions // changes["rounds"],
            seed=group_seed(seed, 3),
            **changes,
        ),
    )


def main(workspace: Workspace, options: argparse.Namespace) -> None:
    """Plays, tests and prints."""
    runs = {name: [begun(workspace, options, name, s) for s in range(options.seeds)] for name in VARIANTS}
    promoted = {AS_IT_IS: [rounds_of(workspace, run)["promoted"] for run in made(workspace, options)]}
    for name, of_seeds in runs.items():
        promoted[name] = [(finished(workspace, run).result or {})["promoted"] for run in of_seeds]

    env = SessionEnvironment(n_threads=os.cpu_count() or 1)
    arms: list[dict[str, Acting]] = [
        {name: open_policy(workspace, ids[seed], env) for name, ids in promoted.items()}
        | {BASELINE: open_policy(workspace, BASELINE, env)}
        for seed in range(options.seeds)
    ]
    learned = gains(env, arms, options.users)
    pairs = {f"{name}, minus as it is": learned[name] - learned[AS_IT_IS] for name in VARIANTS}
    print(
        f"Synthetic. {options.sessions:,} sessions, {options.steps:,} steps, {options.seeds} seeds; A/B on "
        f"{options.users:,} users a seed; {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB. Relative to the default weights, 95 % interval over "
        f"seeds.\n\n{table(learned)}\n\n{table(pairs)}"
    )


if __name__ == "__main__":
    in_workspace(main, parsed(__doc__))
