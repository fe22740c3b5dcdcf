"""Runs kept in order from the command line: notes, tags, archive, deletion, the queue, several seeds."""

import pytest
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.commands.options import parse_seeds
from mtf_engine.registry import DatasetRow, RunRow, RunState, new_id, now
from mtf_engine.runs import executor, metrics
from mtf_engine.spec import Refusal
from tests.test_cli import Shell


@pytest.fixture
def shell(tmp_path, monkeypatch, database) -> Shell:
    """A workspace in which nothing starts to work."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    return Shell(tmp_path / "workspace")


def add_run(shell, state=RunState.COMPLETED, **values) -> str:
    columns = {"kind": "train", "name": "n", "config": {"n_steps": 5}, "created_at": now()}
    run = RunRow(**{"id": new_id("train"), "state": state, **columns, **values})
    shell.workspace.registry.add_run(run)
    shell.workspace.run_dir(run.id).mkdir()
    return run.id


def add_dataset(shell, **meta) -> DatasetRow:
    row = DatasetRow(
        id=new_id("dataset"),
        name="explored",
        source="session",
        created_at=now(),
        n_requests=3,
        n_impressions=9,
        content_hash="00",
        meta={"exploration": "uniform", "source": "session", **meta},
    )
    shell.workspace.registry.add_dataset(row)
    return row


def test_a_note_replaces_the_one_before_and_tags_add_up(shell):
    run_id = add_run(shell)
    shell("runs", "note", run_id, "first")
    assert shell("runs", "note", run_id, " wider bounds ")["note"] == "wider bounds"
    shell("runs", "tag", run_id, "draft", "b")
    shown = shell("runs", "tag", run_id, "candidate", "b", "--remove", "draft")
    assert shown["tags"] == ["b", "candidate"]
    for wrong in ("", "a,b", "x" * 41):
        assert "cannot be a tag" in shell.refused("runs", "tag", run_id, wrong)
    assert shell("runs", "show", run_id)["tags"] == ["b", "candidate"]
    assert "no run" in shell.refused("runs", "note", "train-0", "x")


def test_a_run_is_renamed_and_a_part_only_once_its_whole_no_longer_finds_it_by_name(shell):
    run_id = add_run(shell)
    assert shell("runs", "rename", run_id, "  wider  clicks ")["name"] == "wider clicks"
    for wrong in ("", " ", "x" * 81):
        assert "cannot be a name" in shell.refused("runs", "rename", run_id, wrong)
    whole = add_run(shell, RunState.INTERRUPTED, kind="progressive")
    part = add_run(shell, parent_id=whole)
    assert f"a part of {whole}" in shell.refused("runs", "rename", part, "other")
    shell.workspace.registry.update_run(whole, state=RunState.COMPLETED)
    assert shell("runs", "rename", part, "other")["name"] == "other"


def test_the_archive_is_out_of_sight_and_nothing_is_lost(shell):
    run_id, live = add_run(shell), add_run(shell, RunState.RUNNING)
    shell.workspace.registry.update_run(live, state=RunState.QUEUED)
    shell("runs", "archive", run_id)
    assert [row["run_id"] for row in shell("runs", "list")] == [live]
    assert {row["run_id"] for row in shell("runs", "list", "--archived")} == {run_id, live}
    assert shell.workspace.run_dir(run_id).exists()
    assert "is queued" in shell.refused("runs", "archive", live)
    (again,) = shell("runs", "archive", run_id, "--undo")
    assert again["archived"] is False


def test_a_run_is_deleted_once_both_questions_are_answered(shell):
    run_id = add_run(shell)
    ask = ["--workspace", str(shell.workspace.path), "runs", "delete", run_id]
    for answers in ("n\n", "y\nn\n"):
        assert CliRunner().invoke(app, ask, input=answers).exit_code == 1
        assert shell.workspace.run_dir(run_id).exists()
    assert CliRunner().invoke(app, ask, input="y\ny\n").exit_code == 0
    assert shell("runs", "list") == [] and not shell.workspace.run_dir(run_id).exists()
    other = add_run(shell)
    assert shell("runs", "delete", other, "--yes") == {"deleted": [other], "needed_by": []}


def test_a_policy_that_something_needs_is_not_deleted(shell):
    run_id = add_run(shell, best_step=1)
    waiting = add_run(shell, RunState.QUEUED, kind="evaluate", config={"policies": [f"{run_id}@best"]})
    assert f"used by {waiting}" in shell.refused("runs", "delete", run_id, "--yes")
    shell("runs", "cancel", waiting)
    dataset = add_dataset(shell, baseline=run_id)
    assert f"{dataset.id} was explored around" in shell.refused("runs", "delete", run_id, "--yes")


def test_queued_runs_change_places(shell):
    a, b, c = (add_run(shell, RunState.QUEUED, queued_at=now()) for _ in range(3))

    def queue() -> list[str]:
        return [run.id for run in shell.workspace.registry.queue()]

    assert queue() == [a, b, c]
    assert [row["run_id"] for row in shell("runs", "move", c, "up")] == [a, c, b]
    shell("runs", "move", a, "last")
    assert queue() == [c, b, a]
    shell("runs", "move", c, "up")
    assert queue() == [c, b, a], "the first stays first"
    shell("runs", "move", a, "first")
    assert queue() == [a, c, b]
    assert "only a queued run" in shell.refused("runs", "move", add_run(shell), "up")


def test_a_run_queued_by_an_older_version_keeps_its_place(shell):
    old, new = add_run(shell, RunState.QUEUED), add_run(shell, RunState.QUEUED, queued_at=now())
    assert [run.id for run in shell.workspace.registry.queue()] == [old, new]


def test_several_seeds_are_a_group_of_one_name(shell):
    add_dataset(shell)
    train = ("train", "explored", "--preset", "demo", "--background")
    first = shell(*train, "--seeds", "1-3", "--name", "wide")
    runs = [shell.workspace.registry.run(row["run_id"]) for row in first]
    assert [run.seed for run in runs] == [1, 2, 3] == [run.config["seed"] for run in runs]
    assert {run.seed_group for run in runs} == {"wide"}
    again = shell(*train, "--seeds", "2", "--seed", "7", "--name", "wide")
    runs = [shell.workspace.registry.run(row["run_id"]) for row in again]
    assert [(run.seed, run.seed_group) for run in runs] == [(7, "wide (2)"), (8, "wide (2)")]
    alone = shell(*train, "--seed", "4")
    assert shell.workspace.registry.run(alone["run_id"]).seed_group == ""
    assert [run.seed for run in shell.workspace.registry.queue()] == [1, 2, 3, 7, 8, 4]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (5, 6, 7)), ("1-3", (1, 2, 3)), ("0,3,7", (0, 3, 7)), ("4-4, 2,4", (4, 2))]
)
def test_seeds_are_a_count_a_range_or_a_list(text, seeds):
    assert parse_seeds(text, first=5) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "0", "-1", "1;2", "101", "0-100", "1-99999999999"])
def test_seeds_that_cannot_be_are_refused(text):
    with pytest.raises(Refusal, match="--seeds"):
        parse_seeds(text)


def test_the_best_policy_needs_a_best_step(shell):
    best, without = add_run(shell, best_step=3, best_score=0.6), add_run(shell)
    assert shell.workspace.trained(f"{best}@best").id == best
    assert "no best step" in shell.refused("export", f"{without}@best", "--to", "x.zip")
    assert "there is no run 'train-0'" in shell.refused("export", "train-0@best", "--to", "x.zip")


def test_show_says_what_is_wrong_and_compare_what_differs(shell):
    ours, theirs = add_run(shell, best_score=0.5), add_run(shell, config={"n_steps": 9})
    for step in range(0, 100, 5):
        row = {"step": step, "q_mean": 30.0, "largest_return": 10.0}
        metrics.append(shell.workspace.run_dir(ours), row)
    (sentence,) = shell("runs", "show", ours)["sentinels"]
    assert sentence.startswith("Q is 3.0 times the largest possible return")
    assert shell("runs", "show", theirs)["sentinels"] == []
    assert shell("runs", "compare", ours, theirs) == [
        {"setting": "n_steps", ours: 5, theirs: 9},
        {"setting": "best score", ours: 0.5, theirs: None},
    ]
