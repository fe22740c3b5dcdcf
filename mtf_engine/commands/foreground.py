"""Work that the command line waits for: the same workers as in the background, with a progress bar each."""

import signal
import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mtf_engine.registry import RunRow
from mtf_engine.runs import executor
from mtf_engine.workspace import Workspace

Ended = Callable[[Workspace, RunRow], RunRow]
"""Returns a finished run if it was completed, else raises a Refusal."""


def finish(workspace: Workspace, run_id: str, ended: Ended = executor.completed) -> RunRow:
    """Returns the run once it is completed; Ctrl-C cancels it. A Refusal says why it was not completed."""
    return finish_all(workspace, run_id, ended=ended)[0]


def finish_all(workspace: Workspace, *run_ids: str, ended: Ended = executor.completed) -> list[RunRow]:
    """Returns the runs once all are completed; see `finish`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runs = _follow(workspace, *run_ids)
    except KeyboardInterrupt:
        for run_id in run_ids:
            if not workspace.registry.run(run_id).state.is_finished:
                executor.cancel(workspace, run_id)
        *_, runs = executor.watch(workspace, *run_ids)
    return [ended(workspace, run) for run in runs]


def _follow(workspace: Workspace, *run_ids: str) -> list[RunRow]:
    """Returns the finished runs; meanwhile shows their progress, if somebody is there to see it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    runs: list[RunRow] = []
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        tasks = [bar.add_task(run_id, total=None) for run_id in run_ids]
        for runs in executor.watch(workspace, *run_ids):
            for task, run in zip(tasks, runs, strict=True):
                what = f"{run.kind} {run.name} ({run.state})"
                bar.update(task, description=what, completed=run.step, total=run.n_steps or None)
    return runs
