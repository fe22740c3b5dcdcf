"""Who is told when a run ends: real receivers, real workers, one notice for each end."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import psutil
import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.registry import Registry, RunRow, RunState, new_id, now
from mtf_engine.runs import executor, files, notices
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import imported, submit_import
from mtf_engine.workspace import Workspace
from pages.shared import notices as switch
from tests.fixtures.logs import clean, write
from tests.test_pages import opened
from tests.waiting import PATIENCE, wait_until
from tests.workspaces import worked_on_here

SECRET = "T0/B0?key=hush"


class Webhook:
    """A receiver on a port of its own: answers with `codes`, the last again and again, or is silent."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.told, self.paths = list(codes), list[Any](), list[str]()
        self.ended = Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                webhook.paths.append(self.path)
                if not webhook.codes:
                    webhook.ended.wait(PATIENCE)
                    return
                code = webhook.codes.pop(0) if webhook.codes[1:] else webhook.codes[0]
                self.send_response(code)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"


@contextmanager
def receiving(*codes: int) -> Iterator[Webhook]:
    webhook = Webhook(*codes)
    thread = Thread(target=webhook.server.serve_forever, args=(0.01,))
    thread.start()
    yield webhook
    webhook.ended.set()
    webhook.server.shutdown()
    thread.join()
    webhook.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with receiving(200) as there:
        yield there


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(clean(n_users=2), tmp_path / "log")


def nowhere() -> str:
    """Returns the URL of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}"


def all_sent() -> None:
    """Waits until whatever sends notices for this process has ended."""
    senders = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ends just now
            senders += [child] if "notify" in child.cmdline() else []
    _, alive = psutil.wait_procs(senders, PATIENCE)
    assert not alive


def ended(workspace: Workspace, log: Path) -> RunRow:
    """Returns an import that was worked on to its end, once all notices are sent."""
    with worked_on_here():
        run = executor.wait(
            workspace, submit_import(workspace, log, mapping=log / "mapping.yaml", name="<!channel>")
        )
    all_sent()
    return run


def log_of(workspace: Workspace, run: RunRow) -> str:
    return (workspace.run_dir(run.id) / files.LOG).read_text()


def killed(workspace: Workspace, log: Path) -> str:
    """Returns an import whose worker died, which nobody has noticed yet."""
    run_id = submit_import(workspace, log, mapping=log / "mapping.yaml")
    run = workspace.registry.run(run_id)
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(run.pid)], PATIENCE)
    return run_id


def test_a_run_that_ends_is_told_with_its_link_and_nobody_is_called(workspace, log, webhook):
    notices.set_receiver(workspace, webhook.url, dashboard="https://mtf.example.com/team/")
    run = ended(workspace, log)
    assert run.state is RunState.COMPLETED
    (told,) = webhook.told
    link = f"https://mtf.example.com/team/runs?run={run.id}"
    assert told == {
        "text": f"{told['summary'].replace('<!channel>', '&lt;!channel&gt;')} {link}",
        "summary": f"import <!channel> ({run.id}) was completed after 0:00:{run.seconds:02.0f}",
        "run_id": run.id, "name": "<!channel>", "kind": "import", "state": "completed", "error": None, "link": link,
        "seconds": run.seconds, "finished_at": run.model_dump(mode="json")["finished_at"],
    }  # fmt: skip
    assert webhook.paths == [f"/{SECRET}"]
    executor.reconcile(workspace)
    all_sent()
    assert len(webhook.told) == 1


def test_a_receiver_that_takes_nothing_is_a_line_in_the_log_and_the_run_is_completed(workspace, log):
    with receiving(404) as webhook:
        notices.set_receiver(workspace, webhook.url)
        run = ended(workspace, log)
    assert run.state is RunState.COMPLETED
    said = f"http://127.0.0.1:{webhook.server.server_port}/… answered 404, so it was not told"
    assert said in log_of(workspace, run)
    assert "hush" not in log_of(workspace, run)
    assert len(webhook.told) == 1


def test_a_worker_that_died_is_told_once_however_many_notice_and_again_at_its_next_end(
    workspace, log, webhook
):
    notices.set_receiver(workspace, webhook.url)
    run_id = killed(workspace, log)
    read, together = Registry.ends, Barrier(4)

    def read_together(*arguments: Any, **options: Any) -> list[RunRow]:
        """Reads, and goes on once all have read the end as one that nobody told."""
        found = read(*arguments, **options)
        together.wait(PATIENCE)
        return found

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(together.parties) as pool:
        patch.setattr(Registry, "ends", read_together)
        list(pool.map(executor.reconcile, [Workspace(workspace.path) for _ in range(together.parties)]))
    all_sent()
    assert [told["state"] for told in webhook.told] == ["interrupted"]
    assert webhook.told[0]["summary"].endswith(": the worker died; `runs resume` goes on")
    with worked_on_here():
        executor.resume(workspace, run_id)
        executor.wait(workspace, run_id)
    all_sent()
    assert [told["state"] for told in webhook.told] == ["interrupted", "completed"]


def test_what_is_cancelled_in_the_queue_or_refused_and_forgotten_is_told(
    workspace, log, webhook, monkeypatch
):
    notices.set_receiver(workspace, webhook.url)
    (log / "requests.csv").write_text("")
    with worked_on_here():
        run = executor.wait(workspace, submit_import(workspace, log))
        with pytest.raises(Refusal, match=r"requests\.csv"):
            imported(workspace, run)
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    queued = submit_import(workspace, log)
    executor.cancel(workspace, queued)
    all_sent()
    assert {(told["run_id"], told["state"]) for told in webhook.told} == {
        (run.id, "failed"),
        (queued, "cancelled"),
    }


def row(state: RunState = RunState.COMPLETED, **values: Any) -> RunRow:
    columns = {"id": new_id("train"), "kind": "train", "name": "n", "created_at": now(), "config": {}}
    return RunRow(state=state, finished_at=now() if state.is_finished else None, **columns | values)


def test_parts_and_what_ended_before_are_no_news(workspace):
    registry = workspace.registry
    registry.add_run(row())
    since = now()
    whole, waits = row(RunState.RUNNING), row(RunState.WAITING, error="round 1 waits")
    for run in (whole, row(parent_id=whole.id), waits):
        registry.add_run(run)
    assert [run.id for run in registry.ends(since, untold=True)] == [waits.id]
    registry.delete_runs(whole.id)
    assert [run.id for run in registry.ends(since, untold=True)] == [waits.id], "a part that is left over"
    assert [registry.claim_end(waits) for _ in range(2)] == [True, False]
    assert registry.ends(since, untold=True) == []
    to = notices.Receiver(url="https://example.com", since=since)
    assert notices.notice(waits, to)["text"] == f"train n ({waits.id}) waits for a decision: round 1 waits"


@pytest.mark.parametrize(
    ("codes", "tries", "said"),
    [
        ((500,), 3, "answered 500"),
        ((429, 200), 2, None),
        ((302,), 1, "answered 302"),
        ((), 1, "gave no answer (timed out)"),
    ],
)
def test_a_notice_is_tried_again_only_where_it_was_not_taken(workspace, monkeypatch, codes, tries, said):
    monkeypatch.setattr(notices, "PAUSE", 0.0)
    monkeypatch.setattr(notices, "SECONDS", PATIENCE if codes else 0.3)
    with receiving(*codes) as webhook:
        to = notices.set_receiver(workspace, webhook.url)
        if said is None:
            notices.send(to, {"text": "a test"})
        else:
            with pytest.raises(Refusal) as refused:
                notices.send(to, {"text": "a test"})
            assert said in str(refused.value) and "hush" not in str(refused.value)
    assert webhook.told == [{"text": "a test"}] * tries


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/x",
        "file:///etc/hostname",
        "a.example/hush",
        "http://",
        "http://a:0x/",
        "http://me:hush@a.example/",
    ],
)
def test_only_an_address_of_the_web_is_taken(workspace, url):
    with pytest.raises(Refusal, match="the webhook is not valid: url: ") as refused:
        notices.set_receiver(workspace, url)
    assert "hush" not in str(refused.value)
    assert notices.receiver(workspace) is None


def mtf(workspace: Workspace, *words: str, code: int = 0, input: str | None = None) -> str:
    done = CliRunner().invoke(app, ["--workspace", str(workspace.path), "notify", *words], input=input)
    assert done.exit_code == code, done.output
    assert "hush" not in done.output
    return done.output


def test_a_webhook_that_was_half_set_leaves_no_secret_behind(workspace):
    left = workspace.path / f".{notices.FILE}.tmp"
    left.write_text(SECRET)
    executor.reconcile(workspace)
    assert not left.exists() and notices.receiver(workspace) is None


def test_commands_set_show_and_test_a_webhook_and_never_print_its_secret(workspace, webhook, monkeypatch):
    assert "name a webhook" in mtf(workspace, "test", code=1)
    assert "/…" in mtf(workspace, "set", "-", input=f"{webhook.url}\n")
    assert (workspace.path / notices.FILE).stat().st_mode & 0o777 == 0o600
    assert f"http://127.0.0.1:{webhook.server.server_port}/…" in mtf(workspace, "show", "--json")
    mtf(workspace, "test")
    assert webhook.told == [{"text": "A test: the workspace workspace tells here when a run ends."}]
    mtf(workspace, "set", nowhere())
    monkeypatch.setattr(notices, "PAUSE", 0.0)
    assert "was not reached (Connection refused)" in mtf(workspace, "test", code=1)
    (workspace.path / notices.FILE).write_text("{}")
    executor.reconcile(workspace)
    assert "cannot be read; set the webhook anew" in mtf(workspace, "show", code=1)
    mtf(workspace, "off")
    assert mtf(workspace, "show").split() == ["url"]
    assert not (workspace.path / notices.FILE).exists()


def for_the_browser(app: AppTest) -> list[Any]:
    """Returns what a page hands the browser to show, [] for each time that it looked in vain."""
    found = [element.proto for element in app.get("bidi_component")]
    return [json.loads(proto.json)["ends"] for proto in found if proto.component_name == "notices"]


def test_a_page_hands_the_ends_since_its_visit_to_a_browser_that_asked_for_them(workspace, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    workspace.registry.add_run(row())
    app = opened("glossary")
    assert for_the_browser(app) == []
    app.session_state["remembered notices"] = [switch.ON]
    assert for_the_browser(app.run()) == [[]], "what ended before the visit is no news"
    run = row(RunState.FAILED, name="mine")
    workspace.registry.add_run(run)
    told = {"tag": f"{run.id} {run.finished_at}", "title": "✖ failed: mine", "body": f"train {run.id}"}
    assert for_the_browser(app.run()) == [[told]]


@pytest.mark.slow
def test_a_receiver_that_hangs_delays_no_run(workspace, log):
    with receiving() as webhook:
        notices.set_receiver(workspace, webhook.url)
        run_id = submit_import(workspace, log, mapping=log / "mapping.yaml")
        run = executor.wait(workspace, run_id)
        wait_until(lambda: webhook.told, "the receiver is told")
        assert run.state is RunState.COMPLETED
        said = "gave no answer (timed out), so it was not told"
        wait_until(lambda: said in log_of(workspace, run), "the log says so")
        assert len(webhook.told) == 1
