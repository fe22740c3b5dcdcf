"""Who may do what: the one table, the people of a login, and every button of the pages asking it."""

import ast
import re
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mtf_engine.permissions import LOGIN, PERMISSIONS, Action, Login, Person, Role, read_login
from mtf_engine.registry import BASELINE, RunState
from mtf_engine.release import review
from mtf_engine.runs import executor, files
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work import import_log
from mtf_engine.workspace import Workspace
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_architecture import tree_of
from tests.test_pages import app_of, button, checked

ROOT = Path(__file__).parent.parent
PAGES = [path for path in sorted((ROOT / "pages").rglob("*.py")) if path.name != "access.py"]
BUTTONS = ("button", "form_submit_button", "download_button")
WRITERS = {
    "submit_import": Action.IMPORT,
    "submit_collect": Action.COLLECT,
    "submit_narrow": Action.COLLECT,
    "submit_shard": Action.COLLECT,
    "submit_seeds": Action.TRAIN,
    "submit_tune": Action.TUNE,
    "submit_evaluate": Action.EVALUATE,
    "submit_abtest": Action.ABTEST,
    "submit_compare": Action.COMPARE,
    "submit_progressive": Action.START_ROUNDS,
    "submit_export": Action.EXPORT,
    "submit_import_policy": Action.IMPORT_POLICY,
    "submit_mlflow": Action.EXPORT,
    "executor.cancel": Action.STEER_RUN,
    "executor.resume": Action.STEER_RUN,
    "executor.move": Action.STEER_RUN,
    "keeping.rename": Action.DESCRIBE_RUN,
    "keeping.note": Action.DESCRIBE_RUN,
    "keeping.tag": Action.DESCRIBE_RUN,
    "keeping.archive": Action.DESCRIBE_RUN,
    "registry.save_plan": Action.SAVE_PLAN,
    "registry.delete_plan": Action.SAVE_PLAN,
    "registry.save_view": Action.SAVE_VIEW,
    "registry.delete_view": Action.SAVE_VIEW,
    "delete_runs": Action.DELETE_RUN,
    "delete_dataset": Action.DELETE_DATASET,
    "decide": Action.DECIDE,
    "review.rollback": Action.ROLL_BACK,
}
"""What of the engine a page calls to start, change, decide or delete something, and the action that asks for it."""
READERS = {
    *(
        "executor.MAX_WORKING",
        "executor.completed",
        "executor.processes",
        "executor.reconcile",
        "executor.tail",
    ),
    *("keeping.LONGEST_NAME",),
    *("review.Choice", "review.decided_case", "review.figure", "review.history", "review.last_entry"),
    *("registry.datasets", "registry.decisions", "registry.deletions", "registry.ends", "registry.part_ids"),
    *("registry.plans", "registry.queue", "registry.run", "registry.runs", "registry.views"),
}
"""What else a page has of those modules; `reconcile` writes what the machine says of dead runs, whoever looks."""


def test_each_action_takes_a_role_and_one_without_is_nobodys(monkeypatch):
    assert {*PERMISSIONS} == {*Action}
    may = {role: {action for action in Action if Person("a", role).may(action)} for role in Role}
    assert may[Role.VIEWER] == {Action.LOOK, Action.DOWNLOAD}
    assert may[Role.VIEWER] < may[Role.EDITOR] < may[Role.APPROVER] == {*Action}
    assert not may[Role.EDITOR] & {Action.DECIDE, Action.ROLL_BACK, Action.DELETE_RUN, Action.DELETE_DATASET}
    monkeypatch.delitem(PERMISSIONS, Action.TRAIN)
    assert not Person("a", Role.APPROVER).may(Action.TRAIN)


def test_every_button_asks_for_its_permission():
    """Streamlit's own buttons are drawn by `access.py` alone, and every action that it is asked for is one."""
    asked: set[str] = set()
    for path in [ROOT / "app.py", *PAGES]:
        for call in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
            if not (isinstance(call.func, ast.Attribute) and call.func.attr in BUTTONS):
                continue
            assert ast.unparse(call.func.value) == "access", f"{path.name}:{call.lineno} draws its own button"
            if call.func.attr != "download_button":
                action = ast.unparse(call.args[0])
                assert action.startswith("Action."), f"{path.name}:{call.lineno} names no action"
                asked.add(action.removeprefix("Action."))
    assert {Action[name] for name in asked} == {*Action} - {Action.DOWNLOAD}


def test_every_place_that_writes_is_behind_its_action():
    pattern = re.compile(r"submit_\w+|(executor|keeping|review|registry)\.\w+|delete_(runs|dataset)|decide")
    met: set[str] = set()
    for path in PAGES:
        source = path.read_text()
        for node in ast.walk(tree_of(path)):
            match node:
                case ast.Name(id=name):
                    pass
                case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
                    name = f"{owner}.{attribute}".removeprefix("workspace.")
                case ast.Attribute(value=ast.Attribute(attr="registry"), attr=attribute):
                    name = f"registry.{attribute}"
                case ast.Attribute(attr=name):
                    pass
                case _:
                    continue
            if pattern.fullmatch(name) and name not in READERS:
                assert name in WRITERS, f"{path.name} has {name}, which is in no table"
                assert f"Action.{WRITERS[name].name}" in source, f"{path.name} calls {name} unasked"
                met.add(name)
    assert met == {*WRITERS}


SETTINGS = """
[auth]
redirect_uri = "http://localhost:8501/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "mtf"
client_secret = "secret"
server_metadata_url = "http://localhost:1/.well-known/openid-configuration"
[roles]
claim = "groups"
editor = ["engineers"]
[people]
"ada@example.org" = "approver"
"grace@example.org" = "editor"
"vera@example.org" = "viewer"
"""


@pytest.fixture
def login(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "login.toml"
    path.write_text(SETTINGS)
    path.chmod(0o600)
    monkeypatch.setenv(LOGIN, str(path))
    return path


def claims(name: str, **others: object) -> dict:
    return {"is_logged_in": True, "email": f"{name}@example.org", "iat": time.time(), **others}


def test_people_have_roles_by_name_or_by_a_claim_and_the_others_none(login):
    found: Login = read_login(login)
    assert found.person(claims("ada")) == Person("ada@example.org", Role.APPROVER)
    assert found.person(claims("eve", groups=["engineers", "x"])).role is Role.EDITOR
    assert found.person(claims("ada", groups="viewer")).role is Role.APPROVER
    assert found.person(claims("ada", email_verified="true")) == found.person(
        claims("ada", email_verified=True)
    )
    for refused, why in (
        (claims("eve"), "eve@example.org has no role here"),
        (claims("eve", groups="admin"), "has no role"),
        *((claims("ada", email_verified=no), "has not verified") for no in (False, "false", "", None, 1)),
        (claims("ada", email=None), "does not tell your email"),
        (claims("ada", iat=time.time() - 9 * 3600), "session has ended"),
        (claims("ada", iat=None), "session has ended"),
    ):
        with pytest.raises(Refusal, match=why):
            found.person(refused)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.chmod(0o644), "everybody on this machine can read it; `chmod 600"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_text("a = "), "is no TOML"),
        (lambda path: path.write_bytes(b"\xff"), "is no TOML"),
        (
            lambda path: path.write_text(SETTINGS.replace("approver", "owner")),
            "people.ada@example.org: .*'viewer'",
        ),
        (lambda path: path.write_text(SETTINGS.replace("0123456789", "")), "auth.cookie_secret: .* 32"),
        *(
            (
                lambda path, to=to: path.write_text(SETTINGS.replace("localhost:8501", to)),
                f"redirect_uri: {why}",
            )
            for to, why in (("[x", "Invalid IPv6"), ("/", "names no host"))
        ),
        (lambda path: path.write_text(SETTINGS + "[sesion]\n"), "sesion: Extra inputs"),
    ],
)
def test_a_login_that_is_not_one_is_refused_with_the_reason(login, change, why):
    change(login)
    with pytest.raises(Refusal, match=why):
        read_login(login)


@pytest.fixture
def team(tmp_path, monkeypatch) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    add_rounds(workspace, a_round(1, BASELINE, gain=0.05))
    return workspace


def shown_to(user: dict, page: str = "pages/release/review.py") -> AppTest:
    app = app_of()
    app.user = user
    app.switch_page(page)
    return checked(app.run())


def test_nobody_sees_anything_before_the_login(team, login):
    for user, said in (
        ({}, "log in to go on"),
        (claims("ada", iat=0), "your session has ended"),
    ):
        app = shown_to(user)
        assert said in app.info[0].value
        assert [b.label for b in app.button] == ["Log in as somebody else" if "email" in user else "Log in"]
        assert not app.dataframe and not app.sidebar.button and not app.header


@pytest.mark.parametrize("name", ["grace", "ada"])
def test_an_approver_decides_in_her_own_name_and_others_not_whatever_their_browser_sends(name, team, login):
    app = shown_to(claims(name))
    assert name in app.sidebar.caption[0].value
    assert not app.text_input, "a name is typed by nobody"
    app.radio(key="choice").set_value("promote")
    decide = button(app, "Decide")
    assert decide.disabled == (name != "ada")
    decide.proto.disabled = False  # as whoever sends it all the same
    decide.click()
    checked(app.run())
    assert [row.name for row in team.registry.decisions()] == (["ada@example.org"] if name == "ada" else [])


def test_a_role_that_is_taken_away_is_gone_at_the_next_click(team, login):
    app = shown_to(claims("ada"))
    app.radio(key="choice").set_value("promote")
    login.write_text(SETTINGS.replace("ada@", "another@"))
    button(app, "Decide").click()
    assert "has no role" in checked(app.run()).info[0].value
    assert team.registry.decisions() == []


@pytest.mark.parametrize(("name", "stores"), [("vera", False), ("grace", True)])
def test_what_a_button_calls_is_called_for_those_alone_who_may(name, stores, login):
    def page():
        import streamlit as st

        from mtf_engine.permissions import Action
        from pages.shared import access

        access.button(Action.SAVE_PLAN, "Store", on_click=lambda: st.session_state.update(stored=True))

    app = app_of(page)
    app.user = claims(name)
    (store,) = checked(app.run()).button
    assert store.disabled != stores and ("editor" in store.help) != stores
    store.proto.disabled = False
    store.click()
    assert ("stored" in checked(app.run()).session_state) == stores


def test_a_login_without_roles_of_ours_lets_nobody_in(team, monkeypatch):
    monkeypatch.delenv(LOGIN, raising=False)
    app = shown_to({"is_logged_in": True, "email": "ada@example.org"})
    assert "a login without roles" in app.info[0].value and not app.dataframe


def test_what_is_written_carries_who_is_logged_in_and_who_looks_writes_nothing(team):
    path, plan = team.path, BoundsPlan.symmetric(0.1, 2)
    ada, vera = Workspace(path, Person("ada", Role.APPROVER)), Workspace(path, Person("vera", Role.VIEWER))
    ada.registry.save_plan("narrow", plan)
    assert [row.person for row in team.registry.plans()] == ["ada"]
    row = review.decide(ada, "progressive-1", 1, "reject", name="Grace", reason="I am not she")
    assert row.name == "ada"
    for write in (
        lambda: vera.registry.save_plan("wide", plan),
        lambda: vera.registry.delete_plan("narrow"),
        lambda: vera.delete_runs("progressive-1"),
        lambda: vera.registry.update_run("progressive-1", note="x"),
        lambda: review.rollback(vera, name="ada", reason="x", to="train-1"),
    ):
        with pytest.raises(Refusal):
            write()
    ada.registry.delete_plan("narrow")
    ada.delete_runs("progressive-1")
    gone = [(row.person, row.kind, row.deleted) for row in team.registry.deletions()]
    assert gone == [("ada", "run", "progressive-1"), ("ada", "plan", "narrow")]


def test_the_engine_itself_refuses_an_editor_what_takes_an_approver(team):
    grace = Workspace(team.path, Person("grace", Role.EDITOR))
    for said, write in (
        ("delete a run", lambda: grace.delete_runs("progressive-1")),
        ("delete a dataset", lambda: grace.delete_dataset("a log")),
        (
            "decide on a round",
            lambda: review.decide(grace, "progressive-1", 1, "reject", name="ada", reason="x"),
        ),
        ("roll back what is live", lambda: review.rollback(grace, name="ada", reason="x")),
    ):
        with pytest.raises(Refusal, match=f"It takes the role approver to {said}; grace is editor here"):
            write()


def test_parts_are_in_the_name_of_whoever_started_the_whole_and_a_refused_import_leaves_nothing(team):
    ada, grace = (
        Workspace(team.path, Person(*who)) for who in (("ada", Role.APPROVER), ("grace", Role.EDITOR))
    )
    team.registry.update_run("progressive-1", person="grace")
    for workspace, name in ((team, "grace"), (ada, "ada")):  # `team` as a worker has it
        part = executor.submit(workspace, import_log.KIND, {}, parent_id="progressive-1")
        assert team.registry.run(part).person == name
    refused = executor.submit(grace, import_log.KIND, {}, parent_id="progressive-1")
    team.registry.update_run(refused, state=RunState.FAILED, error="no log", parent_id=None)
    (team.run_dir(refused) / files.REPORT).write_text('{"error": "no log", "defects": []}')
    with pytest.raises(
        Refusal, match=r"^no log$"
    ):  # what an editor's import leaves is the editor's to remove
        import_log.imported(grace, team.registry.run(refused))
    assert refused not in {run.id for run in team.registry.runs()}


@pytest.fixture
def logs(tmp_path, login) -> Path:
    """The folder that the login names, with a log, a way out of it, and a file beside it."""
    folder = tmp_path / "logs"
    (folder / "day").mkdir(parents=True)
    (folder / "day" / "shown.csv").write_text("user_id,timestamp,p_a,click\nu1,1,0.5,1\n")
    (tmp_path / "secret.csv").write_text("key\nhush-hush\n")
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    login.write_text(f"{SETTINGS}[imports]\nfolder = '{folder}'\n")
    return folder


def test_a_path_is_held_in_the_folder_of_the_login_wherever_links_lead(logs, login, tmp_path):
    held = read_login(login).imports.held
    assert held(Path("day")) == held(logs / "day" / ".." / "day") == (logs / "day").resolve()
    (logs / "again").symlink_to(logs / "day")
    assert held(Path("again")) == (logs / "day").resolve()
    for wrong in (
        "out.csv",
        "../secret.csv",
        "../absent",
        str(tmp_path),
        ".",
        "../logs2",
        "/proc/self/environ",
    ):
        with pytest.raises(Refusal, match=r"leaves .*, where the logs to import lie"):
            held(Path(wrong))
    (logs / "ring").symlink_to(logs / "ring")
    for wrong in ("ring", "~nobody-here/x", "a\0b"):
        with pytest.raises(Refusal, match="no path that can be followed"):
            held(Path(wrong))


@pytest.mark.parametrize("folder", ["logs", "{here}"])
def test_a_folder_of_logs_that_is_relative_or_holds_the_login_is_refused(folder, login):
    login.write_text(f"{SETTINGS}[imports]\nfolder = '{folder.format(here=login.parent)}'\n")
    with pytest.raises(Refusal, match=r"folder: is no absolute path|lies in the folder .* that pages read"):
        read_login(login)


def test_an_editor_has_read_what_lies_in_the_folder_and_a_viewer_nothing(team, logs, login):
    app = shown_to(claims("grace"), "pages/logs/import_logs.py")
    shown = checked(app.text_input(key="import_path").set_value("day").run())
    assert [list(d.value["user_id"]) for d in shown.dataframe] == [["u1"]] and not shown.error
    for key, path in (("import_path", "out.csv"), ("import_mapping", str(login))):
        shown = checked(app.text_input(key=key).set_value(path).run())
        assert "where the logs to import lie" in shown.error[0].value and not shown.dataframe
        app.text_input(key="import_path").set_value("day")
    closed = "It takes the role editor"
    for name, settings in (("vera", login.read_text()), ("grace", SETTINGS)):
        login.write_text(settings)
        app.user = claims(name)
        shown = checked(app.run())
        assert not shown.dataframe and not shown.text_input(key="import_name").value
        assert not [t for t in shown.text_input if t.key == "import_path"]
        assert any(closed in caption.value for caption in shown.caption)
        closed = "The login names no folder"


def test_the_preview_of_a_file_on_the_server_asks_itself(logs):
    def page(path):
        from pathlib import Path

        import streamlit as st

        from mtf_engine.spec import Refusal
        from pages.logs import _mapping_form

        try:
            st.write(_mapping_form.previews_at(Path(path)))
        except Refusal as refusal:
            st.error(str(refusal))

    for name, path, why in (("vera", "day", "role editor"), ("grace", "out.csv", "leaves")):
        app = app_of(page, path)
        app.user = claims(name)
        assert why in checked(app.run()).error[0].value
