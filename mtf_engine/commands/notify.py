"""`notify set`, `show`, `off`, `test`, and the hidden `send`: who is told when a run ends."""

import json
import sys
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.spec import Refusal

NOBODY = "nobody is told when a run ends; name a webhook (`notify set URL`)"

app = typer.Typer(no_args_is_help=True, help="A webhook that is told when a run ends.")


@command(app, "notify set https://hooks.example.com/T0/B0 --dashboard https://mtf.example.com", name="set")
def set_receiver(
    shell: Session,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where notices are sent; - reads it from standard input.")
    ],
    dashboard: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The dashboard's address, so that notices link to their run."),
    ] = None,
) -> None:
    """Have a webhook told when a run ends, from now on: in JSON, with a `text` that chats show."""
    from mtf_engine.runs import notices

    url = sys.stdin.readline().strip() if url == "-" else url
    shell.show(notices.set_receiver(shell.workspace, url, dashboard).public())


@command(app, "notify show")
def show(shell: Session) -> None:
    """Show who is told when a run ends; of the URL its host alone."""
    from mtf_engine.runs import notices

    there = notices.receiver(shell.workspace)
    shell.show(there.public() if there else {"url": None})


@command(app, "notify off")
def off(shell: Session) -> None:
    """Have nobody told any more, and forget the URL."""
    from mtf_engine.runs import notices

    shell.show({"removed": notices.remove_receiver(shell.workspace)})


@command(app, "notify test")
def test(shell: Session) -> None:
    """Send a notice now, and say whether it arrived."""
    from mtf_engine.runs import notices

    there = notices.receiver(shell.workspace)
    if there is None:
        raise Refusal(NOBODY)
    text = f"A test: the workspace {shell.workspace.path.name} tells here when a run ends."
    notices.send(there, {"text": text})
    shell.show({"sent_to": there.masked})


@command(app, "notify send", hidden=True)
def send(shell: Session) -> None:
    """Send the notice on standard input; nothing where nobody is told any more."""
    from mtf_engine.runs import notices
    from mtf_engine.workspace import Workspace

    if there := notices.receiver(Workspace(shell.path)):
        notices.send(there, json.load(sys.stdin))
