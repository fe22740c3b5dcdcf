"""`livetest`."""

from pathlib import Path
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command

app = typer.Typer()


@command(app, "livetest users.csv --base control --ratio control=1,treatment=1")
def livetest(
    shell: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV, JSON lines or Parquet, a row a user: user, arm, metrics, and date, the day a user came in.",
        ),
    ],
    base: Annotated[str, typer.Option(metavar="ARM", help="The base of all differences.")],
    ratio: Annotated[
        str,
        typer.Option(
            metavar="A=1,B=1", help="The shares that users were meant to be split by; else equal ones."
        ),
    ] = "",
    planned: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Users of two arms together that the test was planned for, said before it began: the boundary "
            "is tightest near them.",
            show_default="20,000",
        ),
    ] = None,
) -> None:
    """Read a live A/B test: were users split as meant, and what does each arm do, with a boundary for many looks."""
    from mtf_engine.evaluation.livetest import PLANNED, live_test
    from mtf_engine.logs.live_users import read_arms

    found = live_test(read_arms(file), base, ratio, planned or PLANNED)
    document = {"sentence": found.sample_ratio.sentence, **found.model_dump(mode="json")}
    if not shell.as_json:
        document = {name: document[name] for name in ("sentence", "effects", "looks")}
    shell.show(document)
