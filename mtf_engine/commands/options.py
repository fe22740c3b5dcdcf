"""Options that several commands take, each described once."""

from typing import Annotated

import typer

from mtf_engine.spec import Refusal

DEFAULT_WORLD, DEFAULT_REPLAY = "feed", "20/3/5"
World = Annotated[
    str | None,
    typer.Option(
        metavar="W", help="Whose users (--env session): feed, clickbait or noisy.", show_default=DEFAULT_WORLD
    ),
]
Replay = Annotated[
    str | None,
    typer.Option(
        metavar="C/S/R",
        help="Impressions offered, of them shown, requests a session (--env replay).",
        show_default=DEFAULT_REPLAY,
    ),
]
Env = Annotated[str, typer.Option(metavar="ENV", help="session, replay, or gym:ID.")]
Source = Annotated[
    str | None, typer.Option("--from", metavar="DATASET", help="The log to replay (--env replay).")
]
Bounds = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="A stored bounds plan or a YAML file.")]
Algo = Annotated[str, typer.Option(metavar="A", help="The method; README lists them.")]
Preset = Annotated[str, typer.Option(metavar="P", help="Settings to start from: paper, laptop, demo.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One setting; repeat for more.")
]
Seed = Annotated[int, typer.Option(metavar="S", help="Same seed, same draws; 0 to 2147483647.")]
Name = Annotated[str | None, typer.Option(metavar="N", help="A label.")]
Background = Annotated[bool, typer.Option("--background", help="Do not wait for the end.")]


def environment(env: str, world: str | None, replay: str | None = None) -> str:
    """Returns the whole name of the environment that --env, --world and --replay ask for.

    A Refusal of an option that the environment has no use for.
    """
    for option, given, of in (("--world", world, "session"), ("--replay", replay, "replay")):
        if given is not None and env != of:
            raise Refusal(f"{option} {given} says nothing of --env {env}; leave it out, or take --env {of}")
    if env == "replay":
        return f"replay:{replay or DEFAULT_REPLAY}"
    return f"session:{world or DEFAULT_WORLD}" if env == "session" else env
