"""Every page, of an empty workspace and of a filled one, without an exception."""

import shutil
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.components.v2.component_manager import BidiComponentManager
from streamlit.testing.v1 import AppTest

from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.spec import BoundsPlan
from mtf_engine.workspace import Workspace
from pages.shared.places import COST, MOVED, TAB, Place
from tests.titles import EARLIER, HOME, TITLES
from tests.waiting import PATIENCE
from tests.workspaces import copy_workspace, worked_on_here

ROOT = Path(__file__).parent.parent
PAGES = {
    path.stem: str(path.relative_to(ROOT))
    for path in (ROOT / "pages").rglob("*.py")
    if path.parent.name not in ("home", "shared") and not path.name.startswith("_")
}


@cache
def components() -> BidiComponentManager:
    """Returns the components of the installed packages, as a server has them: one for all who look at it.

    Every AppTest would look through all packages anew, and that takes twice as long as drawing a page.
    """
    found = BidiComponentManager()
    found.discover_and_register_components(start_file_watching=False)
    return found


def app_of(script: Callable[..., None] | None = None, *args: Any) -> AppTest:
    """Returns the app before its first run, or a page that is `script` alone."""
    path = str(ROOT / "app.py")
    app = AppTest.from_function(script, args=args) if script else AppTest.from_file(path)
    app.default_timeout = PATIENCE
    app._bidi_component_manager = components()
    return app


def opened(page: str | None = None, **query: str) -> AppTest:
    """Returns the app after its first run on `page` (home if None), checked to be free of exceptions.

    A page of an earlier address is the tab of the page that it leads to, of which AppTest knows no address.
    """
    app = app_of()
    place = MOVED[page] if page in MOVED else Place(PAGES[page]) if page else None
    if place:
        app.switch_page(place.page)
        query |= {TAB: place.tab} if place.tab else {}
    for name, value in query.items():
        app.query_params[place.renamed.get(name, name) if place else name] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, [e.value for e in app.exception]
    return app


def tables(app: AppTest) -> list[pd.DataFrame]:
    """Returns all tables of the page as it was drawn last, and those of folded sections, which it opens."""
    for _ in range(3):  # a section has figures of its own
        if not (folded := _folded(app)):
            break
        for key in folded:
            app.session_state[key] = True
        checked(app.run())
    assert not _folded(app)
    return [table.value for table in app.dataframe]


def _folded(app: AppTest) -> list[str]:
    keys = [key for key in map(attrgetter("key"), app.expander) if key]
    return [key for key in keys if key.startswith(("downloads", "unfold")) and not app.session_state.get(key)]


def button(app: AppTest, label: str):
    return next(b for b in app.button if b.label == label)


def texts(app: AppTest) -> str:
    """Returns all that the page says in sentences."""
    parts = [*app.markdown, *app.caption, *app.info, *app.error, *app.success, *app.warning, *app.code]
    return "\n".join(str(part.value) for part in parts)


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "empty"))
    return Workspace(tmp_path / "empty")


@pytest.fixture
def filled(small_workspace, monkeypatch) -> Workspace:
    monkeypatch.setenv("MTF_WORKSPACE", str(small_workspace.path))
    return small_workspace


@pytest.mark.parametrize(
    ("page", "earlier", "today"),
    [
        ("bounds", {"k": "7", "requests": "3"}, {"samples_a_cell": 7, "requests_a_session": 3}),
        ("collect", {"seed": "5", "control": "20"}, {"collect_seed": 5, "control": 20}),
        ("datasets", {"against": "explored"}, {"drift_from": "explored"}),
    ],
)
def test_a_link_of_an_earlier_version_keeps_what_was_chosen(page, earlier, today, filled):
    ids = {row.name: row.id for row in filled.registry.datasets()}
    app = opened(page, **{key: ids.get(value, value) for key, value in earlier.items()})
    shown = {one.key: one.value for one in [*app.number_input, *app.selectbox]}
    assert {key: shown[key] for key in today} == {key: ids.get(value, value) for key, value in today.items()}
    assert not app.warning


@pytest.mark.parametrize(
    ("page", "link", "asked"),
    [
        ("bounds", {"k": "7", TAB: COST}, {"k": "7", TAB: COST}),  # of today: places shown
        ("export", {"dataset": "dataset-0"}, {"on": "dataset-0"}),
    ],
)
def test_a_link_is_of_an_earlier_version_where_it_names_no_tab(page, link, asked, empty):
    assert opened(page, **link).query_params == asked


HEADINGS = TITLES | EARLIER
NEED_NO_DATA = ("synthetic", "import_logs", "collect", "density", "glossary", "formulas")
"""Pages that are of use in an empty workspace."""


def test_every_page_has_a_title():
    assert set(PAGES) == set(TITLES)


@pytest.mark.parametrize("page", HEADINGS)
def test_a_page_of_an_empty_workspace_says_what_to_do(page, empty):
    app = opened(page)
    assert [title.value for title in app.title] == [HEADINGS[page]]
    assert not app.error
    assert len(app.info) or page in NEED_NO_DATA


def test_home_of_an_empty_workspace_leads_to_the_first_import(empty):
    app = opened()
    assert [title.value for title in app.title] == [HOME]
    assert "The workspace is empty" in texts(app)
    assert "mtf --workspace" in texts(app) and "demo" in texts(app)


@pytest.mark.parametrize("page", HEADINGS)
def test_a_page_of_a_filled_workspace_has_one_title_and_no_error(page, filled):
    app = opened(page)
    assert [title.value for title in app.title] == [HEADINGS[page]]
    assert not app.error


def test_home_counts_what_is_there(filled):
    shown = {metric.label: metric.value for metric in opened().metric}
    datasets = filled.registry.datasets()
    assert shown["Datasets"] == str(len(datasets))
    assert shown["Requests"] == f"{sum(row.n_requests for row in datasets):,}"
    assert shown["Trained policies"] == "1"


def test_export_shows_that_the_bundle_answers_as_the_policy_does(filled):
    app = opened("export")
    assert "Verified with numpy and onnxruntime alone" in app.success[0].value
    assert any("onnxruntime.InferenceSession" in code.value for code in app.code)


def test_a_policy_that_is_no_run_is_exported_for_logs_like_one(filled):
    test = filled.dataset("test").id
    app = opened("export", run="head:valid_consumption", on=test)
    box = app.selectbox(key="run")
    assert box.value == "head:valid_consumption" and {"regression weights", "the middle of every range"} <= {
        *box.options
    }
    assert f"export head:valid_consumption --to head-valid_consumption.zip --on {test}" in texts(app)
    assert not button(app, "Export").disabled


def test_an_unapproved_policy_is_exported_for_live_use_only_after_a_tick(filled):
    app = opened("export", **{"for": "live"})
    export = button(app, "Export")
    assert export.disabled and "Nobody has approved this for live use" in app.warning[0].value
    app.checkbox[0].check()
    assert not button(checked(app.run()), "Export").disabled


def test_a_link_without_a_tab_opens_the_first_whatever_was_open_before(filled):
    app = opened("runs", tab="Compare")
    assert app.session_state["tab"] == "Compare"
    app.switch_page("pages/release/review.py")
    app.query_params.clear()
    checked(app.run())
    (run,) = filled.registry.runs(kind="export")
    app.switch_page("pages/train/runs.py")
    app.query_params["run"] = run.id
    assert checked(app.run()).selectbox(key="run").value == run.id


def test_an_export_that_failed_says_why(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (run,) = copy.registry.runs(kind="export")
    copy.registry.update_run(run.id, state=RunState.FAILED, error="no room", result=None)
    assert "no room" in opened("export").error[0].value


def test_a_policy_is_exported_inside_a_stored_plan_and_scored_so(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    assert not any(box.key == "clip" for box in opened("export").selectbox), "no plan is stored"
    copy.registry.save_plan("narrow", BoundsPlan.symmetric(0.001, 10))
    test = copy.dataset("test").id
    app = opened("export", clip="narrow", dataset=test)
    with worked_on_here():
        checked(button(app, "Export").click().run())
        run = copy.registry.runs(kind="export")[0]
        executor.completed(copy, executor.wait(copy, run.id))
    assert run.config["clip"]["upper"] == [0.001] * 10 and run.config["on"] == test
    shown = texts(checked(app.run()))
    assert "Held in these bounds it has a weighted GAUC of" in shown and f"--clip narrow --on {test}" in shown
    app.selectbox(key="clip").set_value("*unbound")
    assert "Held in these bounds" not in texts(checked(app.run()))


def test_the_form_of_a_training_is_its_command_line(filled):
    app = opened("start")
    assert "--set" not in texts(app)
    app.text_input(key="integrated_rl.laptop.n_steps").set_value("123")
    app.selectbox(key="integrated_rl.laptop.penalty").set_value("linear")
    checked(app.run())
    assert "--set n_steps=123 --set penalty=linear --seed 0 --background" in texts(app)


def test_a_setting_that_cannot_be_is_told_in_a_sentence(filled):
    app = opened("start")
    app.text_input(key="integrated_rl.laptop.hidden").input("64,wide")
    checked(app.run())
    assert "hidden" in app.error[0].value
    assert not [b for b in app.button if b.label == "Start training"]


def test_a_link_to_a_run_opens_it_and_a_stale_one_says_so(filled):
    run = filled.registry.runs(kind="collect")[0]
    assert opened("runs", run=run.id).selectbox(key="run").value == run.id
    stale = opened("runs", run="train-00000000")
    assert "train-00000000" in stale.warning[0].value


def test_a_deleted_workspace_file_is_a_sentence(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (run,) = copy.registry.runs(kind="export")
    shutil.rmtree(copy.run_dir(run.id))
    app = opened("export")
    assert len(app.error) == 1
