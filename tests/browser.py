"""Finds a chromium for the tests, and installs one where there is none: `python tests/browser.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def find() -> str | None:
    """Returns the path of an installed chromium or chrome, or of playwright's own; None if there is none."""
    installed = [path for name in COMMANDS if (path := shutil.which(name))]
    installed += [path for path in MAC_APPLICATIONS if Path(path).is_file()]
    if installed:
        return installed[0]
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


def install() -> None:
    """Installs chromium by apt where this is Debian and we are root, else by playwright's own download."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        apt = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        updated = subprocess.run(["apt-get", "update"], check=False).returncode == 0
        if updated and subprocess.run(apt, check=False).returncode == 0:
            return
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


if __name__ == "__main__":
    if find() is None:
        install()
    if (path := find()) is None:
        sys.exit(
            "no chromium was found and none could be installed; install chromium or chrome and run again"
        )
    print(f"browser: {path}")
