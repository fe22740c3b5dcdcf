"""The documentation names everything there is: a new algorithm, setting, command or defect needs its row."""

import re
from pathlib import Path

import pytest
import typer

from docs import architecture
from docs.reference import commands, reference
from mtf_engine.algos import ALGOS
from mtf_engine.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_reference_is_what_the_code_says():
    assert (ROOT / "docs/reference.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")],
    ids=lambda path: path.name,
)
def test_numbers_have_their_leading_zero(path):
    fences = re.sub(r"^```.*?^```|^ {4}.*?$|`[^`]*`|\]\([^)]*\)", "", path.read_text(), flags=re.M | re.S)
    assert not re.findall(r".{0,20}(?<![\w.\])/:>])\.\d.{0,10}", fences)


@pytest.mark.parametrize("algo", ALGOS)
def test_every_setting_of_an_algorithm_is_described(algo):
    for name, field in ALGOS[algo].Config.model_fields.items():
        assert field.description, f"{algo}.{name} has no description"


@pytest.mark.parametrize("algo", ALGOS)
def test_readme_names_every_algorithm(algo):
    assert f"`{algo}`" in README


@pytest.mark.parametrize("path", [path for path, _ in commands(typer.main.get_command(app))])
def test_readme_names_every_command(path):
    unnamed = [word for word in path.split() if not re.search(rf"`[^`]*\b{re.escape(word)}\b", README)]
    assert not unnamed


@pytest.mark.parametrize("target", re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
def test_every_make_target_helps(target):
    assert target in ("help", "fast", "browser") or f"make {target} " in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    "text", [README, (ROOT / "CONTRIBUTING.md").read_text()], ids=["README", "CONTRIBUTING"]
)
def test_paths_that_the_documentation_names_exist(text):
    named = set(re.findall(r"`((?:mtf_engine|pages|tests|docs|benchmarks)/[\w/.]+)`", text))
    missing = {path for path in named if not (ROOT / path).exists()}
    assert not missing


def test_the_map_of_rooms_is_that_of_the_code():
    page = architecture.PAGE.read_text()
    assert architecture.written(page) == page, "run `make docs`"
    rooms = {path.parent.name for path in (ROOT / "mtf_engine").glob("*/__init__.py")}
    assert rooms == set(architecture.ROOMS)


def test_every_file_that_the_map_names_is_there():
    page = architecture.PAGE.read_text()
    told = page[: page.index(architecture.BEGIN)]
    files = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", told)) - {"_name.py"}
    known = [str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*.py")] + ["app.py"]
    assert len(files) > 20
    assert not {
        name for name in files if not any(path == name or path.endswith(f"/{name}") for path in known)
    }
    folders = set(re.findall(r"`(mtf_engine/[a-z_]+/)`", told))
    assert folders and all((ROOT / folder).is_dir() for folder in folders)
