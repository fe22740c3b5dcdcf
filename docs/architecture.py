"""The map of rooms in docs/architecture.md, drawn from the code: `python -m docs.architecture` writes it anew."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- rooms: written by `make docs` -->\n", "<!-- end of rooms -->\n"
ROOMS = (
    "registry_versions", "logs", "exploration", "environments", "policies", "evaluation", "learning", "algos",
    "release", "study", "runs", "questions", "work", "serving", "commands",
)  # fmt: skip
"""In the order that data goes, lowest first."""


def first_line(path: Path) -> str:
    """Returns the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def rooms() -> Iterator[str]:
    """Yields the map as markdown: a room and what it is for, and each of its files."""
    for name in ROOMS:
        room = ROOT / "mtf_engine" / name
        yield f"\n### `{name}/`\n\n{first_line(room / '__init__.py')}\n\n"
        for path in sorted(room.rglob("[!_]*.py")):
            yield f"- `{path.name}`: {first_line(path)}\n"
    yield "\n### Beside the rooms\n\n"
    for path in sorted((ROOT / "mtf_engine").glob("[!_]*.py")):
        yield f"- `{path.name}`: {first_line(path)}\n"


def written(text: str) -> str:
    """Returns the page with its map as the code is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "".join(rooms()) + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
