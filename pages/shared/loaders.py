"""The only caching of the dashboard. Registry rows are few and are read anew at every run of a page.

Parts of the engine that load torch are imported where they are used: home must not wait for them.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st
from pydantic import ValidationError

from mtf_engine.aggregates import Population
from mtf_engine.aggregates import population as count_population
from mtf_engine.jobs import files
from mtf_engine.jobs.metrics import read as read_metrics
from mtf_engine.jobs.storage import open_dataset
from mtf_engine.registry import DatasetRow, RunRow, RunState, Workspace
from mtf_engine.spec import Spec

if TYPE_CHECKING:
    from mtf_engine.evaluation import EvaluationResult

SIZES = ("batch_size", "n_critics", "hidden", "n_threads", "device")
"""Settings that decide how long a step takes."""
MOST_POINTS = 1_000
"""Points of one curve that go to the browser."""


def workspace() -> Workspace:
    """Returns the workspace named by MTF_WORKSPACE, else `data`."""
    return _workspace(os.environ.get("MTF_WORKSPACE", ""))


@st.cache_resource(show_spinner=False)
def _workspace(path: str) -> Workspace:
    return Workspace(path or None)


def datasets() -> list[DatasetRow]:
    """Returns all datasets, newest first."""
    return workspace().registry.datasets()


def explored(rows: list[DatasetRow]) -> list[DatasetRow]:
    """Returns the datasets whose log has actions of an exploration, so that a policy can learn from it."""
    return [row for row in rows if row.meta.get("exploration") in ("uniform", "gaussian")]


def population(row: DatasetRow) -> Population:
    """Returns whom the log reaches."""
    return _population(row.id, row.content_hash)


@st.cache_data(show_spinner="Counting users and sessions…", max_entries=100)
def _population(dataset_id: str, content_hash: str) -> Population:
    return count_population(open_dataset(workspace(), dataset_id))


def trainings(*states: RunState) -> list[RunRow]:
    """Returns the trainings in any of `states` (default all), newest first."""
    return workspace().registry.runs(*states, kind="train")


def metrics(run_id: str) -> pd.DataFrame:
    """Returns the logged metrics of a run, by step, thinned to at most `MOST_POINTS` rows."""
    rows = pd.DataFrame(read_metrics(workspace().run_dir(run_id)))
    every = -(-len(rows) // MOST_POINTS) or 1
    return rows.iloc[::-1][::every][::-1]


def log_tail(run_id: str, lines: int = 200) -> str:
    """Returns the last lines that the worker of a run wrote to its log."""
    path = workspace().run_dir(run_id) / "run.log"
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 400 * lines))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def evaluation(run_id: str) -> "EvaluationResult | None":
    """Returns the result of a completed evaluation; None where an earlier version found less than today's."""
    path = workspace().run_dir(run_id) / files.EVALUATION
    return _evaluation(path) if path.exists() else None


@st.cache_resource(show_spinner="Reading the comparison…", max_entries=20)
def _evaluation(path: Path) -> "EvaluationResult | None":
    from mtf_engine.evaluation import EvaluationResult

    try:
        return EvaluationResult.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


@st.cache_data(show_spinner="Checking the bundle…", max_entries=20)
def verified(path: str) -> dict:
    """Returns how a bundle, which is never changed once written, answers against its golden rows."""
    from mtf_engine.bundle import verify

    return verify(Path(path))


def pace(algo: str, config: Spec) -> float | None:
    """Returns steps a second of the newest finished training of `algo` with networks of the same size."""
    own = config.model_dump(mode="json")
    for run in trainings(RunState.COMPLETED):
        if run.algo == algo and all(run.config.get(name) == own.get(name) for name in SIZES):
            last = read_metrics(workspace().run_dir(run.id))[-1]
            return last["step"] / last["seconds"]
    return None
