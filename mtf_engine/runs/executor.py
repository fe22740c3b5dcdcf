"""Starts, follows and stops runs. A run is the process `python -m mtf_engine --workspace DIR run-job RUN_ID`.

An executor starts that process: on this machine, unless MTF_EXECUTOR names a cluster (`ray_jobs.py`). There is no
daemon: `reconcile`, called by every command, every page and every worker at its end, finds dead workers and starts
what is queued. Registry and run folder are all that the processes share.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import psutil
from pydantic_core import to_json

from mtf_engine import sealed
from mtf_engine.disk import TEMPS, remove_folder
from mtf_engine.environments.names import MODULES
from mtf_engine.registry import LOCAL, RunRow, RunState, new_id, now
from mtf_engine.runs import files, lock, notices
from mtf_engine.runs.fencing import Fence, next_attempt
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.nursery import ROOT, Asked, Outliving, Workers
from mtf_engine.runs.ray_jobs import MTF_EXECUTOR, SCHEME, RayJobsExecutor, is_on_cluster
from mtf_engine.spec import Defect, Refusal
from mtf_engine.workspace import Workspace

WORKERS = "MTF_WORKERS"
NOTHING: Mapping[str, bytes] = MappingProxyType({})


def _most_working() -> int:
    """Returns how many runs work at once: the environment's MTF_WORKERS, else 2."""
    asked = os.environ.get(WORKERS, "2")
    if not asked.isdecimal() or int(asked) < 1:
        raise Refusal(f"{WORKERS} is {asked!r}; give the number of runs that may work at once, 1 or more")
    return int(asked)


MAX_WORKING = _most_working()
GRACE_SECONDS = 10.0
"""From the request to cancel until SIGTERM, and from there until SIGKILL."""

NEW_SECONDS = 600.0
"""Until a temp file that a process of another machine may be writing counts as left by one that is gone."""
HOST = socket.gethostname()

LOCK_DESCRIPTOR = "MTF_WORKER_LOCK"
"""Environment variable with the number of the inherited descriptor that holds the worker's lock."""


_workers = Workers(LOCK_DESCRIPTOR)
"""Those that this process starts."""


class Executor(Protocol):
    """Who starts the workers of runs, the same command line each, and is asked about them later."""

    def submit(self, workspace: Workspace, run: RunRow, environment: Mapping[str, str]) -> bool:
        """Returns whether the next attempt of a queued run was begun, or handed over; a Refusal where it cannot be."""

    def stop(self, workspace: Workspace, run: RunRow, kill: bool) -> None:
        """Has the worker told to end, or ended where it did not."""

    def alive(self, workspace: Workspace, run: RunRow) -> bool:
        """Returns whether the run's attempt works, or waits for its turn."""

    def tail(self, workspace: Workspace, run: RunRow, lines: int | None = None) -> list[str]:
        """Returns the last lines, or all, that its workers wrote."""


class LocalExecutor:
    """Workers are processes of this machine, each known by the lock that it holds for as long as it lives."""

    def submit(self, workspace: Workspace, run: RunRow, environment: Mapping[str, str]) -> bool:
        """Returns whether a worker was started; not where that of an earlier attempt is about to end."""
        folder = workspace.run_dir(run.id)
        folder.mkdir(exist_ok=True)
        held = lock.take(folder / files.LOCK)
        if held is None:
            return False
        try:
            attempt = next_attempt(folder, run.attempt)
            started = dict(state=RunState.RUNNING, started_at=now(), host=HOST, attempt=attempt)
            if not workspace.registry.update_run(run.id, RunState.QUEUED, of_attempt=run.attempt, **started):
                return False
            if not Fence(folder, attempt).take_over():
                return False
            with (folder / files.LOG).open("ab") as log:
                worker = Asked(str(workspace.path), run.id, os.environ | dict(environment))
                pid = _workers.start(worker, log.fileno(), held)
            workspace.registry.update_run(run.id, RunState.RUNNING, pid=pid)
        finally:
            os.close(held)
        if pid is None and not self.alive(workspace, run):
            workspace.registry.update_run(run.id, RunState.RUNNING, of_attempt=attempt, state=RunState.QUEUED)
            return False
        return True

    def stop(self, workspace: Workspace, run: RunRow, kill: bool) -> None:
        """Signals the worker, if it is one of this machine."""
        ours = run.pid is not None and run.host in (None, HOST)
        if run.pid and ours and lock.is_open_in(workspace.run_dir(run.id) / files.LOCK, run.pid):
            with suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL if kill else signal.SIGTERM)

    def alive(self, workspace: Workspace, run: RunRow) -> bool:
        """Returns whether a process holds the lock of the run's worker."""
        return lock.is_held(workspace.run_dir(run.id) / files.LOCK)

    def tail(self, workspace: Workspace, run: RunRow, lines: int | None = None) -> list[str]:
        """Returns lines of the log in the run's folder."""
        return files.log_tail(workspace.run_dir(run.id), lines)


def executor_named(name: str, takes: bool = False) -> Executor:
    """Returns the executor `local`, or that of a cluster, `ray://ADDRESS`; a Refusal of any other.

    Where it is to be one that `takes` runs now, a Refusal too of a cluster that is not there, or that is not safe.
    """
    if name == LOCAL:
        return LocalExecutor()
    if not name.startswith(SCHEME):
        raise Refusal(f"the executor {name!r} is none; give {LOCAL}, or {SCHEME}ADDRESS of a Ray cluster")
    executor = _on_ray(name)
    if takes:
        executor.check()
    return executor


@lru_cache(maxsize=16)
def _on_ray(name: str) -> RayJobsExecutor:
    """Returns the one that this process asks, so that it asks the cluster no more often than need be."""
    return RayJobsExecutor(name)


def tail(workspace: Workspace, run: RunRow, lines: int | None = None) -> list[str]:
    """Returns the last lines, or all, of what the workers of a run wrote, wherever they did."""
    return executor_named(run.executor).tail(workspace, run, lines)


def asked() -> str | None:
    """Returns the executor that the environment names, MTF_EXECUTOR; None where it names none."""
    return os.environ.get(MTF_EXECUTOR) or None


def submit(
    workspace: Workspace,
    kind: RunKind,
    config: dict[str, Any],
    *,
    name: str = "",
    dataset_id: str | None = None,
    algo: str | None = None,
    seed: int | None = None,
    seed_group: str = "",
    n_steps: int = 0,
    parent_id: str | None = None,
    kept: Mapping[str, bytes] = NOTHING,
) -> str:
    """Returns the id of a new run, started as soon as fewer than `MAX_WORKING` others work.

    `config` is what the work of `kind` is told, JSON-able, and has `n_threads` (else 1). A run that writes a
    dataset gets that dataset's id now. A part of another run is not queued: its parent's worker does it, or
    queues it where the parent only coordinates. Files `kept` lie in its folder before it starts. A Refusal where
    the executor that the environment names cannot take it now; parts wait until it can.
    """
    executor = asked() or LOCAL
    executor_named(executor, takes=parent_id is None)
    run = RunRow(
        id=new_id(kind.name),
        kind=kind.name,
        name=name,
        state=RunState.INTERRUPTED if parent_id else RunState.QUEUED,
        created_at=now(),
        queued_at=now(),
        config=config,
        dataset_id=new_id("dataset") if kind.writes_dataset else dataset_id,
        algo=algo,
        seed=seed,
        seed_group=seed_group,
        n_steps=n_steps,
        parent_id=parent_id,
        writes_dataset=kind.writes_dataset,
        coordinates=kind.coordinates,
        person=workspace.person or _person_of(workspace, parent_id),
        executor=executor,
    )

    def keep(folder: Path) -> None:
        sealed.write(folder / files.MODULES, os.fsencode(_here()))
        for file, content in kept.items():
            sealed.write(folder / file, content)
        keep_row(folder, run)

    workspace.add_run(run, keep)
    if parent_id is None:
        reconcile(workspace)
    return run.id


def _person_of(workspace: Workspace, run_id: str | None) -> str | None:
    """Returns who started a run; a worker, which nobody is logged in to, adds its parts in that name."""
    return workspace.registry.run(run_id).person if run_id else None


def keep_row(folder: Path, run: RunRow) -> None:
    """Writes what the registry says of a run to its folder, from which the registry can be made anew.

    The result of a completed run has a file of its own.
    """
    apart = {"result"} if run.state is RunState.COMPLETED else set()
    row = run.model_dump_json(exclude=apart, indent=2).encode()
    sealed.write(folder / files.ROW, row)


def reconcile(workspace: Workspace) -> None:
    """Marks dead runs, stops those that ignore a cancel, removes leavings, starts what is queued, tells of ends.

    What cannot be written to is left as it is. A cluster is asked while nobody waits for this process.
    """
    if workspace.read_only:
        return
    with workspace.lock():
        workspace.finish()
        notices.remove_leavings(workspace)
        _workers.reap()
        running = workspace.registry.runs(RunState.RUNNING)
        working = [run for run in running if not run.is_local or _is_working(workspace, run)]
        _sweep(workspace, {run.dataset_id for run in working if run.writes_dataset}, _hosts(working))
        n_working, queue = processes(working), workspace.registry.queue()
        for run in (run for run in queue if run.is_local and not is_on_cluster()):
            if n_working >= MAX_WORKING:
                break
            n_working += _start(workspace, run) and not run.coordinates
    for run in (run for run in (*running, *queue) if not run.is_local):
        _look_after(workspace, run)
    tell_ends(workspace)


def expect_many(workspace: Workspace, n_threads: int) -> None:
    """Prepares for workers of runs with so many threads, of which this process will start one after the other."""
    _workers.expect_many(str(workspace.path), os.environ | _environment(n_threads))


def _hosts(working: Iterable[RunRow]) -> set[str | None]:
    """Returns the other machines that runs work on."""
    return {run.host for run in working} - {None, HOST}


def _look_after(workspace: Workspace, run: RunRow) -> None:
    """Hands a queued run over to its cluster, or sees whether the one that was handed over lives there.

    What the cluster does not answer is asked again the next time; why stands in the row of what waits for it.
    """
    try:
        executor = executor_named(run.executor)
        is_queued = run.state is RunState.QUEUED
        if is_queued and (
            executor.submit(workspace, run, _environment_of(workspace, run)) or not run.submission_id
        ):
            return  # by this process or, at this moment, by another
        if not executor.alive(workspace, run):
            _mark_dead(workspace, run)
        elif _overdue(run) > 1:
            executor.stop(workspace, run, kill=_overdue(run) > 2)
    except Refusal as refusal:
        if (told := str(refusal)) != run.error:
            workspace.registry.update_run(run.id, RunState.QUEUED, error=told)


def _mark_dead(workspace: Workspace, run: RunRow) -> None:
    """Records that the attempt of a run elsewhere is given up on, from which moment it can write nothing.

    Not where it ended, or gave another sign of life, since `run` was read.
    """
    with workspace.lock():  # or it might be resumed between the record and the end of its leavings
        known = workspace.registry.run(run.id)
        if (known.state, known.attempt, known.heartbeat_at) != (run.state, run.attempt, run.heartbeat_at):
            return
        Fence(workspace.run_dir(run.id), run.attempt).close()
        state, error = _of_dead(run)
        ended = dict(state=state, error=error, finished_at=now())
        if workspace.registry.update_run(run.id, run.state, of_attempt=run.attempt, **ended):
            remove_leavings(workspace, run)


def _of_dead(run: RunRow) -> tuple[RunState, str | None]:
    """Returns the state of a run whose worker is gone, and why."""
    if run.cancel_requested_at:
        return RunState.CANCELLED, None
    if run.state is RunState.QUEUED:
        told = (
            f"{run.submission_id} ended before its worker began: see `runs logs {run.id}`, then `runs resume`"
        )
        return RunState.INTERRUPTED, told
    return RunState.INTERRUPTED, "the worker died; `runs resume` goes on"


def tell_ends(workspace: Workspace) -> None:
    """Has the workspace's webhook told of ends that it does not know of yet.

    A process of its own sends each notice: nobody waits for a receiver, and a failure is a line in the run's log.
    """
    for notice in notices.claimed(workspace):
        log = _appending(workspace.run_dir(notice["run_id"]) / files.LOG)
        sender = Outliving(
            [sys.executable, "-m", "mtf_engine", "--workspace", workspace.path, "notify", "send"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.close(log)
        _workers.children.append(sender)
        assert sender.stdin is not None
        with suppress(BrokenPipeError), sender.stdin as told:
            told.write(to_json(notice))


def processes(running: Iterable[RunRow]) -> int:
    """Returns how many processes here work on runs: parts share their whole's, and what coordinates its parts waits."""
    return len({run.pid for run in running if run.is_local and not run.coordinates})


def watch(workspace: Workspace, *run_ids: str, poll_seconds: float = 0.2) -> Iterator[list[RunRow]]:
    """Yields the runs every `poll_seconds` until all are finished, their last states included."""
    reconciled = time.monotonic()
    while True:
        runs = [workspace.registry.run(run_id) for run_id in run_ids]
        yield runs
        if all(run.state.is_finished for run in runs):
            return
        time.sleep(poll_seconds)
        if time.monotonic() - reconciled > 1:
            reconcile(workspace)
            reconciled = time.monotonic()


def wait(workspace: Workspace, run_id: str) -> RunRow:
    """Returns the run once it is finished."""
    *_, (run,) = watch(workspace, run_id)
    return run


def completed(workspace: Workspace, run: RunRow) -> RunRow:
    """Returns the finished `run` if it was completed; else raises a Refusal that says why it was not."""
    if run.state is RunState.COMPLETED:
        return run
    if run.state is RunState.WAITING:
        raise Refusal(str(run.error))
    if run.state is not RunState.FAILED:
        at = f"at step {run.step} of {run.n_steps}" if run.n_steps else "before its end"
        raise Refusal(f"{run.id} was {run.state} {at}; `runs resume {run.id}` goes on")
    if (told := report_of(workspace, run)) is None:
        raise Refusal(f"{run.id} failed: {run.error} (`runs logs {run.id}`)")
    raise Refusal(told["error"], tuple(Defect(**defect) for defect in told["defects"]))


def report_of(workspace: Workspace, run: RunRow) -> dict[str, Any] | None:
    """Returns what a run that was refused has to say; None of any other, also where an earlier attempt was refused."""
    report = workspace.run_dir(run.id) / files.REPORT
    if run.state is not RunState.FAILED or not report.exists():
        return None
    told: dict[str, Any] = json.loads(report.read_bytes())
    return told if told["error"] == run.error else None


def cancel(workspace: Workspace, run_id: str) -> None:
    """Asks a live run to stop: at once if queued, else after its step; it is killed if it does not.

    A part stops with the run that it is a part of; one whose whole has ended, as by a kill, stops alone or, where the
    whole is to be cancelled, with the others that are left.
    """
    run = workspace.registry.run(run_id)
    whole = _whole(workspace, run_id)
    if not run.state.is_finished and not workspace.registry.run(whole).state.is_finished:
        run_id = whole
    left = workspace.registry.runs(parent_id=run_id) if run.state.is_finished else []
    stopped = [ask_to_stop(workspace, one) for one in (run_id, *(part.id for part in left))]
    if not any(stopped):
        state = workspace.registry.run(run_id).state
        raise Refusal(f"{run_id} is {state} already, so there is nothing to cancel")
    tell_ends(workspace)


def ask_to_stop(workspace: Workspace, run_id: str) -> bool:
    """Returns whether the run was live: it stops at once if queued, else after its step."""
    update = workspace.registry.update_run
    if not update(run_id, RunState.QUEUED, state=RunState.CANCELLED, finished_at=now()):
        return update(run_id, RunState.RUNNING, cancel_requested_at=now())
    run = workspace.registry.run(run_id)
    if run.submission_id:
        with suppress(Refusal):  # whom nobody stops finds at its turn that it is not to begin
            executor_named(run.executor).stop(workspace, run, kill=False)
    return True


def resume(workspace: Workspace, run_id: str, device: str | None = None) -> None:
    """Queues a cancelled, interrupted or failed run again; a training goes on from its checkpoint.

    A part goes on with the run that it is a part of. With a `device`, a training goes on there.
    """
    if workspace.registry.run(run_id).state.can_resume:
        run_id = _whole(workspace, run_id)
    config = workspace.registry.run(run_id).config
    if device and "device" not in config:
        raise Refusal(f"{run_id} is no training, so it has no device to go on with; leave --device out")
    if not enqueue(workspace, run_id, **({"config": config | {"device": device}} if device else {})):
        state = workspace.registry.run(run_id).state
        raise Refusal(f"{run_id} is {state}; only a cancelled, interrupted or failed run can be resumed")


def enqueue(workspace: Workspace, run_id: str, **changes: Any) -> bool:
    """Returns whether the run could be queued, again or as the part of a run that only coordinates.

    It is for the executor that the environment names, else for the one that it had; `changes` are of its columns.
    """
    run = workspace.registry.run(run_id)
    executor = asked() or run.executor
    executor_named(executor, takes=run.parent_id is None)
    cleared = dict.fromkeys(("error", "finished_at", "cancel_requested_at", "pid", "host"))
    cleared |= dict(submission_id=None, heartbeat_at=None)
    again: dict[str, Any] = dict(
        state=RunState.QUEUED, queued_at=now(), executor=executor, **cleared, **changes
    )
    resumable = [state for state in RunState if state.can_resume]
    with workspace.lock():  # or whoever gave its last attempt up might still be removing what that left
        queued = workspace.registry.update_run(run_id, *resumable, **again)
    reconcile(workspace)
    return queued


def _whole(workspace: Workspace, run_id: str) -> str:
    """Returns the run that a part, or a part of a part, belongs to; any other run is its own."""
    parent_id = workspace.registry.run(run_id).parent_id
    return _whole(workspace, parent_id) if parent_id else run_id


def move(workspace: Workspace, run_id: str, places: int) -> None:
    """Moves a queued run by so many places, down if positive; at an end of the queue it stays there."""
    with workspace.lock():
        queue = workspace.registry.queue()
        times = [run.queued_at or run.created_at for run in queue]
        ids = [run.id for run in queue]
        if run_id not in ids:
            state = workspace.registry.run(run_id).state
            raise Refusal(f"{run_id} is {state}; only a queued run has a place in the queue")
        if queue[ids.index(run_id)].submission_id:
            raise Refusal(
                f"{run_id} waits in the queue of {queue[ids.index(run_id)].executor}, which has its own order"
            )
        place = ids.index(run_id)
        ids.insert(max(0, place + places), ids.pop(place))
        for moved, queued_at in zip(ids, times, strict=True):
            workspace.registry.update_run(moved, RunState.QUEUED, queued_at=queued_at)


def take_up(workspace: Workspace, run_id: str, whole: RunRow) -> tuple[RunRow, int | None]:
    """Returns a part that this process, the worker of `whole`, works on from now on.

    With its lock, to be closed when it ends; a worker on a cluster has none.
    """
    with workspace.lock():  # or `reconcile` might be asking whether the part is alive
        folder = workspace.run_dir(run_id)
        folder.mkdir(exist_ok=True)
        held = lock.take(folder / files.LOCK) if whole.is_local else None
        assert held is not None or not whole.is_local, (
            "who held it was the parent's last worker, which has ended"
        )
        attempt = next_attempt(folder, workspace.registry.run(run_id).attempt)
        assert Fence(folder, attempt).take_over(), "nobody else works on a part"
        cleared = dict(error=None, finished_at=None, cancel_requested_at=None)
        started: dict[str, Any] = dict(state=RunState.RUNNING, pid=os.getpid(), started_at=now(), **cleared)
        started |= dict(
            attempt=attempt, executor=whole.executor, host=HOST, submission_id=whole.submission_id
        )
        beat = None if whole.is_local else workspace.registry.clock()
        workspace.registry.update_run(run_id, heartbeat_at=beat, **started)
    return workspace.registry.run(run_id), held


def _start(workspace: Workspace, run: RunRow) -> bool:
    """Returns whether a worker of a local run was started."""
    return LocalExecutor().submit(workspace, run, _environment_of(workspace, run))


def _environment_of(workspace: Workspace, run: RunRow) -> dict[str, str]:
    """Returns what the worker of a run finds in its environment, wherever it works."""
    of_run = {MODULES: _modules(workspace.run_dir(run.id)), MTF_EXECUTOR: run.executor}
    return _environment(run.config.get("n_threads", 1)) | of_run


def _here() -> str:
    """Returns the folder in which modules with environments of one's own are looked for by this process."""
    return str(Path(os.environ.get(MODULES) or ".").resolve())


def _modules(folder: Path) -> str:
    """Returns that of the process that asked for a run, whoever starts it; this one's where it is no longer there."""
    with suppress(FileNotFoundError):
        asked = Path(os.fsdecode((folder / files.MODULES).read_bytes()))
        if asked.is_dir():
            return str(asked)
    return _here()


def _appending(path: Path) -> int:
    """Returns a descriptor that appends to a run's log, or to nothing where the run was deleted meanwhile."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_WRONLY)


def _environment(n_threads: int) -> dict[str, str]:
    """Settings that must stand before torch loads, for the same bits at every run on this machine.

    MKL's AUTO mode fixes the code path and costs nothing measurable; COMPATIBLE takes 2.5 times as long.
    glibc keeps freed memory for the next step, which saves a training step 2,000 page faults, a fifth of its time;
    in two arenas, since with one for each thread that ever was, what reads a log part by part held ever more.
    """
    return {
        "OMP_NUM_THREADS": str(n_threads),
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        "MKL_CBWR": "AUTO",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        "PYTHONUNBUFFERED": "1",
    }


def _is_working(workspace: Workspace, run: RunRow) -> bool:
    """Returns whether the run's worker on this machine lives; records the end of one that does not."""
    executor = LocalExecutor()
    if executor.alive(workspace, run):
        if _overdue(run) > 1:
            executor.stop(workspace, run, kill=_overdue(run) > 2)
        return True
    run = workspace.registry.run(run.id)
    if run.state is RunState.RUNNING:  # and not at its end a moment ago
        remove_leavings(workspace, run)
        state, error = _of_dead(run)
        workspace.registry.update_run(run.id, RunState.RUNNING, state=state, error=error, finished_at=now())
    return False


def _overdue(run: RunRow) -> float:
    """Returns how long ago the run was asked to stop, in grace times; 0 where it was not."""
    if run.cancel_requested_at is None:
        return 0.0
    return (now() - run.cancel_requested_at).total_seconds() / GRACE_SECONDS


def remove_leavings(workspace: Workspace, run: RunRow) -> None:
    """Removes what the worker of a run that is not completed leaves: temp files, the dataset that it was writing."""
    for path in workspace.run_dir(run.id).glob(TEMPS):
        path.unlink()
    if run.writes_dataset and run.dataset_id is not None:
        workspace.registry.delete_dataset(run.dataset_id)
        for path in workspace.datasets_dir.glob(f"{run.dataset_id}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sweep(workspace: Workspace, owners: set[str | None], elsewhere: set[str | None]) -> None:
    """Removes temp files `.<dataset id>.tmp*` of datasets that no live worker is writing, and folders alike.

    What is computed of a dataset is written by whoever asks, a page too: its temp file has the process's number.
    While runs work `elsewhere`, it may be that of a process there, and what is new is left.
    """
    for path in workspace.datasets_dir.glob(TEMPS):
        _, dataset_id, _, *rest = path.name.split(".")
        written = rest and rest[0].isdecimal() and psutil.pid_exists(int(rest[0]))
        if elsewhere and not written:
            with suppress(FileNotFoundError):
                written = time.time() - path.stat().st_mtime < NEW_SECONDS
        if dataset_id not in owners and not written:
            remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)
