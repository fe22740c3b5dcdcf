"""Prints docs/reference.md from the code: `make docs` writes it, a test holds it up to date."""

from collections.abc import Iterable, Iterator
from typing import Any

import typer

from mtf_engine.algos import ALGOS
from mtf_engine.cli import app
from mtf_engine.logs.validation import DEFECT_CODES

EXAMPLE = "Example: mtf "


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every command that is not hidden, with the words that call it."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())
    if not hasattr(command, "commands") and not command.hidden:
        yield path, command


def settings(algo: str) -> Iterator[tuple[str, str, str]]:
    """Yields name, default (with the presets that differ) and meaning of each setting of an algorithm."""
    for name, field in ALGOS[algo].Config.model_fields.items():
        others = (
            f"{preset}: {_value(values[name])}"
            for preset, values in ALGOS[algo].presets.items()
            if name in values
        )
        default = _value(field.get_default(call_default_factory=True))
        yield f"`{name}`", ", ".join((default, *others)), str(field.description)


def reference() -> str:
    """Returns the reference as Markdown."""
    called = (
        (f"`{path}`", command.help.splitlines()[0], f"`{command.epilog.removeprefix(EXAMPLE)}`")
        for path, command in commands(typer.main.get_command(app))
    )
    parts = [
        "# Reference",
        "Written by `make docs` from the code.",
        "## Commands",
        "`mtf [--workspace DIR] [--json] COMMAND`; `--help` after one tells its options.",
        table(("command", "what it does", "example"), called),
    ]
    for algo in ALGOS:
        title = f"## Settings of `{algo}`"
        parts += [
            title,
            "Set with `--set name=value`.",
            table(("setting", "default", "meaning"), settings(algo)),
        ]
    codes = ((f"`{code}`", meaning) for code, meaning in DEFECT_CODES.items())
    parts += ["## Defects", "What an import is refused for.", table(("code", "what is wrong"), codes)]
    return "\n\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return "empty" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(reference(), end="")
