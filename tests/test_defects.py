"""Each defective log, by command line and by page: told in a sentence, and the workspace is as it was."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mtf_engine.runs import executor
from mtf_engine.workspace import BACKUPS, Workspace
from pages.shared import words
from tests.fixtures import logs
from tests.test_cli import Shell
from tests.test_pages import button, opened

pytestmark = pytest.mark.usefixtures("in_process")


ON_THE_PAGE = {"missing_column", "wrong_type", "truncated_parquet", "bad_mapping", "prediction_below_zero"}
"""Of each kind of place one, since the page draws them all alike: no row, a row, a file, a mapping, several rows."""


def contents(workspace: Workspace) -> tuple:
    """Returns what is in a workspace: rows and files, SQLite's own and locks aside."""
    found = (str(path.relative_to(workspace.path)) for path in workspace.path.rglob("*"))
    files = (name for name in found if not name.startswith(BACKUPS))  # one a day
    rows = workspace.registry.datasets(), workspace.registry.runs(), workspace.registry.plans()
    return (
        *rows,
        sorted(name for name in files if not name.endswith((".lock", "-wal", "-shm"))),
    )


def by_page(workspace: Workspace, log: Path) -> AppTest:
    """Returns the import page once it has followed the import of `log` to its end."""
    app = opened("import_logs")
    app.text_input(key="import_path").input(str(log))
    app.text_input(key="import_mapping").input(str(log / "mapping.yaml")).run()
    button(app, "Check and import").click().run()
    executor.wait(workspace, app.session_state["an import"].run_id)
    return app.run()


@pytest.mark.parametrize("code", logs.DEFECTS)
def test_a_defective_log_is_refused_by_command_line_and_by_page(code, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    log = tmp_path / "log"
    place = logs.DEFECTS[code](log)
    before = contents(workspace)

    shell = Shell(workspace.path)
    told = shell("dataset", "import", str(log), "--mapping", str(log / "mapping.yaml"), code=1)
    sentence, defects = shell.stderr, told["defects"]
    assert place.file in sentence
    assert sentence.count("\n") == 1
    assert (defects[0]["code"], defects[0]["row"]) == (code, place.row)
    assert contents(workspace) == before
    if code not in ON_THE_PAGE:
        return

    app = by_page(workspace, log)
    assert not app.exception
    assert [error.value for error in app.error] == [f"Nothing was imported: {words.plain(sentence)}"]
    assert list(app.dataframe[0].value["code"]) == [defect["code"] for defect in defects]
    assert contents(workspace) == before


def test_a_clean_log_is_imported_by_page(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    app = by_page(workspace, logs.write(logs.clean(), tmp_path / "log"))
    assert not app.exception
    assert not app.error
    (row,) = workspace.registry.datasets()
    assert f"{row.n_requests} requests" in app.success[0].value
    app.switch_page("pages/train/start.py").run()
    assert app.selectbox(key="dataset").value == row.id
