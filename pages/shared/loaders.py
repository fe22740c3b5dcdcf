"""The only caching of the dashboard. Registry rows are few and are read anew at every run of a page.

Parts of the engine that load torch are imported where they are used: home must not wait for them.
"""

import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st
from pydantic import ValidationError

from mtf_engine import sealed
from mtf_engine.exploration.cost import (
    CandidateLists,
    ExplorationCost,
    exploration_cost,
    read_candidate_lists,
)
from mtf_engine.exploration.drift import DriftBounds, bounds_from_drift
from mtf_engine.exploration.policies import EXPLORED
from mtf_engine.exploration.signal import Signal
from mtf_engine.learning.sentinels import Sentinel
from mtf_engine.learning.sentinels import sentinels as find_sentinels
from mtf_engine.logs.aggregates import Population, stored_signal
from mtf_engine.logs.aggregates import population as count_population
from mtf_engine.logs.aggregates import signal as measure_signal
from mtf_engine.logs.aggregates import sub_box as replay_inside
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.live_users import Arms, read_arms
from mtf_engine.permissions import Person
from mtf_engine.policies.heads import read_head
from mtf_engine.registry import POLICY_KINDS, DatasetRow, RunRow, RunState
from mtf_engine.runs import executor, files, finding, storage
from mtf_engine.runs.metrics import read as read_metrics
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal
from mtf_engine.workspace import Workspace
from pages.shared import access, words

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from mtf_engine.evaluation import EvaluationResult
    from mtf_engine.evaluation.explain import Explanation, LoggedRequest
    from mtf_engine.evaluation.shadow import Shadow
    from mtf_engine.evaluation.what_if import WhatIf
    from mtf_engine.exploration.sensitivity import RankSensitivity
    from mtf_engine.exploration.sub_box import SubBox
    from mtf_engine.questions.exploring import PolicyActions

MOST_REQUESTS = 500_000
"""Of a log that is measured while a visitor waits for something else: some 5 seconds."""


def workspace() -> Workspace:
    """Returns the workspace named by MTF_WORKSPACE, else `data`, as the visitor may use it.

    What is written to it carries who is logged in, and a viewer writes nothing: whatever a page forgets to ask.
    """
    try:
        who = access.person()
    except Refusal:  # the session has ended since the page was drawn, of which a part is drawn anew
        st.rerun()
    return whole_workspace() if who is None else _workspace_of(os.environ.get("MTF_WORKSPACE", ""), who)


def whole_workspace() -> Workspace:
    """Returns the workspace as the dashboard itself uses it, whoever looks: to mark the runs that have died."""
    return _workspace(os.environ.get("MTF_WORKSPACE", ""))


@st.cache_resource(show_spinner=False)
def _workspace(path: str) -> Workspace:
    return Workspace(path or None)


@st.cache_resource(show_spinner=False, max_entries=100)
def _workspace_of(path: str, who: Person) -> Workspace:
    return Workspace(path or None, visitor=who)


def datasets() -> list[DatasetRow]:
    """Returns all datasets, newest first; those that comparisons and rounds made for themselves after the others."""
    registry = workspace().registry
    parts = registry.part_ids()
    return sorted(registry.datasets(), key=lambda row: row.run_id in parts)


def rounds_runs() -> list[RunRow]:
    """Returns the runs of progressive rounds, newest first."""
    return workspace().registry.runs(kind="progressive")


def explored(rows: list[DatasetRow]) -> list[DatasetRow]:
    """Returns the datasets whose log has actions of an exploration that it describes."""
    return [row for row in rows if row.meta.get("exploration") in EXPLORED]


def learnable(rows: list[DatasetRow]) -> list[DatasetRow]:
    """Returns the datasets that a policy can learn from: explored ones, and those whose actions merely differ."""
    return [row for row in rows if row.meta.get("exploration") in (*EXPLORED, "unknown")]


def population(row: DatasetRow) -> Population:
    """Returns whom the log reaches."""
    return _population(row.id, row.content_hash)


@st.cache_data(show_spinner="Counting users and sessions…", max_entries=100)
def _population(dataset_id: str, content_hash: str) -> Population:
    return count_population(open_dataset(workspace(), dataset_id))


def signal(row: DatasetRow) -> Signal | str | None:
    """Returns what the log can teach, or why it cannot tell; None of a large log that was never measured."""
    stored = stored_signal(workspace().dataset_path(row.id), row.content_hash)
    if stored is not None:
        return stored.everybody
    return _signal(row.id, row.content_hash) if row.n_requests <= MOST_REQUESTS else None


@st.cache_data(show_spinner="Measuring what this log can teach…", max_entries=100)
def _signal(dataset_id: str, content_hash: str) -> Signal | str:
    try:
        return measure_signal(open_dataset(workspace(), dataset_id)).everybody
    except Refusal as refusal:
        return str(refusal)


def has_training_rows(row: DatasetRow) -> bool:
    """Returns whether the log has training rows with impressions, to which `regression` is fitted."""
    return _has_training_rows(row.id, row.content_hash)


@st.cache_data(show_spinner=False, max_entries=1_000)
def _has_training_rows(dataset_id: str, content_hash: str) -> bool:
    return storage.has_training_rows(open_dataset(workspace(), dataset_id))


def policy_actions(run_id: str, row: DatasetRow) -> "PolicyActions":
    """Returns what a training's policy does on a sample of a log."""
    return _policy_actions(run_id, row.id, row.content_hash)


@st.cache_resource(show_spinner="The policy acts on the log…", max_entries=10)
def _policy_actions(run_id: str, dataset_id: str, content_hash: str) -> "PolicyActions":
    from mtf_engine.questions import exploring

    return exploring.policy_actions(workspace(), run_id, dataset_id)


def drift_bounds(
    run_id: str, row: DatasetRow, share: float, by_segment: bool, include_baseline: bool
) -> DriftBounds:
    """Returns the plan around a policy's drift on a log, by the command line's seed."""
    return _drift_bounds(run_id, row.id, row.content_hash, share, by_segment, include_baseline)


@st.cache_data(show_spinner="Drawing the box again on resampled users…", max_entries=50)
def _drift_bounds(
    run_id: str, dataset_id: str, content_hash: str, share: float, by_segment: bool, include_baseline: bool
) -> DriftBounds:
    acted = _policy_actions(run_id, dataset_id, content_hash)
    return bounds_from_drift(
        acted.new_actions,
        acted.baseline_actions,
        acted.segments,
        acted.users,
        np.random.default_rng(0),
        share=share,
        by_segment=by_segment,
        include_baseline=include_baseline,
    )


def collection_cost(
    row: DatasetRow, plan: BoundsPlan, sigma: float, k: int, n_requests: int
) -> ExplorationCost:
    """Returns what exploring would do to a sample of a log's rankings, by the command line's seed."""
    return _collection_cost(row.id, row.content_hash, plan.model_dump_json(), sigma, k, n_requests)


def sub_box(row: DatasetRow, plan: BoundsPlan) -> "SubBox":
    """Returns what the rows of a uniform log inside a plan tell of the return."""
    return _sub_box(row.id, row.content_hash, plan.model_dump_json())


@st.cache_data(show_spinner="Reading the rows inside…", max_entries=100)
def _sub_box(dataset_id: str, content_hash: str, plan: str) -> "SubBox":
    return replay_inside(open_dataset(workspace(), dataset_id), BoundsPlan.model_validate_json(plan))


def sensitivity(row: DatasetRow, plan: BoundsPlan) -> "RankSensitivity":
    """Returns which dimensions change a log's rankings inside a plan, on as many requests as the command ranks."""
    return _sensitivity(row.id, row.content_hash, plan.model_dump_json())


@st.cache_data(show_spinner="Ranking logged candidates again…", max_entries=100)
def _sensitivity(dataset_id: str, content_hash: str, plan: str) -> "RankSensitivity":
    from mtf_engine.questions import exploring

    return exploring.sensitivity(workspace(), dataset_id, BoundsPlan.model_validate_json(plan))


@st.cache_data(show_spinner="Ranking logged candidates again…", max_entries=100)
def _collection_cost(
    dataset_id: str, content_hash: str, plan: str, sigma: float, k: int, n_requests: int
) -> ExplorationCost:
    fusion, lists = _candidates(dataset_id, content_hash, n_requests)
    generator = np.random.default_rng(0)
    return exploration_cost(fusion, lists, BoundsPlan.model_validate_json(plan), generator, sigma=sigma, k=k)


@st.cache_resource(show_spinner="Reading logged candidates…", max_entries=3)
def _candidates(dataset_id: str, content_hash: str, n_requests: int) -> tuple[FusionSpec, CandidateLists]:
    dataset = open_dataset(workspace(), dataset_id)
    return dataset.meta.fusion, read_candidate_lists(dataset.arrays, n_requests)


@st.cache_data(show_spinner="Making the environment…", max_entries=20)
def gymnasium(env: str) -> tuple[FusionSpec, tuple[str, ...]]:
    """Returns the actions and the features of the environment "gym:ID"; a Refusal where it cannot be explored."""
    from mtf_engine.environments.gymnasium import GymnasiumEnvironment

    made = GymnasiumEnvironment.named(env)
    return made.fusion, made.feature_names


class Takes(NamedTuple):
    """What a policy takes, and the environment that the log it learned from was collected in, where it was."""

    fusion: FusionSpec
    feature_names: tuple[str, ...]
    env: str | None

    def fits(self, fusion: FusionSpec, feature_names: Sequence[str]) -> bool:
        return (self.fusion, self.feature_names) == (fusion, tuple(feature_names))

    def fits_log(self, row: DatasetRow) -> bool:
        return self.fits(FusionSpec.model_validate(row.meta["fusion"]), row.meta["feature_names"])


def takes(run: RunRow) -> Takes | None:
    """Returns what the policy of a completed training takes, by its own file; None where that is lost.

    A policy of an earlier version does not say the environment; its log does, while it is there.
    """
    path = workspace().run_dir(run.id) / files.POLICY
    found = _takes(path) if path.exists() else None
    if found is None or found.env is not None:
        return found
    details = next((row.meta["details"] for row in datasets() if row.id == run.dataset_id), {})
    return found._replace(env=details.get("env"))


@st.cache_data(show_spinner=False, max_entries=1_000)
def _takes(path: Path) -> Takes:
    head = read_head(path)
    return Takes(
        FusionSpec.model_validate(head["fusion"]), tuple(head["feature_names"]), head["info"].get("env")
    )


def trainings(*states: RunState) -> list[RunRow]:
    """Returns the trainings and imported policies in any of `states` (default all), newest first; parts at the end.

    Those that are archived are left out.
    """
    kept = [run for run in workspace().registry.runs(*states, kind=POLICY_KINDS) if not run.archived]
    return sorted(kept, key=lambda run: run.parent_id is not None)


def runs_by_id() -> dict[str, RunRow]:
    """Returns all trainings and imported policies by id, newest first: what gives policies their names and methods."""
    return {run.id: run for run in workspace().registry.runs(kind=POLICY_KINDS)}


def facts(runs: Sequence[RunRow]) -> dict[str, dict[str, Any]]:
    """Returns what is known of each run by name, by its id: what it is, its settings, what was measured last."""
    names = {row.id: row.name for row in datasets()}
    return {
        run.id: finding.facts(
            run, names.get(run.dataset_id or ""), _last_metrics(run.id, run.state, run.step)
        )
        for run in runs
    }


@st.cache_resource(show_spinner=False, max_entries=10_000)
def _last_metrics(run_id: str, state: RunState, step: int) -> Mapping[str, Any]:
    return finding.measured_last(workspace(), run_id)


def metrics(run_id: str) -> pd.DataFrame:
    """Returns the logged metrics of a run, by step."""
    return pd.DataFrame(read_metrics(workspace().run_dir(run_id)))


def sentinels(run_id: str) -> list[Sentinel]:
    """Returns what is wrong with a training by its metrics so far."""
    return find_sentinels(read_metrics(workspace().run_dir(run_id)))


def log_tail(run_id: str, lines: int = 200) -> str:
    """Returns the last lines that the worker of a run wrote to its log, wherever it works."""
    return "\n".join(executor.tail(workspace(), workspace().registry.run(run_id), lines))


def evaluation(run_id: str) -> "EvaluationResult | None":
    """Returns the result of a completed evaluation; None where an earlier version found less than today's.

    Or where it is damaged, which is said.
    """
    path = workspace().run_dir(run_id) / files.EVALUATION
    try:
        return _evaluation(path) if path.exists() else None
    except Refusal as refusal:
        st.error(words.plain(refusal))
        return None


@st.cache_resource(show_spinner="Reading the comparison…", max_entries=20)
def _evaluation(path: Path) -> "EvaluationResult | None":
    from mtf_engine.evaluation import EvaluationResult

    try:
        return EvaluationResult.model_validate_json(sealed.read(path, "evaluate the policies again"))
    except ValidationError:
        return None


def what_if(policies: tuple[str, ...], row: DatasetRow, signal: str) -> "WhatIf":
    """Returns how policies rank on a log over the weight of one signal of its reward."""
    return _what_if(policies, row.id, row.content_hash, signal)


@st.cache_data(show_spinner="Scoring the policies under other weights", max_entries=50)
def _what_if(policies: tuple[str, ...], dataset_id: str, content_hash: str, signal: str) -> "WhatIf":
    from mtf_engine.questions.what_if import reward_what_if

    return reward_what_if(workspace(), policies, dataset_id, signal)


def shadowed(candidate: str, against: str, row: DatasetRow, top_k: int | None) -> "Shadow":
    """Returns what a candidate ranks otherwise than another policy on a log, by the command line's seed."""
    return _shadowed(candidate, against, row.id, row.content_hash, top_k)


@st.cache_data(show_spinner="Both policies rank the log…", max_entries=50)
def _shadowed(
    candidate: str, against: str, dataset_id: str, content_hash: str, top_k: int | None
) -> "Shadow":
    from mtf_engine.questions.shadow import shadow_diff

    return shadow_diff(workspace(), candidate, against, dataset_id, top_k=top_k)


def live_arms(upload: "UploadedFile") -> Arms:
    """Returns what the arms of an uploaded live test did; a Refusal calls the file `users`."""
    return _live_arms(upload.file_id, upload.name, upload)


@st.cache_data(show_spinner="Reading the live test…", max_entries=10)
def _live_arms(file_id: str, name: str, _upload: "UploadedFile") -> Arms:
    ending = re.sub(r"[^A-Za-z.]", "", "".join(Path(name).suffixes[-2:]))
    with tempfile.TemporaryDirectory(prefix="mtf-upload-") as folder:
        path = Path(folder) / f"users{ending}"
        path.write_bytes(_upload.getbuffer())
        return read_arms(path)


def opened(row: DatasetRow) -> Dataset:
    """Returns the dataset behind a row."""
    return open_dataset(workspace(), row.id)


def explained(
    row: DatasetRow, request_id: int, policies: tuple[str, ...]
) -> "tuple[LoggedRequest, Explanation]":
    """Returns one request of a log, and what the policies make of it."""
    return _explained(row.id, row.content_hash, request_id, policies)


@st.cache_resource(show_spinner="Reading the request…", max_entries=50)
def _explained(
    dataset_id: str, content_hash: str, request_id: int, policies: tuple[str, ...]
) -> "tuple[LoggedRequest, Explanation]":
    from mtf_engine.evaluation.explain import explain, read_request

    dataset = open_dataset(workspace(), dataset_id)
    request = read_request(dataset, request_id)
    acting = {name: open_policy(workspace(), name, dataset.meta) for name in policies}
    return request, explain(acting, request)


@st.cache_data(show_spinner="Checking the bundle…", max_entries=20)
def verified(content: bytes) -> dict:
    """Returns how a bundle answers against its golden rows."""
    from mtf_engine.policies.bundle import verify

    return verify(io.BytesIO(content))
