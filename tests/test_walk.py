"""A real decision, walked in a browser from a log to a verified bundle, on synthetic users and on a real log.

    MTF_PICTURES=docs/pictures MTF_KUAIRAND=data/kuairand python -m pytest -m slow tests/test_walk.py

keeps a picture of each step.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Page, expect

from docs.pictures import keep
from mtf_engine.policies.bundle import verify
from mtf_engine.registry import RunState
from mtf_engine.workspace import Workspace
from tests.browsing import ROOT, SECONDS, Tab
from tests.test_browser import newest_training, serve, start_training

__all__ = ["serve"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

N_STEPS, N_REQUESTS = 12_000, 4_000
LONG = 2_000 * SECONDS
PICTURES = Path(os.environ["MTF_PICTURES"]) if "MTF_PICTURES" in os.environ else None


class Walk:
    """A visitor with a dashboard on one workspace, who keeps a picture of each step."""

    def __init__(self, name: str, url: str, tab: Tab) -> None:
        self.name, self.url, self.tab, self.n_pictures = name, url, tab, 0
        tab.page.set_viewport_size({"width": 1280, "height": 1300})

    @property
    def page(self) -> Page:
        return self.tab.page

    def open(self, path: str) -> Page:
        return self.tab.open(f"{self.url}/{path}")

    def click(self, label: str | re.Pattern) -> None:
        self.page.get_by_role("button", name=label).first.click()

    def follow(self, link: str, title: str) -> None:
        """Clicks a link to another page and waits for that."""
        self.page.get_by_role("link", name=link).first.click()
        expect(self.page.locator("h1")).to_have_text(title)
        self.tab.drawn()

    def see(self, step: str, text: str | re.Pattern | None = None) -> None:
        """Waits for `text`, looks that nothing went wrong, and keeps the picture of a step."""
        if text:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=LONG)
        self.tab.drawn()
        self.tab.check()
        self.n_pictures += 1
        if PICTURES:
            name = f"{self.name}-{self.n_pictures:02d}-{step.replace(' ', '-')}.png"
            self.page.wait_for_timeout(500)  # until charts have settled
            keep(self.page, PICTURES / name)


def command(workspace: Workspace, *arguments: str) -> None:
    base = [sys.executable, "-m", "mtf_engine", "--workspace", str(workspace.path)]
    subprocess.run([*base, *arguments], cwd=ROOT, check=True, capture_output=True)


def dataset(workspace: Workspace, name: str) -> str:
    return workspace.dataset(name).id


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace; in the project's `data/` where pictures are kept, since they show its path."""
    path = Path("data/walk") if PICTURES else tmp_path / "workspace"
    yield Workspace(path)
    shutil.rmtree(path)


def test_a_decision_on_synthetic_users(workspace, serve, tab, tmp_path):
    command(workspace, "demo")
    walk = Walk("synthetic", serve(workspace).url, tab)
    decide(walk, workspace, "env=session", "demo uniform", "demo baseline", tmp_path)


def test_a_decision_on_a_real_log(workspace, serve, tab, tmp_path, kuairand):
    walk = Walk("kuairand", serve(workspace).url, tab)
    page = walk.open("import_logs")
    page.get_by_label("Path of the file or folder").fill(str(kuairand))
    page.get_by_label("Name (optional)").fill("kuairand")
    page.get_by_label("Name (optional)").press("Enter")
    walk.click("Check and import")
    walk.see("imported", "Imported")
    log = dataset(workspace, "kuairand")
    replay = ("--env", "replay", "--from", log, "--explore", "uniform", "--requests", str(N_REQUESTS))
    command(workspace, "dataset", "collect", *replay, "--name", "first")
    small = ("--preset", "demo", "--set", "n_critics=4", "--set", "hidden=16", "--name", "first policy")
    command(workspace, "train", dataset(workspace, "first"), *small)
    decide(walk, workspace, f"env=replay&dataset={log}", "first", "kuairand", tmp_path)


def test_a_round_is_decided_by_name_and_its_bundle_taken_away(workspace, serve, tab, tmp_path):
    walk = Walk("round", serve(workspace).url, tab)
    page = walk.open("rounds?env=session")
    tab.choose("Preset", "demo")
    asked = {"Rounds": 1, "Sessions a round": 400, "A/B users a round": 300, "Gradient steps in all": 300}
    for label, number in asked.items():
        page.get_by_label(label, exact=True).fill(str(number))
        page.get_by_label(label, exact=True).press("Enter")
    walk.see("form", "--ab-users 300")
    walk.click("Start rounds")
    expect(page.get_by_role("heading", name="The next round")).to_be_visible(timeout=LONG)
    expect(page.locator(".js-plotly-plot")).to_have_count(2, timeout=LONG)
    walk.see("played")

    walk.follow("Review it", "Review")
    walk.see("review", "Memo")
    page.get_by_text("promote", exact=True).last.click()
    page.get_by_role("textbox", name="Your name").first.fill("Ada Analyst")
    page.get_by_role("textbox", name="Reason").first.fill("Within the guardrails; a live test follows.")
    walk.click("Decide")
    walk.see("decided", "Ada Analyst decided to")

    walk.follow("Export it", "Export a policy")
    walk.click("Export")
    walk.see("approved bundle", "Verified with numpy and onnxruntime alone")
    manifest = taken_away(walk, tmp_path)
    assert manifest["approved"] and manifest["approval"]["name"] == "Ada Analyst"


def decide(walk: Walk, workspace: Workspace, world: str, explored: str, test: str, folder: Path) -> None:
    """Walks from the drift of a trained policy to the bundle of one that was trained inside its bounds."""
    known = f"dataset={dataset(workspace, explored)}"
    page = walk.open(f"drift?{known}&baseline=true")
    walk.see("drift", "It holds")
    walk.click("Take it to the planner")
    walk.see("planner", "Traffic until the box is filled")
    page.get_by_label("Name", exact=True).fill("around the policy")
    page.get_by_label("Name", exact=True).press("Enter")
    walk.click("Store")
    expect(page.get_by_text("It is stored as")).to_be_visible()
    walk.open(f"cost?{known}&plan=around%20the%20policy")
    walk.see("cost", "requests are ranked again")

    page = walk.open(f"collect?{world}&plan=around%20the%20policy&requests={N_REQUESTS}&collect_seed=7")
    page.get_by_label("Name (optional)").fill("second")
    page.get_by_label("Name (optional)").press("Enter")
    walk.see("collect", "--bounds")
    walk.click("Collect")
    walk.see("collected", "Collected")
    walk.follow("Certify its coverage →", "Datasets")
    walk.see("certificate", re.compile("Passed|Failed"))

    page = walk.open(f"start?dataset={dataset(workspace, 'second')}")
    start_training(page, N_STEPS)
    run_id = newest_training(workspace)
    expect(page.get_by_text(re.compile(rf"[1-9]\d* of {N_STEPS:,}")).first).to_be_visible(timeout=LONG)
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    walk.see("live curves")
    walk.click("Cancel")
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=LONG)
    assert workspace.registry.run(run_id).state is RunState.CANCELLED
    walk.see("cancelled")
    walk.click("Resume")
    expect(page.get_by_role("link", name="Compare it →")).to_be_visible(timeout=LONG)
    walk.see("trained")

    on = f"policies={run_id}&dataset={dataset(workspace, test)}"
    page = walk.open(f"compare?{on}")
    walk.click(re.compile("^(Compare|Evaluate)"))
    walk.see("compare", "would show")
    page = walk.open(f"explain?{on}")
    walk.click("Draw one at random")
    walk.see("explain", "Rankings")

    page = walk.open(f"export?run={run_id}")
    walk.click("Export")
    walk.see("export", "Verified with numpy and onnxruntime alone")
    assert not taken_away(walk, folder)["approved"]


def taken_away(walk: Walk, folder: Path) -> dict:
    """Downloads the bundle, which verifies itself, and returns its manifest."""
    with walk.page.expect_download() as download:
        walk.click(re.compile("Download policy.zip"))
    download.value.save_as(bundle := folder / "policy.zip")
    assert verify(bundle)["ok"]
    with ZipFile(bundle) as file:
        return json.loads(file.read("manifest.json"))
