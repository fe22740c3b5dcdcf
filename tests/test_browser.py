"""The dashboard in a real browser, as `mtf dashboard` serves it."""

import json
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from mtf_engine.policies.bundle import verify
from mtf_engine.registry import RunState, now
from mtf_engine.workspace import Workspace
from pages.shared import notices
from tests.accessibility import violations
from tests.browsing import SECONDS, VIEWPORT, Server, Tab
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_pages import opened
from tests.titles import HOME, TITLES
from tests.waiting import wait_until
from tests.workspaces import copy_workspace, stop_all

pytestmark = pytest.mark.browser

HEADINGS = {"": HOME, **TITLES}
ENDLESS = 10_000_000


@pytest.fixture(scope="session")
def visitor(chrome: Browser) -> Iterator[Tab]:
    """A tab that stays open from test to test, so that it reads and compiles Streamlit's scripts once."""
    context = chrome.new_context(viewport=VIEWPORT)
    yield Tab(context.new_page())
    context.close()


@pytest.fixture
def kept_tab(visitor: Tab) -> Tab:
    """The visitor's tab as if it were new: for links that are opened, which load the page anew."""
    visitor.page.context.clear_cookies()
    if visitor.page.url.startswith("http"):
        visitor.page.evaluate("localStorage.clear()")
    visitor.errors.clear()
    visitor.foreign.clear()
    visitor.page.emulate_media(color_scheme="light")
    return visitor


@pytest.fixture
def workspace(small_workspace: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the filled workspace, to be written to; no run of it outlives the test."""
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    yield workspace
    stop_all(workspace)


@pytest.fixture(scope="session")
def dashboard(small_workspace: Workspace, tmp_path_factory) -> Iterator[Server]:
    """The dashboard of the filled workspace, for tests that change nothing."""
    server = Server(small_workspace.path, tmp_path_factory.mktemp("dashboard") / "server.log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def taking(
    small_workspace: Workspace, borne: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, Server]]:
    """A copy of the filled workspace and its dashboard, for tests that upload logs; each looks at its own alone."""
    folder = tmp_path_factory.mktemp("taking")
    workspace = copy_workspace(small_workspace, folder / "workspace")
    server = Server(workspace.path, folder / "server.log")
    yield workspace, server
    server.stop()
    stop_all(workspace)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Workspace], Server]]:
    """A function that serves a workspace until the test ends; if it fails, the servers' logs are told."""
    servers: list[Server] = []

    def start(workspace: Workspace) -> Server:
        servers.append(Server(workspace.path, tmp_path / f"server-{len(servers)}.log"))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
    for log in sorted(tmp_path.glob("server-*.log")):
        print(log.read_text())


def shows(page: str, url: str, tab: Tab) -> None:
    """Holds that a link shows its page, within the frame."""
    shown = tab.open(f"{url}/{page}")
    assert shown.locator("h1").all_inner_texts() == [HEADINGS[page]]
    expect(shown.get_by_test_id("stSidebarNav")).to_be_visible()
    assert shown.url.partition("?")[0] == f"{url}/{page}"
    tab.check()


@pytest.mark.parametrize(
    "page", [*(pytest.param(page, marks=pytest.mark.slow) for page in ("", "density")), "review"]
)
def test_the_first_deep_link_on_a_fresh_server_shows_its_page(page, small_workspace, serve, tab):
    shows(page, serve(small_workspace).url, tab)


OFTEN = {"", "bounds", "datasets", "policies", "runs", "review"}
"""Pages opened in a browser each time; the others as often as test_looks.py, which opens every page and tab."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page not in OFTEN), id=page or "home")
        for page in HEADINGS
    ],
)
def test_a_deep_link_shows_its_page_and_everybody_can_use_it(page, dashboard, kept_tab):
    shows(page, dashboard.url, kept_tab)
    assert not violations(kept_tab.page)


@pytest.fixture(scope="session")
def below_a_path(small_workspace: Workspace, tmp_path_factory) -> Iterator[Server]:
    """The dashboard of the filled workspace below the path /team/mtf, as behind a proxy that serves others too."""
    server = Server(small_workspace.path, tmp_path_factory.mktemp("below") / "server.log", base="/team/mtf")
    yield server
    server.stop()


@pytest.mark.parametrize(
    "page",
    ["", *(pytest.param(page, marks=pytest.mark.slow) for page in ("datasets", "runs")), "review"],
    ids=lambda page: page or "home",
)
def test_a_deep_link_below_a_base_path_shows_its_page_and_its_links_stay_there(page, below_a_path, kept_tab):
    shows(page, below_a_path.url, kept_tab)
    links = kept_tab.page.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
    inside = [link for link in links if link.startswith("http://localhost")]
    assert len(inside) >= len(TITLES)
    assert all(link.startswith(f"{below_a_path.url}/") for link in inside)


@pytest.mark.parametrize("path", ["/", "/runs", "/_stcore/host-config", "/_stcore/health", "/nowhere.js"])
def test_a_foreign_host_gets_400_and_every_answer_says_who_may_frame_it(path, dashboard):
    port = urlsplit(dashboard.url).port
    for host, foreign in (
        (f"localhost:{port}", False),
        ("evil.example", True),
        (f"localhost.evil:{port}", True),
    ):
        for method in ("GET", "PUT"):
            connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            with closing(connection):
                connection.request(method, path, headers={"Host": host})
                answer = connection.getresponse()
            assert (answer.status == 400) == foreign, (host, method, answer.status)
            assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"


def test_back_leads_to_the_page_before_whatever_was_chosen_on_this_one(dashboard, kept_tab):
    tab = kept_tab
    page = tab.open(f"{dashboard.url}/density")
    page.wait_for_function("history.pushes !== undefined")  # until then Streamlit adds an entry each choice
    for name in ("Policies", "Datasets"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator("h1")).to_have_text(name)
        tab.drawn()
    page.get_by_role("tab", name="Coverage").click()
    expect(page).to_have_url(re.compile("tab=Coverage"))
    tab.drawn()
    for name, told in (("Policies", "policies.*[?&]on="), (TITLES["density"], "density")):
        page.go_back()
        expect(page.locator("h1")).to_have_text(name)
        expect(page).to_have_url(
            re.compile(told)
        )  # a page that is left before its address is known adds it again
        tab.drawn()
    tab.check()


def test_an_earlier_address_leads_to_its_tab_with_what_was_chosen(dashboard, small_workspace, kept_tab):
    tab = kept_tab
    (run,) = small_workspace.registry.runs(kind="train")
    log = small_workspace.dataset("explored").id
    page = tab.open(f"{dashboard.url}/deviation?policies={run.id}&dataset={log}")
    expect(page.get_by_role("tab", name="Deviation")).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(rf"/policies\?.*on={log}"))
    tab.check()


def test_home_leads_to_the_next_step_below_the_base_path(
    below_a_path, small_workspace, kept_tab, monkeypatch
):
    tab = kept_tab
    monkeypatch.setenv("MTF_WORKSPACE", str(small_workspace.path))
    home = opened()
    link = next(table.value["next"] for table in home.dataframe if "next" in table.value).iloc[1]
    page = tab.open(below_a_path.url)
    shown = tab.open(page.evaluate("link => new URL(link, document.baseURI).href", link))
    assert shown.url.startswith(f"{below_a_path.url}/policies?tab=Deviation&policies=train-")
    expect(shown.locator("h1")).to_have_text("Policies")
    tab.check()


def test_a_refused_upload_is_told_in_a_sentence_and_leaves_nothing(taking, kept_tab, tmp_path):
    (workspace, server), tab = taking, kept_tab
    log = tmp_path / "impressions.csv"
    log.write_text("user_id,item_id\n1,2\n")
    before = [run.id for run in workspace.registry.runs()], sorted(workspace.path.rglob("*.duckdb"))
    page = tab.open(f"{server.url}/import_logs")
    page.get_by_text("Upload", exact=True).click()
    page.locator("input[type=file]").first.set_input_files(log)
    page.get_by_role("button", name="Check and import").click()
    expect(page.get_by_text("Nothing was imported")).to_contain_text("impressions.csv")
    expect(page.get_by_role("button", name="Download CSV")).to_be_visible()
    assert before == ([run.id for run in workspace.registry.runs()], sorted(workspace.path.rglob("*.duckdb")))
    tab.check()


def test_an_uploaded_log_is_shown_mapped_and_imported(taking, kept_tab, tmp_path):
    (workspace, server), tab = taking, kept_tab
    rows = "".join(f"{i % 3}\t{1_700_000_000 + 60 * i}\t.5\t.1\t{i % 2}\t9\n" for i in range(30))
    (log := tmp_path / "mine.tsv").write_text("member\tts\tp_click\tp_like\tclick\tplay_time\n" + rows)
    page = tab.open(f"{server.url}/import_logs")
    page.get_by_text("Upload", exact=True).click()
    page.locator("input[type=file]").first.set_input_files(log)
    expect(page.get_by_text("First rows of mine.tsv")).to_be_visible()
    tab.choose("user_id, needed", "member")
    expect(page.get_by_text("user_id: member")).to_be_visible()
    tab.drawn().get_by_role("button", name="Check and import").click()
    expect(page.get_by_text("Imported 30 requests")).to_be_visible()
    assert workspace.dataset("mine").n_impressions == 30
    tab.check()


def start_training(page: Page, n_steps: int) -> None:
    """Fills the form for small networks and starts."""
    page.get_by_label("n_steps", exact=True).fill(str(n_steps))
    page.get_by_text("The method's").click()
    page.get_by_label("n_critics", exact=True).fill("4")
    page.get_by_label("hidden", exact=True).fill("16")
    page.get_by_label("hidden", exact=True).press("Enter")
    expect(page.get_by_text("--set hidden=16")).to_be_visible()
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("h1")).to_have_text("Runs")


def newest_training(workspace: Workspace) -> str:
    return workspace.registry.runs(kind="train")[0].id


@pytest.mark.slow
def test_a_training_is_started_watched_cancelled_and_resumed(workspace, serve, tab):
    page = tab.open(f"{serve(workspace).url}/start")
    start_training(page, ENDLESS)
    run_id = newest_training(workspace)
    assert f"run={run_id}" in page.url
    expect(page.get_by_text(re.compile(rf"[1-9]\d* of {ENDLESS:,}")).first).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_test_id("stBadge").or_(page.get_by_text("■ cancelled")).first).to_contain_text(
        "cancelled"
    )
    stopped = workspace.registry.run(run_id)
    assert stopped.state is RunState.CANCELLED
    assert 0 < stopped.step < ENDLESS
    expect(page.get_by_text(re.compile("^Took .* of "))).to_be_visible()
    tab.drawn()  # a click on what is about to be drawn anew is lost
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text(re.compile(rf"running · .*of {ENDLESS:,}")).first).to_be_visible()
    wait_until(lambda: workspace.registry.run(run_id).step > stopped.step, "the run goes on where it was")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    tab.check()


@pytest.mark.slow
def test_a_run_outlives_its_dashboard_and_a_new_one_shows_it(workspace, serve, tab, chrome):
    first = serve(workspace)
    start_training(Tab(chrome.new_page()).open(f"{first.url}/start"), ENDLESS)
    run_id = newest_training(workspace)
    first.stop(signal.SIGKILL)
    step = workspace.registry.run(run_id).step
    wait_until(lambda: workspace.registry.run(run_id).step > step, "the run goes on without a dashboard")
    page = tab.open(f"{serve(workspace).url}/runs?run={run_id}")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    assert workspace.registry.run(run_id).state is RunState.RUNNING
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    tab.check()


@pytest.mark.slow
def test_a_finished_round_is_decided_by_name_and_its_bundle_is_approved(workspace, serve, tab, tmp_path):
    candidate = newest_training(workspace)
    one = a_round(1, "baseline", gain=0.05).model_copy(update={"candidate": candidate})
    add_rounds(workspace, one)
    page = tab.open(f"{serve(workspace).url}/rounds")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    assert not violations(page)
    page.get_by_role("link", name="Review it").click()
    expect(page.locator("h1")).to_have_text("Review")
    expect(page.get_by_text("every guardrail holds")).to_be_visible()
    tab.drawn().get_by_text("promote", exact=True).filter(visible=True).last.click()
    page.get_by_label("Your name").fill("Ada Analyst")
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Ada Analyst decided to")).to_be_visible()
    assert workspace.live == candidate
    assert not violations(tab.drawn())
    with page.expect_download() as memo:
        page.get_by_role("button", name="Download HTML").click()
    assert "Ada Analyst decided" in memo.value.path().read_text()
    page.get_by_role("link", name="Export it").click()
    expect(page.locator("h1")).to_have_text("Export a policy")
    page.get_by_role("button", name="Export", exact=True).click()  # the one of before is not approved
    wait_until(lambda: approved(workspace), "the approved bundle is written")
    page.reload()
    with page.expect_download() as bundle:
        tab.drawn().get_by_role("button", name="Download policy.zip").click()
    bundle.value.save_as(tmp_path / "policy.zip")
    assert verify(tmp_path / "policy.zip")["ok"]
    with zipfile.ZipFile(tmp_path / "policy.zip") as file:
        manifest = json.loads(file.read("manifest.json"))
    assert manifest["approved"] and manifest["approval"]["name"] == "Ada Analyst"
    tab.check()


@pytest.mark.slow
def test_the_shadow_diff_of_a_candidate_is_reached_from_its_review(workspace, serve, tab):
    found = {"candidate": newest_training(workspace), "dataset_id": workspace.dataset("explored").id}
    add_rounds(workspace, a_round(1, "baseline", gain=0.05).model_copy(update=found))
    page = tab.open(f"{serve(workspace).url}/review")
    page.get_by_role("link", name="Shadow diff").click()
    expect(page.get_by_text("hold the same items")).to_be_visible()
    expect(page.get_by_text("Requests that differ most")).to_be_visible()
    assert not violations(tab.drawn())
    tab.check()


def approved(workspace: Workspace) -> bool:
    newest = workspace.registry.runs(kind="export")[0]
    return bool(newest.result and newest.result["manifest"]["approved"])


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws a rectangle on the first picture; places are shares of its drawing area."""
    areas = page.locator(".js-plotly-plot").first.locator(".nsewdrag")
    boxes = [areas.nth(i).bounding_box() for i in range(areas.count())]
    area = max((box for box in boxes if box), key=lambda box: box["width"] * box["height"])
    places = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


@pytest.mark.slow
def test_no_move_in_the_planner_is_lost_and_a_rectangle_becomes_the_box(dashboard, tab):
    page = tab.open(f"{dashboard.url}/bounds")
    expect(page.get_by_text("419 ×")).to_be_visible()
    for name in ("pow_click", "pow_like"):
        page.get_by_role("slider", name=name).first.focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(100)
    expect(page).to_have_url(re.compile(re.escape("box=-0.15%3A0.15%2A4%2C-0.18%3A0.18%2A2%2C")))
    drag(tab.drawn(), (0.3, 0.3), (0.6, 0.8))
    expect(page).to_have_url(
        re.compile(r"box=-0\.(?!15)\d+%3A0\.\d+%2C-0\.\d+%3A0\.\d+%2C-0\.15%3A0\.15%2A2%2C")
    )
    tab.check()


def test_the_browser_remembers_the_columns_of_the_runs_until_the_next_visit(dashboard, kept_tab):
    tab = kept_tab
    url = f"{dashboard.url}/runs"
    tab.open(f"{url}?columns=State&columns=Run")
    tab.page.wait_for_function("document.cookie.includes('mtf_columns=State%2CRun')")
    page = tab.open(url)
    page.get_by_role("button", name="View", exact=True).click()
    chosen = page.get_by_test_id("stMultiSelect").filter(has_text="Columns, in this order")
    expect(chosen).to_contain_text(re.compile("State.*Run"))
    expect(chosen).not_to_contain_text("Best score")
    expect(page).to_have_url(re.compile("columns=State&columns=Run"))
    page.keyboard.press("Escape")
    expect(chosen).to_be_hidden()
    tab.check()


RECORD = """
    window.shown = []
    window.Notification = new Proxy(Notification, {
        construct(real, [title, options]) { window.shown.push(title); return new real(title, options) },
    })
"""


@pytest.mark.slow
def test_a_browser_that_was_asked_to_shows_the_end_of_a_run_once(workspace, serve, tab):
    page, url = tab.page, serve(workspace).url
    page.add_init_script(RECORD)
    (run,) = workspace.registry.runs(kind="export")
    tab.open(f"{url}/runs")
    box = page.get_by_label("Notify me in this browser when a run ends")
    page.context.grant_permissions(["geolocation"])  # and nothing else
    box.click()
    expect(page.get_by_text("The browser does not allow it")).to_be_visible()
    page.context.grant_permissions(["notifications"])
    box.click()
    page.wait_for_function("document.cookie.includes('mtf_notices=on')")
    expect(box).to_be_checked()
    other = Tab(page.context.new_page())
    other.page.add_init_script(RECORD)
    expect(other.open(f"{url}/density").get_by_text("419 ×").first).to_be_visible()
    workspace.registry.update_run(run.id, finished_at=now())

    def shown() -> list[str]:
        return [*page.evaluate("shown"), *other.page.evaluate("shown")]

    wait_until(lambda: len(shown()) > 1, "one of both tabs shows the end")
    tab.drawn().get_by_role("link", name="Datasets", exact=True).click()
    expect(page.locator("h1")).to_have_text("Datasets")
    page.wait_for_timeout(2_500 * notices.SECONDS)  # both look twice again
    assert shown() == ["Here you are told when a run ends", f"✔ completed: {run.name}"]
    tab.check()
    other.check()


def test_a_picture_is_saved_by_the_browser_itself_once_its_chart_is_there(dashboard, tab):
    tab.page.route(re.compile(r"lotly.*\.js"), lambda _: None)  # held, until they are let go on
    page = tab.open(f"{dashboard.url}/density")
    page.get_by_text("Table and downloads").click()
    expect(page.get_by_role("button", name="Download PNG")).to_be_disabled()
    page.unroute_all()
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=f"Download {kind}").click()
        assert saved.value.suggested_filename == f"exploration density.{kind.lower()}"
        assert saved.value.path().read_bytes().startswith(start)
    tab.check()


@pytest.mark.slow
def test_two_people_at_once_make_their_own_choices_on_the_same_data(workspace, serve, tab, chrome):
    url = f"{serve(workspace).url}/bounds"
    mine = tab.open(url)
    other = Tab(chrome.new_context().new_page())
    theirs = other.open(url)
    mine.get_by_role("slider", name="pow_click").first.press("ArrowRight")
    expect(mine).to_have_url(re.compile("box=-0.15%3A0.15%2A4%2C-0.155%3A0.155"))
    expect(mine.get_by_text("419 ×")).to_be_hidden()
    expect(theirs.get_by_text("419 ×")).to_be_visible()
    assert "0.155" not in theirs.url
    tab.drawn().get_by_label("Name", exact=True).fill("wider clicks")
    mine.get_by_label("Name", exact=True).press("Enter")
    mine.get_by_role("button", name="Store").click()
    expect(mine.get_by_text("No plan is stored yet")).to_be_hidden()
    theirs.reload()
    expect(other.drawn().get_by_text("wider clicks").first).to_be_attached()
    expect(theirs.get_by_text("419 ×")).to_be_visible()
    tab.check()
    other.check()
    theirs.context.close()
