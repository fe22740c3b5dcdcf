"""Makes a damaged registry anew: from its newest whole backup, and from what the folders of runs and logs say."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from mtf_engine import sealed
from mtf_engine.disk import refusals, workspace_path
from mtf_engine.logs.datasets import Dataset
from mtf_engine.registry import DatasetRow, RunRow, RunState, now
from mtf_engine.runs import files, lock
from mtf_engine.spec import Refusal
from mtf_engine.workspace import BACKUPS, REGISTRY, Workspace


def repair(path: Path | str | None) -> dict[str, Any]:
    """Returns what became of the registry of the workspace at `path`: the backup used, what was added, what is lost.

    What was there is moved aside first, to `backups/damaged-...`. Runs are as their folders say where the backup knows
    less of them; what nobody finished is interrupted, and can be resumed. Rows without a folder or a file were deleted
    after the backup, and stay so. Names, notes, tags and plans are those of the backup.
    """
    folder = workspace_path(path)
    if not (folder / "runs").is_dir():
        raise Refusal(f"{folder} is no workspace; name one that is")
    for worker in (folder / "runs").glob(f"*/{files.LOCK}"):
        if lock.is_held(worker):
            raise Refusal(f"{worker.parent.name} is working; wait until it ends, or stop its process")
    aside = folder / BACKUPS / f"damaged-{now():%Y-%m-%d-%H%M%S}"
    with refusals(folder):
        aside.mkdir(parents=True)
        for file in folder.glob(f"{REGISTRY}*"):
            file.rename(aside / file.name)
        backup = next(_whole(sorted((folder / BACKUPS).glob("registry-*.sqlite"), reverse=True)), None)
        if backup:
            shutil.copyfile(backup, folder / REGISTRY)
        workspace = Workspace(folder)
        runs, unread = _runs(workspace)
        datasets = [*_datasets(workspace, runs)]
        _forget(workspace)
        workspace.back_up()
    return {
        "kept_aside": str(aside.relative_to(folder)),
        "backup": backup and backup.name,
        "runs_added": sorted(runs),
        "datasets_added": sorted(datasets),
        "not_readable": unread,
    }


def _whole(backups: list[Path]) -> Iterator[Path]:
    """Yields the backups that SQLite finds nothing wrong with."""
    for backup in backups:
        try:
            with closing(sqlite3.connect(f"file:{backup}?mode=ro", uri=True)) as connection:
                if connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]:
                    yield backup
        except sqlite3.DatabaseError:
            continue


def _runs(workspace: Workspace) -> tuple[dict[str, RunRow], list[str]]:
    """Adds the runs of which a folder says more than the registry; returns them by id, and what cannot be read."""
    known = {run.id: run for run in workspace.registry.runs()}
    found, unread = {}, []
    for path in sorted(workspace.runs_dir.glob(f"*/{files.ROW}")):
        try:
            run = _run(path)
        except (Refusal, ValidationError, ValueError) as error:
            if path.parent.name not in known:
                unread.append(f"{path.parent.name}: {str(error).splitlines()[0]}")
            continue
        there = known.get(run.id)
        if there is None or (there.finished_at or there.created_at) < (run.finished_at or run.created_at):
            found[run.id] = run
    workspace.registry.add_runs([*found.values()])
    return found, unread


def _run(path: Path) -> RunRow:
    """Returns the run that a folder tells of, interrupted where it was not finished."""
    run = RunRow.model_validate_json(sealed.read(path, "it cannot be made anew"))
    result = path.with_name(files.RESULT)
    if run.state is RunState.COMPLETED:
        return run.model_copy(update={"result": from_json(sealed.read(result, "run it again"))})
    if run.state.is_finished:
        return run
    ended = {"state": RunState.INTERRUPTED, "finished_at": now(), "error": "the registry was made anew"}
    return run.model_copy(update=ended)


def _datasets(workspace: Workspace, runs: dict[str, RunRow]) -> Iterator[str]:
    """Adds the datasets that the registry does not know, as their files say, and yields their ids."""
    known = {row.id for row in workspace.registry.datasets()}
    writers = {
        run.dataset_id: run.id for run in (*workspace.registry.runs(), *runs.values()) if run.writes_dataset
    }
    for path in sorted(workspace.datasets_dir.glob("dataset-*.duckdb")):
        if path.stem in known:
            continue
        dataset = Dataset.open(path)
        workspace.registry.add_dataset(
            DatasetRow(
                id=path.stem,
                name=dataset.meta.name,
                source=dataset.meta.source,
                created_at=dataset.meta.created_at or datetime.fromtimestamp(path.stat().st_mtime, UTC),
                n_requests=dataset.n_requests,
                n_impressions=dataset.n_impressions,
                content_hash=dataset.content_hash,
                run_id=writers.get(path.stem),
                meta=dataset.meta.model_dump(mode="json"),
            )
        )
        yield path.stem


def _forget(workspace: Workspace) -> None:
    """Deletes the rows whose folder or file was deleted after the backup."""
    for run in workspace.registry.runs():
        if not workspace.run_dir(run.id).exists():
            workspace.registry.delete_run(run.id)
    for row in workspace.registry.datasets():
        if not workspace.dataset_path(row.id).exists():
            workspace.registry.delete_dataset(row.id)
