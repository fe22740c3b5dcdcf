"""Keeping runs in order: notes, tags, the archive."""

from collections.abc import Iterable

from mtf_engine.registry import RunRow
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

LONGEST_TAG = 40


def note(workspace: Workspace, run_id: str, text: str) -> RunRow:
    """Returns the run with `text` as its note, in place of an earlier one."""
    return _updated(workspace, run_id, note=text.strip())


def tag(workspace: Workspace, run_id: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> RunRow:
    """Returns the run with tags added and removed; a Refusal where one cannot be a tag."""
    added = [one.strip() for one in add]
    for one in added:
        if not one or len(one) > LONGEST_TAG or "," in one:
            raise Refusal(f"{one!r} cannot be a tag; use 1 to {LONGEST_TAG} characters and no comma")
    left = set(workspace.registry.run(run_id).tags) - set(remove)
    return _updated(workspace, run_id, tags=sorted(left | set(added)))


def archive(workspace: Workspace, run_id: str, archived: bool = True) -> RunRow:
    """Returns the run, put into the archive (out of sight, nothing is deleted) or taken out of it."""
    run = workspace.registry.run(run_id)
    if archived and not run.state.is_finished:
        raise Refusal(f"{run_id} is {run.state}; cancel it or wait for it before archiving it")
    return _updated(workspace, run_id, archived=archived)


def _updated(workspace: Workspace, run_id: str, **values: object) -> RunRow:
    workspace.registry.update_run(run_id, **values)
    return workspace.registry.run(run_id)
