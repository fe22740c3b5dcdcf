"""The dashboard as it is served, and a real browser's tabs on it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests import browser as chromium
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parent.parent
MTF = (sys.executable, "-m", "mtf_engine")
SECONDS = PATIENCE
expect.set_options(timeout=1_000 * SECONDS)
PROBES = re.compile(r"/\w+/_stcore/(health|host-config)$")
"""Streamlit's frontend asks for these below a deep link first, and logs the 404 itself."""
VIEWPORT = {"width": 1280, "height": 900}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A dashboard of its own, on a free port."""

    def __init__(
        self,
        workspace: Path,
        log: Path,
        mtf: Sequence[str | Path] = MTF,
        cwd: Path = ROOT,
        base: str = "",
        options: Sequence[str | Path] = (),
    ) -> None:
        port = free_port()
        self.url = f"http://localhost:{port}{base}"
        command = [*mtf, "--workspace", workspace, "dashboard", "--port", str(port), "--headless", *options]
        env = os.environ | {"STREAMLIT_SERVER_BASE_URL_PATH": base}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, "the server answers")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(SECONDS)


class Tab:
    """A browser tab that remembers what went wrong and what left the machine."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(1_000 * SECONDS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._watch)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not PROBES.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} {message.location}")

    def _watch(self, request: Request) -> None:
        if not re.match(r"(http|ws)://(localhost|127\.0\.0\.1):\d+/|data:|blob:", request.url):
            self.foreign.append(request.url)

    def open(self, url: str) -> Page:
        """Returns the page once it is drawn."""
        self.page.goto(url)
        return self.drawn()

    def drawn(self) -> Page:
        expect(self.page.locator("h1")).to_be_visible()
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        return self.page

    def choose(self, label: str, option: str | re.Pattern) -> None:
        """Chooses as a person does: opens the box again where drawing the page closed it."""
        choice = self.page.get_by_role("option", name=option)

        def is_open() -> bool:
            self.drawn().get_by_role("combobox", name=label).click()
            with contextlib.suppress(PlaywrightTimeout):
                choice.click(timeout=5_000)
                return True
            return False

        wait_until(is_open, f"{label} offers {option}")

    def check(self) -> None:
        """Holds that nothing went wrong on the way."""
        assert not self.errors
        assert not self.foreign
        assert self.page.get_by_test_id("stException").count() == 0
        assert self.page.get_by_role("dialog").count() == 0


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    path = chromium.find()
    assert path, "no chromium: run `make test`, which installs one, or `python tests/browser.py`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(chromium.FLAGS), timeout=1_000 * SECONDS
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(chrome: Browser) -> Iterator[Tab]:
    context = chrome.new_context(viewport=VIEWPORT)
    tab = Tab(context.new_page())
    yield tab
    context.close()
