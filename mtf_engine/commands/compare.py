"""`compare`."""

from enum import StrEnum
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import (
    Background,
    Preset,
    Replay,
    Workers,
    World,
    environment,
    parse_seeds,
    parse_settings,
)

app = typer.Typer()
ALL = "all"

Methods = Annotated[
    str,
    typer.Option(
        metavar="A,B", help="README lists them; all: every one; METHOD:item: with weights for each item."
    ),
]
Datasets = Annotated[
    str,
    typer.Option(metavar="A,B", help="1 Gaussian, 1b Gaussian of matched sigma, 2 uniform, 3 five rounds."),
]
Seeds = Annotated[
    str, typer.Option(metavar="K", help="How many from 0 on, 1-5, or 0,3,7; each has data of its own.")
]
Source = Annotated[
    str | None,
    typer.Option("--from", metavar="DATASET", help="The log to replay; its test days score, no A/B test."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting, of every method that has it."),
]
Sessions = Annotated[int, typer.Option(metavar="N", min=5, help="Of each dataset; a multiple of 5.")]
Rounds = Annotated[
    bool, typer.Option("--rounds", help="Every method that learns collects its own five rounds, too.")
]
Critics = Annotated[
    str, typer.Option(metavar="K,K", help="integrated_rl on dataset 2 with so many critics, too.")
]


class Reuse(StrEnum):
    """Which stored results stand for a part of a comparison."""

    SAME = "same-code"
    ANY = "any"


@command(
    app, "compare --methods all --datasets 1,1b,2,3 --seeds 3 --env session --preset laptop --background"
)
def compare(
    shell: Session,
    methods: Methods = ALL,
    datasets: Datasets = "1,1b,2,3",
    seeds: Seeds = "3",
    env: Annotated[str, typer.Option(metavar="ENV", help="session, replay, or gym:ID.")] = "session",
    world: World = None,
    source: Source = None,
    replay: Replay = None,
    preset: Preset = "laptop",
    settings: Settings = None,
    sessions: Sessions = 20_000,
    half_width: Annotated[float, typer.Option(help="Of the box explored; noise is matched to it.")] = 0.15,
    rounds: Rounds = False,
    n_critics: Critics = "",
    users: Annotated[int, typer.Option(metavar="N", min=2, help="Users of each A/B test.")] = 10_000,
    reuse: Annotated[
        Reuse, typer.Option(help="Stored results to take: of this code, or of any.")
    ] = Reuse.SAME,
    workers: Workers = 1,
    background: Background = False,
) -> None:
    """Compare methods: each on each dataset with each seed, by weighted GAUC and A/B test.

    Two parts work at a time; what is stored already is not done again. Every method has the settings of its
    preset: none is tuned further.
    """
    from mtf_engine.algos import ALGOS
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.study import submit_compare

    run_id = submit_compare(
        shell.workspace,
        methods=tuple(ALGOS) if methods == ALL else _listed(methods),
        datasets=_listed(datasets),
        seeds=parse_seeds(seeds),
        env=environment(env, world, replay),
        source=source,
        preset=preset,
        settings=parse_settings(settings or []),
        sessions=sessions,
        half_width=half_width,
        rounds=rounds,
        n_critics=_listed(n_critics),
        users=users,
        reuse=reuse,
        n_workers=workers,
    )
    if background:
        shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})
    else:
        shell.show({"run_id": run_id, **(finish(shell.workspace, run_id).result or {})})


def _listed(text: str) -> tuple[str, ...]:
    """Returns the parts of `text` between its commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
