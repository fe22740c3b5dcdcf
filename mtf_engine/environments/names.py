"""Environments by the names that commands and configs give them."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from mtf_engine.spec import Spec

SESSION, REPLAY, GYM = "session", "replay", "gym:"
"""What the name of an environment is, or starts with: "session:WORLD", "replay:20/3/5", "gym:ID"."""
MODULES = "MTF_MODULES"
"""Environment variable with the folder that modules with environments of one's own are in; else the current one."""
FIRST_WORLD = "clickbait"
"""The world of a stored "session" that names none: there was no other."""


def session_of(world: str) -> str:
    """Returns the name of the environment of synthetic users in a world."""
    return f"{SESSION}:{world}"


def is_session(env: str) -> bool:
    """Returns whether users of the environment are synthetic."""
    return env.partition(":")[0] == SESSION


def world_of(env: str) -> str | None:
    """Returns the world of an environment's synthetic users; None where it has none."""
    return env.partition(":")[2] or FIRST_WORLD if is_session(env) else None


def meets_again(env: str | None) -> bool:
    """Returns whether the same users can be met by several policies, as an A/B test must."""
    return bool(env) and (is_session(str(env)) or str(env).startswith(GYM))


def is_replay(env: str) -> bool:
    """Returns whether the environment deals out the impressions of a log."""
    return env.partition(":")[0] == REPLAY


def _whole(env: str) -> str:
    """Returns the whole name of an environment, of which an earlier version may have stored a shorter one."""
    if env.endswith(":"):
        raise ValueError(f"{env!r} names no environment; write session:WORLD, replay:20/3/5 or gym:ID")
    if world := world_of(env):
        return session_of(world)
    if is_replay(env):
        from mtf_engine.environments.replay import ReplayConfig

        return ReplayConfig.named(env).name
    if env.startswith(GYM):
        return env
    raise ValueError(f"there is no environment {env!r}; write session:WORLD, replay:20/3/5 or gym:ID")


EnvName = Annotated[str, AfterValidator(_whole)]


class Played(Spec):
    """Sessions of an environment, or of a log that is replayed."""

    env: EnvName
    source: str | None = Field(default=None, description="id of the dataset to replay")

    @model_validator(mode="after")
    def _replay_has_a_source(self) -> Self:
        if is_replay(self.env) != (self.source is not None):
            raise ValueError("replay needs the dataset to replay (--from), and nothing else takes one")
        return self
