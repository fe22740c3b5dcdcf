"""What people and logs call things is shown as it is on every page and in memos: nothing of it is obeyed."""

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mtf_engine.registry import BASELINE, RunRow, RunState, now
from mtf_engine.release import memo, review
from mtf_engine.release.review import decided_case
from mtf_engine.runs import executor, keeping
from mtf_engine.spec import BoundsPlan, Box
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from pages.shared import words
from tests.fixtures import logs
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_pages import opened
from tests.titles import TITLES
from tests.workspaces import REGISTRY, copy_workspace

MARK = "Qx7"
"""Every text begins with it, so it is found again."""
TEXTS = tuple(
    MARK + text
    for text in (
        "<script>document.title='evil'</script>", "<img src=x onerror=alert(1)>", "<b>bold</b>", "</table><h1>x",
        "[link](javascript:alert(1))", "![picture](https://evil.test/x.png)", "[ref]: https://evil.test", "<!--",
        "# title", "> quote", "- item", "1. item", "`code` ``", "~~~", "| a | b |", "---", "https://evil.test/x",
        "www.evil.test a@evil.test", "$\\frac{1}{0}$", "$$x$$", "\\(x\\)", ":material/delete:", ":red[x] :blue[y]",
        ":smile:", "{{7*7}} {x} ${x}", "%s %(x)s %n", "=cmd|' /C calc'!A0", "+1+1 @SUM(A1)", "'; DROP TABLE runs; --",
        "\" onmouseover=\"x", "'\"`", "../../etc/passwd", "a/b\\c", "\u202edlrow \u200b\u2066x", "a\0b", "a\nb\r\nc\td",
        "long " * 300, "&lt;b&gt; &amp; &#60;", "*" * 60, "**bold** _it_",
    )
)  # fmt: skip
PLAIN = {
    "id", "key", "form_id", "raw_value", "raw_values", "code_text", "url", "query_string", "spec", "default",
    "placeholder", "alt",
}  # fmt: skip
"""Fields of what is sent to the browser that it shows as they are, or not at all; Plotly's is looked at by itself."""
OPTIONS = ("Selectbox.options", "MultiSelect.options")


def cut(text: str) -> tuple[str, str, str, str]:
    """Returns a text as it can be a tag and a name, and whole; last as a log can hold it, without a NUL."""
    tag, name = text.replace(",", "")[: keeping.LONGEST_TAG].strip(), text[: keeping.LONGEST_NAME]
    return tag, name, text, text.replace("\0", "")


def call_by(workspace: Workspace, first: int) -> None:
    """Calls everything in the workspace by hostile texts, each by the next one from `first` on."""
    texts = (TEXTS[i % len(TEXTS)] for i in count(first))
    for run in workspace.registry.runs():
        keeping.tag(workspace, run.id, add=[cut(next(texts))[0]])
        keeping.note(workspace, run.id, next(texts))
        workspace.registry.update_run(run.id, name=cut(next(texts))[1])
    failed = {"kind": "train", "config": {}, "state": RunState.FAILED, "created_at": now()}
    workspace.registry.add_run(RunRow(id="train-0", name=next(texts), error=next(texts), **failed))
    with closing(connect(workspace.path / REGISTRY)) as database, database:
        for (one,) in database.execute("SELECT id FROM datasets").fetchall():
            database.execute("UPDATE datasets SET name = ? WHERE id = ?", [next(texts), one])
    box = Box(lower=(-0.1, -0.1), upper=(0.1, 0.1))
    plan = BoundsPlan(lower=box.lower, upper=box.upper, segments={next(texts): box})
    workspace.registry.save_plan(next(texts), plan, next(texts))
    workspace.registry.save_view(next(texts), {"tag": [next(texts)]})


def decide_by(workspace: Workspace, first: int) -> None:
    """Adds rounds, one of which was promoted by a hostile name for a hostile reason."""
    add_rounds(workspace, a_round(1, BASELINE, gain=0.05), a_round(2, "train-1", gain=-0.008))
    name, reason = (TEXTS[i % len(TEXTS)] for i in (first, first + 1))
    review.decide(workspace, "progressive-1", 1, "promote", name=name, reason=reason)


def sent(message: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yields the texts in what is sent to the browser, each with where it stands and its field."""
    for field, found in message.ListFields():
        several = found if not isinstance(found, str | bytes) and hasattr(found, "__iter__") else [found]
        for one in several:
            if isinstance(one, str):
                yield f"{path}.{field.name}", field.name, one
            elif hasattr(one, "ListFields"):
                yield from sent(one, f"{path}.{field.name}")


def seen(app: AppTest) -> Iterator[tuple[str, str, str]]:
    """Yields the texts of a page that hold a hostile one."""
    for node in app._tree:
        proto = getattr(node, "proto", None)
        if hasattr(proto, "ListFields"):
            yield from (one for one in sent(proto, type(proto).__name__) if MARK in one[2])


def is_obeyed(where: str, field: str, text: str) -> bool:
    """Returns whether Markdown, or Plotly's tags, would read a hostile text that is not escaped."""
    if field == "spec":
        return bool(re.search(MARK + r'[^"]*<(script|img|b>|h1|!--)', text.replace(r"\"", "")))
    if field in PLAIN or where in OPTIONS:
        return False
    for escaped in sorted({words.plain(one) for whole in TEXTS for one in cut(whole)}, key=len, reverse=True):
        text = text.replace(escaped, "")
    bare = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)  # code is shown as it is
    return MARK in bare


def obeyed(app: AppTest) -> list[str]:
    return [f"{where}: {text[:300]!r}" for where, field, text in seen(app) if is_obeyed(where, field, text)]


def test_what_would_be_obeyed_is_known_from_what_is_not():
    for text in TEXTS:
        for one in cut(text):
            assert not is_obeyed("Markdown.body", "body", f"**{words.plain(one)}** is {words.plain(one)}")
            assert is_obeyed("Markdown.body", "body", f"is {one}") == (
                one.strip() != words.plain(one).strip()
            )


@pytest.mark.parametrize("page", ["runs", "review"])
def test_hostile_texts_are_shown_as_they_are(page, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    decide_by(workspace, 0)
    call_by(workspace, 0)
    app = opened(page, run="progressive-1")
    assert list(seen(app)) and not obeyed(app)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(len(TEXTS)))
def test_every_page_shows_hostile_texts_as_they_are(
    first, small_workspace, tmp_path, monkeypatch, in_process
):
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    imported = import_by(workspace, tmp_path / "log", first)
    decide_by(workspace, first)
    call_by(workspace, first)
    links = [(page, {}) for page in (None, *TITLES)]
    links += [("datasets", {"dataset": imported}), ("review", {"run": "progressive-1", "round": "1"})]
    links += [("runs", {"run": run}) for run in ("train-0", "progressive-1")]
    found = {f"{page} {query}": said for page, query in links if (said := obeyed(opened(page, **query)))}
    assert not found


def import_by(workspace: Workspace, folder: Path, first: int) -> str:
    """Returns the id of a log whose segments, users, items, features and predictions have hostile names."""
    log = logs.clean()
    texts = [one.replace("\0", "") for one in (*TEXTS[first:], *TEXTS[:first])]
    asked, shown = log.requests, log.impressions
    asked["user_id"] = asked["user_id"].map(dict(zip(asked["user_id"].unique(), texts, strict=False)))
    asked["segment"] = [texts[4 + i % 3] for i in range(len(asked))]
    shown["item_id"] = [texts[i % 20] for i in range(len(shown))]
    logs.write(log, folder, "parquet")
    (folder / "mapping.yaml").write_text(
        f"predictions: [{_yaml(texts[8])}, like]\nfeatures: [{', '.join(map(_yaml, texts[9:13]))}]\n"
        "signals: [click, like, watch_time]\nreward: {weights: {watch_time: 0.01, like: 0.5}}\n"
    )
    run_id = submit_import(workspace, folder, mapping=folder / "mapping.yaml", name=texts[7])
    return executor.completed(workspace, executor.wait(workspace, run_id)).dataset_id or ""


def _yaml(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


@pytest.mark.slow
@pytest.mark.browser
def test_a_memo_of_hostile_texts_runs_nothing_in_a_browser(tmp_path, chrome):
    page = chrome.new_page()
    events: list[str] = []
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: events.append(request.url))
    page.on("pageerror", lambda error: events.append(str(error)))
    for first, text in enumerate(TEXTS):
        workspace = Workspace(tmp_path / str(first))
        decide_by(workspace, first)
        call_by(workspace, first)
        path = tmp_path / "memo.html"
        path.write_text(memo.html(*decided_case(workspace, "progressive-1", 1)))
        page.goto(path.as_uri())
        assert "evil" not in page.title() and page.locator("script, img, a, h1 h1, b").count() == 0
        shown = " ".join(page.locator("body").inner_text().split())
        assert " ".join(text.replace("\0", "").split())[:60] in shown, (text, shown[:600])
        assert events == [path.as_uri()], events
        events.clear()
    page.close()
