"""`runs list`, `show`, `cancel`, `resume`, `logs`."""

from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, such as train-1f00ba77.")]
COLUMNS = ("run_id", "kind", "name", "state", "step", "n_steps", "seconds")
LONG = ("config", "result")

app = typer.Typer(no_args_is_help=True, help="What works, waits or has ended.")


@command(app, "runs list", name="list")
def list_runs(shell: Session) -> None:
    """List all runs, newest first."""
    runs = [run.public() for run in shell.workspace.registry.runs()]
    shell.show([{name: run[name] for name in run if name not in LONG} for run in runs], COLUMNS)


@command(app, "runs show train-1f00ba77 --json")
def show(shell: Session, run_id: RunId) -> None:
    """Show one run: state, progress, configuration, result."""
    shell.show(shell.workspace.registry.run(run_id).public())


@command(app, "runs cancel train-1f00ba77")
def cancel(shell: Session, run_id: RunId) -> None:
    """Stop a run and wait until it has stopped; a training keeps its checkpoint."""
    from mtf_engine.jobs import executor

    executor.cancel(shell.workspace, run_id)
    run = executor.wait(shell.workspace, run_id)
    shell.show({"run_id": run_id, "state": run.state, "step": run.step})


@command(app, "runs resume train-1f00ba77")
def resume(shell: Session, run_id: RunId) -> None:
    """Go on with a cancelled, interrupted or failed run, in the background."""
    from mtf_engine.jobs import executor

    executor.resume(shell.workspace, run_id)
    shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})


@command(app, "runs logs train-1f00ba77 --tail 20")
def logs(
    shell: Session,
    run_id: RunId,
    tail: Annotated[int | None, typer.Option(help="Only this many last lines.", min=1)] = None,
) -> None:
    """Print what a run's worker wrote to its log."""
    from mtf_engine.jobs import files

    shell.workspace.registry.run(run_id)
    path = shell.workspace.run_dir(run_id) / files.LOG
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    lines = lines[-(tail or len(lines)) :]
    if shell.as_json:
        shell.show({"run_id": run_id, "lines": lines})
    else:
        print("\n".join(lines))
