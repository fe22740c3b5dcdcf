"""`abtest`."""

from typing import Annotated, Any

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import Background, Policies, Seed, environment, parse_seeds

app = typer.Typer()


@command(app, "abtest train-1f00ba77 --against baseline --env session --users 20000")
def abtest(
    shell: Session,
    policies: Policies,
    against: Annotated[str, typer.Option(metavar="POLICY", help="The base of all differences.")] = "baseline",
    env: Annotated[
        str, typer.Option(metavar="ENV", help="Where users come from: session, or gym:ID.")
    ] = "session",
    world: Annotated[
        str | None,
        typer.Option(metavar="W", help="Whose users (--env session); by default those of the policies' log."),
    ] = None,
    users: Annotated[int, typer.Option(metavar="N", min=2, help="Users of each seed.")] = 10_000,
    seed: Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="K",
            help="Several samples of users, which then are the unit of the intervals (best 5 or more): "
            "how many from --seed on, 1-5, or 0,3,7.",
        ),
    ] = None,
    personalisation: Annotated[
        bool, typer.Option("--personalisation", help="Each policy beside its own mean actions, too.")
    ] = False,
    stop_early: Annotated[
        bool,
        typer.Option(
            "--stop-early",
            help="End at the look at which every policy's session reward is told from the base's.",
        ),
    ] = False,
    background: Background = False,
) -> None:
    """A/B test policies on the same users of an environment, and tell the users a live test would need."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.questions.worlds import world_of_policies
    from mtf_engine.work.abtest import submit_abtest

    if env == "session":
        world = world or world_of_policies(shell.workspace, policies)
    run_id = submit_abtest(
        shell.workspace,
        policies,
        against=against,
        env=environment(env, world),
        n_users=users,
        seeds=(seed,) if seeds is None else parse_seeds(seeds, first=seed),
        personalisation=personalisation,
        stop_early=stop_early,
    )
    if background:
        shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})
    else:
        result = finish(shell.workspace, run_id).result or {}
        shell.show({"run_id": run_id, **(result if shell.as_json else _in_short(result))})


def _in_short(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a result with the looks that first told a difference from 0 in place of all looks."""
    from mtf_engine.evaluation.sequential import Look, first_told

    told = first_told(map(Look.model_validate, result["looks"])).values()
    return {name: value for name, value in result.items() if name != "looks"} | {
        "told": [look.model_dump(exclude={"day"}) for look in told]
    }
