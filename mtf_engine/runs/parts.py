"""Parts of a run: ordinary runs, done one after the other in the process of the run they belong to."""

from collections.abc import Callable

from mtf_engine.registry import BASELINE, RunRow, RunState, run_of
from mtf_engine.runs.worker import Job, run_part
from mtf_engine.spec import Refusal


def done(whole: Job, kind: str, name: str, submit: Callable[..., str]) -> RunRow:
    """Returns the completed part of `whole` of that kind and name, worked on now unless it was before.

    `submit` makes it, given its `name` and `parent_id`. A part that was begun goes on where it was, so a
    whole that was killed ends like one that was not. A Refusal where what the parts rest on was deleted since.
    """
    begun = whole.workspace.registry.runs(parent_id=whole.run.id)
    _check_parents(whole, begun)
    part = next((run for run in begun if (run.kind, run.name) == (kind, name)), None)
    if part is not None and part.state is RunState.COMPLETED:
        return part
    run_id = part.id if part else submit(whole.workspace, name=name, parent_id=whole.run.id)
    print(f"{kind} of {name}: {run_id}", flush=True)
    return run_part(whole, run_id)


def _check_parents(whole: Job, begun: list[RunRow]) -> None:
    """Refuses to go on with parts whose logs or policies are gone: anew, they would be others."""
    registry = whole.workspace.registry
    there = {BASELINE, *(row.id for row in registry.datasets()), *(run.id for run in registry.runs())}
    for part in (run for run in begun if run.state is RunState.COMPLETED):
        written = (str(part.dataset_id),) if part.writes_dataset else ()
        for needed in (*written, *part.reads_datasets, *map(run_of, part.reads_policies)):
            if needed not in there:
                raise Refusal(
                    f"{part.id}, the {part.kind} of {part.name}, rests on {needed}, which was deleted since, so "
                    f"{whole.run.id} cannot go on; start it anew"
                )
