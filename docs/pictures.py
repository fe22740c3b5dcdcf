"""Takes the pictures of the documentation from a filled demonstration workspace, in a real browser.

python -m docs.pictures [WORKSPACE]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests import browser as chromium
from tests.browsing import Server, Tab

FOLDER = Path(__file__).parent / "pictures"
SIZE = {"width": 1280, "height": 1060}
COLOURS = 128
"""Of the palette: pages have few, and the files stay small."""
DRAWN = ".js-plotly-plot .main-svg"
PICTURES = {"result": ""}
"""The address that each picture shows, by the name of its file."""


def main(workspace: Path) -> None:
    """Writes every picture to `docs/pictures`."""
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as logs:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=list(chromium.FLAGS))
        server = Server(workspace, Path(logs) / "server.log")
        for name, address in PICTURES.items():
            tab = Tab(browser.new_page(viewport=SIZE))
            page = tab.open(f"{server.url}/{address}")
            page.locator(DRAWN).first.wait_for()
            page.wait_for_load_state("networkidle")
            keep(page, FOLDER / f"{name}.png")
        server.stop()


def keep(page: Page, path: Path) -> None:
    """Writes what the page shows, in few colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo"))
