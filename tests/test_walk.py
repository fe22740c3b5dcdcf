"""The jobs of a decision, walked in a browser from a log to a verified bundle, on synthetic users and on a real log.

    MTF_PICTURES=docs/pictures MTF_KUAIRAND=data/kuairand python -m pytest -m slow -s tests/test_walk.py

keeps a picture of each step and writes into docs/walk.md how many clicks and seconds each job took.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import expect

from mtf_engine.policies.bundle import verify
from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.workspace import Workspace
from tests.browsing import ROOT
from tests.test_browser import newest_training, serve
from tests.walking import LONG, PICTURES, Walk

__all__ = ["serve"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

N_STEPS, N_REQUESTS = 1_500, 4_000
SMALL = ("--preset", "demo", "--set", "n_critics=4", "--set", "hidden=16")


def command(workspace: Workspace, *arguments: str) -> None:
    base = [sys.executable, "-m", "mtf_engine", "--workspace", str(workspace.path)]
    subprocess.run([*base, *arguments], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace; in the project's `data/` where pictures are kept, since they show its path."""
    path = Path("data/walk") if PICTURES else tmp_path / "workspace"
    made = Workspace(path)
    yield made
    at_work = made.registry.runs(RunState.QUEUED, RunState.RUNNING)
    for run in (
        run for run in at_work if run.parent_id is None
    ):  # a round that was decided goes on with the next
        executor.cancel(made, run.id)
        executor.wait(made, run.id)
    shutil.rmtree(path)


def test_the_seven_jobs_on_synthetic_users(workspace, serve, tab, tmp_path):
    command(workspace, "demo")
    walk = Walk("synthetic", serve(workspace).url, tab)
    walk.open()
    import_log(walk, Path("docs/example_log"))  # of the server's folder: pictures show it
    from_drift_to_policies(walk, workspace, of="demo on uniform", beside="demo on gaussian")
    decide_and_export(walk, tmp_path)
    walk.end()


def test_the_seven_jobs_on_a_real_log(workspace, serve, tab, tmp_path, kuairand):
    walk = Walk("kuairand", serve(workspace).url, tab)
    walk.open()
    import_log(walk, kuairand)
    log = workspace.dataset("kuairand").id
    replay = ("--env", "replay", "--from", log)
    rounds = ("--rounds", "1", "--sessions-per-round", "800", "--promote", "by-hand", "--background")
    command(workspace, "progressive", *replay, *rounds, *SMALL)
    executor.wait(workspace, workspace.registry.runs(kind="progressive")[0].id)
    requests = ("--requests", str(N_REQUESTS))
    command(workspace, "dataset", "collect", *replay, "--explore", "uniform", *requests, "--name", "first")
    command(workspace, "train", workspace.dataset("first").id, *SMALL, "--name", "first policy")
    from_drift_to_policies(walk, workspace, of=None, beside="first policy")
    decide_and_export(walk, tmp_path)
    walk.end()


def test_a_round_is_asked_for_decided_by_name_and_its_bundle_taken_away(workspace, serve, tab, tmp_path):
    walk = Walk("round", serve(workspace).url, tab)
    walk.open()
    with walk.job("ask for a round"):
        walk.follow("Rounds", "Rounds")
        walk.choose("Preset", "demo")
        asked = {"Rounds": 1, "Sessions a round": 400, "A/B users a round": 300, "Gradient steps in all": 300}
        for label, number in asked.items():
            walk.write(label, number)
        walk.see("form", "--ab-users 300")
        walk.click("Start rounds")
        expect(walk.page.get_by_role("heading", name="The next round")).to_be_visible(timeout=LONG)
        expect(walk.page.locator(".js-plotly-plot")).to_have_count(2, timeout=LONG)
        walk.see("played")
    decide_and_export(walk, tmp_path, "Review it")
    walk.end()


def import_log(walk: Walk, log: Path) -> None:
    with walk.job("import"):
        walk.follow("Import logs", "Import logs")
        walk.write("Path of the file or folder", log)
        walk.click("Check and import")
        walk.see("imported", "Imported")


def from_drift_to_policies(walk: Walk, workspace: Workspace, of: str | None, beside: str) -> None:
    """Walks the five jobs between a log and a decision; `of` None takes the policy that the page offers."""
    choose_bounds(walk, of)
    collect(walk)
    train(walk, workspace)
    read(walk)
    compare(walk, beside)


def choose_bounds(walk: Walk, of: str | None) -> None:
    with walk.job("choose bounds"):
        walk.follow("Bounds planner", "Bounds planner")
        walk.turn_to("From drift")
        if of:
            walk.choose("Policy", of)
        walk.mark("Keep baseline inside")
        walk.see("drift", "It holds")
        walk.click("Take it to the planner")
        walk.see("planner", "Traffic until the box is filled")
        walk.write("Name", "around the policy")
        walk.click("Store")
        expect(walk.page.get_by_text("It is stored as")).to_be_visible()
        walk.turn_to("Cost")
        walk.see("cost", "requests are ranked again")


def collect(walk: Walk) -> None:
    with walk.job("collect"):
        walk.turn_to("By hand")
        walk.follow("Collect from the dashboard →", "Collect a log")
        walk.write("Requests", N_REQUESTS)
        walk.write("Name (optional)", "second")
        walk.see("collect", "--bounds 'around the policy'")
        walk.click("Collect")
        walk.see("collected", "Collected")
        walk.follow("Certify its coverage →", "Datasets")
        walk.see("certificate", re.compile("Passed|Failed"))


def train(walk: Walk, workspace: Workspace) -> None:
    with walk.job("train, cancel and resume"):
        walk.follow("Train on it →", "Start a training")
        walk.mark("demo")
        walk.write("n_steps", N_STEPS)
        walk.click("Start training")
        run_id = newest_training(workspace)
        working = re.compile(rf"[1-9]\d* of {N_STEPS:,}")
        expect(walk.page.get_by_text(working).first).to_be_visible(timeout=LONG)
        expect(walk.page.locator(".js-plotly-plot").first).to_be_visible()
        walk.see("live curves")
        walk.click("Cancel")
        expect(walk.page.get_by_role("button", name="Resume")).to_be_visible(timeout=LONG)
        assert workspace.registry.run(run_id).state is RunState.CANCELLED
        walk.see("cancelled")
        walk.click("Resume")
        expect(walk.page.get_by_role("link", name="Compare it →")).to_be_visible(timeout=LONG)
        walk.see("trained")


def read(walk: Walk) -> None:
    with walk.job("read critics and deviation"):
        walk.follow("Compare it →", "Policies")
        walk.turn_to("Critics")
        walk.click("Compare")
        walk.see("critics", "About the policy's own actions")
        walk.turn_to("Deviation")
        walk.see("deviation", "At the bounds")


def compare(walk: Walk, beside: str) -> None:
    with walk.job("compare"):
        walk.turn_to("Weighted GAUC")
        walk.choose("Policies, beside the baseline", re.compile(rf"^{beside}$"))
        walk.close_list()
        walk.click("Compare")
        walk.see("compare", "would show")
        walk.turn_to("One request")
        walk.click("Draw one at random")
        walk.see("explain", "Rankings")


def decide_and_export(walk: Walk, folder: Path, link: str = "Review") -> None:
    """Promotes the round that waits, by name, and takes the bundle away, which verifies itself."""
    with walk.job("decide and export"):
        walk.follow(link, "Review")
        walk.see("review", "Memo")
        walk.mark("promote", in_form=True)
        walk.write("Your name", "Ada Analyst", in_form=True)
        walk.write("Reason", "Within the guardrails; a live test follows.", in_form=True)
        walk.click("Decide")
        walk.see("decided", "Ada Analyst decided to")
        walk.follow("Export it", "Export a policy")
        walk.click("Export")
        walk.see("approved bundle", "Verified with numpy and onnxruntime alone")
        walk.download("Download policy.zip").save_as(bundle := folder / "policy.zip")
    assert verify(bundle)["ok"]
    with ZipFile(bundle) as file:
        manifest = json.loads(file.read("manifest.json"))
    assert manifest["approved"] and manifest["approval"]["name"] == "Ada Analyst"
