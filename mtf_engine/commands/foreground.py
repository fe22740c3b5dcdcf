"""Work that the command line waits for: the same worker as in the background, with a progress bar."""

import signal
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mtf_engine.jobs import executor
from mtf_engine.registry import RunRow, Workspace


def finish(workspace: Workspace, run_id: str) -> RunRow:
    """Returns the run once it is completed; Ctrl-C cancels it. A Refusal says why it was not completed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = _follow(workspace, run_id)
    except KeyboardInterrupt:
        executor.cancel(workspace, run_id)
        run = executor.wait(workspace, run_id)
    return executor.completed(workspace, run)


def _follow(workspace: Workspace, run_id: str) -> RunRow:
    """Returns the finished run; meanwhile shows its progress, if somebody is there to see it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(run_id, total=None)
        for run in executor.watch(workspace, run_id):
            bar.update(
                task, description=f"{run.kind} {run.state}", completed=run.step, total=run.n_steps or None
            )
    return run
