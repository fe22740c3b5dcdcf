"""Which world of synthetic users policies are from."""

from collections.abc import Sequence

from mtf_engine.environments.names import world_of
from mtf_engine.registry import is_trained
from mtf_engine.workspace import Workspace


def world_of_policies(workspace: Workspace, policies: Sequence[str]) -> str | None:
    """Returns the world that the log of the first of `policies` is from; None where none of them tells."""
    trained = filter(is_trained, map(workspace.policy, policies))
    learned = [workspace.trained(name).dataset_id for name in trained]
    details = {row.id: row.meta["details"] for row in workspace.registry.datasets()}
    worlds = (world_of(details.get(log or "", {}).get("env") or "") for log in learned)
    return next(filter(None, worlds), None)
