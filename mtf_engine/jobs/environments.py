"""Environments by the names that commands and configs give them."""

from typing import TYPE_CHECKING

from mtf_engine.jobs.storage import open_dataset
from mtf_engine.registry import Workspace

if TYPE_CHECKING:
    from mtf_engine.environments import Environment

SESSION, REPLAY = "session", "replay"


def open_environment(
    workspace: Workspace, name: str, *, source: str | None = None, seed: int = 0, n_threads: int = 1
) -> "Environment":
    """Returns the environment called `name`; `source` is the dataset to replay, `seed` draws where it starts."""
    if name == SESSION:
        from mtf_engine.environments.session import SessionEnvironment

        return SessionEnvironment(n_threads=n_threads)
    from mtf_engine.environments.replay import ReplayEnvironment

    return ReplayEnvironment(open_dataset(workspace, str(source)), seed=seed)
