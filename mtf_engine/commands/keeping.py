"""`runs rename`, `note`, `tag`, `archive`, `delete`: keeping runs in order."""

from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command, confirm_deletion
from mtf_engine.commands.runs import RunId, RunIds
from mtf_engine.registry import RunRow

app = typer.Typer()


def _kept(run: RunRow) -> dict[str, object]:
    return {"run_id": run.id, "name": run.name, "note": run.note, "tags": run.tags, "archived": run.archived}


@command(app, 'runs rename train-1f00ba77 "wider clicks"')
def rename(
    shell: Session, run_id: RunId, name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")]
) -> None:
    """Give a run another name, by which charts and tables call its policy too."""
    from mtf_engine.runs import keeping

    shell.show(_kept(keeping.rename(shell.workspace, run_id, name)))


@command(app, 'runs note train-1f00ba77 "wider bounds than last week"')
def note(
    shell: Session,
    run_id: RunId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='The note; "" removes it.')],
) -> None:
    """Write a note on a run, in place of the one it has."""
    from mtf_engine.runs import keeping

    shell.show(_kept(keeping.note(shell.workspace, run_id, text)))


@command(app, "runs tag train-1f00ba77 candidate --remove draft")
def tag(
    shell: Session,
    run_id: RunId,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG...]", help="Tags to add.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="TAG", help="A tag to take off; repeat for more.")
    ] = None,
) -> None:
    """Add tags to a run, or take some off."""
    from mtf_engine.runs import keeping

    shell.show(_kept(keeping.tag(shell.workspace, run_id, tags or [], remove or [])))


@command(app, "runs archive train-1f00ba77")
def archive(
    shell: Session,
    run_ids: RunIds,
    undo: Annotated[bool, typer.Option("--undo", help="Take them out again.")] = False,
) -> None:
    """Put runs out of sight; nothing of them is deleted."""
    from mtf_engine.runs import keeping

    shell.show([_kept(keeping.archive(shell.workspace, run_id, not undo)) for run_id in run_ids])


@command(app, "runs delete train-1f00ba77 --yes")
def delete(
    shell: Session,
    run_ids: RunIds,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete runs for good: rows, folders, policies, metrics; say what needed them. Datasets stay."""
    from mtf_engine.questions import dependents

    runs = [shell.workspace.registry.run(run_id) for run_id in dict.fromkeys(run_ids)]
    needed_by = dependents.of_runs(shell.workspace, runs)
    if not yes:
        what = "\n".join(f"{run.id} {run.kind} {run.name}" for run in runs)
        sure = f"Delete these {len(runs)} runs for good?"
        confirm_deletion(what, needed_by, sure, "Policies and metrics cannot be had back. Delete?")
    shell.workspace.delete_runs(*(run.id for run in runs))
    shown = [one.model_dump() for one in needed_by]
    shell.show({"deleted": [run.id for run in runs], "needed_by": shown})
