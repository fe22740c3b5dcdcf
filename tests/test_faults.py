"""Any write may fail: what is left is the old state or the new one, and what was stopped ends with the same bits."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import faults

SHORT, LONG = 2, 120
"""Trials of an operation, besides the two at its end: within seconds, and in `make slow`."""
LIGHT = ("steps", "submit", "decide", "delete-run")
"""Operations without torch."""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library that lets calls fail."""
    if shutil.which("cc") is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, and Linux")
    return faults.built(tmp_path)


def wrong(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in outcomes if one["wrong"]]


def test_whatever_call_fails_the_state_is_the_old_or_the_new_one(library, tmp_path):
    outcomes = faults.started(library, tmp_path, SHORT, *LIGHT)
    assert len(outcomes) == len(LIGHT) * (SHORT + 2)
    assert not wrong(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("operation", faults.OPERATIONS)
def test_a_campaign_loses_nothing(operation, library, tmp_path, capsys):
    outcomes = faults.started(library, tmp_path, LONG, operation)
    lost = wrong(outcomes)
    with capsys.disabled():
        bound = 3 / len(outcomes)
        print(
            f"\n{operation}: {len(outcomes)} tried, {len(lost)} lost (at most {bound:.1%} by the rule of three)"
        )
    assert not lost


@pytest.mark.slow
@pytest.mark.parametrize("bug", [bug for bug in faults.PLANTED if bug])
def test_a_planted_bug_is_found(bug, library, tmp_path):
    operation, _ = faults.PLANTED[bug]
    assert wrong(faults.started(library, tmp_path, SHORT, operation, planted=bug))
