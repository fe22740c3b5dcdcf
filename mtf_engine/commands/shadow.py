"""`shadow`."""

from typing import Annotated, Any

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import Seed

app = typer.Typer()


@command(app, "shadow train-1f00ba77 --against live --on real")
def shadow(
    shell: Session,
    candidate: Annotated[
        str,
        typer.Argument(metavar="POLICY", help="The candidate: a training, rounds, an import, candidate, ..."),
    ],
    on: Annotated[str, typer.Option("--on", metavar="DATASET", help="The log whose requests both rank.")],
    against: Annotated[str, typer.Option(metavar="POLICY", help="What it is compared with.")] = "live",
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=1, help="Places that are compared.", show_default="10, at most half a list"
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Rank a log's held-out requests by a candidate and by the live policy: what rises, what falls, and where."""
    from mtf_engine.questions.shadow import shadow_diff

    found = shadow_diff(shell.workspace, candidate, against, on, top_k=top_k, seed=seed)
    document = found.model_dump(mode="json")
    shell.show(document if shell.as_json else _in_short(document))


def _in_short(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of everybody, the ten largest shifts and the ten requests that differ most."""
    largest = sorted(document["attributes"], key=lambda of: -abs(of["difference"]["value"]))[:10]
    flat = [{**of, "change": of["difference"]["value"]} for of in largest]
    return document | {"attributes": flat, "requests": document["requests"][:10]}
