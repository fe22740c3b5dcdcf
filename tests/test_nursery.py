"""A nursery bears workers that are what processes of their own would be, and nobody waits for one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mtf_engine.registry import RunState
from mtf_engine.runs import executor, files
from mtf_engine.runs.nursery import Asked, Nursery, Workers
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from tests.fixtures.logs import clean, write
from tests.waiting import wait_until

ENVIRONMENT = os.environ | executor._environment(1)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(ENVIRONMENT)
    wait_until(lambda: nursery.serves(ENVIRONMENT), "it has loaded")
    yield nursery
    nursery.process.kill()
    nursery.process.wait()


@pytest.fixture
def workers(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """The workers of this process, as if two had loaded before."""
    workers = Workers(executor.LOCK_DESCRIPTOR)
    workers._nursery = nursery
    monkeypatch.setattr(executor, "_workers", workers)
    return workers


def test_a_worker_is_born_works_and_is_gone(nursery: Nursery, workers: Workers, tmp_path: Path) -> None:
    log, workspace = write(clean(), tmp_path / "log"), Workspace(tmp_path / "workspace")
    run_id = submit_import(workspace, log, mapping=log / "mapping.yaml")
    pid = workspace.registry.run(run_id).pid
    assert pid is not None and workers.children == [], "none has loaded by itself"
    worker = psutil.Process(pid)
    assert worker.ppid() == nursery.process.pid and os.getsid(pid) == pid
    assert executor.wait(workspace, run_id).state is RunState.COMPLETED
    wait_until(lambda: not worker.is_running(), "no zombie is left")
    assert executor.report_of(workspace, workspace.registry.run(run_id)) is None


def test_a_killed_worker_is_seen_and_takes_nobody_with_it(workers: Workers, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    run_id = submit_collect(workspace, env="session:feed", n_requests=10_000_000, name="endless")
    wait_until(lambda: workspace.registry.run(run_id).step, "it works")
    pid = workspace.registry.run(run_id).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    assert workers._nursery is not None and workers._nursery.serves(ENVIRONMENT)
    assert not (workspace.run_dir(run_id) / files.LOG).read_text(), "and it told of no error"


def test_what_loads_otherwise_loads_by_itself(nursery: Nursery) -> None:
    assert nursery.serves(ENVIRONMENT | {"MTF_WORKSPACE": "elsewhere"})
    assert not nursery.serves(os.environ | executor._environment(2))


def test_it_ends_with_its_keeper_and_bears_nobody_then(nursery: Nursery) -> None:
    nursery._socket.shutdown(1)
    wait_until(lambda: nursery.has_ended, "it ends")
    assert nursery.process.returncode == 0
    assert not nursery.serves(ENVIRONMENT)
    assert nursery.bear(Asked("nowhere", "none", {}), 1, 1) is None
