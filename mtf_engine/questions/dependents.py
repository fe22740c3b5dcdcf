"""What a deletion would take from the rest of a workspace: who needs what goes, and what each loses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mtf_engine.registry import DatasetRow, RunRow, RunState, run_of
from mtf_engine.runs.storage import has_examples
from mtf_engine.spec import BoundsPlan, Spec
from mtf_engine.workspace import Workspace

STOPPED, AGAIN = "cannot be resumed", "makes what is gone again when it is resumed"
UNSEARCHED = "keeps its rows; no search with fitness=reward can learn from them"
WITHOUT_LOG = {
    "train": "keeps its policy and what an export needs; the log can no longer be asked about its critics",
    "evaluate": "keeps its figures as a run; no page of comparisons shows them",
    "collect": UNSEARCHED,
    "join": UNSEARCHED,
    "narrow": UNSEARCHED,
    "shard": UNSEARCHED,
    "progressive": "keeps its figures",
    "compare": "keeps its figures; cannot say what other reward weights would change",
    "tune": "keeps its figures",
}
"""What a completed run of each kind loses with a log that it read, or tells figures of."""
WITHOUT_EXAMPLES = "keeps its policy; it can be exported with the rows of another log alone (export --on)"
"""What a training of a version that kept no examples loses with its log."""
WITHOUT_POLICY = {
    "evaluate": "keeps its figures as a run; no page of comparisons shows the policy",
    "abtest": "keeps its figures",
    "export": "keeps its bundle in its folder; no page offers it",
    "mlflow": "keeps what it logged on the server",
    "progressive": "keeps its figures; the policy cannot be made live or explored around",
    "compare": "keeps its figures; cannot say how the policy ranks under other reward weights",
    "tune": "keeps its figures; the settings of that trial can be typed anew, not started from",
}
"""What a completed run of each kind loses with a policy that it read, or tells figures of."""


class Dependent(Spec):
    """A run or dataset that needs what is to be deleted, and what it loses by that."""

    id: str
    name: str
    loses: str

    def __str__(self) -> str:
        return f"{self.id}{f' ({self.name})' if self.name else ''}: {self.loses}"


def of_dataset(workspace: Workspace, dataset: DatasetRow) -> list[Dependent]:
    """Returns the runs that need a dataset, newest first."""
    runs = workspace.registry.runs()
    makers = {run.parent_id for run in runs if run.dataset_id == dataset.id}
    found: list[Dependent] = []
    for run in runs:
        if dataset.id in _logs_needed(run):
            found += _losing(run, WITHOUT_LOG | _policy_alone(workspace, run), STOPPED)
        elif dataset.id in _logs_told(run) or run.id in makers:
            found += _losing(run, WITHOUT_LOG, _resumed(run))
    return found


def of_runs(workspace: Workspace, deleted: Iterable[RunRow]) -> list[Dependent]:
    """Returns what needs runs that are to be deleted together, runs before datasets, newest first."""
    gone = {run.id: run for run in deleted}
    wholes = {run.parent_id for run in gone.values()}
    found: list[Dependent] = []
    for run in (run for run in workspace.registry.runs() if run.id not in gone):
        if gone.keys() & _policies_of(run) or (run.id in wholes and run.state is not RunState.COMPLETED):
            found += _losing(run, WITHOUT_POLICY, _resumed(run))
    for row in workspace.registry.datasets():
        if row.run_id in gone and gone[row.run_id].kind in ("collect", "join", "narrow", "shard"):
            found.append(Dependent(id=row.id, name=row.name, loses=UNSEARCHED))
    return found


def of_plan(workspace: Workspace, plan: BoundsPlan) -> list[Dependent]:
    """Returns the datasets and rounds that were made with a plan: each keeps a copy of its own."""
    same = plan.model_dump(mode="json")
    datasets = [row for row in workspace.registry.datasets() if row.meta.get("plan") == same]
    rounds = [run for run in workspace.registry.runs(kind="progressive") if run.config.get("plan") == same]
    named = [*((row.id, row.name) for row in datasets), *((run.id, run.name) for run in rounds)]
    return [Dependent(id=one, name=name, loses="keeps its own copy") for one, name in named]


def _losing(run: RunRow, completed: Mapping[str, str], unfinished: str) -> Iterator[Dependent]:
    """Yields what a run loses, by its kind where it is completed; nothing where it then needs no more."""
    loses = completed.get(run.kind) if run.state is RunState.COMPLETED else unfinished
    if loses:
        yield Dependent(id=run.id, name=run.name, loses=loses)


def _resumed(run: RunRow) -> str:
    """Returns what becomes of a run that is not completed where what it made so far is gone."""
    return AGAIN if run.kind in ("compare", "tune") else STOPPED


def _policy_alone(workspace: Workspace, run: RunRow) -> dict[str, str]:
    kept = run.kind != "train" or has_examples(workspace, run.id)
    return {} if kept else {"train": WITHOUT_EXAMPLES}


def _logs_needed(run: RunRow) -> Sequence[str]:
    """Returns the datasets that a run needs; a join that is done needs the first, which says how it came about."""
    joined = run.kind == "join" and run.state is RunState.COMPLETED
    return run.reads_datasets[:1] if joined else run.reads_datasets


def _logs_told(run: RunRow) -> set[str]:
    return {*_told(run, "rounds", "dataset_id"), *_told(run, "cells", "test_dataset")}


def _policies_of(run: RunRow) -> set[str]:
    """Returns the trainings whose policies a run reads, or tells figures of."""
    rounds = (*_told(run, "rounds", "candidate"), *_told(run, "rounds", "baseline"))
    told = (*_told(run, "cells", "policy"), *_told(run, "trials", "run_id"))
    return {run_of(policy) for policy in (*run.reads_policies, *rounds, *told)}


def _told(run: RunRow, parts: str, column: str) -> list[str]:
    """Returns a column of the rounds, cells of a comparison or trials of a search that the run's result tells."""
    told: list[dict[str, Any]] = (run.result or {}).get(parts, [])
    return [one[column] for one in told if one.get(column)]
