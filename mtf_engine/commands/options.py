"""Options that several commands take, each described once."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtf_engine.spec import BoundsPlan, Refusal

if TYPE_CHECKING:
    from mtf_engine.workspace import Workspace

MOST_SEEDS = 100
RANGE = re.compile(r"(\d+)(?:-(\d+))?")

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
Policies = Annotated[
    list[str],
    typer.Argument(
        metavar="POLICY...",
        help="RUN, its last step, of rounds what they promoted last; RUN@best, its best on validation users; baseline; "
        "or one action for all: "
        "default, head:NAME, constant:W,W,..., constant:DIMENSION=W, random:SEED; on a log, regression.",
    ),
]
Around = Annotated[
    str, typer.Option(metavar="POLICY", help="Policy explored around: baseline, a training, head:NAME, ...")
]
Algo = Annotated[str, typer.Option(metavar="A", help="The method; README lists them.")]
Preset = Annotated[str, typer.Option(metavar="P", help="Settings to start from: paper, laptop, demo.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One setting; repeat for more.")
]
Seed = Annotated[int, typer.Option(metavar="S", help="Same seed, same draws; 0 to 2147483647.")]
Name = Annotated[str | None, typer.Option(metavar="N", help="A label.")]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, help="Processes that share the work; the result is the same.")
]
KeptTo = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="PLACE",
        help="Keep it as Parquet files: parquet, in the workspace, or s3://BUCKET/PREFIX, by AWS_* settings.",
        show_default="one file",
    ),
]
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


def parse_seeds(text: str, first: int = 0) -> tuple[int, ...]:
    """Returns the seeds of `text`: a count ("3", from `first` on), or ranges and lists ("1-5", "0,3,7")."""
    if text.strip().isdecimal():
        seeds = list(range(first, first + min(int(text), MOST_SEEDS + 1)))
    else:
        seeds = [seed for part in text.split(",") for seed in _range(part.strip(), text)]
    if not 0 < len(seeds) <= MOST_SEEDS:
        raise Refusal(f"--seeds {text} asks for {len(seeds)} seeds; ask for 1 to {MOST_SEEDS}")
    return tuple(dict.fromkeys(seeds))


def _range(part: str, text: str) -> Iterable[int]:
    found = RANGE.fullmatch(part)
    if not found:
        raise Refusal(f"--seeds {text} cannot be read; write a count (3), a range (1-5) or a list (0,3,7)")
    low = int(found[1])
    high = int(found[2] or low)
    return range(low, min(high, low + MOST_SEEDS) + 1)


def bounds_plan(workspace: "Workspace", name_or_file: str) -> BoundsPlan:
    """Returns the bounds plan in a YAML file, or else the one stored under that name."""
    path = Path(name_or_file)
    return BoundsPlan.from_yaml(path.read_bytes()) if path.is_file() else workspace.plan(name_or_file)


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, str]:
    """Returns `name=value` pairs as a dict; a Refusal names one that is not such a pair."""
    for setting in settings:
        if "=" not in setting:
            raise Refusal(f"{option} {setting} has no value; write {option} name=value")
    return dict(setting.split("=", 1) for setting in settings)
