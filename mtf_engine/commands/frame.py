"""What all commands share: the session, `--json` after the command, refusals, and printing."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import yaml
from pydantic_core import to_json
from typer.core import TyperGroup

from mtf_engine.disk import refusals, workspace_path
from mtf_engine.spec import MOST, Refusal

if TYPE_CHECKING:
    from mtf_engine.workspace import Workspace

F = TypeVar("F", bound=Callable[..., None])
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


class Session:
    """One call of the command line: where it works and how it prints."""

    def __init__(self, workspace: Path | None, as_json: bool) -> None:
        self.path = workspace
        self.as_json = as_json

    @cached_property
    def workspace(self) -> "Workspace":
        """The workspace, with dead runs marked and queued ones started."""
        from mtf_engine.runs.executor import reconcile
        from mtf_engine.workspace import Workspace

        workspace = Workspace(self.path)
        reconcile(workspace)
        return workspace

    def show(self, document: Any, columns: Sequence[str] | None = None) -> None:
        """Prints `document`: as it is with `--json`, else as a table (of `columns`) or as lines."""
        if self.as_json:
            print(to_json(document, indent=2, inf_nan_mode="null").decode())
        elif isinstance(document, list):
            _print_table(document, columns)
        else:
            _print_lines(document)


def command(
    app: typer.Typer, example: str, name: str | None = None, hidden: bool = False
) -> Callable[[F], F]:
    """Adds a function that takes a `Session` first to `app`, with an example and the option `--json`."""

    def add(function: F) -> F:
        @wraps(function)
        def called(context: typer.Context, json: bool, **arguments: Any) -> None:
            context.obj.as_json |= json
            _refuse_numbers(context, arguments)
            function(context.obj, **arguments)

        first, *others = inspect.signature(function).parameters.values()
        context = first.replace(name="context", annotation=typer.Context)
        json = first.replace(name="json", annotation=Json, default=False)
        called.__signature__ = inspect.Signature([context, *others, json])  # type: ignore[attr-defined]
        epilog = f"Example: mtf {example}"
        app.command(name, epilog=epilog, hidden=hidden)(called)
        return function

    return add


def _refuse_numbers(context: typer.Context, arguments: Mapping[str, Any]) -> None:
    """Refuses a number that nothing here can work with, whichever command it is given to."""
    options = {parameter.name: parameter.opts[-1] for parameter in context.command.params}
    for name, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal(f"{options[name]} is {value}; give a finite number")
        least = 0 if name == "seed" else -MOST
        if isinstance(value, int) and not least <= value <= MOST:
            raise Refusal(f"{options[name]} is {value}; give {least} to {MOST}")


class Group(TyperGroup):
    """The top of the command line, where a refusal becomes one sentence and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with refusals(workspace_path(ctx.params.get("workspace"))):
                return super().invoke(ctx)
        except Refusal as refusal:
            if ctx.obj.as_json:
                ctx.obj.show({"error": str(refusal), "defects": refusal.defects})
            report = "; --json shows the report" if refusal.defects[1:] and not ctx.obj.as_json else ""
            print(f"{refusal}{report}", file=sys.stderr)
            ctx.exit(1)


def confirm_deletion(what: str, dependents: Sequence[object], *questions: str) -> None:
    """Says on stderr what is to be deleted and what depends on it, and asks each question; ends at a no."""
    for line in (what, *(f"  needed by {one}" for one in dependents)):
        typer.echo(line, err=True)
    for question in questions:
        typer.confirm(question, abort=True, err=True)


def _print_lines(document: Mapping[str, Any]) -> None:
    for name, value in document.items():
        if isinstance(value, dict):
            print(f"{name}:\n{indent(yaml.safe_dump(value, sort_keys=False), '  ')}", end="")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{name}:")
            _print_table(value, [n for n, of in value[0].items() if not isinstance(of, dict | list)])
        else:
            print(f"{name:<20} {_text(value)}")


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    names = columns or (list(rows[0]) if rows else [])
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_text(row[name]) for name in names))
    width = Console(width=10_000).measure(table).maximum  # cut nothing: a terminal wraps, a pipe need not
    Console(width=width).print(table if rows else "none")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
