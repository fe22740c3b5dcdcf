"""Whatever people do to runs, in whatever order: states are legal, one worker works on a run, nothing is lost."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import executor, files
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from tests.fixtures.logs import clean, write

LIVE = (RunState.QUEUED, RunState.RUNNING)
CHOICE = st.integers(0, 99)


def workers(folder: Path) -> Iterator[str]:
    """Yields the run of each process that works in a workspace."""
    for process in psutil.process_iter(["cmdline", "status"]):
        told = process.info["cmdline"] or []
        if "run-job" in told and str(folder) in told and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield told[-1]


class Jobs(RuleBasedStateMachine):
    """Imports of one small log, as several people start, stop, kill, resume and delete them."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="jobs")
        folder = Path(self.place.name)
        self.log = write(clean(), folder / "log")
        self.workspace = Workspace(folder / "workspace")
        self.patch = pytest.MonkeyPatch()
        self.asked: set[str] = set()
        self.ended: dict[str, RunState] = {}
        """How runs ended that nobody has resumed since."""

    @property
    def runs(self) -> list[RunRow]:
        return sorted(self.workspace.registry.runs(), key=lambda run: run.id)

    def _any(self, at: int) -> RunRow:
        return self.runs[at % len(self.runs)]

    def _submit(self) -> str:
        return submit_import(Workspace(self.workspace.path), self.log, mapping=self.log / "mapping.yaml")

    @rule()
    def start(self) -> None:
        if len(self.runs) < 6:
            self.asked.add(self._submit())

    @rule()
    def start_by_a_double_click(self) -> None:
        if len(self.runs) < 5:
            with ThreadPoolExecutor(2) as pool:
                self.asked |= {*pool.map(lambda _: self._submit(), range(2))}

    @precondition(lambda self: self.asked)
    @rule(at=CHOICE)
    def cancel(self, at: int) -> None:
        with suppress(Refusal):
            executor.cancel(self.workspace, self._any(at).id)

    @precondition(lambda self: self.asked)
    @rule(at=CHOICE, times=st.sampled_from([1, 1, 3]))
    def resume(self, at: int, times: int) -> None:
        run = self._any(at)

        def again(_: int) -> bool:
            try:
                executor.resume(Workspace(self.workspace.path), run.id)
            except Refusal:
                return False
            return True

        with ThreadPoolExecutor(times) as pool:
            resumed = [*pool.map(again, range(times))]
        if any(resumed):
            self.ended.pop(run.id, None)
        assert any(resumed) or not run.state.can_resume

    @precondition(lambda self: self.asked)
    @rule(at=CHOICE, how=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def kill(self, at: int, how: signal.Signals) -> None:
        run = self._any(at)
        if run.state is RunState.RUNNING and run.id in workers(self.workspace.path):
            with suppress(ProcessLookupError):
                os.kill(int(run.pid or 0), how)

    @rule()
    def restart(self) -> None:
        """Opens the workspace as a command or a page of another process does."""
        self.workspace = Workspace(self.workspace.path)
        executor.reconcile(self.workspace)

    @precondition(lambda self: self.asked)
    @rule(at=CHOICE, places=st.sampled_from([-1, 1]))
    def move(self, at: int, places: int) -> None:
        with suppress(Refusal):
            executor.move(self.workspace, self._any(at).id, places)

    @precondition(lambda self: self.asked)
    @rule(at=CHOICE)
    def delete(self, at: int) -> None:
        run = self._any(at)
        try:
            self.workspace.delete_runs(run.id)
        except Refusal:
            assert run.state in LIVE, "nothing else stands in the way"
        else:
            assert not self.workspace.run_dir(run.id).exists()
            self.asked.discard(run.id)
            self.ended.pop(run.id, None)

    @rule(days=st.sampled_from([-1, 1]))
    def set_the_clock(self, days: int) -> None:
        self.patch.setattr(executor, "now", lambda: now() + timedelta(days=days))

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(round(20 * seconds)):
            if not [*workers(self.workspace.path)]:
                break
            time.sleep(0.05)

    @invariant()
    def no_run_is_lost_and_each_has_one_worker(self) -> None:
        at_work = [*workers(self.workspace.path)]
        assert len(at_work) == len(set(at_work)), "one worker a run"
        runs = self.runs
        assert {run.id for run in runs} == self.asked
        for run in runs:
            before = self.ended.get(run.id)
            assert before in (None, run.state), (
                f"{run.id} was {before} and is {run.state}, and nobody resumed it"
            )
            if run.state.is_finished:
                self.ended[run.id] = run.state

    def teardown(self) -> None:
        try:
            self._all_end_well()
        finally:
            self.patch.undo()
            for run in self.runs:
                with suppress(Refusal):
                    executor.cancel(self.workspace, run.id)
            [*executor.watch(self.workspace, *(run.id for run in self.runs))]
            self.place.cleanup()

    def _all_end_well(self) -> None:
        """Resumes what was stopped: every import then ends with the same log, and nothing is left beside them."""
        executor.reconcile(self.workspace)
        for run in self.runs:
            if run.state.can_resume and run.state is not RunState.FAILED:
                executor.resume(self.workspace, run.id)
        ended = [executor.wait(self.workspace, run.id) for run in self.runs]
        assert {run.state for run in ended} <= {RunState.COMPLETED}, [run.error for run in ended]
        rows = {row.id: row for row in self.workspace.registry.datasets()}
        assert {run.dataset_id for run in ended} <= set(rows) and len(
            {r.content_hash for r in rows.values()}
        ) <= 1
        assert all((self.workspace.run_dir(run.id) / files.RESULT).exists() for run in ended)
        kept = {path.name for path in self.workspace.datasets_dir.glob("dataset-*.duckdb")}
        assert kept == {f"{name}.duckdb" for name in rows}


def of(examples: int, steps: int) -> Callable[[], None]:
    return lambda: run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        ),
    )


@pytest.mark.slow
def test_whatever_people_do_to_runs_each_is_worked_on_once_and_none_is_lost() -> None:
    of(int(os.environ.get("MTF_EXAMPLES", "20")), 40)()
