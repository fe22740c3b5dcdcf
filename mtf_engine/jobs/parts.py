"""Parts of a run: ordinary runs, done one after the other in the process of the run they belong to."""

from collections.abc import Callable

from mtf_engine.jobs.worker import Job, run_part
from mtf_engine.registry import Kind, RunRow, RunState


def done(whole: Job, kind: Kind, name: str, submit: Callable[..., str]) -> RunRow:
    """Returns the completed part of `whole` of that kind and name, worked on now unless it was before.

    `submit` makes it, given its `name` and `parent_id`. A part that was begun goes on where it was, so a
    whole that was killed ends like one that was not.
    """
    begun = whole.workspace.registry.runs(kind=kind, parent_id=whole.run.id)
    part = next((run for run in begun if run.name == name), None)
    if part is not None and part.state is RunState.COMPLETED:
        return part
    run_id = part.id if part else submit(whole.workspace, name=name, parent_id=whole.run.id)
    print(f"{kind} of {name}: {run_id}", flush=True)
    return run_part(whole, run_id)
