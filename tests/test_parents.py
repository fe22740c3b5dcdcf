"""A parent is gone: whatever was deleted, every page and every command gives the answer or says a sentence."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mtf_engine.cli import app as command_line
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor, files
from mtf_engine.runs.worker import run_job
from mtf_engine.spec import BoundsPlan
from mtf_engine.work import kinds
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from tests.fixtures.comparison import a_comparison, add_comparison
from tests.fixtures.logs import clean, write
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_cli import COMMANDS, Shell
from tests.test_pages import PAGES, opened, texts
from tests.workspaces import copy_workspace

PLAN = "kept"
SERVE = (("dashboard",), ("demo",), ("nursery",), ("run-job",), ("serve",))
"""Commands that name nothing: they serve, fill a workspace, or are a worker themselves."""
PARENTS = ("DATASET", "OTHER", "POLICY", "RUN", "NAME|FILE")
"""What help calls the values that name what can be deleted."""
SMALL = {
    "background": "", "users": "20", "requests": "40", "preset": "demo", "settings": "n_steps=5", "seeds": "1",
    "explore": "uniform", "where": "up", "decision": "promote", "env": "session:feed",
    "format": "parquet",
}  # fmt: skip
"""What to write for other parameters, by their names, so that the work is short."""


def work_here(workspace: Workspace, *run_ids: str, **_: object) -> Iterator[list[RunRow]]:
    """Yields the runs once this process has done their work: what `executor.watch` waits for."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for run_id in run_ids:
        if workspace.registry.run(run_id).state is RunState.QUEUED:
            run_job(workspace, run_id, kinds())
    for number, handler in handlers.items():
        signal.signal(number, handler)
    yield [workspace.registry.run(run_id) for run_id in run_ids]


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    monkeypatch.setattr(executor, "watch", work_here)


@pytest.fixture(scope="module")
def lineage(small_workspace, tmp_path_factory) -> Workspace:
    """Logs, what was trained, explored and judged on them, rounds and a comparison of the same policy, a plan."""
    workspace = copy_workspace(small_workspace, tmp_path_factory.mktemp("parents") / "workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "MAX_WORKING", 0)
        patch.setattr(executor, "watch", work_here)
        (train,) = workspace.registry.runs(kind="train")
        log = write(clean(), tmp_path_factory.mktemp("log"))
        around = {"env": "session:feed", "explore": "uniform", "baseline": train.id, "n_requests": 40}
        for run_id in (
            submit_import(workspace, log, mapping=log / "mapping.yaml", name="imported"),
            submit_collect(workspace, **around, name="next"),
        ):
            executor.completed(workspace, executor.wait(workspace, run_id))
    workspace.registry.save_plan(PLAN, BoundsPlan.symmetric(0.1, 10))
    explored = workspace.dataset("explored").id
    one = a_round(1, "baseline")
    figures = one.policy.model_copy(update={"walked": (0.1,) * 10})
    parents = {"candidate": train.id, "dataset_id": explored, "policy": figures}
    add_rounds(workspace, one.model_copy(update=parents))
    found = a_comparison(seeds=(0,))
    own = {"policy": train.id, "test_dataset": workspace.dataset("test").id}
    cells = [cell.model_copy(update=own) for cell in found.cells if cell.n_critics is None]
    add_comparison(workspace, found.model_copy(update={"cells": tuple(cells)}))
    return workspace


def delete_runs(workspace: Workspace, *kinds: str) -> str:
    """Deletes the runs of those kinds and returns one of them."""
    runs = [run for kind in kinds for run in workspace.registry.runs(kind=kind)]
    for run in runs:
        workspace.delete_runs(run.id)
    return runs[0].id


def delete_training(workspace: Workspace) -> str:
    workspace.delete_dataset("next")  # which was explored around its policy
    return delete_runs(workspace, "train")


def delete_datasets(workspace: Workspace) -> str:
    return [workspace.delete_dataset(row.id).id for row in workspace.registry.datasets()][-1]


def delete_all_it_led_to(workspace: Workspace) -> str:
    workspace.registry.delete_plan(PLAN)
    return delete_runs(
        workspace, "evaluate", "collect", "import", "abtest", "export", "progressive", "compare"
    )


GONE = {
    "its log": ("DATASET", lambda workspace: workspace.delete_dataset("explored").id),
    "every log": ("DATASET", delete_datasets),
    "the training": ("RUN", delete_training),
    "all but the training and the logs": ("RUN", delete_all_it_led_to),
}
"""What is deleted, with the parameter that names it; each returns the name of one that is gone."""


LONG = ("its log", "all but the training and the logs", "the training")
"""These lose no more than the others do, or, of the training, what other tests here lose too."""


@pytest.fixture(params=[pytest.param(gone, marks=[pytest.mark.slow] * (gone in LONG)) for gone in GONE])
def bereaved(request, lineage, tmp_path, monkeypatch) -> tuple[Workspace, dict[str, str], dict[str, str]]:
    """A workspace without a parent, the names of what it had, and the one that is gone, by parameter."""
    workspace = copy_workspace(lineage, tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    (train,) = workspace.registry.runs(kind="train")
    names = {"DATASET": workspace.dataset("explored").id, "RUN": train.id, "NAME|FILE": PLAN}
    parameter, delete = GONE[request.param]
    return workspace, names, {parameter: delete(workspace)}


def test_every_page_opens(bereaved):
    for page in (None, *PAGES):
        app = opened(page)
        assert len(app.title) == 1, page


def test_every_command_answers(bereaved, tmp_path):
    workspace, names, gone = bereaved
    values = {"POLICY": names["RUN"], **names, **gone, **words(tmp_path)}
    codes: dict[str, list[int]] = {}
    for path, command in COMMANDS.items():
        if path not in SERVE:
            own = {"RUN": "progressive-1"} if path[0] == "review" else {}
            for arguments in calls(command, values | {"OTHER": values["DATASET"]} | own):
                code = answered(workspace, *path, *arguments)
                codes.setdefault(" ".join(path), []).append(code)
    assert not [run.id for run in workspace.registry.runs() if "internal error" in (run.error or "")]
    if "DATASET" in gone:
        assert codes["export"][0] == 0, "what an export needs travels with the policy"


def words(folder: Path) -> dict[str, str]:
    """Returns what to write for parameters that name nothing which can be deleted, by what help calls them."""
    (folder / "plan.yaml").write_text(BoundsPlan.symmetric(0.1, 10).to_yaml())
    files = {
        "FILE": "plan.yaml",
        "FILE.zip": "policy.zip",
        "FILE.zip|mlflow": "policy.zip",
        "DIR": "board",
        "SOURCE": "log",
        "PATH": "exported",
    }
    return {"TEXT": "because", "NAME": "new", "N": "20"} | {k: str(folder / v) for k, v in files.items()}


def calls(command: Any, values: dict[str, str]) -> Iterator[list[str]]:
    """Yields the arguments of a command that names what can be deleted: without its options, and with each."""
    naming = [one for one in command.params if kind(one) in PARENTS]
    alone = [one for one in command.params if one.required or one.name in SMALL]
    options = [one for one in naming if not one.required]
    for with_option in ((), *((one,) for one in options)) if naming else ():
        yield [part for one in (*alone, *with_option) for part in written(one, values)]


def kind(parameter: Any) -> str:
    """Returns what help calls the values of a parameter."""
    return (parameter.metavar or "").removesuffix("...")


def written(parameter: Any, values: dict[str, str]) -> list[str]:
    """Returns how a parameter is written; fails for one whose values are called what no test knows."""
    value = SMALL[parameter.name] if parameter.name in SMALL else values[kind(parameter)]
    name = [parameter.opts[0]] if parameter.param_type_name == "option" else []
    return [*name, *([value] if value else [])]


def answered(workspace: Workspace, *arguments: str) -> int:
    """Returns the exit code of a command that gives its answer, or one sentence; nobody says yes to a deletion."""
    done = CliRunner().invoke(command_line, ["--workspace", str(workspace.path), *arguments])
    told = done.stderr.splitlines()
    assert done.exit_code in (0, 1), (arguments, done.output)
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
    assert not done.exit_code or "delete" in arguments or len(told) == 1, (arguments, done.stderr)
    assert "internal error" not in done.output, arguments
    return done.exit_code


@pytest.fixture
def alone(lineage, tmp_path) -> Shell:
    """The workspace without the log that its policy learned from."""
    shell = Shell(copy_workspace(lineage, tmp_path / "workspace").path)
    shell("dataset", "delete", "explored", "--yes")
    return shell


def test_a_policy_knows_its_world_and_its_bounds_once_its_log_is_deleted(alone, monkeypatch):
    (train,) = alone.workspace.registry.runs(kind="train")
    monkeypatch.setenv("MTF_WORKSPACE", str(alone.workspace.path))
    assert train.name in opened("abtest").multiselect(key="policies").options
    walls = alone("bounds", "walls", train.id, "--on", "test")
    assert {(row["lower"], row["upper"]) for row in walls} == {(-0.15, 0.15)}, "the policy keeps its bounds"


def test_a_policy_that_kept_no_examples_is_exported_with_another_log(alone, tmp_path):
    (train,) = alone.workspace.registry.runs(kind="train")
    n_runs = len(alone.workspace.registry.runs())
    (alone.workspace.run_dir(train.id) / files.EXAMPLES).unlink()
    to = ("--to", str(tmp_path / "policy.zip"))
    assert "name a dataset with the same features: --on" in alone.refused("export", train.id, *to)
    assert len(alone.workspace.registry.runs()) == n_runs
    assert alone("export", train.id, *to, "--on", "test")["ok"]
    assert "features" in alone.refused("export", train.id, *to, "--on", "imported")


def test_a_deletion_says_who_needs_what_goes(lineage, tmp_path):
    shell = Shell(copy_workspace(lineage, tmp_path / "workspace").path)
    registry = shell.workspace.registry
    (train,), (evaluation,) = (registry.runs(kind=kind) for kind in ("train", "evaluate"))
    asked = ["--workspace", str(shell.workspace.path), "dataset", "delete", "explored"]
    said = CliRunner().invoke(command_line, asked, input="n\n").stderr
    assert f"needed by {train.id} (small): keeps its policy and what an export needs" in said
    (shell.workspace.run_dir(train.id) / files.EXAMPLES).unlink()
    told = shell("dataset", "delete", "explored", "--yes")["needed_by"]
    assert {one["id"]: one["loses"].split(";")[0] for one in told} == {
        train.id: "keeps its policy",
        "progressive-1": "keeps its figures",
    }
    assert f"around the policy of {train.id}" in shell.refused("runs", "delete", train.id, "--yes")
    (collected,) = (run for run in registry.runs(kind="collect") if run.name == "next")
    (told,) = shell("runs", "delete", collected.id, "--yes")["needed_by"]
    assert told["id"] == collected.dataset_id and "fitness=reward" in told["loses"]
    shell("dataset", "delete", "next", "--yes")
    needing = {one["id"] for one in shell("runs", "delete", train.id, "--yes")["needed_by"]}
    assert {evaluation.id, "compare-1", "progressive-1"} < needing


def test_the_pages_name_them_too(lineage, tmp_path, monkeypatch):
    workspace = copy_workspace(lineage, tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    (train,) = workspace.registry.runs(kind="train")
    said = texts(opened("datasets", dataset=workspace.dataset("explored").id)).replace("\\", "")
    assert "Needed by" in said and f"{train.id} (small): keeps its policy" in said
    app = opened("runs")
    app.session_state["ticked"] = [train.id]
    next(button for button in app.run().button if button.label == "Delete…").click()
    said = texts(app.run()).replace("\\", "")
    assert "progressive-1 (team): keeps its figures" in said
    workspace.registry.save_plan(
        "alike", BoundsPlan.model_validate(workspace.dataset("explored").meta["plan"])
    )
    assert "explored): keeps its own copy" in texts(opened("bounds")).replace("\\", "")


def test_rounds_do_not_go_on_over_a_gap(tmp_path):
    shell = Shell(tmp_path / "workspace")
    sizes = ("--rounds", "1", "--sessions-per-round", "20", "--set", "n_steps=5", "--set", "n_critics=2")
    asked = ("--preset", "demo", "--promote", "by-hand", "--ab-users", "0", "--background")
    told = shell("progressive", "--env", "session", *sizes, *asked)
    run_id = told["run_id"]
    assert executor.wait(shell.workspace, run_id).state is RunState.WAITING, "it waits for a decision"
    (train,) = shell.workspace.registry.runs(kind="train")
    assert "waits for a decision" in shell.refused("runs", "delete", train.id, "--yes")
    log = str(train.dataset_id)
    needing = shell("dataset", "delete", log, "--yes")["needed_by"]
    assert {
        "id": run_id,
        "name": shell.workspace.registry.run(run_id).name,
        "loses": "cannot be resumed",
    } in needing
    shell("runs", "resume", run_id)
    run = executor.wait(shell.workspace, run_id)
    assert run.state is RunState.FAILED and f"rests on {log}, which was deleted since" in str(run.error)


def test_the_live_policy_is_not_deleted(lineage, tmp_path):
    shell = Shell(copy_workspace(lineage, tmp_path / "workspace").path)
    (train,) = shell.workspace.registry.runs(kind="train")
    shell("dataset", "delete", "next", "--yes")
    by = ("--by", "Ada", "--reason", "why not")
    shell("review", "decide", "progressive-1", "--decision", "promote", *by)
    assert "is live; make another live first" in shell.refused("runs", "delete", train.id, "--yes")
    shell("review", "rollback", *by)
    assert shell("runs", "delete", train.id, "--yes")["deleted"] == [train.id]
