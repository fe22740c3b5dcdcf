"""What explored data and rounds bring: the paper's datasets, trained on and A/B tested with synthetic users.

    python benchmarks/progressive.py [--world feed] [--sessions 20000] [--steps N] [--seeds 5] [--users 20000]

For each seed `paper-data` makes datasets 1 (Gaussian noise), 1b (of the variance of uniform), 2 (uniform) and 3
(five rounds), of equal sessions and disjoint users. IntegratedRL (`laptop`, 24 critics) is trained on 1, 1b and
2; the policy of 3 is what its fifth round promotes, with --steps after as many in all. Both floors are trained
on 2. All are A/B tested against the live policy on users that no log has seen, and scored by weighted GAUC on a
log of the live policy, beside the best offsets within the box and anywhere that `benchmarks/premises.py` found; so
is exploring itself, which tells what a log costs while it is collected. The signal of each log is told, too.
With `--workspace DIR` a second call does only what is missing. Intervals are Student's, over seeds.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments import Acting
from mtf_engine.environments.names import session_of
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import DEFAULT_WORLD, Floats, f32, names
from mtf_engine.evaluation.abtest import METRICS, ab_test
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.exploration.policies import explore
from mtf_engine.learning.training import make_config
from mtf_engine.logs.aggregates import signal
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.registry import BASELINE, RunRow
from mtf_engine.runs import executor
from mtf_engine.runs.storage import live_policy, open_dataset, open_policy
from mtf_engine.study.factorial import GAUC
from mtf_engine.study.premises import measured
from mtf_engine.work.paper_data import submit_paper_data
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

AB_SEED = 1_000
"""Of the first test users; those of the logs have the seeds of trainings and rounds."""
ARMS = {
    "1": "Gaussian, sigma 0.2 (dataset 1)",
    "1b": "Gaussian of the variance of uniform (1b)",
    "2": "uniform within ±0.15 (dataset 2)",
    "3": "uniform, five rounds (dataset 3)",
    "linear_one_step": "`linear_one_step` on dataset 2, floor",
    "best_single_head": "`best_single_head` on dataset 2, floor",
    "box": "best within ±0.15, by search",
    "anywhere": "best anywhere, by search",
}
FLOORS = ("linear_one_step", "best_single_head")

Gains = dict[str, pd.DataFrame]
"""By arm, the gain over the live policy: a row a seed, a column a metric."""


class Offset:
    """Acts as the live policy, moved by one vector."""

    def __init__(self, live: Acting, offset: Sequence[float]) -> None:
        self.live, self.offset = live, f32(offset)

    def act(self, observations: Floats) -> Floats:
        """Returns actions [n, d]."""
        moved: Floats = np.clip(self.live.act(observations) + self.offset, -1, 1)
        return moved


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


def length(options: argparse.Namespace) -> dict[str, str]:
    """Returns the setting that says how long IntegratedRL is trained; none where its preset's passes do."""
    return {"n_steps": str(options.steps)} if options.steps else {}


def told_sizes(options: argparse.Namespace) -> str:
    """Returns the world, the sessions and the length of trainings, in words that no other call has."""
    preset = make_config("integrated_rl", "laptop", length(options), 0)
    steps = f"{options.steps:,} steps" if options.steps else f"{preset.passes:g} passes"
    return f"world {options.world}, {options.sessions:,} sessions, {steps}"


def made(workspace: Workspace, options: argparse.Namespace) -> list[RunRow]:
    """Returns the run that made the paper's datasets, a run a seed."""
    runs = [
        started(
            workspace,
            "paper-data",
            f"{told_sizes(options)}, seed {seed}",
            lambda seed=seed: submit_paper_data(
                workspace,
                name=f"{told_sizes(options)}, seed {seed}",
                sessions=options.sessions,
                env=session_of(options.world),
                algo="integrated_rl",
                preset="laptop",
                settings=length(options),
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


def trained(workspace: Workspace, data: list[RunRow], options: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the policies of each arm that learns, one a seed."""

    def begun(arm: str, dataset: str, algo: str, settings: dict[str, str]) -> list[RunRow]:
        return [
            started(
                workspace,
                "train",
                f"{arm}, {told_sizes(options)}, seed {seed}",
                lambda seed=seed, run=run: submit_train(
                    workspace,
                    name=f"{arm}, {told_sizes(options)}, seed {seed}",
                    dataset=(run.result or {})["datasets"][dataset],
                    algo=algo,
                    preset="laptop",
                    settings=settings,
                    seed=seed,
                ),
            )
            for seed, run in enumerate(data)
        ]

    arms = {name: begun(name, name, "integrated_rl", length(options)) for name in ("1", "1b", "2")}
    arms |= {floor: begun(floor, "2", floor, {}) for floor in FLOORS}
    in_one = {arm: [finished(workspace, run).id for run in runs] for arm, runs in arms.items()}
    return in_one | {"3": [rounds_of(workspace, run)["promoted"] for run in data]}


def told(value: float | None) -> float:
    """Returns a figure; not a number where there is none."""
    return np.nan if value is None else value


def gains(env: SessionEnvironment, of_seeds: list[dict[str, Acting]], n_users: int) -> Gains:
    """Returns what the arms of each seed bring, on test users of that seed."""
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in of_seeds[0]}
    for seed, arms in enumerate(of_seeds):
        test = ab_test(env, arms, BASELINE, n_users, (AB_SEED + seed,))
        for arm in arms.keys() - {BASELINE}:
            rows[arm].append({metric: told(test.effect(arm, metric).relative) for metric in METRICS})
    return {arm: pd.DataFrame(values) for arm, values in rows.items() if arm != BASELINE}


def policies_of(
    workspace: Workspace, env: SessionEnvironment, policies: dict[str, list[str]]
) -> list[dict[str, Acting]]:
    """Returns for each seed the policy of each arm, the best offsets found, and the live policy."""
    live, found = live_policy(env), measured(env.config.world, env.config.seed)
    searched: dict[str, Acting] = {arm: Offset(live, getattr(found, arm)) for arm in ("box", "anywhere")}
    return [
        {arm: open_policy(workspace, run_id, env) for arm, run_id in zip(policies, ids, strict=True)}
        | searched
        | {BASELINE: live}
        for ids in zip(*policies.values(), strict=True)
    ]


def gauc_gains(workspace: Workspace, data: list[RunRow], of_seeds: list[dict[str, Acting]]) -> Gains:
    """Returns the weighted GAUC of each arm minus that of live, on what live showed to the seed's test users."""
    rows: dict[str, list[float]] = {arm: [] for arm in of_seeds[0]}
    for run, arms in zip(data, of_seeds, strict=True):
        score = Ranking(open_dataset(workspace, (run.result or {})["datasets"]["test"]).evaluation_rows())
        found = {arm: score(policy) for arm, policy in arms.items()}
        for arm, value in found.items():
            rows[arm].append(value - found[BASELINE])
    return {arm: pd.DataFrame({GAUC: values}) for arm, values in rows.items() if arm != BASELINE}


def signals_of(workspace: Workspace, data: list[RunRow]) -> str:
    """Returns chi2 of each log, and the gain that would show, means over seeds, as markdown."""
    lines = ["| log | chi2 | degrees of freedom | smallest gain that shows |", "| --- " * 4 + "|"]
    for name in ("1", "1b", "2", "3"):
        logs = (open_dataset(workspace, (run.result or {})["datasets"][name]) for run in data)
        told = [signal(log).everybody for log in logs]
        chi2, shows = (np.mean([getattr(one, of) for one in told]) for of in ("chi2", "relative_gain"))
        lines.append(f"| {ARMS[name]} | {chi2:.0f} | {told[0].df} | {shows:.1%} |")
    return "\n".join(lines)


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


def over_seeds(values: pd.Series, form: str) -> str:
    """Returns the mean, its 95 % interval by Student's t, and the p-value against 0."""
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval()
    return f"{values.mean():{form}} ({low:{form}} to {high:{form}}), p {test.pvalue:.2g}"


def table(rows: dict[str, pd.DataFrame]) -> str:
    """Returns rows of differences as a markdown table, a column a metric."""
    metrics = list(next(iter(rows.values())).columns)
    lines = [f"| | {' | '.join(metrics)} |".replace("_", " "), "| --- " * (1 + len(metrics)) + "|"]
    for name, frame in rows.items():
        cells = [over_seeds(frame[metric], "+.4f" if metric == GAUC else "+.2%") for metric in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bought(learned: Gains, collecting: Gains) -> str:
    """Returns what was learned for what exploring cost, as markdown."""
    lines = ["| log | learned | cost | learned for each 1 % of cost |", "| --- " * 4 + "|"]
    for name in ("1", "1b", "2", "3"):
        gain, cost = learned[name]["session_reward"].mean(), -collecting[name]["session_reward"].mean()
        ratio = f"{gain / cost:+.1f} %" if cost > 0 else "it cost nothing"
        lines.append(f"| {ARMS[name]} | {gain:+.2%} | {cost:.2%} | {ratio} |")
    return "\n".join(lines)


def report(learned: Gains, collecting: Gains, signals: str) -> str:
    """Returns the tables of what was learned, how that compares, and what collecting cost."""
    named = {ARMS[arm]: learned[arm] for arm in ARMS}
    pairs = {
        f"{ARMS[a]}, minus {ARMS[b]}": learned[a] - learned[b]
        for a, b in (("3", "2"), ("2", "1"), ("2", "1b"), ("2", "linear_one_step"), ("2", "best_single_head"))
    }
    collecting = with_rounds_averaged(collecting)
    spent = {ARMS.get(arm) or arm: frame for arm, frame in collecting.items()}
    share = learned["2"]["session_reward"].mean() / learned["box"]["session_reward"].mean()
    return (
        f"Policies against live:\n\n{table(named)}\n\n"
        f"One round of IntegratedRL on dataset 2 reaches {share:.0%} of the best within the box.\n\n"
        f"Differences between them:\n\n{table(pairs)}\n\n"
        f"Exploring itself, while the log is collected, against live:\n\n{table(spent)}\n\n"
        f"What was learned for what exploring cost, session reward:\n\n{bought(learned, collecting)}\n\n"
        f"What the logs can teach:\n\n{signals}"
    )


def main(workspace: Workspace, options: argparse.Namespace) -> None:
    """Trains, tests and prints."""
    measured(options.world, SessionConfig().seed)  # refused before hours of training, not after
    start = time.monotonic()
    data = made(workspace, options)
    policies = trained(workspace, data, options)
    minutes = (time.monotonic() - start) / 60
    env = SessionEnvironment(SessionConfig(world=options.world), n_threads=os.cpu_count() or 1)
    arms = policies_of(workspace, env, policies)
    scores = gauc_gains(workspace, data, arms)
    learned = {
        arm: frame.assign(**{GAUC: scores[arm][GAUC]})
        for arm, frame in gains(env, arms, options.users).items()
    }
    collecting = gains(env, collections_of(workspace, env, data), options.users)
    print(
        f"Synthetic, {told_sizes(options)}, {options.seeds} seeds, made and trained in {minutes:.0f} minutes, "
        f"{executor.MAX_WORKING} at a time; A/B on {options.users:,} users a seed; {platform.machine()}, "
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB. Against the live policy, 95 % "
        f"interval over seeds; {', '.join(METRICS).replace('_', ' ')} relative, weighted GAUC a difference.\n\n"
        f"{report(learned, collecting, signals_of(workspace, data))}"
    )


def parsed(doc: str | None) -> argparse.Namespace:
    """Returns the options of this command."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=names(), default=DEFAULT_WORLD)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument(
        "--steps", type=int, help="of a training; else as many as the passes of the preset make"
    )
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
