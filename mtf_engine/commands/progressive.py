"""`progressive` and `paper-data`."""

from enum import StrEnum
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import (
    Algo,
    Around,
    Background,
    Bounds,
    Env,
    Name,
    Preset,
    Replay,
    Seed,
    Source,
    Workers,
    World,
    bounds_plan,
    environment,
    parse_settings,
)

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One setting; n_steps is shared by the rounds, passes are of each.",
    ),
]
ABUsers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Users of an A/B test a round; 0: none.",
        show_default="2000, of gym:ID 400, of replay none",
    ),
]

app = typer.Typer()


class TrainOn(StrEnum):
    """The logs that a round learns from."""

    CURRENT = "current"
    CUMULATIVE = "cumulative"


class Promote(StrEnum):
    """What becomes the next round's baseline."""

    ALWAYS = "always"
    IF_BETTER = "if-better"
    BY_HAND = "by-hand"


@command(app, "progressive --env session --rounds 5 --sessions-per-round 4000 --background")
def progressive(
    shell: Session,
    env: Env,
    sessions_per_round: Annotated[int, typer.Option(metavar="N", min=1, help="Sessions a round collects.")],
    rounds: Annotated[int, typer.Option(metavar="K", min=1, help="How many.")] = 5,
    world: World = None,
    source: Source = None,
    replay: Replay = None,
    algo: Algo = "integrated_rl",
    preset: Preset = "laptop",
    settings: Settings = None,
    half_width: Annotated[float, typer.Option(help="Of the box, where no --bounds.")] = 0.15,
    bounds: Bounds = None,
    baseline: Around = "baseline",
    train_on: Annotated[TrainOn, typer.Option(help="The round's log, or all so far.")] = TrainOn.CURRENT,
    promote: Annotated[
        Promote, typer.Option(help="Each candidate; one above the baseline by A/B test or GAUC; as reviewed.")
    ] = Promote.IF_BETTER,
    metric: Annotated[
        str | None,
        typer.Option(help="What a round is judged by; default: the A/B session reward, else GAUC."),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC>=X", help="A limit that a candidate must keep; repeat for more."),
    ] = None,
    ab_users: ABUsers = None,
    seed: Seed = 0,
    name: Name = None,
    workers: Workers = 1,
    background: Background = False,
) -> None:
    """Explore, train and promote in rounds: what a round promotes is the next one's baseline."""
    from mtf_engine.release.criteria import parse_criteria
    from mtf_engine.work.progressive import default_ab_users, submit_progressive

    played = environment(env, world, replay)
    users = default_ab_users(played) if ab_users is None else ab_users
    run_id = submit_progressive(
        shell.workspace,
        env=played,
        source=source,
        rounds=rounds,
        sessions_per_round=sessions_per_round,
        algo=algo,
        preset=preset,
        settings=parse_settings(settings or []),
        half_width=half_width,
        plan=bounds_plan(shell.workspace, bounds) if bounds else None,
        baseline=baseline,
        train_on=train_on,
        promote=promote,
        ab_users=users,
        criteria=parse_criteria(metric, guardrail, env, tested=users > 0),
        seed=seed,
        n_workers=workers,
        name=name,
    )
    _show(shell, run_id, background)


@command(app, "paper-data --sessions 20000 --background")
def paper_data(
    shell: Session,
    sessions: Annotated[int, typer.Option(metavar="N", min=5, help="Of each dataset; a multiple of 5.")],
    world: World = None,
    algo: Algo = "integrated_rl",
    preset: Preset = "laptop",
    settings: Settings = None,
    seed: Seed = 0,
    workers: Workers = 1,
    background: Background = False,
) -> None:
    """Make the paper's datasets 1, 1b, 2, 3 and test from four disjoint groups of synthetic users."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.paper_data import submit_paper_data

    run_id = submit_paper_data(
        shell.workspace,
        env=environment("session", world),
        sessions=sessions,
        algo=algo,
        preset=preset,
        settings=parse_settings(settings or []),
        seed=seed,
        n_workers=workers,
    )
    if background:
        shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})
    else:
        shell.show({"run_id": run_id, **(finish(shell.workspace, run_id).result or {})})


def _show(shell: Session, run_id: str, background: bool) -> None:
    """Prints the rounds once they are played, or at once where nobody waits."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.release.rounds import Round

    if background:
        shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})
        return
    result = finish(shell.workspace, run_id).result or {}
    told = [Round.model_validate(one) for one in result["rounds"]]
    shell.show(
        {
            "run_id": run_id,
            "promoted": result["promoted"],
            "rounds": [
                {
                    "round": one.number,
                    "baseline": one.baseline,
                    "candidate": one.candidate,
                    "difference": one.policy.difference.value,
                    "ci_low": one.policy.difference.ci_low,
                    "ci_high": one.policy.difference.ci_high,
                    "path": one.policy.path,
                    "promoted": one.promoted,
                    "why": one.why,
                }
                for one in told
            ],
        }
    )
