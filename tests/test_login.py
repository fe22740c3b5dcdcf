"""The door in a real browser: a local OpenID Connect provider says who comes, and the roles what they may."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import Error as PlaywrightError
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

from mtf_engine.registry import BASELINE
from mtf_engine.workspace import Workspace
from tests import browser as chromium
from tests.browsing import ROOT, SECONDS, VIEWPORT, Server, Tab, free_port
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_permissions import SETTINGS
from tests.waiting import wait_until
from tests.workspaces import copy_workspace, stop_all

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def provide(tmp_path_factory) -> Iterator[Callable[[str], str]]:
    """A function that returns the address of a provider, of which there is one of each kind while tests run."""
    started: dict[str, tuple[str, subprocess.Popen]] = {}

    def address(how: str) -> str:
        if how not in started:
            port = free_port()
            command = [sys.executable, "-m", "tests.fixtures.provider", str(port), how]
            url = f"http://localhost:{port}"
            log = (tmp_path_factory.mktemp("provider") / "log").open("wb")
            with log:
                started[how] = url, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            wait_until(lambda: answers(f"{url}/.well-known/openid-configuration"), "the provider answers")
        return started[how][0]

    yield address
    for _, process in started.values():
        process.terminate()
        process.wait(SECONDS)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def login_file(path: Path, provider: str, base: str = "") -> Path:
    text = SETTINGS.replace("http://localhost:8501/", f"http://localhost:{{port}}{base}/")
    path.write_text(text.replace("http://localhost:1/", f"{provider}/"))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def workspace(small_workspace: Workspace, tmp_path_factory) -> Iterator[Workspace]:
    workspace = copy_workspace(small_workspace, tmp_path_factory.mktemp("team") / "workspace")
    add_rounds(workspace, a_round(1, BASELINE, gain=0.05))
    yield workspace
    stop_all(workspace)


@pytest.fixture(scope="module")
def team(workspace: Workspace, provide, tmp_path_factory) -> Iterator[Server]:
    """A dashboard with a login, whose provider is honest."""
    folder = tmp_path_factory.mktemp("door")
    login = login_file(folder / "login.toml", provide("honest"))
    server = Server(workspace.path, folder / "server.log", options=["--login", login])
    yield server
    server.stop()


@pytest.fixture
def person(chrome: Browser, team: Server) -> Iterator[Callable[[str], Tab]]:
    """A function that logs a person in, in a browser of its own, and returns the tab."""
    contexts = []

    def comes(name: str) -> Tab:
        contexts.append(chrome.new_context(viewport=VIEWPORT))
        tab = Tab(contexts[-1].new_page())
        log_in(tab.page, team.url, name)
        tab.errors.clear()  # those of the provider's own page, which asks for a style from elsewhere
        return tab

    yield comes
    for context in contexts:
        context.close()


def log_in(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name=f"{name}@example.org").click()
    page.wait_for_url(f"{url}/**")
    expect(page.locator("h1")).to_be_visible()


def test_each_role_does_what_it_may_and_all_of_it_in_its_own_name(person, team, workspace):
    for name, starts, decides in (("vera", False, False), ("grace", True, False), ("ada", True, True)):
        tab = person(name)
        expect(tab.page.get_by_text(f"{name}@example.org")).to_be_visible()
        start = tab.open(f"{team.url}/start").get_by_role("button", name="Start training")
        expect(start).to_be_enabled(enabled=starts)
        decide = tab.open(f"{team.url}/review?run=progressive-1").get_by_role("button", name="Decide")
        expect(decide).to_be_enabled(enabled=decides)
        if name == "grace":
            tab.open(f"{team.url}/start").get_by_role("button", name="Start training").click()
            wait_until(lambda: workspace.registry.runs()[0].person == "grace@example.org", "grace's run")
        if decides:
            tab.open(f"{team.url}/review?run=progressive-1")
            tab.page.get_by_role("radiogroup").get_by_text("promote").click()
            tab.page.get_by_role("button", name="Decide").click()
            expect(tab.page.get_by_text("decided to promote")).to_be_visible()
            assert [row.name for row in workspace.registry.decisions()] == ["ada@example.org"]
        assert not tab.errors


def test_who_has_no_role_or_has_left_sees_nothing(person, team, workspace):
    tab = person("eve")
    expect(tab.page.get_by_text("eve@example.org has no role here")).to_be_visible()
    assert workspace.registry.runs()[-1].id not in tab.page.content()
    tab = person("vera")
    tab.page.get_by_role("button", name="Log out").click()
    tab.page.get_by_role("button", name="End session").click()  # the provider's, which asks
    expect(tab.page.get_by_role("button", name="Log in")).to_be_visible()
    tab.page.goto(f"{team.url}/runs")
    expect(tab.page.get_by_text("log in to go on")).to_be_visible()
    expect(tab.page.get_by_test_id("stSidebarNav")).to_have_count(0)
    assert not [one for one in tab.page.context.cookies() if one["name"].startswith("_streamlit_user")]


@pytest.mark.parametrize("how", ["forged", "expired"])
def test_a_token_that_is_forged_or_has_expired_is_no_login(how, provide, small_workspace, tmp_path, tab):
    login = login_file(tmp_path / "login.toml", provide(how))
    server = Server(small_workspace.path, tmp_path / "server.log", options=["--login", login])
    try:
        tab.page.goto(server.url)
        tab.page.get_by_role("button", name="Log in").click()
        tab.page.get_by_role("button", name="ada@example.org").click()
        tab.page.wait_for_url(f"{server.url}/**")
        tab.page.goto(server.url)
        expect(tab.page.get_by_text("log in to go on")).to_be_visible()
        assert not [one for one in tab.page.context.cookies() if one["name"] == "_streamlit_user"]
    finally:
        server.stop()
    print((tmp_path / "server.log").read_text())


def test_a_cookie_that_is_signed_by_somebody_else_is_no_login(team, tab):
    claims = {"is_logged_in": True, "email": "ada@example.org", "iat": 9_999_999_999, "origin": team.url}
    secret = "another secret of 32 characters.."
    cookie = create_signed_value(secret, "_streamlit_user", json.dumps(claims)).decode()
    tab.page.context.add_cookies([{"name": "_streamlit_user", "value": cookie, "url": team.url}])
    tab.page.goto(team.url)
    expect(tab.page.get_by_text("log in to go on")).to_be_visible()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[int, int], None]]:
    """A function that serves a dashboard's port on another over TLS, as docs/deploy.md has it, until the test ends."""
    if (program := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        pytest.skip("no nginx: `apt install nginx`")
    started: list[subprocess.Popen] = []

    def serve(port: int, dashboard: int) -> None:
        block = re.search(r"```nginx\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
        assert block
        key, certificate = tmp_path / "team.key", tmp_path / "team.pem"
        new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=team.example.org"]
        subprocess.run(
            ["openssl", *new, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
        text = block[1].replace("/etc/ssl/", f"{tmp_path}/").replace("listen 443", f"listen 127.0.0.1:{port}")
        assert text.count("127.0.0.1:8501") == 1
        text = text.replace("127.0.0.1:8501", f"127.0.0.1:{dashboard}")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temps = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        (tmp_path / "nginx.conf").write_text(
            f"pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.log; daemon off;\n"
            f"events {{}}\nhttp {{ access_log off; {temps}\n{text}}}\n"
        )
        started.append(subprocess.Popen([program, "-p", tmp_path, "-c", tmp_path / "nginx.conf"]))

    yield serve
    for process in started:
        process.terminate()
        process.wait(SECONDS)
    print(*(path.read_text() for path in tmp_path.glob("nginx.log")))


def test_nginx_serves_it_over_tls_below_a_path_as_the_documentation_says(
    nginx, provide, workspace, tmp_path, chrome
):
    port = free_port()
    url = f"https://team.example.org:{port}/mtf"
    login = login_file(tmp_path / "login.toml", provide("honest"))
    login.write_text(login.read_text().replace("http://localhost:{port}/", f"{url}/"))
    options = ["--login", login, "--host-name", "team.example.org"]
    server = Server(workspace.path, tmp_path / "server.log", base="/mtf", options=options)
    nginx(port, int(urlsplit(server.url).port or 0))
    flags = [*chromium.FLAGS, "--host-resolver-rules=MAP *.example.org 127.0.0.1"]
    browser = chrome.browser_type.launch(executable_path=chromium.find(), args=flags)
    try:
        page = browser.new_context(ignore_https_errors=True, viewport=VIEWPORT).new_page()
        page.set_default_timeout(40_000)
        log_in(page, url, "grace")
        expect(page.get_by_text("grace@example.org")).to_be_visible()
        page.goto(f"{url}/runs")
        expect(page.locator("h1")).to_have_text("Runs")
        page.goto(f"{url}/import_logs")
        page.get_by_role("radio", name="Upload").click()
        page.locator("input[type=file]").first.set_input_files(ROOT / "docs/example_log/requests.csv")
        expect(page.get_by_text("requests.csv").first).to_be_visible()
        own = [c for c in page.context.cookies() if "example.org" in c["domain"]]
        served = {c["name"] for c in own if c["name"].startswith("_streamlit")}
        assert "_streamlit_user" in served and all(c["secure"] for c in own if c["name"] in served)
        with pytest.raises(PlaywrightError, match="ERR_EMPTY_RESPONSE"):
            page.goto(f"https://evil.example.org:{port}/mtf/")
    finally:
        browser.close()
        server.stop()
