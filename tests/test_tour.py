"""The tour of the demonstration: it leads to real pages with its own logs and policies, and nobody else sees it."""

import pytest

from mtf_engine.questions.demo import LOGS, TRAININGS
from mtf_engine.registry import RunState
from mtf_engine.workspace import Workspace
from pages.home import _tour
from tests.test_pages import ROOT, checked, opened
from tests.workspaces import copy_workspace


@pytest.fixture
def demo(small_workspace, tmp_path, monkeypatch) -> Workspace:
    """A workspace whose logs and trainings have the names of the demonstration's."""
    workspace = copy_workspace(small_workspace, tmp_path / "demo")
    registry = workspace.registry
    (training,) = registry.runs(kind="train")
    for name in LOGS.values():
        registry.add_dataset(registry.datasets()[-1].model_copy(update={"id": name, "name": name}))
    for name in TRAININGS.values():
        registry.add_run(training.model_copy(update={"id": name, "name": name}))
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    return workspace


def test_every_stop_leads_to_a_page_with_what_is_there(demo):
    found = _tour.stops(demo.registry.datasets(), demo.registry.runs())
    assert 5 <= len(found) <= 6
    ids = {row.id for row in (*demo.registry.datasets(), *demo.registry.runs())}
    for stop in found:
        assert (ROOT / stop.page).is_file()
        chosen = [value for name, value in stop.query.items() if name != "tab"]
        assert {one for value in chosen for one in ([value] if isinstance(value, str) else value)} <= ids


def test_only_the_whole_demonstration_has_a_tour(demo):
    datasets, runs = demo.registry.datasets(), demo.registry.runs()
    assert not _tour.stops([row for row in datasets if row.name != LOGS["baseline"]], runs)
    unfinished = [run.model_copy(update={"state": RunState.RUNNING}) for run in runs]
    assert not _tour.stops(datasets, unfinished)


def test_the_tour_is_shown_until_it_is_closed_and_again_when_it_is_called(demo):
    app = opened()
    for shown in (True, False, True):
        assert ("The demo in six decisions" in [header.value for header in app.header]) == shown
        checked(app.button(key="turn tour").click().run())


def test_other_workspaces_have_no_tour(small_workspace, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(small_workspace.path))
    assert not [button for button in opened().button if button.key == "turn tour"]
