"""`tune`."""

from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import Algo, Background, Name, Preset, Seed, Settings, parse_settings

app = typer.Typer()

Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="NAME=SPAN",
        help='What to try of a setting: "LOW..HIGH", "LOW..HIGH log" or "A,B,C"; repeat for more.',
    ),
]


@command(
    app,
    'tune explored --algo integrated_rl --search "actor_learning_rate=1e-5..1e-3 log" --search n_critics=2,8,24 '
    "--set n_steps=500 --trials 20",
)
def tune(
    shell: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Id or unique name of a log with validation users.")
    ],
    algo: Algo = "integrated_rl",
    search: Search = None,
    preset: Preset = "laptop",
    settings: Settings = None,
    trials: Annotated[
        int, typer.Option(metavar="N", min=2, help="Trainings; the first has the default settings.")
    ] = 20,
    at_once: Annotated[
        int,
        typer.Option(
            "--at-once",
            metavar="N",
            min=1,
            help="Trainings at a time. What is proposed depends on it: the next one does not know how N-1 others end.",
        ),
    ] = 1,
    seed: Seed = 0,
    name: Name = None,
    background: Background = False,
) -> None:
    """Search over a method's settings: trainings by Optuna's TPE, scored on validation users.

    Each is a run of its own. Killed and resumed (runs resume), a search ends the same; a failed trial is told, and the
    others go on. What this code trained before on the same log, with the same settings and seed, is not trained again.
    """
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.tune import submit_tune

    run_id = submit_tune(
        shell.workspace,
        dataset,
        algo=algo,
        preset=preset,
        settings=parse_settings(settings or []),
        search=parse_settings(search or [], "--search"),
        trials=trials,
        at_once=at_once,
        seed=seed,
        name=name,
    )
    if background:
        shell.show({"run_id": run_id, "state": shell.workspace.registry.run(run_id).state})
        return
    found = finish(shell.workspace, run_id).result or {}
    if not shell.as_json:
        found["trials"] = [one.pop("settings") | one for one in found["trials"]]
    shell.show({"run_id": run_id, **found})
