"""Compares what the registry says with what lies in the workspace's folders."""

import stat
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json

import mtf_engine
from mtf_engine import sealed
from mtf_engine.disk import REPAIR
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.registry import LOCAL, DatasetRow, RunRow, RunState, run_of
from mtf_engine.runs import executor, files, metrics
from mtf_engine.runs.provenance import versions
from mtf_engine.runs.repair import newest_backup
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.workspace import REGISTRY, Workspace

FIXED = ("id", "kind", "created_at", "config", "dataset_id", "algo", "seed")
"""What never changes of a run."""


def examine(workspace: Workspace) -> dict[str, Any]:
    """Returns `damaged` (a sentence a file), `ledger_mismatches` (one a dataset), `orphans` and `versions`.

    Every file of a run and every dataset is read whole, so that a change of a single bit is found. Orphans are files
    without a row; `backup` is the newest whole one of the registry. `access` says who else may read the workspace,
    and `executors` where runs work or are to work.
    """
    rows, backup = workspace.registry.datasets(), newest_backup(workspace.path)
    return {
        "damaged": [
            *_damaged_registry(workspace),
            *(sentence for run in workspace.registry.runs() for sentence in _damaged(workspace, run)),
        ],
        "orphans": _orphans(workspace, {row.id for row in rows}),
        "ledger_mismatches": [sentence for row in rows for sentence in _mismatches(workspace, row)],
        "backup": backup and backup.name,
        "access": _access(workspace),
        "executors": _executors(workspace),
        "versions": {"mtf_engine": mtf_engine.__version__, **versions()},
    }


def _access(workspace: Workspace) -> str:
    """Returns who may look into the workspace, and how it is closed where others may."""
    mode = workspace.path.stat().st_mode
    if not mode & 0o077:
        return "its owner alone"
    return f"others on this machine too ({stat.filemode(mode)}); `chmod -R go= {workspace.path}` ends that"


def _executors(workspace: Workspace) -> list[dict[str, Any]]:
    """Returns of each executor that the environment or a live run names what works where, and whether it takes more."""
    live = workspace.registry.runs(RunState.QUEUED, RunState.RUNNING)
    told = []
    for name in sorted({executor.asked() or LOCAL, *(run.executor for run in live)}):
        here = [run for run in live if run.executor == name]
        try:
            executor.executor_named(name, takes=True)
            takes = "yes"
        except Refusal as refusal:
            takes = str(refusal)
        counts = {
            state.value: sum(run.state is state for run in here)
            for state in (RunState.RUNNING, RunState.QUEUED)
        }
        hosts = ", ".join(sorted({run.host for run in here if run.host}))
        told.append({"executor": name, **counts, "hosts": hosts, "takes_runs": takes})
    return told


def _orphans(workspace: Workspace, dataset_ids: set[str]) -> list[str]:
    run_ids = {run.id for run in workspace.registry.runs()}
    files = [p for p in workspace.datasets_dir.glob("[!.]*") if p.name.split(".")[0] not in dataset_ids]
    folders = [p for p in workspace.runs_dir.glob("[!.]*") if p.name not in run_ids]
    return sorted(str(p.relative_to(workspace.path)) for p in [*files, *folders])


def _damaged_registry(workspace: Workspace) -> Iterator[str]:
    """Yields what SQLite finds wrong with the registry, and the runs of which it says otherwise than their folders."""
    yield from (f"{REGISTRY}: {problem}; {REPAIR}" for problem in workspace.registry.problems())
    runs = workspace.registry.runs()
    known = {run.id for run in runs}
    for path in sorted(workspace.runs_dir.glob(f"[!.]*/{files.ROW}")):
        if path.parent.name not in known:
            yield f"{REGISTRY}: {path.parent.name} is not in it, and its folder is there; {REPAIR}"
    for run in runs:
        path = workspace.run_dir(run.id) / files.ROW
        if not path.exists() or [*sealed.damaged(path.parent, run.state is RunState.COMPLETED)]:
            continue
        told = RunRow.model_validate_json(path.read_bytes())
        said = [name for name in FIXED if getattr(run, name) != getattr(told, name)]
        if run.state is RunState.COMPLETED:
            result = from_json(to_json(run.result, inf_nan_mode="null"))  # as a file has it
            said += ["result"] * (result != from_json(path.with_name(files.RESULT).read_bytes()))
        if said:
            yield f"{REGISTRY}: {', '.join(said)} of {run.id} differ from what its folder says; {REPAIR}"


def _damaged(workspace: Workspace, run: RunRow) -> Iterator[str]:
    """Yields what is wrong with each file in the folder of a run, and which other runs and datasets rest on it."""
    folder = workspace.run_dir(run.id)
    whole = run.state is RunState.COMPLETED
    found = [f"{path.name}: {problem}" for path, problem in sealed.damaged(folder, whole)]
    try:
        metrics.read(folder)
    except Refusal as refusal:
        found.append(str(refusal).partition("; ")[0])
    resting = ", ".join(_resting_on(workspace, run)) if found else ""
    for problem in found:
        yield f"{run.id}: {problem}" + (f"; {resting} rest on this run" if resting else "")


def _resting_on(workspace: Workspace, run: RunRow) -> Iterator[str]:
    """Yields the ids of the runs and datasets that name the policy of a run."""
    for other in workspace.registry.runs():
        if run.id in map(run_of, other.reads_policies):
            yield other.id
    for dataset in workspace.registry.datasets():
        if run_of(dataset.meta.get("baseline") or "") == run.id:
            yield dataset.id


def _mismatches(workspace: Workspace, row: DatasetRow) -> list[str]:
    try:
        dataset = open_dataset(workspace, row.id)
        changed = dataset.changed_files()
    except Refusal as refusal:
        return [f"{row.id}: {refusal}"]
    if DatasetMeta.model_validate(row.meta) != dataset.meta:
        return [f"{row.id}: {REGISTRY} says otherwise of it than {dataset.path.name}; {REPAIR}"]
    return [
        f"{row.id}: the rows in {name} are not those that were written; restore the file" for name in changed
    ]
