"""How long a training, a collection or an A/B test will take, and a training's memory, by earlier ones."""

from typing import Any, NamedTuple

import numpy as np

from mtf_engine.environments.names import GYM
from mtf_engine.registry import LOCAL, DatasetRow, RunRow, RunState
from mtf_engine.runs import executor, metrics
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

SIZES = ("batch_size", "n_critics", "hidden", "n_threads", "device", "fitness", "population", "max_sessions")
"""Settings that decide how long a step takes."""
RATE = 15e9
"""Multiplications a second of one thread, where no training was taken here yet."""
STEP_OVERHEAD = 0.003
"""Seconds of a step that do not grow with the networks."""
PASSES = 6
"""Forward and backward passes of the critics in one step, in forward passes."""
PROCESS_MB = 470
"""Of a worker before it reads its log."""
LOG_MB = 570
"""The most that it holds of a log of any size, while it sorts it; measured on 2,000,000 requests."""
BATCH_BYTES = 40
"""Held of each request of a batch, a dimension of the action; 34 measured on a linear step over 600,000."""
START = 3.0
"""Seconds of a worker before its first request."""
COLLECT_RATE = 8_000
"""Requests collected a second, where nothing was collected here yet."""
SESSION_RATE = 600
"""Sessions a second of a part of rounds, collected, learned from or tested on, where there were none yet."""
PLAY_RATE = 2_000
"""Sessions played a second, where none was yet; a Gymnasium environment is played as its log was."""
TRIAL_START = 1.0
"""Seconds of a trial of a search before its first step: it reads its log and fits the policy that it starts from."""
RANK_RATE = 2e6
"""Impressions a second whose weighted GAUC a search asks for, where nothing was searched here yet."""


class Estimate(NamedTuple):
    """Seconds and MiB that a training will need, and what that is judged by."""

    seconds: float
    memory_mb: float
    basis: str


class Duration(NamedTuple):
    """Seconds that a run will take, and what that is judged by."""

    seconds: float
    basis: str


def collection(workspace: Workspace, env: str, n_requests: int) -> Duration:
    """Returns how long collecting `n_requests` from `env` takes, by the largest such collection so far."""
    return _by_pace(workspace, "collect", env, n_requests, COLLECT_RATE)


def ab_test(workspace: Workspace, env: str, n_sessions: int) -> Duration:
    """Returns how long an A/B test of `n_sessions` in `env` takes, by the largest such test so far."""
    return _by_pace(workspace, "abtest", env, n_sessions, PLAY_RATE)


def campaign(workspace: Workspace, kind: str, env: str, n_parts: int, sessions: int) -> Duration:
    """Returns how long a run of `n_parts` others takes, on logs of so many `sessions`, by the parts of the largest."""
    together = max(1, executor.MAX_WORKING) if kind == "compare" else 1
    done = workspace.registry.runs(RunState.COMPLETED, kind=kind)
    like = [run for run in done if run.config.get("env") == env and _sessions(run)]
    for run in sorted(like, key=lambda run: (run.n_steps, run.created_at), reverse=True):
        parts = workspace.registry.runs(RunState.COMPLETED, parent_id=run.id)
        if worked := [part.seconds for part in parts if part.seconds]:
            a_part = float(np.mean(worked))
            grown = max(a_part - START, 0.1) * sessions / _sessions(run)
            return Duration(n_parts * (min(a_part, START) + grown) / together, f"by the pace of {run.id}")
    seconds = n_parts * (START + sessions / SESSION_RATE) / together
    return Duration(seconds, "a guess, as nothing like it was done here yet")


def _sessions(run: RunRow) -> int:
    """Returns how many sessions a log has that rounds or a comparison make."""
    return int(run.config.get("sessions_per_round") or run.config.get("sessions") or 0)


def _by_pace(workspace: Workspace, kind: str, env: str, n_steps: int, rate: float) -> Duration:
    done = workspace.registry.runs(RunState.COMPLETED, kind=kind)
    like = [run for run in done if run.config.get("env") == env and run.seconds]
    if not like:
        return Duration(START + n_steps / rate, "a guess, as nothing like it was done here yet")
    run = max(like, key=_size)
    seconds = run.seconds or 0.0
    start = min(START, seconds / 2)  # however short it was, more takes longer
    return Duration(start + (seconds - start) * n_steps / _size(run), f"by the pace of {run.id}")


def _size(run: RunRow) -> int:
    """Returns how many requests a collection has logged, whatever it was asked for; steps of any other run."""
    return int((run.result or {}).get("requests", run.n_steps))


def estimate(workspace: Workspace, algo: str, config: dict[str, Any], dataset: DatasetRow) -> Estimate:
    """Returns what training `algo` with `config` (JSON-able) on `dataset` will take."""
    from mtf_engine.algos import ALGOS

    n_steps = ALGOS[algo].Config.model_validate(config).steps(dataset.n_requests)
    earlier = workspace.registry.runs(RunState.COMPLETED, kind="train")
    like = sorted((run for run in earlier if run.algo == algo), key=lambda run: _unlike(run, config))
    datasets = {row.id: row for row in workspace.registry.datasets()}
    for run in like:
        seconds = _seconds_a_step(workspace, run)
        if seconds and run.dataset_id in datasets:
            before = _guess(workspace, run.config, datasets[run.dataset_id])
            grown = _guess(workspace, config, dataset) / before
            step = STEP_OVERHEAD + max(seconds - STEP_OVERHEAD, 1e-4) * grown
            same = _unlike(run, config) == 0
            basis = f"as in {run.id}" if same else f"scaled from {run.id}, which had other sizes"
            return Estimate(n_steps * step, _memory(config, dataset), basis)
    step = STEP_OVERHEAD + _guess(workspace, config, dataset)
    basis = "a guess, as no such training was completed here yet"
    return Estimate(n_steps * step, _memory(config, dataset), basis)


def search(
    workspace: Workspace,
    algo: str,
    config: dict[str, Any],
    dataset: DatasetRow,
    n_trials: int,
    at_once: int = 1,
) -> Duration:
    """Returns how long a search of so many trainings takes, so many `at_once`, by that of `config`."""
    one = estimate(workspace, algo, config, dataset)
    turns = -(-n_trials // at_work(at_once))
    return Duration(START + turns * (TRIAL_START + one.seconds), one.basis)


def at_work(at_once: int) -> int:
    """Returns how many of so many runs that may work at once do: on this machine no more than work here."""
    here = executor.asked() in (None, LOCAL)
    return min(at_once, max(1, executor.MAX_WORKING)) if here else at_once


def _seconds_a_step(workspace: Workspace, run: RunRow) -> float | None:
    """Returns how long a step took in `run`; None where its folder no longer tells, or is damaged."""
    try:
        rows = metrics.read(workspace.run_dir(run.id))
    except Refusal:  # of another training, which is no reason against this one; `doctor` tells of it
        return None
    return rows[-1]["seconds"] / rows[-1]["step"] if rows and rows[-1].get("seconds") else None


def _unlike(run: RunRow, config: dict[str, Any]) -> int:
    """Returns how many settings that decide a step's time differ."""
    return sum(run.config.get(name) != config.get(name) for name in SIZES)


def _guess(workspace: Workspace, config: dict[str, Any], dataset: DatasetRow) -> float:
    """Returns the seconds of one step beyond its overhead, by what the step goes through."""
    from mtf_engine.learning.search import sessions_each  # it loads torch

    asked = config.get("population", 1)
    match config.get("fitness"):
        case "weighted_gauc":
            return asked * dataset.n_impressions / RANK_RATE
        case "reward":
            return asked * sessions_each(config) / _play_rate(workspace, dataset)
        case _:
            return _multiplications(config, dataset) / (RATE * config["n_threads"])


def _play_rate(workspace: Workspace, dataset: DatasetRow) -> float:
    """Returns the sessions a second that are played where a log is from: as fast as it was collected, for gym:ID.

    `PLAY_RATE` where the collection is deleted, or of an earlier version, which did not count sessions.
    """
    env = str(dataset.meta.get("details", {}).get("env") or "")
    collected = {run.id: run for run in workspace.registry.runs(RunState.COMPLETED, kind="collect")}
    run = collected.get(str(dataset.run_id))
    if not env.startswith(GYM) or run is None:
        return PLAY_RATE
    sessions = run.config.get("n_sessions") or (run.result or {}).get("sessions")
    seconds = run.seconds or START
    return float(sessions / max(seconds - START, seconds / 2)) if sessions else PLAY_RATE


def search_cost(workspace: Workspace, algo: str, config: dict[str, Any], dataset: DatasetRow) -> str | None:
    """Returns in a sentence what a search by reward will play, and how long; None for any other training."""
    from mtf_engine.learning.search import evaluations, sessions_each

    if config.get("fitness") != "reward":
        return None
    n, each = evaluations(config), sessions_each(config)
    took = estimate(workspace, algo, config, dataset)
    return (
        f"a search by reward: {n:,} evaluations of {each:,} sessions each, {n * each:,} in all, which take about "
        f"{max(took.seconds / 60, 1):,.0f} min ({took.basis}); max_sessions limits how many it plays"
    )


def _multiplications(config: dict[str, Any], dataset: DatasetRow) -> float:
    """Returns the multiplications of one step, by the critics, which do nearly all of it.

    A method that looks at the whole log in a step is guessed as one with two critics of two layers of 64.
    """
    n_features, n_actions = _widths(dataset)
    widths = np.array([n_features + 2 * n_actions, *config.get("hidden", (64, 64)), 1])
    weights = (widths[:-1] * widths[1:]).sum()
    return float(PASSES * config.get("n_critics", 2) * _batch(config, dataset) * weights)


def _memory(config: dict[str, Any], dataset: DatasetRow) -> float:
    """Returns the MiB of a worker, without what the machine's page cache keeps of the dataset for it."""
    n_features, n_actions = _widths(dataset)
    log = min(LOG_MB, 4 * dataset.n_requests * (n_features + 4 * n_actions) / 2**20)
    return PROCESS_MB + max(log, BATCH_BYTES * n_actions * _batch(config, dataset) / 2**20)


def _batch(config: dict[str, Any], dataset: DatasetRow) -> int:
    """Returns the requests of a batch, which are at most all of the log."""
    return int(min(config["batch_size"], max(dataset.n_requests, 1)))


def _widths(dataset: DatasetRow) -> tuple[int, int]:
    return len(dataset.meta["feature_names"]), len(dataset.meta["fusion"]["dimensions"])
