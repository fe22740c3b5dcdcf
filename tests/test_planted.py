"""Tests notice: a bug that is planted in a copy of the house makes one of them fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted import BUGS, GUARDS, Bug

ROOT = Path(__file__).parent.parent
MOST_MISSED = 1
"""Of `BUGS`; of `GUARDS` none."""


def test_what_is_to_be_planted_stands_in_the_code():
    for name, bug in (BUGS | GUARDS).items():
        assert (ROOT / bug.file).read_text().count(bug.before) == 1, name
        for test in bug.tests.split():
            assert (ROOT / f"tests/{test}.py").exists(), name


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the house."""
    house = tmp_path_factory.mktemp("planted")
    for part in ("mtf_engine", "pages", "tests", "benchmarks", "docs", ".streamlit"):
        shutil.copytree(ROOT / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("app.py", "pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, house)
    return house


def fails(house: Path, tests: str, *options: str) -> bool:
    """Returns whether one of the tests, a word each, fails in the house."""
    files = [f"tests/{test}.py" for test in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files, *options]
    done = subprocess.run(
        command, cwd=house, env=os.environ | {"PYTHONPATH": str(house)}, capture_output=True
    )
    assert done.returncode in (0, 1), done.stdout.decode()
    return done.returncode == 1


def is_caught(house: Path, bug: Bug, *options: str) -> bool:
    """Returns whether a test fails while the bug is in."""
    file = house / bug.file
    sound = file.read_text()
    file.write_text(sound.replace(bug.before, bug.after))
    try:
        return fails(house, bug.tests, *options, *(["-k", bug.only] if bug.only else []))
    finally:
        file.write_text(sound)


@pytest.mark.slow
def test_planted_bugs_are_caught(house):
    assert not fails(house, " ".join({test for bug in BUGS.values() for test in bug.tests.split()})), (
        "without a bug"
    )
    missed = [name for name, bug in BUGS.items() if not is_caught(house, bug)]
    assert len(missed) <= MOST_MISSED, missed


@pytest.fixture(scope="module")
def sound(house) -> Path:
    """The house, in which no test of a guard fails while all stand."""
    tests = {test for bug in GUARDS.values() if not bug.only for test in bug.tests.split()}
    assert not fails(house, " ".join(sorted(tests)), "-m", "not slow")
    return house


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_is_taken_away_is_noticed(name, sound):
    assert is_caught(sound, GUARDS[name], "-m", "not slow")
