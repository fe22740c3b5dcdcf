"""Makes the workspace that `pages.py` is measured on: many trainings, and one log of millions of requests.

The log repeats the sessions of a small synthetic one under new users, with actions drawn anew inside the
bounds and the first impression of each request. The trainings are copies of one.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtf_engine.logs import aggregates
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import Tables
from mtf_engine.registry import RunRow, RunState, new_id
from mtf_engine.runs import executor
from mtf_engine.runs.storage import open_dataset, register_dataset
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.export import submit_export
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

PATTERN = 5_000
BATCH = 100
"""Repetitions written at a time."""
BIG = "big"
SETTINGS = {"n_steps": "400", "n_critics": "24", "hidden": "16", "log_every": "1"}


def make(path: Path, n_requests: int, n_runs: int) -> Workspace:
    """Returns the workspace at `path`, filled where it is new."""
    workspace = Workspace(path)
    if not any(row.name == BIG for row in workspace.registry.datasets()):
        _fill(workspace, n_requests, n_runs)
    if not workspace.registry.runs(RunState.COMPLETED, kind="abtest"):
        _play(workspace)
    return workspace


def _fill(workspace: Workspace, n_requests: int, n_runs: int) -> None:
    collect = partial(submit_collect, workspace, env="session", n_requests=PATTERN)
    pattern = _done(workspace, collect(explore="uniform", seed=1, name="pattern"))
    test = _done(workspace, collect(explore="baseline", seed=2, name="test"))
    train = submit_train(
        workspace, pattern, algo="integrated_rl", preset="demo", settings=SETTINGS, name="training 1"
    )
    _done(workspace, train)
    _done(workspace, submit_evaluate(workspace, ["baseline", train], test))
    _done(workspace, submit_export(workspace, train))
    for i in range(2, n_runs + 1):
        _copy(workspace, workspace.registry.run(train), i)
    _repeat(workspace, open_dataset(workspace, pattern), n_requests)


def _play(workspace: Workspace) -> None:
    """Plays two rounds, each with its A/B test."""
    rounds = submit_progressive(
        workspace, algo="integrated_rl", preset="demo", settings={**SETTINGS, "n_steps": "100"},
        env="session", rounds=2, sessions_per_round=300, ab_users=300, promote="always", name="two rounds",
    )  # fmt: skip
    _done(workspace, rounds)


def _done(workspace: Workspace, run_id: str) -> str:
    return executor.completed(workspace, executor.wait(workspace, run_id)).dataset_id or ""


def _copy(workspace: Workspace, run: RunRow, i: int) -> None:
    copy = run.model_copy(update={"id": new_id("train"), "name": f"training {i}", "seed": i})
    shutil.copytree(workspace.run_dir(run.id), workspace.run_dir(copy.id))
    workspace.registry.add_run(copy)


def _repeat(workspace: Workspace, pattern: Dataset, n_requests: int) -> None:
    """Writes the big log through the engine's own writer, registers it, and counts its aggregates once."""
    meta = pattern.meta.model_copy(update={"name": BIG})
    dataset_id = new_id("dataset")
    ledger = write_dataset(workspace.datasets_dir, dataset_id, meta, _batches(pattern, n_requests))
    register_dataset(workspace, ledger, meta, workspace.registry.runs(kind="collect")[0].id)
    aggregates.coverage(open_dataset(workspace, dataset_id))


def _batches(pattern: Dataset, n_requests: int) -> Iterator[Tables]:
    requests = pattern.arrays("SELECT * FROM requests ORDER BY request_id")
    shown = pattern.arrays("SELECT * FROM impressions WHERE position = 0 ORDER BY request_id")
    candidates = pattern.arrays("SELECT * FROM candidates")
    generator = np.random.default_rng(0)
    repetitions = -(-n_requests // len(requests["request_id"]))
    for first in range(0, repetitions, BATCH):
        n = min(BATCH, repetitions - first)
        drawn = _repeated(requests, first, n)
        explored = ~np.isnan(drawn["pscore"])
        draws = generator.uniform(drawn["lower"][explored], drawn["upper"][explored])
        drawn["action"][explored] = (drawn["baseline_action"][explored] + draws).astype(np.float32)
        yield Tables(drawn, _repeated(shown, first, n), candidates if first == 0 else None)


def _repeated(columns: dict[str, np.ndarray], first: int, n: int) -> dict[str, Any]:
    """Returns `columns` `n` times, users and ids told apart by the repetition's number from `first`."""
    size = len(columns["request_id"])
    number = np.repeat(np.arange(first, first + n), size)
    stacked = {name: np.concatenate([values] * n) for name, values in columns.items()}
    for name in {"request_id", "session_id"} & set(stacked):
        stacked[name] = stacked[name] + number * (columns[name].max() + 1)
    stacked["user_id"] = np.char.add(
        np.char.add("r", number.astype(str)), stacked["user_id"].astype(str)
    ).astype(object)
    return stacked
