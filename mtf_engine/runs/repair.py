"""Makes a damaged registry anew: from its newest whole backup, and from what the folders of runs and logs say."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock
from pydantic_core import from_json

from mtf_engine import sealed
from mtf_engine.disk import appear, refusals, workspace_path
from mtf_engine.logs.datasets import Dataset
from mtf_engine.registry import DatasetRow, Registry, RunRow, RunState, now
from mtf_engine.runs import files, lock
from mtf_engine.spec import Refusal
from mtf_engine.workspace import ADDED, BACKUPS, DELETED, REGISTRY, REGISTRY_URL, Workspace


def repair(path: Path | str | None) -> dict[str, Any]:
    """Returns what became of the registry of the workspace at `path`: the backup used, what was added, what is lost.

    What was there is moved aside first, to `backups/damaged-...`; the new one appears whole in its place. Runs are as
    their folders say where the backup knows less of them; what nobody finished is interrupted, and can be resumed. Rows
    without a folder or a file were deleted after the backup, and stay so. Names, notes, tags, plans and the list of
    deletions are those of the backup. What was being added is there whole or not at all, and a deletion that was
    stopped on its way is taken back: whether it was done only the damaged registry knew.
    """
    folder = workspace_path(path)
    if os.environ.get(REGISTRY_URL):
        raise Refusal(f"{REGISTRY_URL} names a database of its own, which is restored by its own means")
    if not (folder / "runs").is_dir():
        raise Refusal(f"{folder} is no workspace; name one that is")
    with refusals(folder), FileLock(folder / "jobs.lock"), FileLock(folder / "registry.lock"):
        for worker in (folder / "runs").glob(f"*/{files.LOCK}"):
            if lock.is_held(worker):
                raise Refusal(f"{worker.parent.name} is working; wait until it ends, or stop its process")
        (folder / BACKUPS).mkdir(exist_ok=True)
        aside = Path(mkdtemp(prefix=f"damaged-{now():%Y-%m-%d}-", dir=folder / BACKUPS))
        new, backup = aside / "new.sqlite", newest_backup(folder)
        if backup:
            shutil.copyfile(backup, new)
        registry = Registry(f"sqlite:///{new}")
        _settle_marks(folder)
        runs, unread = _add_runs(folder, registry)
        datasets = [*_add_datasets(folder, registry)]
        _forget(folder, registry)
        for file in folder.glob(f"{REGISTRY}*"):
            file.rename(aside / file.name)
        appear(new, folder / REGISTRY)
    Workspace(folder).back_up()
    return {
        "kept_aside": str(aside.relative_to(folder)),
        "backup": backup and backup.name,
        "runs_added": runs,
        "datasets_added": datasets,
        "not_readable": unread,
    }


def _settle_marks(folder: Path) -> None:
    """Ends what was stopped while something was added or deleted, see `Workspace.finish`, without the registry."""
    for path in (folder / "runs").glob(f".*{ADDED}"):
        run = folder / "runs" / path.stem[1:]
        appear(path, run) if (path / files.ROW).exists() and not run.exists() else shutil.rmtree(path)
    for path in (*(folder / "runs").glob(f".*{DELETED}"), *(folder / "datasets").glob(f".*{DELETED}")):
        path.unlink()


def newest_backup(folder: Path) -> Path | None:
    """Returns the newest backup of a workspace's registry that SQLite finds nothing wrong with."""
    for backup in sorted((folder / BACKUPS).glob("registry-*.sqlite"), reverse=True):
        try:
            with closing(sqlite3.connect(f"file:{backup}?mode=ro", uri=True)) as connection:
                if connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]:
                    return backup
        except sqlite3.DatabaseError:
            continue
    return None


def _add_runs(folder: Path, registry: Registry) -> tuple[list[str], list[str]]:
    """Adds the runs of which a folder says more than the registry; returns their ids, and what cannot be read."""
    known = {run.id: run for run in registry.runs()}
    found, unread = {}, []
    for place in sorted((folder / "runs").glob("[!.]*")):
        try:
            run = _run(place / files.ROW)
        except (Refusal, ValueError) as error:
            if place.name not in known:
                unread.append(f"{place.name}: {str(error).splitlines()[0]}")
            continue
        there = known.get(run.id)
        if there is None or (there.finished_at or there.created_at) < (run.finished_at or run.created_at):
            found[run.id] = run
    wholes = {*known, *found}
    registry.add_runs(
        [
            run if run.parent_id in wholes else run.model_copy(update={"parent_id": None})
            for run in found.values()
        ]
    )
    return sorted(found), unread


def _run(path: Path) -> RunRow:
    """Returns the run that a folder tells of, interrupted where it was not finished."""
    run = RunRow.model_validate_json(sealed.read(path, "it cannot be made anew"))
    if run.state is RunState.COMPLETED:
        result = sealed.read(path.with_name(files.RESULT), "run it again")
        return run.model_copy(update={"result": from_json(result)})
    if run.state.is_finished:
        return run
    ended = {"state": RunState.INTERRUPTED, "finished_at": now(), "error": "the registry was made anew"}
    return run.model_copy(update=ended)


def _add_datasets(folder: Path, registry: Registry) -> Iterator[str]:
    """Adds the datasets that the registry does not know, as their files say, and yields their ids."""
    known = {row.id for row in registry.datasets()}
    writers = {run.dataset_id: run.id for run in registry.runs() if run.writes_dataset}
    for path in sorted(_of_datasets(folder)):
        if path.stem in known:
            continue
        dataset = Dataset.open(path)
        registry.add_dataset(
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


def _of_datasets(folder: Path) -> Iterator[Path]:
    """Yields the files of datasets, and the folders of those that lie in Parquet."""
    for suffix in (".duckdb", ".parquet"):
        found = (folder / "datasets").glob(f"dataset-*{suffix}")
        yield from (
            path for path in found if "." not in path.stem
        )  # what was computed of one has a name between


def _forget(folder: Path, registry: Registry) -> None:
    """Deletes the rows whose folder or file was deleted after the backup."""
    for run in registry.runs():
        if not (folder / "runs" / run.id).exists():
            registry.delete_runs(run.id)
    there = {path.stem for path in _of_datasets(folder)}
    for row in registry.datasets():
        if row.id not in there:
            registry.delete_dataset(row.id)
