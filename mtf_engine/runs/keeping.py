"""Keeping runs in order: names, notes, tags, the archive."""

from collections.abc import Iterable
from typing import Any

from mtf_engine.registry import RunRow, RunState
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

LONGEST_TAG, LONGEST_NAME = 40, 80


def rename(workspace: Workspace, run_id: str, name: str) -> RunRow:
    """Returns the run under another name; a Refusal where its name still finds it for the run that it is a part of."""
    run, name = workspace.registry.run(run_id), " ".join(name.split())
    if not name or len(name) > LONGEST_NAME:
        raise Refusal(f"{name!r} cannot be a name; use 1 to {LONGEST_NAME} characters")
    whole = workspace.registry.run(run.parent_id) if run.parent_id else None
    if whole is not None and whole.state is not RunState.COMPLETED:
        raise Refusal(
            f"{run_id} is a part of {whole.id}, which goes on with it by its name; wait until it is completed"
        )
    return _updated(workspace, run_id, name=name)


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


def _updated(workspace: Workspace, run_id: str, **values: Any) -> RunRow:
    workspace.registry.update_run(run_id, **values)
    return workspace.registry.run(run_id)
