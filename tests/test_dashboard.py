"""The launcher: what must be set before Streamlit's server starts."""

import tomllib
from pathlib import Path

from streamlit import config
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import cli, skills

from mtf_engine import dashboard
from pages.shared import words

ROOT = Path(__file__).parent.parent


def test_streamlit_is_told_that_the_folder_pages_is_ours(monkeypatch):
    """If Streamlit drops or renames the attribute, this fails before a deep link shows a dialog."""
    assert "uses_pages_directory" in vars(PagesManager)
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    dashboard.forbid_legacy_pages()
    manager = PagesManager(str(dashboard.APP))
    assert PagesManager.uses_pages_directory is False
    assert manager.main_script_parent == ROOT


def test_the_launcher_says_where_the_dashboard_is_and_no_offer_lies_over_it(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setenv("MTF_WORKSPACE", "")
    monkeypatch.setattr(cli, "main", lambda arguments, **_: asked.extend(arguments))
    dashboard.main(tmp_path, port=8765)
    assert f"The dashboard of {tmp_path}: http://localhost:8765" in capsys.readouterr().out
    names = ("server.headless", "logger.hideWelcomeMessage")
    before = {name: config.get_option(name) for name in names}
    try:
        for name in names:
            config.set_option(name, f"--{name}=true" in asked)
        assert skills.nudge_suppression_reason() == "welcome_hidden"
    finally:
        for name, value in before.items():
            config.set_option(name, value)


def test_the_dashboard_is_closed_to_others():
    settings = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none"


def test_a_command_to_copy_names_a_workspace_of_the_project_from_the_projects_folder(tmp_path):
    own = words.command(ROOT / "data" / "demo", "runs", "show", "a run")
    assert own == "mtf --workspace data/demo runs show 'a run'"
    assert f"--workspace {tmp_path} " in words.command(tmp_path, "runs")
