"""Environments by the names that commands and configs give them."""

from typing import TYPE_CHECKING

from mtf_engine.jobs.configs import GYM, world_of
from mtf_engine.jobs.storage import open_dataset
from mtf_engine.registry import Workspace

if TYPE_CHECKING:
    from mtf_engine.environments import Environment


def check_environment(name: str) -> None:
    """Refuses a world or a Gymnasium environment that is not there, or whose actions cannot be explored."""
    if world := world_of(name):
        from mtf_engine.environments.world import World

        World.named(world)
    if name.startswith(GYM):
        from mtf_engine.environments.gymnasium import GymnasiumEnvironment

        GymnasiumEnvironment.named(name)


def open_environment(
    workspace: Workspace, name: str, *, source: str | None = None, seed: int = 0, n_threads: int = 1
) -> "Environment":
    """Returns the environment `name`; `source` is the dataset to replay, `seed` draws where its sessions start."""
    if world := world_of(name):
        from mtf_engine.environments.session import SessionConfig, SessionEnvironment

        return SessionEnvironment(SessionConfig(world=world), n_threads)
    if name.startswith(GYM):
        from mtf_engine.environments.gymnasium import GymnasiumEnvironment

        return GymnasiumEnvironment.named(name)
    from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment

    return ReplayEnvironment(open_dataset(workspace, str(source)), ReplayConfig.named(name), seed)
