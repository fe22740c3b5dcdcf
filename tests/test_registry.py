"""The registry keeps what it is told, from any thread and process, and refuses ambiguous names."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mtf_engine import registry, registry_versions
from mtf_engine.registry import ANY, BASELINE, DatasetRow, DecisionRow, RunRow, RunState, Seen, new_id, now
from mtf_engine.registry_tables import DECISIONS, DELETIONS, METADATA, PLANS, RUNS, VERSION
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.workspace import Workspace
from tests import postgres
from tests.waiting import PATIENCE


@pytest.fixture
def workspace(tmp_path: Path, database: str) -> Workspace:
    return Workspace(tmp_path / "workspace")


def dataset_row(name: str, **values: object) -> DatasetRow:
    columns = dict(source="session", created_at=now(), n_requests=3, n_impressions=9, content_hash="00ff")
    return DatasetRow(**{"id": new_id("dataset"), "name": name, **columns, **values})


def run_row(**values: object) -> RunRow:
    columns = dict(kind="train", name="", state=RunState.QUEUED, created_at=now(), config={"n_steps": 5})
    return RunRow(**{"id": new_id("train"), **columns, **values})


def test_rows_come_back_as_they_were_stored(workspace: Workspace) -> None:
    dataset = dataset_row("log", meta={"warnings": ["ü"]})
    run = run_row(
        dataset_id=dataset.id, started_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), result={"a": [1.5]}
    )
    workspace.registry.add_dataset(dataset)
    workspace.registry.add_run(run)
    again = Workspace(workspace.path)
    assert again.registry.datasets() == [dataset]
    assert again.registry.run(run.id) == run


def test_a_dataset_is_found_by_id_or_unique_name(workspace: Workspace) -> None:
    one, two, twin = (dataset_row(name) for name in ("one", "two", "two"))
    for row in (one, two, twin):
        workspace.registry.add_dataset(row)
    assert workspace.dataset(one.id) == workspace.dataset("one") == one
    with pytest.raises(Refusal, match=f"2 datasets are named 'two'.*{twin.id}"):
        workspace.dataset("two")
    with pytest.raises(Refusal, match="there is no dataset 'three'"):
        workspace.dataset("three")


def test_a_state_changes_only_from_the_expected_one(workspace: Workspace) -> None:
    run = run_row()
    workspace.registry.add_run(run)
    assert workspace.registry.update_run(run.id, RunState.QUEUED, state=RunState.RUNNING)
    assert not workspace.registry.update_run(run.id, RunState.QUEUED, state=RunState.FAILED)
    assert workspace.registry.run(run.id).state is RunState.RUNNING


def test_many_writers_lose_nothing(workspace: Workspace) -> None:
    def write(_: int) -> None:
        registry = Workspace(workspace.path).registry
        for _ in range(25):
            registry.add_run(run_row())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(workspace.registry.runs()) == 100


def test_a_plan_is_replaced_by_its_name(workspace: Workspace) -> None:
    workspace.registry.save_plan("narrow", BoundsPlan.symmetric(0.1, 2))
    workspace.registry.save_plan("narrow", BoundsPlan.symmetric(0.05, 2), note="half of it")
    assert workspace.plan("narrow") == BoundsPlan.symmetric(0.05, 2)
    assert [row.note for row in workspace.registry.plans()] == ["half of it"]
    with pytest.raises(Refusal, match=r"no bounds plan 'wide' \(narrow\)"):
        workspace.plan("wide")


def test_who_waited_for_another_to_store_is_told_so(workspace: Workspace) -> None:
    """Not that the plan was deleted, which a server shows to who waits for the old row."""
    registry, plan = workspace.registry, BoundsPlan.symmetric(0.1, 2)
    registry.save_plan("narrow", plan, "first", None)
    (there,) = registry.plans()
    with ThreadPoolExecutor(1) as pool, registry._engine.begin() as other:
        row = dict(other.execute(sa.delete(PLANS).returning(PLANS)).mappings().one())
        other.execute(sa.insert(PLANS).values(row | {"created_at": now(), "note": "second"}))
        waits = pool.submit(registry.save_plan, "narrow", plan, "third", there.created_at)
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.5)
        other.commit()
        with pytest.raises(Refusal, match="was stored by somebody else at 20"):
            waits.result()


def test_of_several_who_store_a_plan_at_once_none_is_replaced_unseen(workspace: Workspace) -> None:
    plan = BoundsPlan.symmetric(0.1, 2)

    def store(note: str, seen: Seen) -> str | None:
        registry = Workspace(workspace.path).registry
        try:
            replaced = registry.save_plan("narrow", plan, note, seen)
        except Refusal as refusal:
            return str(refusal)
        return replaced and replaced.note

    with ThreadPoolExecutor(4) as pool:
        first = [*pool.map(store, "abcd", [None] * 4)]
        (there,) = workspace.registry.plans()
        second = [*pool.map(store, "efgh", [there.created_at] * 4)]
        assert first.count(None) == 1 and second.count(there.note) == 1
        refused = {one for one in first + second if one not in (None, there.note)}
        other = [one for one in refused if "narrow in plans was stored by somebody else at 20" not in one]
        assert not other
        any_order = [*pool.map(store, "ijkl", [ANY] * 4)]
    (there,) = workspace.registry.plans()
    told = {*any_order, there.note}
    assert len(told) == 5 and {"i", "j", "k", "l"} <= told, "each is told which one it replaced"
    workspace.registry.delete_plan("narrow")
    assert "was deleted, after you saw it" in str(store("m", there.created_at))


def test_a_dataset_in_use_is_not_deleted(workspace: Workspace) -> None:
    dataset = dataset_row("log")
    workspace.registry.add_dataset(dataset)
    workspace.dataset_path(dataset.id).touch()
    workspace.dataset_path(dataset.id).with_suffix(".coverage.json").touch()
    for run in (run_row(dataset_id=dataset.id), run_row(kind="collect", config={"source": dataset.id})):
        workspace.registry.add_run(run)
        with pytest.raises(Refusal, match=f"used by {run.id}"):
            workspace.delete_dataset("log")
        workspace.registry.update_run(run.id, state=RunState.CANCELLED)
    workspace.delete_dataset("log")
    assert workspace.registry.datasets() == [] and not any(workspace.datasets_dir.iterdir())


def test_only_a_completed_training_has_a_policy(workspace: Workspace) -> None:
    queued, completed = run_row(), run_row(state=RunState.COMPLETED)
    collected = run_row(kind="collect", state=RunState.COMPLETED)
    for row in (queued, completed, collected):
        workspace.registry.add_run(row)
    assert workspace.trained(completed.id) == completed
    for row, reason in ((queued, "is queued"), (collected, "of kind collect")):
        with pytest.raises(Refusal, match=reason):
            workspace.trained(row.id)


def test_the_workspace_is_given_or_named_by_the_environment_or_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTF_WORKSPACE", raising=False)
    assert Workspace().path == tmp_path / "data"
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "named"))
    assert Workspace().path == tmp_path / "named"
    assert Workspace(tmp_path / "given").path == tmp_path / "given"


def test_a_new_workspace_is_closed_to_others_whoever_opens_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = Workspace(tmp_path / "new").path
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_file_cannot_be_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="file cannot be a workspace"):
        Workspace(tmp_path / "file")


def test_a_run_is_shown_without_folders_of_this_machine(tmp_path: Path) -> None:
    shown = run_row(kind="import", config={"source": str(tmp_path / "log.csv"), "format": "csv"}).public()
    assert shown["config"] == {"source": "log.csv", "format": "csv"}


def test_another_database_is_named_by_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTF_REGISTRY_URL", f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    workspace = Workspace(tmp_path / "workspace")
    workspace.registry.add_run(run_row())
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (workspace.path / "registry.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgres 10.0.0.1", r"the registry's URL is none; write it as postgresql\+psycopg://USER"),
        ("nosuch://there/db", "the registry's URL is none"),
        ("mysql+pymysql://there/db", "needs pymysql, which is not installed"),
        (
            "postgresql+psycopg://ada:secret@127.0.0.1:9/db",
            r"ada:\*\*\*@127.0.0.1:9/db does not answer: .*refused",
        ),
    ],
)
def test_a_database_that_is_none_is_told_in_a_sentence(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTF_REGISTRY_URL", url)
    with pytest.raises(Refusal, match=told) as refused:
        Workspace(tmp_path / "workspace")
    assert "secret" not in str(refused.value)


def test_of_many_who_open_it_first_at_once_all_succeed(tmp_path: Path, database: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = [*pool.map(lambda _: Workspace(tmp_path / "workspace"), range(6))]
    assert [workspace.registry.runs() for workspace in opened] == [[]] * 6


def test_the_tables_are_those_that_the_revisions_make(workspace: Workspace) -> None:
    """Held by Alembic's own comparison; `VERSION` spares an opening to load it."""
    scripts = ScriptDirectory(str(Path(registry_versions.__file__).parent))
    assert scripts.get_current_head() == VERSION
    with workspace.registry._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert context.get_current_revision() == VERSION
        assert compare_metadata(context, METADATA) == []


def test_a_registry_of_a_newer_version_is_left_alone(workspace: Workspace) -> None:
    with workspace.registry._engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refusal, match=r"of a newer version \(9999\) than this one"):
        Workspace(workspace.path)


@pytest.mark.parametrize("statement", ["UPDATE {} SET name = 'Eve'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_database_itself_changes_no_entry(workspace: Workspace, statement: str) -> None:
    workspace.registry.save_plan("narrow", BoundsPlan.symmetric(0.1, 2))
    workspace.registry.delete_plan("narrow")
    (entry,) = workspace.registry.deletions()
    decision = DecisionRow(
        name="Ada",
        decision="reject",
        candidate="train-1",
        incumbent=BASELINE,
        live=BASELINE,
        created_at=now(),
    )
    assert workspace.registry.add_decision(decision)
    for table in (DELETIONS, DECISIONS):
        told = f"rows of {table.name} are never changed|TRUNCATE.: syntax"  # which SQLite does not know
        with pytest.raises(sa.exc.DBAPIError, match=told):
            workspace.registry._execute(sa.text(statement.format(table.name)))
    assert [row.name for row in workspace.registry.decisions()] == ["Ada"]
    assert workspace.registry.deletions() == [entry]


def test_a_workspace_of_an_older_version_keeps_its_runs_and_gets_what_is_new(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    run = run_row(state=RunState.COMPLETED, note="of last month")
    workspace.registry.add_run(run)
    new = ("seed_group", "queued_at", "best_score", "best_step", "provenance", "parent_id")
    with closing(sqlite3.connect(tmp_path / "workspace" / "registry.sqlite")) as older:
        older.execute("DROP INDEX ix_runs_parent_id")
        for column in new:
            older.execute(f"ALTER TABLE runs DROP COLUMN {column}")
        older.execute("DROP TABLE plans")
        older.execute("DROP TABLE alembic_version")
    again = Workspace(workspace.path)
    assert again.registry.run(run.id) == run
    assert again.registry.plans() == []
    assert again.registry.update_run(run.id, best_score=0.5, provenance={"n_threads": 1})
    assert again.registry.run(run.id).best_score == 0.5


def test_a_registry_of_the_version_before_keeps_its_runs_on_either_database(workspace: Workspace) -> None:
    run = run_row(state=RunState.COMPLETED, note="of last month")
    workspace.registry.add_run(run)
    with workspace.registry._engine.begin() as older:
        for column in ("executor", "host", "attempt", "submission_id", "heartbeat_at"):
            older.execute(sa.text(f"ALTER TABLE runs DROP COLUMN {column}"))
        older.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    again = Workspace(workspace.path).registry
    assert again.run(run.id) == run and (run.executor, run.attempt) == ("local", 0)
    again.update_run(run.id, state=RunState.QUEUED)
    queued = again.run(run.id)
    assert again.claim(queued, 1, f"{run.id}-1") and not again.claim(queued, 1, f"{run.id}-1")
    assert not again.beat(run.id, 1), "what waits has no worker yet"
    assert again.update_run(run.id, RunState.QUEUED, of_attempt=1, state=RunState.RUNNING, host="there")
    assert again.beat(run.id, 1) and not again.beat(run.id, 0)
    silent = again.clock() - (again.run(run.id).heartbeat_at or now())
    assert 0 <= silent.total_seconds() < PATIENCE


def test_a_worker_writes_only_while_its_attempt_may(workspace: Workspace) -> None:
    """On a server and in a file: what it adds, changes or deletes, all or nothing."""

    class Lost(Exception):
        pass

    def lost(run_id: str) -> NoReturn:
        raise Lost(run_id)

    run, other = run_row(state=RunState.RUNNING, attempt=1), run_row()
    workspace.registry.add_runs([run, other])
    own = workspace.registry.of_worker({run.id: 1}, lost)
    own.add_dataset(dataset_row("its"))
    assert own.update_run(other.id, note="its")
    workspace.registry.update_run(run.id, attempt=2)
    for write in (
        lambda: own.add_dataset(dataset_row("too late")),
        lambda: own.update_run(other.id, note="too late"),
        lambda: own.delete_dataset(workspace.dataset("its").id),
        lambda: own.add_run(run_row()),
    ):
        with pytest.raises(Lost, match=run.id):
            write()
    assert [row.name for row in workspace.registry.datasets()] == ["its"]
    assert {row.note for row in workspace.registry.runs()} == {"", "its"}


def test_whoever_falls_asleep_amid_a_change_holds_nobody_up(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ASLEEP_SECONDS", 0.2)
    monkeypatch.setenv("MTF_REGISTRY_URL", postgres.new_database(server))
    workspace, run = Workspace(tmp_path / "workspace"), run_row()
    workspace.registry.add_run(run)

    def sleep() -> None:
        with workspace.registry._writing() as connection:
            connection.execute(sa.update(RUNS).values(note="asleep"))
            assert workspace.registry.update_run(run.id, note="awake"), "it waits until the other is given up"

    with pytest.raises(Refusal, match="does not answer"):
        sleep()
    assert workspace.registry.run(run.id).note == "awake"


def test_what_waits_for_people_is_not_deleted(workspace: Workspace) -> None:
    candidate, log = run_row(state=RunState.COMPLETED), dataset_row("log")
    result = {"rounds": [{"number": 1, "candidate": candidate.id}]}
    waits = dict(kind="progressive", state=RunState.INTERRUPTED, result=result)
    held = {"promote": "by-hand"}
    by_hand = run_row(**waits, config=held)
    join = run_row(kind="join", config={"datasets": [log.id, "dataset-0badcafe"], "name": "both"})
    workspace.registry.add_dataset(log)
    bystander = run_row(state=RunState.COMPLETED)
    for row in (candidate, by_hand, join, bystander):
        workspace.registry.add_run(row)
    with pytest.raises(Refusal, match=f"candidate of round 1 of {by_hand.id}, which waits for a decision"):
        workspace.delete_runs(candidate.id)
    with pytest.raises(Refusal, match=f"used by {join.id}, which is queued"):
        workspace.delete_dataset(log.id)
    with pytest.raises(Refusal, match="waits for a decision"):
        workspace.delete_runs(bystander.id, candidate.id)
    assert workspace.registry.run(bystander.id) == bystander, "all or none"
    workspace.delete_runs(candidate.id, by_hand.id)
    assert {run.id for run in workspace.registry.runs()} == {bystander.id, join.id}


def test_what_a_run_reads_is_what_its_config_names(workspace: Workspace) -> None:
    ids = {"log": "dataset-00c0ffee", "policy": "train-00c0ffee@best"}
    run = run_row(
        config={"source": ids["log"], "policies": [ids["policy"], BASELINE], "name": "dataset-0badcafe"}
    )
    assert run.reads_datasets == (ids["log"],) and run.reads_policies == (ids["policy"],)
    written = run_row(dataset_id="dataset-0000cafe", writes_dataset=True)
    assert written.reads_datasets == ()
    assert run_row(dataset_id="dataset-0000cafe").reads_datasets == ("dataset-0000cafe",)
