"""The choice of whom to explore on: synthetic users, those of an imported log, or a Gymnasium environment."""

from typing import Any, NamedTuple

import streamlit as st
from pydantic import ValidationError

from mtf_engine.environments.names import GYM, REPLAY, SESSION, world_of
from mtf_engine.environments.replay import DEFAULT as DEFAULT_REPLAY
from mtf_engine.environments.replay import ReplayConfig
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import DEFAULT_WORLD, names
from mtf_engine.environments.world import World as SyntheticWorld
from mtf_engine.registry import DatasetRow, RunRow, RunState
from mtf_engine.spec import FusionSpec, Refusal
from pages.shared import links, loaders, words

REPLAYED = {"Impressions offered a request": 1_000, "Impressions shown": 1_000, "Requests a session": 1_000}
"""Titles of a replay's settings, and the largest value of each."""
GYM_ID = "gym"
"""Name of the Gymnasium environment in the address."""


class World(NamedTuple):
    """Whom to collect from: the environment's name, the log it replays, what its actions and features are."""

    env: str
    log: DatasetRow | None
    fusion: FusionSpec
    feature_names: tuple[str, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """What names it on a command line."""
        kind, _, what = self.env.partition(":")
        option = {SESSION: "--world", REPLAY: "--replay"}.get(kind)
        named = ("--env", kind, option, what) if option else ("--env", self.env)
        return (*named, *(("--from", self.log.id) if self.log else ()))


def choose() -> World | None:
    """Draws the choice; returns None where it names no environment, which the page then says."""
    logs = {row.id: row for row in loaders.datasets() if _replayable(row)}
    left, right = st.columns(2)
    titles = {SESSION: "Synthetic users", REPLAY: "Replay of an imported log", GYM: "A Gymnasium environment"}
    if not logs:
        del titles[REPLAY]
    kind = links.choice("Collect from", titles, "env", left)
    if kind == SESSION:
        return _session(right, bool(logs))
    return _replay(right, logs) if kind == REPLAY else _gymnasium(right)


def of_log(row: DatasetRow | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the options that collect where a log is from, or by replaying it, and the same in an address."""
    if row and not row.meta["synthetic"]:
        return ("--env", REPLAY, "--from", row.id), {"env": REPLAY, "dataset": row.id}
    env = str(row.meta["details"].get("env") or "") if row else ""
    if env.startswith(GYM):
        return ("--env", env), {"env": GYM, GYM_ID: env.removeprefix(GYM)}
    world = world_of(env) or DEFAULT_WORLD
    return ("--env", SESSION, "--world", world), {"env": SESSION, "world": world}


def fitting(world: World) -> list[RunRow]:
    """Returns the completed trainings whose policies can act there, newest first.

    Where the file of a policy is lost it is among them: the run itself refuses it.
    """
    trained = [(run, loaders.takes(run)) for run in loaders.trainings(RunState.COMPLETED)]
    return [run for run, takes in trained if takes is None or takes.fits(world.fusion, world.feature_names)]


def _replayable(row: DatasetRow) -> bool:
    """Returns whether the log has impressions of real users, whose observations can be made anew."""
    return row.source not in (SESSION, REPLAY) and row.meta.get("encoder") is not None


def _session(place: Any, any_log: bool) -> World:
    place.caption(
        "Simulated users and feedback: figures of such a log are marked as synthetic."
        + ("" if any_log else " An imported log can be replayed instead.")
    )
    env = SessionEnvironment(SessionConfig(world=choose_world(place)))
    return World(env.name, None, env.fusion, env.feature_names)


def choose_world(place: Any) -> str:
    """Draws the choice of a world of synthetic users and returns its name."""
    titles = {DEFAULT_WORLD: DEFAULT_WORLD, **{name: name for name in names()}}
    chosen: str = links.choice("World", titles, "world", place)
    place.caption(SyntheticWorld.named(chosen).what)
    return chosen


def _replay(place: Any, logs: dict[str, DatasetRow]) -> World | None:
    titles = {i: f"{row.name} · {row.n_requests:,} requests · {i}" for i, row in logs.items()}
    row = logs[links.choice("Replay the training days of", titles, "dataset", place)]
    fusion = FusionSpec.model_validate(row.meta["fusion"])
    fields, values = ReplayConfig.model_fields, []
    for place, name, (label, most) in zip(st.columns(len(REPLAYED)), fields, REPLAYED.items(), strict=True):
        values.append(
            place.number_input(
                label,
                1,
                most,
                getattr(DEFAULT_REPLAY, name),
                key=f"replay_{name}",
                bind="query-params",
                help=f"{(fields[name].description or '').capitalize()}.",
            )
        )
    try:
        replay = ReplayConfig(**dict(zip(fields, values, strict=True)))
    except ValidationError as error:
        st.error(words.plain(Refusal.invalid("the replay", error)))
        return None
    return World(replay.name, row, fusion, tuple(row.meta["feature_names"]))


def _gymnasium(place: Any) -> World | None:
    gym_id = place.text_input(
        "Id of the environment",
        key=GYM_ID,
        bind="query-params",
        placeholder="Pendulum-v1",
        help="As `gymnasium.make` takes it; `MODULE:ID` where a module registers it. Its actions are a bounded Box.",
    ).strip()
    if not gym_id:
        place.info("Write the id of an environment, such as `Pendulum-v1`.")
        return None
    try:
        fusion, feature_names = loaders.gymnasium(GYM + gym_id)
    except Refusal as refusal:
        place.error(words.plain(refusal))
        return None
    return World(GYM + gym_id, None, fusion, feature_names)
