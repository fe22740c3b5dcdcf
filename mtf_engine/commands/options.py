"""Options that several commands take, each described once."""

from typing import Annotated

import typer

World = Annotated[
    str, typer.Option(metavar="W", help="Whose users (--env session): feed, clickbait or noisy.")
]
DEFAULT_WORLD = "feed"
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


def environment(env: str, world: str) -> str:
    """Returns the whole name of the environment that --env and --world ask for."""
    return f"session:{world}" if env == "session" else env
