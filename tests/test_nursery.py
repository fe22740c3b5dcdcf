"""A nursery bears workers that are what processes of their own would be, and nobody waits for one."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mtf_engine.registry import RunState
from mtf_engine.runs import executor, files
from mtf_engine.runs.nursery import DECLINED, Asked, Nursery, Workers, ask
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from tests.fixtures.logs import clean, write
from tests.waiting import wait_until
from tests.workspaces import has_loaded

ENVIRONMENT = os.environ | executor._environment(1)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o755)
    nursery = Nursery(str(shared), ENVIRONMENT)
    wait_until(lambda: has_loaded(nursery), "it has loaded")
    yield nursery
    nursery.process.kill()
    nursery.process.wait()


@pytest.fixture
def workers(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """The workers of this process, which keeps a nursery."""
    workers = Workers(executor.LOCK_DESCRIPTOR)
    workers._nursery = nursery
    monkeypatch.setattr(executor, "_workers", workers)
    return workers


def test_workers_are_born_work_and_are_gone_whoever_asks(
    nursery: Nursery, workers: Workers, tmp_path: Path
) -> None:
    """Of three imports two work at a time; the third is asked for by the worker of the first that ends."""
    log, workspace = write(clean(), tmp_path / "log"), Workspace(tmp_path / "workspace")
    runs = [submit_import(workspace, log, mapping=log / "mapping.yaml", name=name) for name in "abc"]
    pid = workspace.registry.run(runs[0]).pid
    assert pid is not None
    worker = psutil.Process(pid)
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(nursery.place)
    assert worker.ppid() == nursery.process.pid and os.getsid(pid) == pid
    wait_until(lambda: all(workspace.registry.run(run_id).state.is_finished for run_id in runs), "they end")
    assert {workspace.registry.run(run_id).state for run_id in runs} == {RunState.COMPLETED}
    wait_until(lambda: not psutil.Process(nursery.process.pid).children(), "no zombie is left")
    assert workers.children == [], "none has loaded by itself"
    silent.close()


def test_a_shared_workspace_stays_open_to_those_it_is_shared_with(nursery: Nursery) -> None:
    status = Path(f"/proc/{nursery.process.pid}/status").read_text()
    before = os.umask(0)
    os.umask(before)
    assert re.search(r"Umask:\s*(\d+)", status)[1] == f"{before:04o}"  # type: ignore[index]


def test_without_a_place_for_its_socket_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    Path(tempfile.gettempdir()).mkdir()
    with pytest.raises(OSError, match="too long a path"):
        Nursery(str(tmp_path), ENVIRONMENT)
    assert not [*Path(tempfile.gettempdir()).iterdir()]


def test_what_is_killed_leaves_nothing_for_long(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a nursery beside its keeper, nor both at once."""
    place = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    script = (
        "import time; from tests.test_nursery import *; "
        "print(Nursery('.', ENVIRONMENT).process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdout is not None
        os.kill(int(keeper.stdout.readline()), signal.SIGKILL)
        Nursery(str(place), ENVIRONMENT).process.kill()
        assert len([*place.iterdir()]) == 2, "what has a keeper is its own"
        keeper.kill()
    own = Nursery(str(place), ENVIRONMENT)
    own.process.kill()
    assert own.process.wait() and len([*place.iterdir()]) == 2
    own.forget()
    assert len([*place.iterdir()]) == 1


def test_who_expects_many_has_the_first_borne(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_workers", workers := Workers(executor.LOCK_DESCRIPTOR))
    workspace = Workspace(tmp_path / "workspace")
    executor.expect_many(workspace, n_threads=1)
    assert workers._nursery is not None
    run_id = submit_collect(workspace, env="session:feed", n_requests=20)
    assert executor.wait(workspace, run_id).state is RunState.COMPLETED
    assert workers.children == [], "it has not loaded by itself"
    workers._nursery.process.kill()


def test_a_killed_worker_is_seen_and_takes_nobody_with_it(workers: Workers, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    run_id = submit_collect(workspace, env="session:feed", n_requests=10_000_000, name="endless")
    wait_until(lambda: workspace.registry.run(run_id).step, "it works")
    pid = workspace.registry.run(run_id).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    assert not (workspace.run_dir(run_id) / files.LOG).read_text(), "and it told of no error"
    assert workers._nursery is not None and not workers._nursery.has_ended


def test_what_loads_otherwise_loads_by_itself(nursery: Nursery) -> None:
    asked = Asked("nowhere", "none", os.environ | executor._environment(2))
    assert ask(nursery.place, asked, 1, 1) == DECLINED
    assert ask("nowhere", asked, 1, 1) == DECLINED


def test_it_ends_with_its_keeper(nursery: Nursery) -> None:
    (beside := Path(nursery.place).with_name("beside")).touch()
    os.close(nursery._kept)
    wait_until(lambda: nursery.has_ended, "it ends")
    assert nursery.process.returncode == 0
    assert not Path(nursery.place).exists() and beside.exists(), "and removes what it made alone"
