"""The launcher: what must be set before Streamlit's server starts."""

import asyncio
import re
import socket
import tomllib
from pathlib import Path

import pytest
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from streamlit import config
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import skills
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed
from typer.testing import CliRunner

from mtf_engine import dashboard
from mtf_engine.cli import app
from mtf_engine.spec import Refusal
from pages.shared import words
from tests.browsing import free_port
from tests.titles import TITLES

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
    asked = {}
    monkeypatch.setenv("MTF_WORKSPACE", "")
    monkeypatch.setattr(dashboard, "serve", lambda hosts, options, open_at: asked.update(options))
    dashboard.main(tmp_path, port=(port := free_port()))
    assert f"The dashboard of {tmp_path}: http://localhost:{port} (" in capsys.readouterr().out
    names = ("server.headless", "logger.hideWelcomeMessage")
    before = {name: config.get_option(name) for name in names}
    try:
        for name in names:
            config.set_option(name, asked[name])
        assert skills.nudge_suppression_reason() == "welcome_hidden"
    finally:
        for name, value in before.items():
            config.set_option(name, value)


@pytest.mark.parametrize("base", ["team/mtf", "/team/mtf/"])
def test_the_launcher_names_the_address_below_the_base_path_it_serves(base, tmp_path, monkeypatch, capsys):
    asked = {}
    monkeypatch.setenv("MTF_WORKSPACE", "")
    monkeypatch.setenv("STREAMLIT_SERVER_BASE_URL_PATH", base)
    monkeypatch.setattr(dashboard, "serve", lambda hosts, options, open_at: asked.update(options, at=open_at))
    dashboard.main(tmp_path, port=(port := free_port()))
    assert f"http://localhost:{port}/team/mtf/ (" in capsys.readouterr().out
    assert (asked["server.baseUrlPath"], asked["at"]) == ("team/mtf", f"http://localhost:{port}/team/mtf/")


def status_at_door(hosts: list[str], asked: str) -> int:
    """Returns the status with which Starlette's check of `hosts` answers the header Host that is `asked`."""
    told: list[int] = []

    async def send(message: dict) -> None:
        told.extend([message["status"]] if "status" in message else [])

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    door = TrustedHostMiddleware(PlainTextResponse("in"), allowed_hosts=hosts, www_redirect=False)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", asked.encode())]}
    asyncio.run(door(scope, receive, send))
    return told[0]


@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("127.0.0.1", "localhost")]
)
def test_the_address_that_is_printed_is_answered(address, host, tmp_path, monkeypatch, capsys):
    asked: dict = {}
    monkeypatch.setenv("MTF_WORKSPACE", "")
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", address)
    monkeypatch.setattr(dashboard, "refuse_port", lambda port, address: None)
    monkeypatch.setattr(
        dashboard, "serve", lambda hosts, options, open_at: asked.update(options, hosts=hosts)
    )
    dashboard.main(tmp_path, port=8597)
    assert f"http://{host}:8597 (" in capsys.readouterr().out
    assert status_at_door(asked["hosts"], f"{host}:8597") == 200
    assert status_at_door(asked["hosts"], "evil.example:8597") == 400
    before = config.get_option("server.allowedHosts")
    try:
        config.set_option("server.allowedHosts", asked["server.allowedHosts"])
        assert is_host_allowed(f"{host}:8597")
    finally:
        config.set_option("server.allowedHosts", before)


def test_host_names_are_those_of_the_settings_and_those_that_are_named(monkeypatch):
    own = ["localhost", "127.0.0.1"]
    assert dashboard.allowed_hosts() == own
    assert dashboard.allowed_hosts(["Team.example.org", "localhost"]) == [*own, "team.example.org"]
    monkeypatch.setenv("STREAMLIT_SERVER_ALLOWED_HOSTS", "a.example, *.b.example")
    assert dashboard.allowed_hosts(["[::1]"]) == ["a.example", "*.b.example", "[::1]"]
    for wrong in (
        "https://team.example.org",
        "team.example.org:8501",
        "",
        "*team",
        "a.*.org",
        "::1",
        "[1.2.3.4]",
    ):
        with pytest.raises(Refusal, match="is no host name"):
            dashboard.allowed_hosts([wrong])


def test_a_port_in_use_is_told_before_an_address_is(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["--workspace", str(tmp_path), "dashboard", "--port", str(port)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"port {port} is in use, perhaps by another dashboard; name another by --port\n"


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(Refusal, match=f"there is no port {port}"):
        dashboard.refuse_port(port, "127.0.0.1")


def test_no_page_leaves_the_base_path():
    """Streamlit's own links stay below `server.baseUrlPath`; a path of ours from the root would not."""
    absolute = re.compile(rf"""["'(]/(?:{"|".join(TITLES)})\b|href=["']?/""")
    for path in (ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))):
        assert not absolute.findall(path.read_text()), path


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


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "team.example.org"])
def test_nobody_listens_beyond_this_machine_without_asking_who_comes(address, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(dashboard, "serve", lambda hosts, options, open_at: served.append(options))
    monkeypatch.setattr(dashboard, "refuse_port", lambda port, address: None)
    monkeypatch.setenv("MTF_WORKSPACE", "")
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", address)
    words = ["--workspace", str(tmp_path), "dashboard", "--headless"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout, served) == (1, "", [])
    assert done.stderr.startswith(
        f"{address} is reached by others, and nobody is asked who they are: give a --login"
    )
    assert CliRunner().invoke(app, [*words, "--insecure"]).exit_code == 0
    assert served[0]["server.address"] == address
    assert served[0]["secrets.files"] == []
