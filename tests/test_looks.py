"""How every page and tab looks on screens of three widths, light and dark: all in a real browser.

It holds what a person would stumble over: an error, a page that scrolls sideways or has no end, text too faint.
"""

from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from pages.shared import places
from tests.accessibility import violations
from tests.browsing import Server, Tab
from tests.test_browser import dashboard  # noqa: F401
from tests.titles import TITLES

pytestmark = [pytest.mark.slow, pytest.mark.browser]

WIDTHS, HEIGHT = (1280, 1440, 2560), 900
MEASURED, TALLEST = 1440, 2_700
"""The width at which a page's height is held, and the most pixels that it may have with nothing unfolded."""
TABS = {
    "datasets": (places.QUALITY, places.REWARDS, places.COVERAGE, places.TEACHING),
    "bounds": (places.BY_HAND, places.DRIFT, places.WALLS, places.COST),
    "start": (places.TRAIN, places.TUNE, places.PENALTY),
    "runs": (places.ALL_RUNS, places.COMPARED),
    "policies": (
        places.GAUC,
        places.ABTEST,
        places.OFF_POLICY,
        places.DEVIATION,
        places.CRITICS,
        places.REQUEST,
    ),
}
VIEWS = [""] + [
    f"{page}?{urlencode({places.TAB: tab})}" if tab else page
    for page in TITLES
    for tab in TABS.get(page, (None,))
]
SIDEWAYS = """
() => [document.scrollingElement, document.querySelector("[data-testid=stMain]")]
    .some(part => part.scrollWidth > part.clientWidth)
"""


def settled(tab: Tab) -> Page:
    """Returns the page once nothing on it is drawn any more."""
    page = tab.drawn()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    return tab.drawn()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view or "home")
def test_a_page_fits_its_screen_and_ends(view, dashboard: Server, tab: Tab):  # noqa: F811
    page = tab.page
    page.set_viewport_size({"width": MEASURED, "height": HEIGHT})
    tab.open(f"{dashboard.url}/{view}")
    chosen = settled(tab).get_by_role("tab", selected=True)
    assert "?" not in view or chosen.first.inner_text() in sum(TABS.values(), ())
    assert page.get_by_test_id("stMain").evaluate("main => main.scrollHeight") <= TALLEST
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", scheme)
            settled(tab)
            assert not page.evaluate(SIDEWAYS), f"{view} scrolls sideways at {width} in {scheme} colours"
        page.emulate_media(color_scheme="light")
        assert not violations(settled(tab)), f"at {width}"
        page.emulate_media(color_scheme="light")
    tab.check()


def test_every_tab_of_the_house_is_looked_at():
    named = {value for name, value in vars(places).items() if name.isupper() and isinstance(value, str)}
    looked_at = set(sum(TABS.values(), ()))
    assert looked_at == {value for value in named if not value.endswith(".py")} - {places.TAB}
