"""A kind of run is one file in `mtf_engine/work`: whoever adds it changes nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KIND = '''
"""Countdowns: a run that counts to nothing, to see the house add a kind."""

from typing import Any

from pydantic import Field

from mtf_engine.workspace import Workspace
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Spec


class CountdownConfig(Spec):
    """Count down."""

    start: int = Field(ge=1)


def submit_countdown(workspace: Workspace, start: int) -> str:
    """Returns the id of the run that counts down."""
    config = CountdownConfig.asked("the countdown", {"start": start})
    return submit(workspace, KIND, config.model_dump(mode="json"), name=f"from {start}", n_steps=start)


def count_down(job: Job, config: CountdownConfig) -> dict[str, Any]:
    """Counts, and tells how often."""
    for step in range(1, config.start + 1):
        job.progress(step)
    return {"counted": config.start}


KIND = RunKind("countdown", CountdownConfig, count_down)
'''
SUBMIT = """
import json, os
from mtf_engine.workspace import Workspace
from mtf_engine.runs import executor
from mtf_engine.work.countdown import submit_countdown

workspace = Workspace(os.environ["MTF_WORKSPACE"])
run_ids = [submit_countdown(workspace, start) for start in (3, 4, 5)]
queue = [run.kind for run in workspace.registry.queue()]
ended = [executor.completed(workspace, executor.wait(workspace, run_id)).result for run_id in run_ids]
print(json.dumps({"run_ids": run_ids, "queue": queue, "ended": ended}))
"""
PAGE = """
import json
from streamlit.testing.v1 import AppTest

app = AppTest.from_file("app.py", default_timeout=60)
app.query_params["kind"] = "countdown"
app.switch_page("pages/train/runs.py").run()
assert not app.exception, app.exception
(table, *_) = app.dataframe
print(json.dumps({"kinds": sorted(set(table.value["Kind"])), "names": sorted(table.value["Name"])}))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the house, with one file more."""
    house = tmp_path_factory.mktemp("house")
    for part in ("mtf_engine", "pages"):
        shutil.copytree(ROOT / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", house)
    (house / "mtf_engine/work/countdown.py").write_text(KIND)
    return house


def called(house: Path, *command: str) -> dict:
    """Returns what a Python process in the house prints."""
    own = {"PYTHONPATH": str(house), "MTF_WORKSPACE": str(house / "data"), "MTF_WORKERS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=house, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1] if command[0] == "-c" else done.stdout)


@pytest.mark.slow
def test_a_kind_is_one_file(house):
    told = called(house, "-c", SUBMIT)
    assert told["queue"] == ["countdown", "countdown"], "one works, the others wait"
    assert told["ended"] == [{"counted": 3}, {"counted": 4}, {"counted": 5}]
    shown = called(house, "-m", "mtf_engine", "runs", "show", told["run_ids"][0], "--json")
    assert (shown["kind"], shown["step"], shown["config"]) == ("countdown", 3, {"start": 3})
    listed = called(house, "-m", "mtf_engine", "runs", "list", "--json")
    assert [run["kind"] for run in listed] == ["countdown"] * 3
    page = called(house, "-c", PAGE)
    assert page == {"kinds": ["countdown"], "names": ["from 3", "from 4", "from 5"]}
