"""`runs list`, `show`, `cancel`, `resume`, `move`, `logs`, `compare`, `tensorboard`, `deletions`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtf_engine.commands.frame import Session, command

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, such as train-1f00ba77.")]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs.")]
COLUMNS = ("run_id", "kind", "name", "state", "step", "n_steps", "best_score", "seconds", "executor", "host")
LONG = ("config", "result", "provenance")

app = typer.Typer(no_args_is_help=True, help="What works, waits or has ended.")


@command(
    app, "runs list --where 'params.eta > 1 and best_score >= 0.7' --columns name,params.eta", name="list"
)
def list_runs(
    shell: Session,
    archived: Annotated[bool, typer.Option("--archived", help="Those in the archive too.")] = False,
    where: Annotated[str, typer.Option(help="Only those of which this holds.", metavar="EXPRESSION")] = "",
    columns: Annotated[
        str, typer.Option(help="What is shown: names as in --where, with commas between.", metavar="NAMES")
    ] = "",
) -> None:
    """List runs, newest first; `params.X` is a setting, `metrics.X` what was logged last."""
    runs = [run for run in shell.workspace.registry.runs() if archived or not run.archived]
    if not where and not columns:
        public = [run.public() for run in runs]
        shell.show([{name: run[name] for name in run if name not in LONG} for run in public], COLUMNS)
        return
    from mtf_engine.runs.finding import found

    names = [name for name in map(str.strip, columns.split(",")) if name] or list(COLUMNS)
    shell.show(found(shell.workspace, runs, where, names), names)


@command(app, "runs show train-1f00ba77 --json")
def show(shell: Session, run_id: RunId) -> None:
    """Show one run: state, progress, configuration, result, what computed it, what is wrong with it."""
    from mtf_engine.learning.sentinels import sentinels
    from mtf_engine.runs import metrics

    run = shell.workspace.registry.run(run_id)
    told = sentinels(metrics.read(shell.workspace.run_dir(run_id)))
    shell.show(run.public() | {"sentinels": [sentinel.sentence for sentinel in told]})


@command(app, "runs cancel train-1f00ba77")
def cancel(shell: Session, run_id: RunId) -> None:
    """Stop a run and wait until it has stopped; a training keeps its checkpoint."""
    from mtf_engine.runs import executor

    executor.cancel(shell.workspace, run_id)
    run = executor.wait(shell.workspace, run_id)
    shell.show({"run_id": run_id, "state": run.state, "step": run.step})


@command(app, "runs resume train-1f00ba77")
def resume(
    shell: Session,
    run_id: RunId,
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="Where a training goes on, if elsewhere than before."),
    ] = None,
) -> None:
    """Go on with a cancelled, interrupted or failed run, in the background."""
    from mtf_engine.runs import executor

    executor.resume(shell.workspace, run_id, device)
    shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})


@command(app, "runs move train-1f00ba77 up")
def move(
    shell: Session,
    run_id: RunId,
    where: Annotated[Literal["up", "down", "first", "last"], typer.Argument(help="In the queue.")],
) -> None:
    """Change a queued run's place in the queue, and show the queue."""
    from mtf_engine.runs import executor

    length = len(shell.workspace.registry.queue())
    executor.move(shell.workspace, run_id, {"up": -1, "down": 1, "first": -length, "last": length}[where])
    queue = [
        {"run_id": run.id, "kind": run.kind, "name": run.name} for run in shell.workspace.registry.queue()
    ]
    shell.show(queue)


@command(app, "runs logs train-1f00ba77 --tail 20")
def logs(
    shell: Session,
    run_id: RunId,
    tail: Annotated[int | None, typer.Option(help="Only this many last lines.", min=1)] = None,
) -> None:
    """Print what a run's worker wrote to its log, wherever it works."""
    from mtf_engine.runs import executor

    lines = executor.tail(shell.workspace, shell.workspace.registry.run(run_id), tail)
    if shell.as_json:
        shell.show({"run_id": run_id, "lines": lines})
    else:
        print("\n".join(lines))


@command(app, "runs compare train-1f00ba77 train-2f00ba77")
def compare(shell: Session, run_ids: RunIds) -> None:
    """Tell in which settings trainings differ, and the best score of each."""
    from mtf_engine.runs.differences import compared

    runs = [shell.workspace.registry.run(run_id) for run_id in dict.fromkeys(run_ids)]
    differing, _ = compared(runs)
    differing |= {"best score": tuple(run.best_score for run in runs)}
    ids = [run.id for run in runs]
    shell.show([{"setting": name, **dict(zip(ids, differing[name], strict=True))} for name in differing])


@command(app, "runs tensorboard train-1f00ba77 --to tensorboard")
def tensorboard(
    shell: Session,
    run_ids: RunIds,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="TensorBoard's folder; made if missing.")],
) -> None:
    """Write the metrics of trainings as TensorBoard event files, a folder each."""
    from mtf_engine.runs.tensorboard import export

    written = [(run_id, *export(shell.workspace, run_id, to)) for run_id in run_ids]
    shell.show([{"run_id": run_id, "file": str(path), "points": n} for run_id, path, n in written])


@command(app, "runs deletions")
def deletions(shell: Session) -> None:
    """List what was deleted for good, newest first: runs, datasets and plans, and by whom if one was logged in."""
    rows = [row.model_dump(mode="json", exclude={"id"}) for row in shell.workspace.registry.deletions()]
    shell.show(rows)
