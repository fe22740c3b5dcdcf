"""Decisions that set runs going: rounds that waited for people go on."""

from mtf_engine.jobs import executor
from mtf_engine.registry import DecisionRow, RunState, Workspace
from mtf_engine.release import review


def decide(
    workspace: Workspace,
    run_id: str,
    number: int | None,
    choice: review.Choice,
    *,
    name: str,
    reason: str = "",
) -> DecisionRow:
    """Returns the ledger's new entry, see `review.decide`; a run that waited for it is resumed."""
    row = review.decide(workspace, run_id, number, choice, name=name, reason=reason)
    run = workspace.registry.run(run_id)
    if run.config["promote"] == "by-hand" and run.state is RunState.INTERRUPTED:
        executor.resume(workspace, run_id)
    return row
