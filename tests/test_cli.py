"""The command line says one JSON document, exits 0, 1 or 2, and helps with an example."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import typer
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.commands.options import bounds_plan
from mtf_engine.evaluation import evaluate
from mtf_engine.policies.graphs import Clip
from mtf_engine.registry import RunRow, RunState, new_id, now
from mtf_engine.runs import executor
from mtf_engine.runs.storage import live_policy, load_policy, open_dataset, open_policy
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal
from mtf_engine.work.export import fetch_bundle
from mtf_engine.workspace import Workspace
from tests.waiting import wait_until
from tests.workspaces import copy_workspace, worked_on_here

ROOT = Path(__file__).parent.parent


class Shell:
    """Calls commands in one workspace, inside this process; what they wait for is worked on here too."""

    def __init__(self, path: Path) -> None:
        self.workspace = Workspace(path)

    def __call__(self, *arguments: str, code: int = 0, input: str | None = None) -> Any:
        """Returns the one JSON document that a command prints before it exits with `code`."""
        words = ["--workspace", str(self.workspace.path), "--json", *arguments]
        with nullcontext() if "--background" in arguments else worked_on_here():
            done = CliRunner().invoke(app, words, input=input)
        assert done.exit_code == code, (done.exception, done.output)
        self.stderr = done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> str:
        """Returns the one sentence with which a command refuses."""
        document = self(*arguments, code=1)
        assert set(document) == {"error", "defects"}
        assert self.stderr == document["error"] + "\n"
        return document["error"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "workspace")


@pytest.fixture(scope="module")
def filled(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A workspace with the datasets `explored` and `test`, and a training, its evaluation and export."""
    path = tmp_path_factory.mktemp("cli") / "workspace"
    copy_workspace(small_workspace, path)
    return Shell(path)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_helps_with_an_example(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert COMMANDS[path].help
    assert COMMANDS[path].epilog.startswith("Example: mtf ")
    assert path[-1] in COMMANDS[path].epilog
    assert "--json" in done.stdout


DENSITY = ["centre", "mean", "min", "cells(5)", "range(1.5)"]


@pytest.mark.parametrize("arguments", [["--json", "density"], ["density", "--json"]], ids=" ".join)
def test_one_document_is_printed_wherever_json_stands(tmp_path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["--workspace", str(tmp_path / "new"), *arguments])
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)) == DENSITY


def test_a_process_prints_one_document_also_where_json_is_said_twice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mtf_engine", "--workspace", tmp_path / "new", "--json", "density", "--json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)) == DENSITY
    assert not (tmp_path / "new").exists(), "density needs no workspace"


def test_without_json_a_refusal_is_one_sentence_on_stderr(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--workspace", str(tmp_path), "runs", "show", "train-0"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "there is no run 'train-0'; `runs list` shows those there are\n"


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["density", "--dims", "x"], ["train"], ["dataset", "import", "x", "--format", "xls"], []],
    ids=" ".join,
)
def test_misuse_exits_with_2_and_prints_nothing_on_stdout(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["--json", *arguments])
    assert done.exit_code == 2
    assert arguments == [] or done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dataset", "show", "x"], "there is no dataset 'x'"),
        (["dataset", "import", "/no/such/log"], "there is no file or folder /no/such/log"),
        (["dataset", "collect", "--env", "replay", "--explore", "uniform", "--requests", "9"], "--from"),
        (
            ["progressive", "--env", "replay", "--sessions-per-round", "9", "--world", "feed"],
            "--world feed says nothing of --env replay; leave it out, or take --env session",
        ),
        (["compare", "--replay", "8/3/5"], "--replay 8/3/5 says nothing of --env session"),
        (["abtest", "baseline", "--env", "gym:Pendulum-v1", "--world", "feed"], "--world feed says nothing"),
        (
            [
                "dataset",
                "collect",
                "--env",
                "replay",
                "--replay",
                "8",
                "--from",
                "x",
                "--explore",
                "uniform",
                "--requests",
                "9",
            ],
            "there is no dataset 'x'",
        ),
        (["dataset", "collect", "--env", "car", "--explore", "uniform", "--requests", "9"], "env: "),
        (
            [
                "dataset",
                "collect",
                "--env",
                "session",
                "--explore",
                "uniform",
                "--requests",
                "9",
                "--bounds",
                "x",
            ],
            "no bounds plan 'x'",
        ),
        (["train", "x"], "there is no dataset 'x'"),
        (["evaluate", "baseline", "--on", "x"], "there is no dataset 'x'"),
        (
            ["dataset", "collect", "--env", "gym:None-v0", "--explore", "uniform", "--requests", "9"],
            "no environment 'None-v0'",
        ),
        (["dataset", "collect", "--env", "none", "--explore", "uniform", "--requests", "9"], "gym:ID"),
        (["abtest", "train-0"], "there is no run 'train-0'"),
        (["abtest", "baseline"], "tested against itself"),
        (["export", "train-0", "--to", "x.zip"], "there is no run 'train-0'"),
        (["runs", "cancel", "train-0"], "there is no run 'train-0'"),
        (["runs", "resume", "train-0"], "there is no run 'train-0'"),
        (["runs", "logs", "train-0"], "there is no run 'train-0'"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_and_leaves_no_run(shell: Shell, arguments: list[str], told: str) -> None:
    assert told in shell.refused(*arguments)
    assert shell.workspace.registry.runs() == []
    assert list(shell.workspace.runs_dir.iterdir()) == []


def test_a_setting_that_is_not_there_is_refused_with_those_that_are(filled: Shell) -> None:
    sentence = filled.refused("train", "explored", "--set", "n_step=5")
    assert "n_step" in sentence and "n_steps" in sentence and "batch_size" in sentence
    assert "no value" in filled.refused("train", "explored", "--set", "n_steps")
    assert "n_steps" in filled.refused("train", "explored", "--set", "n_steps=few")
    assert "integrated_rl" in filled.refused("train", "explored", "--algo", "magic")
    assert "laptop" in filled.refused("train", "explored", "--preset", "desktop")


def test_a_dataset_is_collected_listed_shown_and_deleted(filled: Shell) -> None:
    made = filled(
        "dataset",
        "collect",
        "--env",
        "replay",
        "--from",
        "explored",
        "--replay",
        "2/1/3",
        "--explore",
        "mixed",
        "--random-share",
        "0.3",
        "--requests",
        "50",
    )
    assert set(made) == {"dataset_id", "requests", "impressions", "sessions", "passes"}
    assert made["requests"] >= 50
    sessions = "SELECT count(DISTINCT session_id) AS n FROM requests"
    assert open_dataset(filled.workspace, made["dataset_id"]).query(sessions)["n"].tolist() == [
        made["sessions"]
    ]
    listed = {row["dataset_id"]: row for row in filled("dataset", "list")}
    assert listed[made["dataset_id"]]["requests"] == made["requests"]
    shown = filled("dataset", "show", made["dataset_id"])
    assert (shown["source"], shown["meta"]["exploration"]) == ("replay", "mixed")
    assert shown["meta"]["mixture"] == {"sigma": 0.2, "random_share": 0.3, "random_sigma": 0.5}
    assert shown["meta"]["details"]["env"] == "replay:2/1/3"
    assert made["impressions"] == made["requests"]
    assert filled("runs", "show", shown["run_id"])["dataset_id"] == made["dataset_id"]
    replay = ("dataset", "collect", "--env", "replay", "--from", "explored", "--explore", "uniform")
    assert "write replay:" in filled.refused(*replay, "--replay", "8", "--requests", "9")
    assert "shows 3 of 2" in filled.refused(*replay, "--replay", "2/3/5", "--requests", "9")

    CliRunner().invoke(
        app, ["--workspace", str(filled.workspace.path), "dataset", "delete", made["dataset_id"]], input="n\n"
    )
    assert filled.workspace.dataset_path(made["dataset_id"]).exists()
    filled("dataset", "delete", made["dataset_id"], "--yes")
    assert not filled.workspace.dataset_path(made["dataset_id"]).exists()
    assert made["dataset_id"] not in {row["dataset_id"] for row in filled("dataset", "list")}


def test_bounds_come_from_a_stored_plan_or_a_file(filled: Shell, tmp_path: Path) -> None:
    plan = BoundsPlan.symmetric(0.05, 10)
    filled.workspace.registry.save_plan("narrow", plan)
    path = tmp_path / "plan.yaml"
    path.write_text(plan.to_yaml())
    assert bounds_plan(filled.workspace, str(path)) == plan
    (tmp_path / "latin.yaml").write_bytes(b"note: caf\xe9\n")
    with pytest.raises(Refusal, match="the bounds plan is not YAML"):
        bounds_plan(filled.workspace, str(tmp_path / "latin.yaml"))
    collect = [
        "dataset",
        "collect",
        "--env",
        "session",
        "--explore",
        "uniform",
        "--requests",
        "50",
        "--bounds",
    ]
    meta = filled("dataset", "show", filled(*collect, "narrow")["dataset_id"])["meta"]
    assert BoundsPlan.model_validate(meta["plan"]) == plan
    path.write_text("lower: [0.1]\nupper: [0]\n")
    assert "lower <= upper" in filled.refused(*collect, str(path))


def test_policies_are_scored_against_each_other(filled: Shell) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    policies = [training.id, "baseline", f"{training.id}@best"]
    scores = filled("evaluate", *policies, "--on", "test", "--no-floors")
    assert [row["run_id"] for row in scores] == policies
    for row in scores:
        assert row["split"] == "all" and row["users_used"] > 0 and row["users_left_out"] >= 0
        assert bool(row["differs"]) == (row["run_id"] != "baseline")
        assert row["ci_low"] < row["weighted_gauc"] < row["ci_high"]
    with worked_on_here():
        words = ["--workspace", str(filled.workspace.path), "evaluate", *policies, "--on", "test"]
        said = CliRunner().invoke(app, words)
    assert "minus baseline" in said.output and f"{scores[0]['differences'][0]['ci_low']:.6g}" in said.output
    (ours, theirs) = (row["differences"][0] for row in scores[:2])
    assert ours["value"] == pytest.approx(-theirs["value"])
    collected, *_ = filled.workspace.registry.runs(kind="collect")
    assert "it has no policy" in filled.refused("evaluate", collected.id, "--on", "test")


def test_a_number_of_workers_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "mtf_engine", "--workspace", str(tmp_path), "runs", "list"]
    asked = {"capture_output": True, "text": True, "cwd": ROOT}
    done = subprocess.run(command, env=os.environ | {"MTF_WORKERS": "many"}, **asked)
    assert done.returncode == 1 and done.stderr.startswith("MTF_WORKERS is 'many'; give the number of runs")
    monkeypatch.setenv("MTF_WORKERS", "8")
    assert executor._most_working() == 8


def test_policies_are_tested_on_the_same_users(filled: Shell) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    best = f"{training.id}@best"
    result = filled("abtest", training.id, best, "--users", "60", "--seeds", "2")
    assert result["policies"] == ["baseline", training.id, best] and result["synthetic"]
    assert [(e["policy"], e["metric"]) for e in result["effects"]] == [
        (policy, metric)
        for policy in (training.id, best)
        for metric in ("valid_consumption", "duration_time", "session_reward")
    ]
    run = filled.workspace.registry.run(result.pop("run_id"))
    assert (run.kind, run.step, run.n_steps) == ("abtest", 360, 360)
    assert run.result == result
    assert "bounded by their log" in filled.refused("abtest", training.id, "--env", "replay")
    assert "differ in their features" in filled.refused("abtest", training.id, "--env", "gym:Pendulum-v1")


def test_a_test_that_may_stop_early_is_looked_at_and_ends_where_nothing_is_told(filled: Shell) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    result = filled("abtest", training.id, "--users", "110", "--stop-early", "--personalisation")
    assert sorted({look["users"] for look in result["looks"]}) == [104, 110]
    assert filled.workspace.registry.run(result["run_id"]).config["stop_early"]
    assert result["n_planned"] is None and len(result["personalisation"]) == 6
    refused = filled.refused("abtest", training.id, "--stop-early", "--seeds", "2")
    assert "stops early by the users of one seed; take one seed" in refused


@pytest.mark.slow
def test_a_gymnasium_environment_goes_the_same_way(shell: Shell, tmp_path: Path) -> None:
    where = ["--env", "gym:Pendulum-v1"]
    log = ["dataset", "collect", *where, "--explore", "uniform", "--half-width", "1", "--requests", "4000"]
    settings = [f"--set={setting}" for setting in ("n_steps=50", "n_critics=2", "hidden=8")]
    training = shell("train", shell(*log)["dataset_id"], "--preset", "demo", *settings)["run_id"]
    result = shell("abtest", training, *where, "--users", "20")
    assert [effect["metric"] for effect in result["effects"]] == ["return", "length"]
    assert result["base_means"]["length"] == 200 and result["env"] == "gym:Pendulum-v1"
    bundle = tmp_path / "policy.zip"
    assert shell("export", training, "--to", str(bundle))["ok"] and shell("verify", str(bundle))["ok"]
    assert "scores.onnx" not in zipfile.ZipFile(bundle).namelist()


def test_an_ab_test_in_the_background_is_cancelled(filled: Shell, borne: None) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    run_id = filled("abtest", training.id, "--users", "10000000", "--background")["run_id"]
    wait_until(lambda: filled.workspace.registry.run(run_id).step, "the test has begun")
    filled("runs", "cancel", run_id)
    run = executor.wait(filled.workspace, run_id)
    assert run.state is RunState.CANCELLED and 0 < run.step < run.n_steps


def test_a_policy_of_another_world_is_refused(filled: Shell) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    other = open_dataset(filled.workspace, "test").meta.model_copy(
        update={"fusion": FusionSpec.default(("click", "like"))}
    )
    with pytest.raises(Refusal, match="differ in their predictions: number 1 is valid_consumption in the"):
        open_policy(filled.workspace, training.id, other)


def test_a_bundle_lands_where_it_was_asked_for_and_verifies(filled: Shell, tmp_path: Path) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    (exported,) = filled.workspace.registry.runs(kind="export")
    fetch_bundle(filled.workspace, exported.id, tmp_path / "policy.zip")
    checked = filled("verify", str(tmp_path / "policy.zip"))
    assert checked["ok"] and checked["max_abs_diff"] < 1e-5
    manifest = exported.result["manifest"]
    assert manifest["approved"] is False
    (score,) = manifest["evaluation"]["evaluations"]
    assert score["dataset_id"] == filled.workspace.dataset("test").id
    assert "no folder" in filled.refused("export", training.id, "--to", str(tmp_path / "no" / "policy.zip"))
    assert "cannot be read" in filled.refused("verify", str(tmp_path / "none.zip"))


def test_a_policy_that_nobody_approved_goes_live_only_where_that_is_said(
    filled: Shell, tmp_path: Path
) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    live = ("export", training.id, "--to", str(tmp_path / "live.zip"), "--for", "live")
    assert "is not approved for live use" in filled.refused(*live) and not list(tmp_path.iterdir())
    told = filled(*live, "--unapproved", "--readme")
    assert (told["manifest"]["purpose"], told["manifest"]["approved"]) == ("live", False)
    assert told["beside"] == ["live.md", "reference_scorer.py"]
    assert {path.name for path in tmp_path.iterdir()} == {"live.zip", *told["beside"]}
    assert training.id in (tmp_path / "live.md").read_text()


def test_what_is_held_in_bounds_is_served_and_scored_so(filled: Shell, tmp_path: Path) -> None:
    (training,) = filled.workspace.registry.runs(kind="train")
    d, half_width, bundle = 10, 1e-3, tmp_path / "held.zip"
    plan = tmp_path / "narrow.yaml"
    plan.write_text(BoundsPlan.symmetric(half_width, d).to_yaml())
    held = ("export", training.id, "--to", str(bundle), "--clip", str(plan))
    assert "name the log to score it on: --on DATASET" in filled.refused(*held)
    manifest = filled(*held, "--on", "test")["manifest"]
    assert manifest["approved"] is False and "not approved" in filled.refused(
        *held, "--on", "test", "--for", "live"
    )
    test = open_dataset(filled.workspace, "test")
    rows, live = test.evaluation_rows(), live_policy(test.meta)
    policy = load_policy(filled.workspace, training.id)
    assert np.abs(policy.act(rows.observations) - live.act(rows.observations)).max() > half_width
    with zipfile.ZipFile(bundle) as file:
        session = onnxruntime.InferenceSession(file.read("policy.onnx"))
    (actions,) = session.run(None, {"observations": rows.observations})
    assert np.abs(actions - live.act(rows.observations)).max() == pytest.approx(half_width, abs=1e-6)
    assert manifest["clipped_to_bounds"] and filled("verify", str(bundle))["ok"]
    (score,) = manifest["evaluation"]["evaluations"]
    bounded = Clip(live, BoundsPlan.symmetric(half_width, d)).of(policy)
    expected = evaluate({"held": bounded, "free": policy}, rows)
    assert score["weighted_gauc"] == expected.policies[0].weighted_gauc != expected.policies[1].weighted_gauc
    assert score["minus_unbound"]["value"] == expected.differences[0].value
    plan.write_text(BoundsPlan.symmetric(half_width, 3).to_yaml())
    assert "the bounds plan has 3 dimensions and the policy's actions 10" in filled.refused(
        *held, "--on", "test"
    )


def test_a_run_is_shown_with_what_a_watcher_needs_and_no_path(shell: Shell) -> None:
    run = RunRow(
        id=new_id("train"),
        kind="train",
        name="",
        state=RunState.FAILED,
        created_at=now(),
        config={},
        error="why",
    )
    shell.workspace.registry.add_run(run)
    shown = shell("runs", "show", run.id)
    needed = (
        "run_id kind state step n_steps name dataset_id algo seed created_at started_at finished_at seconds"
    )
    assert set(needed.split()) | {"error", "result"} <= set(shown)
    assert str(shell.workspace.path) not in json.dumps(shown)
    (listed,) = shell("runs", "list")
    assert (listed["run_id"], listed["state"], listed["error"]) == (run.id, "failed", "why")
    assert shell("runs", "logs", run.id) == {"run_id": run.id, "lines": []}


def test_a_workspace_that_cannot_be_looked_at_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    before = os.umask(0o077)
    try:
        for path, said in (
            (tmp_path / ("x" * 300), "longer than the disk allows"),
            (tmp_path / "file/w", "file"),
        ):
            done = CliRunner().invoke(app, ["--workspace", str(path), "runs", "list"])
            assert (done.exit_code, done.stderr.count("\n")) == (1, 1) and said in done.stderr
    finally:
        os.umask(before)


@pytest.mark.parametrize("others", [0, 0o050])
def test_a_new_workspace_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(others, tmp_path):
    path, before = tmp_path / "workspace", os.umask(0o022)
    try:
        if others:
            path.mkdir()
            path.chmod(0o700 | others)
        words = ["--json", "--workspace", str(path)]
        log = ["bounds", "list"] if others else ["dataset", "import", str(ROOT / "docs/example_log")]
        with worked_on_here():
            assert CliRunner().invoke(app, [*words, *log]).exit_code == 0
        report = json.loads(CliRunner().invoke(app, [*words, "doctor"]).stdout)
    finally:
        os.umask(before)
    inside = {p: p.stat().st_mode & 0o777 for p in [path, *path.rglob("*")]}
    assert len(inside) > (4 if others else 10)
    wrong = {p: oct(m) for p, m in inside.items() if m & ~((0o700 if p.is_dir() else 0o600) | others)}
    assert not wrong
    assert report["access"].startswith(
        "others on this machine too (drwxr-x---)" if others else "its owner alone"
    )


def test_the_doctor_names_orphans_lost_and_changed_files(filled: Shell, tmp_path: Path) -> None:
    assert filled("doctor")["ledger_mismatches"] == []
    path = filled.workspace.dataset_path(filled.workspace.dataset("explored").id)
    stray = filled.workspace.datasets_dir / "dataset-00000000.duckdb"
    stray.touch()
    kept = path.rename(tmp_path / "kept.duckdb")
    report = filled("doctor", code=1)
    assert report["orphans"] == ["datasets/dataset-00000000.duckdb"]
    assert [path.stem in sentence and "missing" in sentence for sentence in report["ledger_mismatches"]] == [
        True
    ]
    assert {"mtf_engine", "python", "torch", "duckdb"} <= set(report["versions"])
    stray.unlink()
    kept.rename(path)
    change_one_reward(path)
    (sentence,) = filled("doctor", code=1)["ledger_mismatches"]
    assert path.stem in sentence and "not those that were written" in sentence


def change_one_reward(path: Path) -> None:
    import duckdb

    with duckdb.connect(path) as connection:
        connection.execute("UPDATE requests SET reward = reward + 1 WHERE request_id = 0")


def test_a_refused_import_prints_its_sentence_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "impressions.csv"
    log.write_text("item_id\n1\n")
    command = [sys.executable, "-m", "mtf_engine", "--workspace", tmp_path / "new", "dataset", "import", log]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    assert "user_id: is missing" in sentence and sentence.endswith("--json shows the report")


def test_quality_is_one_document_and_drift_another(filled: Shell) -> None:
    found = filled("dataset", "quality", "explored")
    assert found["n_requests"] == filled.workspace.dataset("explored").n_requests
    assert "points" not in found["distributions"][0]
    moved = filled("dataset", "quality", "explored", "--against", "test")
    assert {"name", "psi", "difference", "verdict"} <= set(moved["shifts"][0])
    assert "as before" in moved["sentence"]
    assert "no dataset 'x'" in filled.refused("dataset", "quality", "explored", "--against", "x")


def test_the_signal_of_a_log_is_told_with_what_it_takes(filled: Shell) -> None:
    found = filled("dataset", "signal", "explored", "--by-segment")
    assert found["sentence"].startswith("This log holds") and found["df"] == len(found["slopes"]) == 10
    assert {"chi2", "p_value", "ratio", "sessions", "sessions_needed", "relative_gain"} <= set(found)
    assert {"dimension", "slope", "error", "low", "high", "t"} <= set(found["slopes"][0])
    assert len(found["segments"]) + len(found["left_out"]) == 6
    assert "segments" not in filled("dataset", "signal", "explored")
    instant = filled("dataset", "signal", "explored", "--gamma", "0", "--chi2", "30")
    assert instant["mean_return"] < found["mean_return"] and instant["wished"] == 30
    assert "no training row of this dataset was explored" in filled.refused("dataset", "signal", "test")
    assert "a chi2 of 10 is that of none" in filled.refused("dataset", "signal", "explored", "--chi2", "10")


def test_the_box_that_teaches_most_is_found_and_stored(filled: Shell) -> None:
    before = len(filled.workspace.registry.plans())
    found = filled("bounds", "teach", "explored", "--information", "2", "--name", "taught")
    assert found["sentence"].startswith("The box tells 2 times as much as the pilot")
    assert len(found["dimensions"]) + len(found["fixed"]) == 10
    assert found["uniform"]["information"] == pytest.approx(2)
    assert found["uniform"]["beyond"] == 0 < found["matched"]["beyond"] < found["gaussian"]["beyond"]
    (row,) = [row for row in filled.workspace.registry.plans() if row.name == "taught"]
    assert row.plan.model_dump(mode="json") == found["plan"] and "teaches most by explored" in row.note
    again = filled("bounds", "teach", "explored", "--loss", str(found["uniform"]["loss"]))
    assert again["plan"] == found["plan"] and len(filled.workspace.registry.plans()) == before + 1
    assert "one of the two" in filled.refused("bounds", "teach", "explored")
    assert "no training row of this dataset was explored" in filled.refused(
        "bounds", "teach", "test", "--loss", ".1"
    )
