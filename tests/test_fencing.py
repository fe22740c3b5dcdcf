"""A worker that was given up on writes nothing any more, whenever it wakes up; and what a cluster is refused for."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from mtf_engine.registry import RunState, now
from mtf_engine.runs import executor, ray_jobs, worker
from mtf_engine.runs.doctor import examine
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace
from tests.stale import KIND, MOMENTS
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
NOWHERE = "ray://127.0.0.1:9"
"""An address at which nobody answers."""


def bytes_of(folder: Path) -> dict[str, str]:
    """Returns the hash of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def handed_over(workspace: Workspace, moment: str) -> str:
    """Returns a run that a cluster was given as attempt 1, which is to fall asleep."""
    run_id = executor.submit(workspace, KIND, {"sleeps": moment}, name=moment)
    workspace.registry.update_run(run_id, executor=NOWHERE)
    assert workspace.registry.claim(workspace.registry.run(run_id), 1, f"{run_id}-1")
    return run_id


@contextmanager
def sleepers(
    workspace: Workspace, *run_ids: str
) -> Iterator[tuple[dict[str, int], Callable[[], dict[str, int]]]]:
    """Yields the processes of workers by run, and what waits for their ends; none outlives the block."""
    command = [sys.executable, "-m", "tests.stale", str(workspace.path), *run_ids]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as workers:
        assert workers.stdout is not None
        lines = workers.stdout
        pids = json.loads(lines.readline())
        try:
            yield pids, lambda: json.loads(lines.readline())
        finally:
            for pid in pids.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def give_up(workspace: Workspace, run_id: str) -> None:
    """Has a run taken for dead once its worker has been silent for long, and no sooner."""
    executor.reconcile(workspace)
    assert workspace.registry.run(run_id).state is RunState.RUNNING, "nobody is given up on so soon"
    long_ago = now() - timedelta(seconds=ray_jobs.SILENT_SECONDS + 1)
    workspace.registry.update_run(run_id, heartbeat_at=long_ago)
    executor.reconcile(workspace)
    dead = workspace.registry.run(run_id)
    assert (dead.state, dead.error) == (RunState.INTERRUPTED, "the worker died; `runs resume` goes on")


def test_a_worker_that_was_given_up_on_changes_nothing_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps between its look at the fence and its write, until the run has ended as attempt 2."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    monkeypatch.setenv("MTF_EXECUTOR", "local")
    workspace = Workspace(tmp_path / "workspace")
    runs = {handed_over(workspace, moment): moment for moment in MOMENTS}
    with sleepers(workspace, *runs) as (pids, ended):
        before = {}
        for run_id, pid in pids.items():
            process = psutil.Process(pid)
            wait_until(lambda one=process: one.status() == psutil.STATUS_STOPPED, runs[run_id])
            give_up(workspace, run_id)
            executor.resume(workspace, run_id)
            worker.run_job(workspace, run_id, {KIND.name: KIND})
            row = workspace.registry.run(run_id)
            assert (row.state, row.attempt, row.result) == (RunState.COMPLETED, 2, {"attempt": 2})
            before[run_id] = row, bytes_of(workspace.run_dir(run_id))
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)
        codes = ended()
    assert codes == dict.fromkeys(runs, worker.STALE)
    for run_id, (row, content) in before.items():
        assert workspace.registry.run(run_id) == row, runs[run_id]
        assert bytes_of(workspace.run_dir(run_id)) == content, runs[run_id]
        log = (workspace.path / f"{run_id}.log").read_text()
        assert log == f"{run_id}: this worker, attempt 1, was given up on and may write no more; it ends\n"
    assert examine(workspace)["damaged"] == []


class _Answers(BaseHTTPRequestHandler):
    """A server that answers every path with its `told`: a status and a body."""

    told: tuple[int, bytes]

    def do_GET(self) -> None:
        self.send_response(self.told[0])
        self.end_headers()
        self.wfile.write(self.told[1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[tuple[str, type[_Answers]]]:
    """The address of a server on loopback, and what it answers."""
    answers = type("Answers", (_Answers,), {})
    with HTTPServer(("127.0.0.1", 0), answers) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", answers
        server.shutdown()


OPEN = b'{"ray_version": "2.60.0"}'


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, OPEN), "runs whatever anybody sends it, without a token; start it with RAY_AUTH_MODE=token"),
        (
            (200, b"<html>"),
            "the Ray job server at http://127.0.0.1:.* is none; give the address of the head's",
        ),
        ((404, b""), "is none: it answered 404"),
        ((401, b""), "wants its token|needs Ray, which is not installed"),
    ],
)
def test_a_cluster_that_is_none_or_open_is_refused_before_a_run_is_made(
    answer: tuple[int, bytes], told: str, answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, server = answering
    server.told = answer
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_EXECUTOR", f"ray://{address}")
    monkeypatch.setenv("MTF_REGISTRY_URL", "postgresql+psycopg://elsewhere/db")
    with pytest.raises(Refusal, match=told):
        executor.submit(workspace, KIND, {})
    assert workspace.registry.runs() == [] and not any(workspace.runs_dir.iterdir())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            NOWHERE,
            r"at http://127.0.0.1:9 does not answer \(Connection refused\); give the address of the head's",
        ),
        ("ray://", "has no address; write it as ray://HOST:8265"),
        ("ray://[", "has no address; write it as ray://HOST:8265"),
        ("slurm", "the executor 'slurm' is none; give local, or ray://ADDRESS of a Ray cluster"),
    ],
)
def test_an_executor_that_is_none_is_told_in_a_sentence(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_EXECUTOR", name)
    if name == NOWHERE:
        with pytest.raises(
            Refusal, match="works on a registry that all its machines reach; name a PostgreSQL"
        ):
            executor.submit(workspace, KIND, {})
        monkeypatch.setenv("MTF_REGISTRY_URL", "postgresql+psycopg://elsewhere/db")
    with pytest.raises(Refusal, match=told):
        executor.submit(workspace, KIND, {})


def test_what_waits_for_a_cluster_says_why_and_can_be_worked_on_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")
    run_id = executor.submit(workspace, KIND, {"sleeps": ""})
    workspace.registry.update_run(run_id, executor=NOWHERE)
    monkeypatch.setenv("MTF_REGISTRY_URL", f"sqlite:///{workspace.path}/registry.sqlite")
    executor.reconcile(workspace)
    waits = workspace.registry.run(run_id)
    assert (waits.state, waits.attempt) == (RunState.QUEUED, 0) and "does not answer" in str(waits.error)
    executor.cancel(workspace, run_id)
    monkeypatch.setenv("MTF_EXECUTOR", "local")
    executor.resume(workspace, run_id)
    again = workspace.registry.run(run_id)
    assert (again.state, again.executor, again.error) == (RunState.QUEUED, "local", None)
    worker.run_job(workspace, run_id, {KIND.name: KIND})
    ended = workspace.registry.run(run_id)
    assert (ended.state, ended.attempt, ended.host) == (RunState.COMPLETED, 1, executor.HOST)


def test_no_process_here_is_signalled_for_a_run_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is, on this machine, that of a process that even has the run's lock open."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")
    run_id = executor.submit(workspace, KIND, {})
    lock = workspace.run_dir(run_id) / "worker.lock"
    script = (
        "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", script, lock], stdout=subprocess.PIPE) as somebody:
        assert somebody.stdout is not None and somebody.stdout.readline()
        late = dict(state=RunState.RUNNING, cancel_requested_at=now() - timedelta(days=1), pid=somebody.pid)
        workspace.registry.update_run(run_id, host="elsewhere", **late)
        executor.reconcile(workspace)
        executor.reconcile(workspace)
        spared = somebody.poll() is None
        workspace.registry.update_run(run_id, host=executor.HOST)
        executor.reconcile(workspace)
        somebody.terminate()  # whoever fails to be killed ends too
        assert spared and somebody.wait() == -signal.SIGKILL
