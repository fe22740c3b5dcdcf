"""The command line: `mtf [--workspace DIR] [--json] COMMAND ...`, or `python -m mtf_engine`.

Every command is a thin way into the engine, imported inside the command: torch and pandas take seconds to load,
and most commands need neither.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from mtf_engine import __version__
from mtf_engine.commands import (
    abtest,
    bounds,
    compare,
    datasets,
    keeping,
    livetest,
    models,
    notify,
    progressive,
    review,
    runs,
    serve,
    shadow,
    tune,
    upkeep,
)
from mtf_engine.commands.frame import Group, Json, Session
from mtf_engine.disk import keep_private, workspace_path

app = typer.Typer(
    cls=Group,
    name="mtf",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Explore, train, compare and export the weights that fuse a recommender's predictions.",
    epilog="Exit code: 0; 1 for refused input, with one sentence on stderr; 2 for a wrong call.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"mtf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of datasets and runs; else MTF_WORKSPACE, else data/."),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where runs work: local, or ray://HOST:8265 of a Ray cluster; else MTF_EXECUTOR, else local.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Take a Ray cluster that wants no token, as MTF_EXECUTOR_INSECURE=1 does."
        ),
    ] = False,
    json: Json = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Opens the session that every command gets. What it writes is as private as its workspace."""
    if executor is not None:
        os.environ["MTF_EXECUTOR"] = executor
    if insecure:
        os.environ["MTF_EXECUTOR_INSECURE"] = "1"
    keep_private(workspace_path(workspace))
    context.obj = Session(workspace, json)


app.add_typer(datasets.app, name="dataset")
app.add_typer(bounds.app, name="bounds")
runs.app.add_typer(keeping.app)
app.add_typer(runs.app, name="runs")
app.add_typer(models.app)
app.add_typer(tune.app)
app.add_typer(abtest.app)
app.add_typer(livetest.app)
app.add_typer(shadow.app)
app.add_typer(progressive.app)
app.add_typer(compare.app)
app.add_typer(review.app, name="review")
app.add_typer(serve.app)
app.add_typer(notify.app, name="notify")
app.add_typer(upkeep.app)
