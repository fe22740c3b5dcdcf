"""The process of one run: `run_job` does its work, and writes nothing but its run folder, dataset and row.

A run of several parts does them here too, one after the other: `run_part`.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from copy import copy
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic_core import to_json

from mtf_engine import sealed
from mtf_engine.disk import check_guards, guarded, refusals
from mtf_engine.registry import LOCAL, RunRow, RunState, now
from mtf_engine.runs import files, lock, metrics, provenance
from mtf_engine.runs.executor import HOST, LOCK_DESCRIPTOR, keep_row, reconcile, remove_leavings, take_up
from mtf_engine.runs.fencing import Fence, next_attempt
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.ray_jobs import ATTEMPT
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

SECONDS_BETWEEN_REPORTS = 0.3
BEAT_SECONDS = 5.0
"""Between two signs of life of a worker that is not local."""
STALE = 3
"""Exit code of a worker that another has taken over from."""
SPARE = 1 << 17
"""Bytes, for a report and the pages that the registry adds to its log."""


_outputs: list[int] = []
"""Where this process wrote before what it writes went to the log of a run: a cluster's log of it, the first."""


class Stop(BaseException):
    """The run was cancelled, or the process asked to end."""


class Waits(Stop):
    """What comes next is for people to decide, as it says."""


class Job:
    """What the function of a kind gets: the run's row and folder, and ways to tell how far it is.

    `kinds` are those that there are, by name; `whole` is the job that this one is a part of.
    """

    def __init__(
        self, workspace: Workspace, run: RunRow, kinds: Mapping[str, RunKind], whole: "Job | None" = None
    ) -> None:
        self.workspace = workspace
        self.run = run
        self.kinds = kinds
        self.folder = workspace.run_dir(run.id)
        self.terminated = False
        self._reported = 0.0
        self._whole = whole
        self.listen()

    def listen(self) -> None:
        """Makes this job the one that a signal to end ends."""
        signal.signal(signal.SIGTERM, self._terminate)

    @property
    def config(self) -> dict[str, Any]:
        return self.run.config

    def progress(self, step: int, n_steps: int | None = None) -> None:
        """Records the step, a few times a second at most; raises `Stop` if the run is to end here."""
        if self.terminated:
            raise Stop
        last = step == (n_steps or self.run.n_steps)
        if time.monotonic() - self._reported < SECONDS_BETWEEN_REPORTS and not last:
            return
        values = {"step": step} if n_steps is None else {"step": step, "n_steps": n_steps}
        self.workspace.registry.update_run(self.run.id, **values)
        self._reported = time.monotonic()
        if self.cancel_requested:
            raise Stop

    @property
    def cancel_requested(self) -> bool:
        asked = self.workspace.registry.run(self.run.id).cancel_requested_at is not None
        return asked or (self._whole is not None and self._whole.cancel_requested)

    def record_best(self, score: float | None, step: int | None) -> None:
        """Records the best score so far and the step it was reached at."""
        self.workspace.registry.update_run(self.run.id, best_score=score, best_step=step)

    def record_provenance(self, provenance: dict[str, Any]) -> None:
        """Records what the run is computed with, in the registry and in its folder."""
        self.workspace.registry.update_run(self.run.id, provenance=provenance)
        self.write_json(files.PROVENANCE, provenance)

    def logged(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yields the rows once they stand in metrics.jsonl, from which what a resumed run repeats is cut."""
        for i, row in enumerate(rows):
            if i == 0:
                metrics.cut_back(self.folder, before=row["step"])
            metrics.append(self.folder, row)
            yield row

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` as `name` in the run folder; it appears there at once or not at all."""
        sealed.write(self.folder / name, to_json(value, indent=2, inf_nan_mode="null"))

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """What has a checkpoint ends after its step; what has none ends here."""
        first, self.terminated = not self.terminated, True
        if first and not self.kinds[self.run.kind].checkpoints:
            raise Stop


def run_job(workspace: Workspace, run_id: str, kinds: Mapping[str, RunKind]) -> RunState:
    """Does the work of a run of one of `kinds` and returns the state it ended in."""
    run, held = _own(workspace, run_id)
    with _fenced(workspace, run) as own:
        job = Job(own, run, kinds)
        if (
            kinds[run.kind].coordinates > run.coordinates
        ):  # begun by a version that worked on its parts itself
            own.registry.update_run(run_id, coordinates=True)
        with nullcontext() if run.is_local else _logging_to(job.folder / files.LOG):
            state = _work(job)
    if held is not None:
        os.close(held)  # from here on nothing is written, so this run may be resumed
    reconcile(workspace)
    return state


@contextmanager
def _fenced(workspace: Workspace, run: RunRow, whole: RunRow | None = None) -> Iterator[Workspace]:
    """Yields the workspace as the worker of `run`, a part of `whole` perhaps, writes it: while its attempts may.

    Until the end of the block a worker that is not local gives signs of life. One that was given up on ends here
    and now, with nothing undone: what lies there is another's, but for temp files that carry its mark.
    """

    def lost(run_id: str) -> NoReturn:
        told = (
            f"{run_id}: this worker, attempt {held[run_id]}, was given up on and may write no more; it ends\n"
        )
        os.write(_outputs[0], told.encode())
        fence.clear()
        os._exit(STALE)

    def check() -> None:
        if not fence.is_open:
            lost(run.id)

    fence = Fence(workspace.run_dir(run.id), run.attempt)
    own = copy(workspace)
    held = {one.id: one.attempt for one in (whole, run) if one}
    own.registry = workspace.registry.of_worker(held, lost)
    with ExitStack() as stack:
        _outputs.append(os.dup(1))
        stack.callback(lambda: os.close(_outputs.pop()))
        stack.enter_context(guarded(check, "" if run.is_local else fence.mark))
        if not run.is_local:
            stack.enter_context(_beating(workspace, run, lost))
        yield own


@contextmanager
def _beating(workspace: Workspace, run: RunRow, lost: Callable[[str], NoReturn]) -> Iterator[None]:
    """Gives signs of life of a run, from a thread: a long step is no death."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(
                Refusal
            ):  # the registry does not answer: whoever sees that may give this attempt up
                if not workspace.registry.beat(run.id, run.attempt) and not ended.wait(BEAT_SECONDS):
                    lost(run.id)  # and it was not this attempt's own end

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_part(whole: Job, run_id: str) -> RunRow:
    """Does the work of a part of `whole` in this process and returns it, completed; what stops it stops both."""
    if whole.cancel_requested:
        raise Stop
    run, held = take_up(whole.workspace, run_id, whole.run)
    try:
        with _fenced(whole.workspace, run, whole.run) as own:
            part = Job(own, run, whole.kinds, whole)
            with _logging_to(part.folder / files.LOG):
                state = _work(part)
    finally:
        if held is not None:
            os.close(held)
        whole.listen()
    ended = whole.workspace.registry.run(run_id)
    if state is RunState.FAILED:
        raise Refusal(f"{run_id}, the {run.kind} of {run.name}, failed: {ended.error} (`runs logs {run_id}`)")
    if part.terminated or state is not RunState.COMPLETED:
        raise Stop
    return ended


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Sends what this process writes to its standard output and error to the end of the file `path`."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("ab") as log:
        check_guards()
        _redirect(log.fileno(), log.fileno())
    try:
        yield
    finally:
        _redirect(*kept)
        for descriptor in kept:
            os.close(descriptor)


def _redirect(output: int, error: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(output, 1)
    os.dup2(error, 2)


def _work(job: Job) -> RunState:
    """Does the work of a job's kind, records how it ended, and returns the state it ended in."""
    workspace = job.workspace
    values, report = _ended(job)
    try:
        with refusals(workspace.path):
            _record(job, values, report)
    except Refusal as refusal:  # what is done is not told: it is to be done again
        traceback.print_exc(file=sys.stderr)
        values = {"state": RunState.FAILED, "error": str(refusal)}
        with refusals(workspace.path):
            _record(job, values, {"error": str(refusal), "defects": ()})
    return values["state"]


def _ended(job: Job) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Does the work of a job's kind; returns what the registry is to say of its end, and the report of a refusal."""
    workspace = job.workspace
    try:
        with refusals(workspace.path):
            with _spare_room(job.folder):
                job.write_json(files.CONFIG, job.config)
                job.record_provenance(provenance.of_run(workspace, job.run))
                kind = job.kinds[job.run.kind]
                result = kind.work(job, kind.told(job.config))
            job.write_json(files.RESULT, result)
        return {"state": RunState.COMPLETED, "result": result}, None
    except Waits as waits:
        cancelled = {"state": RunState.CANCELLED}
        return cancelled if job.cancel_requested else {"state": RunState.WAITING, "error": str(waits)}, None
    except Stop:
        if job.cancel_requested:
            return {"state": RunState.CANCELLED}, None
        told = "the worker was told to end; `runs resume` goes on"
        return {"state": RunState.INTERRUPTED, "error": told}, None
    except Refusal as refusal:
        if refusal.__cause__:
            traceback.print_exception(refusal.__cause__, file=sys.stderr)
        failed = {"state": RunState.FAILED, "error": str(refusal)}
        return failed, {"error": str(refusal), "defects": refusal.defects}
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return {"state": RunState.FAILED, "error": "internal error, see the log"}, None


def _record(job: Job, values: dict[str, Any], report: dict[str, Any] | None) -> None:
    """Tells the registry how a job ended, once nothing is there of what it did not complete."""
    registry = job.workspace.registry
    if values["state"] is not RunState.COMPLETED:
        remove_leavings(job.workspace, job.run)
    if report is not None:
        job.write_json(files.REPORT, report)
    job.record_provenance(provenance.at_its_end(job.workspace, registry.run(job.run.id)))
    values["finished_at"] = now()
    with suppress(OSError):  # the registry will have it, and a full disk need not make the end a death
        keep_row(job.folder, registry.run(job.run.id).model_copy(update=values))
    registry.update_run(job.run.id, **values)  # nothing is written after what is true from here on


@contextmanager
def _spare_room(folder: Path) -> Iterator[None]:
    """Holds room while a job works, so that a disk which it fills still takes how it ended."""
    spare = folder / ".spare.tmp"
    try:
        spare.write_bytes(bytes(SPARE))
        yield
    finally:
        spare.unlink(missing_ok=True)


def _own(workspace: Workspace, run_id: str) -> tuple[RunRow, int | None]:
    """Returns the run that this process is the worker of, and its lock, handed down or taken now.

    A worker on a cluster has none: it may be taken for dead, and asleep.
    """
    run = workspace.registry.run(run_id)
    if ATTEMPT in os.environ:
        return _begun(workspace, run, int(os.environ[ATTEMPT])), None
    inherited = os.environ.pop(LOCK_DESCRIPTOR, None)
    if inherited is not None:
        os.set_inheritable(int(inherited), False)
        return run, int(inherited)
    folder = workspace.run_dir(run_id)
    held, attempt = lock.take(folder / files.LOCK), next_attempt(folder, run.attempt)
    started = _started() | {"attempt": attempt, "executor": LOCAL, "submission_id": None}
    if held is None or not workspace.registry.update_run(
        run_id, RunState.QUEUED, of_attempt=run.attempt, **started
    ):
        raise Refusal(f"{run_id} is {run.state}; only a queued run can be worked on")
    Fence(folder, attempt).take_over()
    return workspace.registry.run(run_id), held


def _started() -> dict[str, Any]:
    return {"state": RunState.RUNNING, "pid": os.getpid(), "host": HOST, "started_at": now()}


def _begun(workspace: Workspace, run: RunRow, attempt: int) -> RunRow:
    """Returns the run, begun as the `attempt` that a cluster was given, its output added to the run's log."""
    registry, started = workspace.registry, _started() | {"submission_id": f"{run.id}-{attempt}"}
    started |= {"heartbeat_at": registry.clock(), "error": None}
    begun = registry.update_run(run.id, RunState.QUEUED, of_attempt=attempt, **started)
    if not begun or not Fence(workspace.run_dir(run.id), attempt).take_over():
        now_at = registry.run(run.id)
        raise Refusal(
            f"attempt {attempt} of {run.id} is not to begin: it is {now_at.state}, at attempt {now_at.attempt}"
        )
    return registry.run(run.id)
