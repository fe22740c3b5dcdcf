"""Policies that are trained on one log and judged on a log of other users, by command line.

KuaiRand is split by user into two logs, by a hash of the id, 70 and 30 of 100; the second is imported `--like` the
first. Policies are trained on the first, explored by replay; they, the floors and the searches are judged on the
second. KuaiRand's folder is named by MTF_KUAIRAND, else it is ../shared/data/kuairand. Prints a section of
docs/results.md; `--write` puts it there.

    python benchmarks/transfer.py [--requests 30000] [--preset laptop] [--workspace DIR] [--write]
"""

import argparse
import hashlib
import platform
import shlex
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.compared import KUAIRAND, markdown, put
from benchmarks.real_log import CommandLine, collect, interval

TITLE = "From one log to another's users"
SHARE = 70
METHODS = (
    "integrated_rl", "ddpg", "cql_sac", "batchrl_mtf", "iql", "evolution_strategy", "grid_search",
    "bayesian_optimization", "linear_one_step", "best_single_head",
)  # fmt: skip
FIXED = ("baseline", "default")
"""Policies that are no runs; the single predictions stand beside them."""


def is_first(user_id: str) -> bool:
    """Returns whether a user is of the first log, by a hash of the id."""
    return int(hashlib.sha256(user_id.encode()).hexdigest(), 16) % 100 < SHARE


def split_folder(source: Path, to: Path) -> tuple[Path, Path, Path]:
    """Returns three KuaiRand folders: one for 70 % of the users, one for the others, and that again all for test."""
    shown = pd.read_csv(source / "impressions.tsv", sep="\t", dtype=str, keep_default_na=False)
    users = pd.read_csv(source / "user_features.csv", dtype=str, keep_default_na=False)
    made = []
    for name, first, extra in (
        ("first", True, {}),
        ("second", False, {}),
        ("judged", False, {"split": "test"}),
    ):
        folder = to / name
        folder.mkdir(parents=True, exist_ok=True)
        for frame, file, separator, more in (
            (shown, "impressions.tsv", "\t", extra),
            (users, "user_features.csv", ",", {}),
        ):
            chosen = frame["user_id"].map(is_first) == first
            frame[chosen].assign(**more).to_csv(folder / file, sep=separator, index=False)
        made.append(folder)
    return made[0], made[1], made[2]


def main(workspace: Path, n_requests: int, preset: str) -> list[str]:
    """Returns the parts of the section: what each policy and each prediction is worth on the second log."""
    run = CommandLine(workspace)
    first, second, judged = split_folder(KUAIRAND, workspace / "logs")
    take = partial(run, "dataset", "import")
    learned = run.timed("import the first", lambda: take(str(first), "--name", "first"))
    like = ("--like", learned["dataset_id"])
    days = run.timed("import the second like it", lambda: take(str(second), "--name", "second", *like))
    everyone = take(str(judged), "--name", "second, all days", *like)
    refitted = run.timed("import the second alone", lambda: take(str(second), "--name", "refitted"))
    explored = run.timed("collect", partial(collect, run, learned, "uniform", n_requests))
    trained = {
        run.timed(
            method,
            partial(
                run, "train", explored["dataset_id"], "--algo", method, "--preset", preset, "--seed", "1"
            ),
        )["run_id"]: method
        for method in METHODS
    }
    heads = run("dataset", "show", learned["dataset_id"])["meta"]["fusion"]["predictions"]
    fixed = (*FIXED, *(f"head:{head}" for head in heads))
    scored = [
        run.timed(f"evaluate on {name}", partial(run, "evaluate", *trained, *fixed, "--on", of["dataset_id"]))
        for name, of in (("test days", days), ("all days", everyone))
    ]
    alone = run(
        "evaluate", *(f"head:{head}" for head in heads_of(run, refitted)), "--on", refitted["dataset_id"]
    )
    return [
        said(run, learned, days, everyone, explored, preset),
        policies(scored, trained),
        predictions(run, days, refitted, scored[0], alone),
    ]


def heads_of(run: CommandLine, log: dict[str, Any]) -> list[str]:
    """Returns what is predicted in a log."""
    return list(run("dataset", "show", log["dataset_id"])["meta"]["fusion"]["predictions"])


def said(run: CommandLine, first: dict, second: dict, everyone: dict, explored: dict, preset: str) -> str:
    """Returns how the figures came about."""
    memory = psutil.virtual_memory().total / 2**30
    words = [word for word in sys.argv[1:] if word != "--write"]
    if "--workspace" in words:
        del words[words.index("--workspace") : words.index("--workspace") + 2]
    command = shlex.join(["python", "benchmarks/transfer.py", *words])
    return (
        f"`{command}`. KuaiRand split by a hash of the user's id, {SHARE} and {100 - SHARE} of 100: "
        f"{first['impressions']:,} impressions to learn from, {everyone['impressions']:,} of other users to judge by "
        "(after the warm-up). The second log is imported `--like` the first: its days are predicted by the networks "
        f"that the first log's earlier days fitted. Policies: {explored['requests']:,} replayed requests of uniform "
        f"exploration on the first log's training days, preset `{preset}`, one seed. Judged on the second log's test "
        "days, later than all that was learned from, and on all its days; 95 % intervals over users. Not a policy "
        "but one prediction alone: `head:NAME`; floors: `best_single_head`, `linear_one_step`. "
        f"{sum(run.seconds.values()):.0f} s on {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB."
    )


def policies(scored: list[list[dict[str, Any]]], trained: dict[str, str]) -> str:
    """Returns the table of policies, best first on all days."""
    days, everyone = ({row["run_id"]: row for row in rows} for rows in scored)
    order = sorted(everyone, key=lambda name: -everyone[name]["weighted_gauc"])
    body = (
        [
            f"`{trained.get(name, name)}`",
            interval(days[name]["weighted_gauc"], days[name]),
            against_baseline(days[name]),
            interval(everyone[name]["weighted_gauc"], everyone[name]),
            against_baseline(everyone[name]),
        ]
        for name in order
    )
    used = [next(iter(rows.values()))["users_used"] for rows in (days, everyone)]
    head = [
        "policy",
        f"test days, {used[0]} users",
        "minus the baseline",
        f"all days, {used[1]} users",
        "minus the baseline",
    ]
    return f"Weighted GAUC by user on the second log:\n\n{markdown(head, body)}"


def against_baseline(row: dict[str, Any]) -> str:
    """Returns a policy's difference to the baseline on the same users."""
    found = (d for d in row["differences"] if d["base"] == "baseline" and d["group"] == "user")
    gain = next(found, None)
    return f"{gain['value']:+.4f} ({gain['ci_low']:+.4f} to {gain['ci_high']:+.4f})" if gain else ""


def predictions(
    run: CommandLine,
    like: dict[str, Any],
    refitted: dict[str, Any],
    scored: list[dict[str, Any]],
    alone: list[dict[str, Any]],
) -> str:
    """Returns what each prediction is worth on the second log's test days, by either model."""
    aucs = [
        run("dataset", "show", log["dataset_id"])["meta"]["details"]["predictor"] for log in (like, refitted)
    ]
    gaucs = [{row["run_id"].removeprefix("head:"): row for row in rows} for rows in (scored, alone)]
    body = (
        [
            head,
            *(interval(of[head]["auc"], of[head]) if head in of else "not predicted" for of in aucs),
            *(
                interval(of[head]["weighted_gauc"], of[head]) if head in of else "not predicted"
                for of in gaucs
            ),
        ]
        for head in aucs[0]
    )
    models = ("the first log's model", "refitted on the second")
    columns = ["prediction", *(f"{what}, {by}" for what in ("AUC", "weighted GAUC alone") for by in models)]
    return f"What the predictions are worth on the second log's test days:\n\n{markdown(columns, body)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Policies of one log, judged on a log of other users.")
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = main(options.workspace or Path(folder), options.requests, options.preset)
    section = "\n\n".join([f"## {TITLE}", *parts])
    print(section)
    if options.write:
        put(section)
