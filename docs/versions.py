"""Prints docs/versions.md: what pyproject.toml allows, and which versions `make test-range` ran the tests on."""

import platform
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.reference import table

ROOT = Path(__file__).parent.parent
ENDS = {"oldest": ".venv-oldest", "locked": ".", "newest": ".venv-newest"}


def pinned(path: Path) -> dict[str, str]:
    """Returns the version of each package that a requirements file pins for this Python and system."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    found = [Requirement(line) for line in lines if "==" in line]
    applicable = (r for r in found if r.marker is None or r.marker.evaluate())
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in applicable}


def declared(*extras: str) -> list[Requirement]:
    """Returns what pyproject.toml asks for, with what its `extras` ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in (*project["dependencies"], *optional)]


def versions() -> str:
    """Returns the table of versions as Markdown."""
    sets = {end: pinned(ROOT / folder / "requirements.txt") for end, folder in ENDS.items()}
    rows = (
        (f"`{r.name}`", f"`{r.specifier}`", *(found[canonicalize_name(r.name)] for found in sets.values()))
        for r in declared()
    )
    parts = [
        "# Versions",
        "Written by `make test-range`, which ran every test that needs no browser on the oldest and on the newest "
        f"versions that `pyproject.toml` allows (Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}). `requirements.txt` locks the versions between them; `make test` runs on those.",
        table(("package", "range", *ENDS), rows),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(versions(), end="")
