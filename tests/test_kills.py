"""Killed at any moment and resumed, a run of any kind ends like one that was left alone, bit for bit."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mtf_engine.work import kinds
from tests import kills

FEW = 4
MANY = int(os.environ.get("MTF_KILLS", "1000"))
"""Kills of the campaign of `make slow`."""


def test_the_campaign_is_of_every_kind_of_run():
    """But what is written to a server of MLflow's, and imports of policies, which are checked before they are runs."""
    assert {name.split()[0] for name in kills.CASES} | {"mlflow", "policy"} == set(kinds())


def test_a_worker_loads_no_more_than_its_kind_needs():
    told = "import sys; from mtf_engine.work import kinds; kinds(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], cwd=kills.ROOT).returncode == 0


def test_a_killed_import_or_training_ends_like_one_that_was_left_alone(tmp_path):
    stories = kills.started(tmp_path, FEW, "import", "train integrated_rl")
    assert n_kills(stories) >= FEW
    assert not [story for story in stories if story["wrong"]]


@pytest.mark.slow
def test_of_many_kills_of_every_kind_and_method_nothing_is_lost(tmp_path, capsys):
    stories = kills.started(tmp_path, MANY, *kills.CASES)
    with capsys.disabled():
        print("\n" + report(stories))
    assert not [story for story in stories if story["wrong"]]


def n_kills(stories: Sequence[dict[str, Any]]) -> int:
    return sum(len(story["kills"]) for story in stories)


def report(stories: Sequence[dict[str, Any]]) -> str:
    """Returns a line of each case, and one of all."""
    return "\n".join(
        [
            *(_line(name, [one for one in stories if one["case"] == name]) for name in kills.CASES),
            _line("all", stories),
        ]
    )


def _line(name: str, stories: Sequence[dict[str, Any]]) -> str:
    n = n_kills(stories)
    torn = sum(kill["torn"] for story in stories for kill in story["kills"])
    lost = sum(bool(story["wrong"]) for story in stories)
    bound = f", at most {3 / n:.1%} by the rule of three" if n and not lost else ""
    return f"{name}: {n} kills tried in {len(stories)} runs, {torn} of them amid a write, {lost} lost{bound}"
