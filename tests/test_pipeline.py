"""The data's way, end to end: README's example word for word, and the same on a real log by command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtf_engine.runs import executor
from tests.test_cli import Shell

ROOT = Path(__file__).parent.parent


def test_readme_example_runs_word_for_word(tmp_path, monkeypatch):
    """README's first Python block takes a log to a verified bundle."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README has no Python example"
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(compile(block[1], "README.md", "exec"), namespace)
    assert namespace["check"]["ok"] and namespace["check"]["max_abs_diff"] < 1e-5
    gauc = {row.run_id: row.weighted_gauc for row in namespace["result"].policies}
    assert set(gauc) == {"baseline", "learned"}
    assert all(0 < value < 1 for value in gauc.values())


def test_a_real_log_becomes_a_verified_bundle(tmp_path, kuairand, borne):
    """KuaiRand is imported, explored by replay, trained on in the background, compared and exported."""
    run = Shell(tmp_path / "workspace")
    imported = run("dataset", "import", str(kuairand), "--format", "kuairand", "--name", "real")
    assert imported["impressions"] > 15_000

    explored = run(
        "dataset", "collect", "--env", "replay", "--from", imported["dataset_id"],
        "--explore", "uniform", "--half-width", ".15", "--requests", "1500", "--seed", "1",
    )  # fmt: skip
    assert explored["requests"] >= 1500 and explored["passes"] >= 1

    started = run(
        "train", explored["dataset_id"], "--algo", "integrated_rl", "--preset", "demo",
        "--set", "n_steps=60", "--seed", "3", "--background",
    )  # fmt: skip
    assert started["state"] in ("queued", "running")
    executor.wait(run.workspace, started["run_id"])
    finished = run("runs", "show", started["run_id"])
    assert (finished["state"], finished["step"], finished["kind"]) == ("completed", 60, "train")

    scores = run("evaluate", started["run_id"], "baseline", "--on", imported["dataset_id"])
    assert [s["run_id"] for s in scores if not s["floor"]] == [started["run_id"], "baseline"]
    assert scores[-1]["run_id"] == "regression" and scores[-2]["run_id"].startswith("head:")
    for score in scores:
        assert score["split"] == "test"
        assert score["ci_low"] < score["weighted_gauc"] < score["ci_high"]
        assert score["users_used"] > 100

    bundle = tmp_path / "policy.zip"
    run("export", started["run_id"], "--to", str(bundle))
    checked = run("verify", str(bundle))
    assert checked["ok"] and checked["max_abs_diff"] < 1e-5


@pytest.mark.parametrize("command", ["density", "doctor"])
def test_commands_work_in_an_empty_workspace(tmp_path, command):
    base = [sys.executable, "-m", "mtf_engine", "--workspace", str(tmp_path / "new"), "--json"]
    done = subprocess.run([*base, command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
