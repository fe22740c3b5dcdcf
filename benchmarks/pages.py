"""Measures every page in a real browser, on a workspace of 50 trainings and a log of 10 million requests.

Each page is opened on a server started for it alone. Then it is used, three times in the same way, and the
medians told: from the moment the browser sends the choice until the first number or picture has followed it, and
until the last change is drawn. Beside them stands the processor time that the server spent, which other work on
the machine hardly changes.

    python benchmarks/pages.py [--workspace DIR] [--requests 10000000] [--runs 50] [--pages bounds runs]

A workspace that is there already is measured as it is; where others work on the machine, put `nice -n 10` before.
"""

import argparse
import itertools
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.pop(0)  # this file's folder, in which `pages` is this file and not the dashboard's
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.big_workspace import BIG, make
from mtf_engine.registry import BASELINE
from mtf_engine.workspace import Workspace
from pages.shared.places import MOVED, TAB
from tests import browser as chromium
from tests.browsing import Server
from tests.titles import EARLIER, HOME, TITLES

HEADINGS = {"": HOME, **TITLES} | {
    old: f"{title}, {MOVED[old].tab}" for old, title in EARLIER.items() if MOVED[old].tab
}
"""Every page, and every tab of those that have several, by its present or earlier address."""
TIMES = 3
QUIET = 700
"""Milliseconds without a change after which a page counts as drawn."""
WATCH = """
window.changed = window.sent = window.answered = 0
const send = WebSocket.prototype.send
WebSocket.prototype.send = function (data) { window.sent ||= performance.now(); return send.call(this, data) }
const answers = ({ type, target }) => {
    const element = (target.closest ? target : target.parentElement)?.closest("[data-testid=stElementContainer]")
    return type !== "attributes" && element && !element.querySelector("[data-testid=stSlider]")
}
new MutationObserver(changes => {
    window.changed = performance.now()
    if (window.sent && changes.some(answers)) window.answered ||= window.changed
})
    .observe(document, { subtree: true, childList: true, attributes: true, characterData: true })
"""
IS_DRAWN = f"""
() => document.querySelector("[data-test-script-state=notRunning]") && document.querySelector("h1")
    && !document.querySelector("[data-testid=stSkeleton]")
    && window.sent && performance.now() - Math.max(window.changed, window.sent) > {QUIET}
"""

Use = Callable[[Page], None]


def slide(name: str) -> Use:
    """Returns what moves a slider by one step."""
    return lambda page: page.get_by_role("slider", name=name).first.press("ArrowRight")


def choose(name: str) -> Use:
    """Returns what takes the next entry of a select box, and in turn the one before."""
    keys = itertools.cycle(("ArrowDown", "ArrowUp"))

    def use(page: Page) -> None:
        box = page.get_by_role("combobox", name=re.compile(re.escape(name))).first
        box.click()
        box.press(next(keys))
        box.press("Enter")

    return use


def write(name: str) -> Use:
    """Returns what writes one number, and in turn another, into a field."""
    numbers = itertools.cycle(("7", "8"))

    def use(page: Page) -> None:
        field = page.get_by_label(name, exact=True).first
        field.fill(next(numbers))
        field.press("Enter")

    return use


def press(name: str) -> Use:
    """Returns what presses a button."""
    return lambda page: page.get_by_role("button", name=name).first.click()


def turn(*names: str) -> Use:
    """Returns what opens one tab after the other."""
    tabs = itertools.cycle(names)
    return lambda page: page.get_by_role("tab", name=next(tabs)).click()


def switch(name: str) -> Use:
    """Returns what turns a toggle, or unfolds a section and folds it again."""
    return lambda page: page.get_by_text(name, exact=True).first.click()


USES: dict[str, tuple[str, Use]] = {
    "import_logs": ("name", write("Name (optional)")),
    "collect": ("seed", write("Seed")),
    "bounds": ("move a wall", slide("pow_click")),
    "drift": ("share held", slide("Share of the policy's actions")),
    "walls": ("judge each segment", switch("Judge each segment")),
    "cost": ("sigma", slide("Sigma of the Gaussian noise")),
    "coverage": ("unfold", switch("Two dimensions together")),
    "density": ("half width", slide("Half width of the box")),
    "formulas": ("beta", slide("beta")),
    "start": ("another log", choose("Learn from")),
    "runs": ("another run", choose("Run")),
    "compare_runs": ("smoothing", slide("Smoothing")),
    "policies": ("another tab", turn("Deviation", "Critics")),
    "compare": ("another base", choose("Of each policy, against")),
    "deviation": ("direction", choose("Show")),
    "critics": ("another critic", choose("Differences of")),
    "explain": ("draw a request", press("Draw one at random")),
    "abtest": ("seed", write("Seed")),
    "rounds": ("seed", write("Seed")),
    "export": ("another policy", choose("Policy")),
}
"""What is done on a page: its words, and how. Pages without an entry are opened only."""


class Answer(NamedTuple):
    """Milliseconds from a choice sent to the first answer and to the last change drawn, and of the server's work."""

    answered: float
    waited: float
    worked: float


class Measured(NamedTuple):
    """One page: seconds until first paint and drawn, and of the server's work; KB sent; what each use took."""

    first_paint: float
    drawn: float
    worked: float
    kilobytes: float
    uses: list[Answer]


def queries(workspace: Workspace) -> dict[str, dict[str, str | list[str]]]:
    """Returns what the address of a page selects: the big log, or the comparison of the first training."""
    ids = {row.name: row.id for row in workspace.registry.datasets()}
    whole = [run for run in workspace.registry.runs() if run.parent_id is None]  # not a part of the rounds
    trainings = [run.id for run in whole if run.kind == "train"]
    (scored,) = (run for run in whole if run.kind == "evaluate")
    policies = scored.config["policies"]
    big, small = {"dataset": ids[BIG]}, {"dataset": ids["test"]}
    compared = {"dataset": ids["test"], "policies": [run for run in policies if run != BASELINE]}
    explore = dict.fromkeys(("bounds", "drift", "walls", "cost", "coverage", "explain", "policies"), big)
    evaluate = dict.fromkeys(("compare", "deviation", "critics"), compared)
    logs = dict.fromkeys(("datasets", "rewards"), small)
    return {**logs, **explore, **evaluate, "compare_runs": {"runs": trainings[:5]}, "start": big}


def place(name: str, query: dict[str, str | list[str]]) -> tuple[str, dict[str, str | list[str]]]:
    """Returns the address of a page or of a tab, and what it selects."""
    if name not in MOVED:
        return name, query
    page, tab, renamed = MOVED[name]
    own = {renamed.get(key, key): value for key, value in query.items()}
    return Path(page).stem, own | ({TAB: tab} if tab else {})


def measure(browser: Browser, url: str, use: Use | None, server: psutil.Process) -> Measured:
    """Returns what opening `url` takes, and using it."""
    before = _worked(server)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(300_000)
    received = [0.0]
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: _count(received, data)))
    page.add_init_script(WATCH)
    page.goto(url)
    page.wait_for_function(IS_DRAWN)
    paint, drawn = page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint')[0].startTime, window.changed]"
    )
    opened = paint / 1000, drawn / 1000, _worked(server) - before, received[0] / 1024
    uses = [_used(page, use, server) for _ in range(TIMES)] if use else []
    context.close()
    return Measured(*opened, uses)


def _count(received: list[float], data: str | bytes) -> None:
    received[0] += len(data)


def _used(page: Page, use: Use, server: psutil.Process) -> Answer:
    page.evaluate("window.sent = window.answered = 0")
    before = _worked(server)
    use(page)
    page.wait_for_function(IS_DRAWN, polling=100)
    answered, waited = page.evaluate(
        "[(window.answered || window.changed) - window.sent, window.changed - window.sent]"
    )
    return Answer(answered, waited, 1000 * (_worked(server) - before))


def _worked(server: psutil.Process) -> float:
    """Returns the seconds of processor time that the server has taken so far."""
    spent = server.cpu_times()
    return spent.user + spent.system


def rows(workspace: Workspace, names: list[str]) -> dict[str, Measured]:
    """Returns the measurement of each page, told on standard error as it comes."""
    found, selected = {}, queries(workspace)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=list(chromium.FLAGS))
        for name in names:
            server = Server(workspace.path, Path(folder) / "server.log")
            address, query = place(name, selected.get(name, {}))
            use, process = USES.get(name, ("", None))[1], psutil.Process(server.process.pid)
            found[name] = measure(
                browser, f"{server.url}/{address}?{urlencode(query, doseq=True)}", use, process
            )
            server.stop()
            print(name or "home", found[name], file=sys.stderr, flush=True)
    return found


def table(found: dict[str, Measured]) -> str:
    """Returns the measurements as a table in Markdown."""
    lines = [
        "| page | first paint, s | drawn, s | server, s | data, KB | used | first answer, ms | all, ms | server, ms |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for name, one in found.items():
        what, answers = USES.get(name, ("", None))[0], " | | "
        if one.uses:
            answers = " | ".join(f"{statistics.median(part):,.0f}" for part in zip(*one.uses, strict=True))
        opened = f"{one.first_paint:.1f} | {one.drawn:.1f} | {one.worked:.1f} | {one.kilobytes:,.0f}"
        lines.append(f"| {HEADINGS[name]} | {opened} | {what} | {answers} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path("data/pages"))
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--pages", nargs="+", choices=[name or "home" for name in HEADINGS])
    args = parser.parse_args()
    workspace = make(args.workspace, args.requests, args.runs)
    names = [name for name in HEADINGS if not args.pages or (name or "home") in args.pages]
    found = rows(workspace, names)
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load:.1f} at the end\n")
    print(table(found))


if __name__ == "__main__":
    main()
