"""What axe-core finds wrong with a page, less what only Streamlit could mend."""

from typing import NamedTuple

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

IMPACTS = ("critical", "serious", "moderate")


class Streamlits(NamedTuple):
    """A violation in Streamlit's own markup: the rule, the elements that it is in, why it is not ours."""

    rule: str
    selector: str
    reason: str


KNOWN = (
    Streamlits(
        "list", "[data-testid=stSidebarNavItems]", "the navigation puts sections into its list as div"
    ),
    Streamlits("listitem", "[data-testid=stSidebarNavItems] *", "its pages are li in the div of a section"),
)
KNOWN_DARK = (
    Streamlits(
        "color-contrast",
        "button[data-selected=true] *",
        "primary colour on near black: none is dark enough for white on it and light enough for this",
    ),
)

RUN = """
async ([options, impacts, known]) => {
    const found = await axe.run(document, { ...options, resultTypes: ["violations"] })
    const ours = (rule, node) =>
        !known.some(k => k.rule === rule && document.querySelector(node.target[0]).matches(k.selector))
    const told = (rule, node) => `${rule.impact} ${rule.id}: ${node.failureSummary} in ${node.html}`
    return found.violations
        .filter(rule => impacts.includes(rule.impact))
        .flatMap(rule => rule.nodes.filter(n => ours(rule.id, n)).map(n => told(rule, n)))
}
"""


def violations(page: Page) -> list[str]:
    """Returns what hinders people on a drawn page, by any rule in light colours, of contrast in dark ones."""
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    page.evaluate(AXE_SCRIPT)
    light = _run(page, {}, KNOWN)
    page.emulate_media(color_scheme="dark")
    expect(page.get_by_test_id("stApp")).to_have_css("color-scheme", "dark")
    dark = _run(page, {"runOnly": ["color-contrast"]}, KNOWN_DARK)
    return [*light, *dark]


def _run(page: Page, options: dict[str, list[str]], known: tuple[Streamlits, ...]) -> list[str]:
    exempt = [one._asdict() for one in known]
    found: list[str] = page.evaluate(RUN, [options, IMPACTS, exempt])
    return found
