"""Copies of a workspace that other test processes may be reading and writing, and runs without a process each."""

import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mtf_engine.registry import Registry, RunRow, RunState
from mtf_engine.registry_tables import METADATA
from mtf_engine.runs import executor, files, worker
from mtf_engine.runs.nursery import Nursery
from mtf_engine.work import kinds
from mtf_engine.workspace import Workspace

REGISTRY = "registry.sqlite"


def copy_workspace(source: Workspace, path: Path) -> Workspace:
    """Returns a workspace at `path` with the rows, datasets and runs of `source`, and nothing half written.

    The registry is copied as SQLite copies a live database; temp files, locks and stored aggregates stay behind.
    """
    transient = shutil.ignore_patterns(".*", "*.lock", "dataset-*.[!d]*", f"{REGISTRY}*")
    shutil.copytree(source.path, path, ignore=transient, dirs_exist_ok=True)
    with (
        closing(sqlite3.connect(source.path / REGISTRY)) as live,
        closing(sqlite3.connect(path / REGISTRY)) as copy,
    ):
        live.backup(copy)
    return Workspace(path)


def move_registry(workspace: Workspace, url: str) -> None:
    """Copies the rows of a workspace's own registry to the empty database that `url` names."""
    with workspace.registry._engine.connect() as own, Registry(url)._engine.begin() as other:
        for table in METADATA.sorted_tables:
            if rows := own.execute(sa.select(table)).mappings().all():
                other.execute(sa.insert(table), [dict(row) for row in rows])


def stop_all(workspace: Workspace) -> None:
    """Cancels what is queued or running and waits for its end; a part ends with what it is a part of."""
    live = [run for run in workspace.registry.runs(RunState.QUEUED, RunState.RUNNING) if not run.parent_id]
    for run in live:
        executor.cancel(workspace, run.id)
    list(executor.watch(workspace, *(run.id for run in live)))


def has_loaded(nursery: Nursery) -> bool:
    """Returns whether a nursery is there to be asked."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(nursery.place) == 0


@contextmanager
def worked_on_here(last_first: bool = False) -> Iterator[None]:
    """Has this process work on what is queued as soon as it waits for a run: a worker takes seconds to start.

    The work, its folder and its row are those of a worker; only the process is not one of its own. Parts that a run
    only coordinates are worked on when they are queued, or, `last_first`, once it waits, and the last of them only.
    """
    watch, reconcile, enqueue = executor.watch, executor.reconcile, executor.enqueue
    handler, adds = signal.getsignal(signal.SIGTERM), False

    def work(workspace: Workspace, run: RunRow) -> None:
        log = (workspace.run_dir(run.id) / files.LOG).open("a")
        with log, redirect_stdout(log), redirect_stderr(log):
            worker.run_job(workspace, run.id, kinds())

    def work_and_watch(workspace: Workspace, *run_ids: str, **how: Any) -> Iterator[list[RunRow]]:
        for run in workspace.registry.queue():
            work(workspace, run)
        return watch(workspace, *run_ids, **how)

    def work_on_parts(workspace: Workspace) -> None:
        reconcile(workspace)
        parts = [run for run in workspace.registry.queue() if run.parent_id and not (adds and last_first)]
        for run in parts[-1:] if last_first else parts:
            work(workspace, run)

    def add(*arguments: Any, **changes: Any) -> bool:
        nonlocal adds
        adds = True
        try:
            return enqueue(*arguments, **changes)
        finally:
            adds = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "MAX_WORKING", 2)
        patch.setattr(executor, "_start", lambda workspace, run: False)
        patch.setattr(executor, "expect_many", lambda workspace, n_threads: None)
        patch.setattr(executor, "watch", work_and_watch)
        patch.setattr(executor, "reconcile", work_on_parts)
        patch.setattr(executor, "enqueue", add)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
