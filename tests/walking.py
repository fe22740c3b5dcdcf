"""A visitor who walks through jobs in the browser: each click is counted and timed, each step kept as a picture."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Download, Page, expect

from docs.pictures import keep
from tests.browsing import ROOT, SECONDS, Tab

LONG = 2_000 * SECONDS
MOST_CLICKS = 8
SHOWN_WITHIN, BUSY = 2.0, 5.0
"""Seconds until a click shows something on an idle machine, and how often that while others use it."""
QUIET = 0.3
"""Seconds without a change after which a page counts as drawn."""
PICTURES = Path(os.environ["MTF_PICTURES"]) if "MTF_PICTURES" in os.environ else None
PAGE = ROOT / "docs" / "walk.md"
WATCH = """
    const walked = window.walked = {start: null, first: null, last: null};
    const begin = () => Object.assign(walked, {start: performance.now(), first: null, last: null});
    for (const kind of ["pointerdown", "keydown", "input"]) window.addEventListener(kind, begin, {capture: true});
    const note = walked.note = () => { walked.last = performance.now(); walked.first ??= walked.last; };
    const what = {
        subtree: true, childList: true, characterData: true, attributeFilter: ["data-test-script-state"]
    };
    document.addEventListener("DOMContentLoaded", () => new MutationObserver(note).observe(document.body, what));
"""
"""Notes when what the visitor did last began, and when after it Streamlit's state or the content changed."""
DRAWN = """quiet => {
    const app = document.querySelector("[data-testid=stApp]");
    const still = app?.dataset.testScriptState === "notRunning";
    return still && walked.first !== null && performance.now() - walked.last > 1000 * quiet;
}"""


@dataclass(frozen=True)
class Click:
    """One click, choice or text of the visitor, and the seconds until the page showed something and was drawn."""

    what: str
    shown: float
    drawn: float


@dataclass
class Job:
    """What a visitor came for: its clicks, and its seconds without those for pictures."""

    name: str
    clicks: list[Click] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> str:
        slowest = max(self.clicks, key=lambda click: click.shown)
        last = max(self.clicks, key=lambda click: click.drawn)
        figures = (f"{slowest.shown:.2f} s, {slowest.what}", f"{last.drawn:.1f} s, {last.what}")
        return f"| {self.name} | {len(self.clicks)} | {self.seconds:.0f} | {' | '.join(figures)} |"


class Walk:
    """A visitor with a dashboard, in one tab; nothing is clicked but by `_act`."""

    def __init__(self, name: str, url: str, tab: Tab) -> None:
        self.name, self.url, self.tab, self.n_pictures = name, url, tab, 0
        self.jobs: list[Job] = []
        tab.page.set_viewport_size({"width": 1280, "height": 1300})
        tab.page.add_init_script(WATCH)

    @property
    def page(self) -> Page:
        return self.tab.page

    def open(self, path: str = "") -> None:
        self.tab.open(f"{self.url}/{path}")

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        self.jobs.append(job := Job(name))
        begun = time.perf_counter()
        yield
        job.seconds += time.perf_counter() - begun

    def click(self, label: str | re.Pattern) -> None:
        button = self.page.get_by_role("button", name=label).first
        self._act(label.pattern if isinstance(label, re.Pattern) else label, button.click)

    def mark(self, text: str, in_form: bool = False) -> None:
        """Clicks one of several words that stand side by side, or a switch, by its text."""
        self._act(text, self.page.get_by_text(text, exact=True).filter(visible=True).last.click, in_form)

    def turn_to(self, tab: str) -> None:
        self._act(tab, self.page.get_by_role("tab", name=tab, exact=True).click)

    def follow(self, link: str, title: str) -> None:
        """Clicks a link to another page and waits for that."""
        self._act(link, self.page.get_by_role("link", name=link).first.click)
        expect(self.page.locator("h1")).to_have_text(title)

    def choose(self, label: str, option: str | re.Pattern) -> None:
        self._act(label, lambda: self.tab.choose(label, option))

    def close_list(self) -> None:
        """Closes the list of a box for several, which stays open over the page."""
        self._act("close the list", lambda: self.page.keyboard.press("Escape"))

    def write(self, label: str, text: object, in_form: bool = False) -> None:
        """Writes into a box, and ends it by Enter where it is not one of a form's."""
        named = self.page.get_by_role("textbox", name=label)
        box = named.or_(self.page.get_by_label(label, exact=True)).first

        def fill() -> None:
            box.fill(str(text))
            if not in_form:
                box.press("Enter")

        self._act(label, fill, in_form)

    def download(self, label: str) -> Download:
        """Clicks what hands a file over; that shows in the browser, not on the page."""
        begun = time.perf_counter()
        with self.page.expect_download() as found:
            self.page.get_by_role("button", name=label).first.click()
        took = time.perf_counter() - begun
        self.jobs[-1].clicks.append(Click(label, took, took))
        return found.value

    def _act(self, what: str, do: Callable[[], None], in_form: bool = False) -> None:
        """Counts and times what the visitor does; in a form the browser itself shows it, and the page hears later."""
        do()
        if in_form:
            self.page.evaluate("walked.note()")
        self.page.wait_for_function(DRAWN, arg=QUIET, timeout=1_000 * SECONDS)
        start, first, last = self.page.evaluate("[walked.start, walked.first, walked.last]")
        self.jobs[-1].clicks.append(Click(what, (first - start) / 1_000, (last - start) / 1_000))

    def see(self, step: str, text: str | re.Pattern | None = None) -> None:
        """Waits for `text`, looks that nothing went wrong, and keeps the picture of a step."""
        if text:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=LONG)
        self.tab.drawn()
        self.tab.check()
        self.n_pictures += 1
        if PICTURES:
            begun = time.perf_counter()
            name = f"{self.name}-{self.n_pictures:02d}-{step.replace(' ', '-')}.png"
            self.page.wait_for_timeout(500)  # until charts have settled
            keep(self.page, PICTURES / name)
            self.jobs[-1].seconds -= time.perf_counter() - begun

    def end(self) -> None:
        """Tells what each job took, in the documentation too where pictures are kept, and holds the limits."""
        table = told(self.jobs)
        print(f"\n{self.name}\n{table}")
        for job in self.jobs:
            for click in job.clicks:
                print(f"{job.name:30} {click.shown:6.2f} {click.drawn:6.2f}  {click.what}")
        if PICTURES:
            PAGE.write_text(with_table(PAGE.read_text(), self.name, table))
        assert not {job.name: len(job.clicks) for job in self.jobs if len(job.clicks) > MOST_CLICKS}
        assert not [click for job in self.jobs for click in job.clicks if click.shown > BUSY * SHOWN_WITHIN]


def told(jobs: Sequence[Job]) -> str:
    """Returns the jobs as a table: clicks, seconds, and the clicks that the page was slowest to answer."""
    head = f"| job, on {os.cpu_count()} cores | clicks | seconds | slowest to show something | slowest to be drawn |"
    return "\n".join([head, "| --- | ---: | ---: | --- | --- |", *(job.row() for job in jobs)])


def with_table(text: str, name: str, table: str) -> str:
    """Returns `text` with `table` in the place that is marked for the walk `name`."""
    begin, end = f"<!-- clicks: {name} -->\n", "<!-- end of clicks -->"
    before, after = text.split(begin)
    return f"{before}{begin}\n{table}\n\n{end}{after.split(end, 1)[1]}"
