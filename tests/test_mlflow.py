"""Exports in MLflow: read back from a server with SQLite that the test starts, and refused in a sentence."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mtf_engine.registry import BASELINE, RunState
from mtf_engine.release import review
from mtf_engine.release.card import card
from mtf_engine.runs import executor, metrics
from mtf_engine.spec import Refusal
from mtf_engine.work.mlflow import alias, reached, submit_mlflow
from mtf_engine.workspace import Workspace
from tests.browsing import MTF, Tab, free_port
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_cli import Shell
from tests.test_pages import button, checked, opened, texts
from tests.waiting import PATIENCE, wait_until
from tests.workspaces import copy_workspace

VERSION = "3.17.2"


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a web server that is no MLflow."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def team(small_workspace, tmp_path) -> Workspace:
    """A workspace whose only training is the candidate of a round that nobody has decided."""
    copy = copy_workspace(small_workspace, tmp_path / "team")
    (run,) = copy.registry.runs(kind="train")
    add_rounds(copy, a_round(1, BASELINE).model_copy(update={"candidate": run.id}))
    return copy


NOT_THERE = {
    (): "no MLflow server is named; give --tracking-uri URL, or set MLFLOW_TRACKING_URI",
    ("--tracking-uri", "sqlite:///x.db"): "URL scheme should be 'http' or 'https'",
    ("--tracking-uri", "http://ada:secret@localhost:1"): "has a name or a password",
    ("--tracking-uri", "http://127.0.0.1:1"): "http://127.0.0.1:1 was not reached (Connection refused)",
    ("--tracking-uri", "http://a..b:5000"): "http://a..b:5000 was not reached",
}


def test_a_server_that_is_not_there_is_refused_before_anything_is_exported(team, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before, shell = len(team.registry.runs()), Shell(team.path)
    for uri, told in NOT_THERE.items():
        refused = shell.refused("export", "candidate", "--to", "mlflow", *uri)
        assert told in refused and "secret" not in refused
    assert "--readme is written beside a file" in shell.refused(
        "export", "candidate", "--to", "mlflow", "--readme"
    )
    for name in ("p.md", "reference_scorer.py"):
        assert f"writes a file of the name {name}" in shell.refused(
            "export", "candidate", "--to", name, "--readme"
        )
    assert len(team.registry.runs()) == before


def test_mlflow_that_is_not_installed_and_a_name_that_it_does_not_take_are_refused(answering, monkeypatch):
    assert reached(answering).server == answering, "that it is no MLflow shows when something is logged"
    with pytest.raises(Refusal, match="the MLflow target is not valid: model: "):
        reached(answering, "a/b")
    monkeypatch.setattr("mtf_engine.work.mlflow.find_spec", lambda name: None)
    with pytest.raises(Refusal, match="needs the package mlflow-skinny: pip install mlflow-skinny"):
        reached(answering)


def test_the_card_tells_data_bounds_scores_with_intervals_and_limits_and_the_alias_is_the_policys(team):
    (exported,) = team.registry.runs(kind="export")
    policy, manifest = exported.config["run_id"], exported.result["manifest"]
    explored, test = (team.dataset(name) for name in ("explored", "test"))
    (evaluated,) = team.registry.runs(kind="evaluate")
    score = next(row for row in evaluated.result["policies"] if row["run_id"] == policy)
    told = card(team, policy, manifest)
    assert f"Dataset {explored.id}, content hash {explored.content_hash}." in told
    assert "exploration uniform around baseline, 10% of users kept at the baseline" in told
    assert "| pow_click | -2.53 to 2.79 | -0.15 | 0.15 | - | - |" in told
    interval = f"{score['weighted_gauc']:.4f} ({score['ci_low']:.4f} to {score['ci_high']:.4f})"
    assert f"| test ({test.id}) | {score['split']} | {interval} |" in told
    assert told.count("| session:feed |") == 3, "an A/B test of three metrics"
    assert "## Limits" in told and "Users and feedback are synthetic" in told
    assert "Nobody has approved it" in told and alias(team, policy, manifest) == "candidate"
    review.decide(team, "progressive-1", 1, "promote", name="Ada")
    assert alias(team, policy, manifest) == "live"
    assert alias(team, policy, manifest | {"clipped_to_bounds": True}) is None, (
        "what is served is another policy"
    )
    clip = {"lower": [-0.1] * 10, "upper": [0.05] * 10, "segments": {}}
    held = manifest | {
        "clipped_to_bounds": True,
        "clip_bounds": clip,
        "approval": review.approval(team, policy),
    }
    told = card(team, policy, held)
    assert "| -0.15 | 0.15 | -0.1 | 0.05 |" in told and "No A/B test has played it." in told
    assert "Approved by Ada" in told
    team.registry.delete_dataset(explored.id, noted=False)
    assert "That log is deleted." in card(team, policy, manifest)


def test_the_page_logs_an_export_and_remembers_the_server(team, answering, in_process, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(team.path))
    app = opened("export")
    app.text_input(key="mlflow_server").set_value("http://127.0.0.1:1")
    button(app, "Log to MLflow").click()
    assert "was not reached" in checked(app.run()).error[0].value.replace("\\", "")
    app.text_input(key="mlflow_server").set_value(answering)
    button(app, "Log to MLflow").click()
    app = checked(app.run())
    (run,) = team.registry.runs(kind="mlflow")
    (exported,) = team.registry.runs(kind="export")
    assert run.config["export_id"] == exported.id and run.config["tracking_uri"] == f"{answering}/"
    assert f"--to mlflow --tracking-uri {answering}" in texts(app)
    team.registry.update_run(run.id, state=RunState.COMPLETED, result={
        "model": "fusion", "version": "3", "alias": "live", "url": f"{answering}/#/experiments/1/runs/2"
    })  # fmt: skip
    fresh = opened("export")
    assert fresh.text_input(key="mlflow_server").value == f"{answering}/"
    assert "Logged to MLflow: fusion version 3, alias live" in texts(fresh).replace("\\", "")


READ = """
import json, sys
from mlflow import MlflowClient, onnx, pyfunc, set_tracking_uri
uri, model, bundle = sys.argv[1:]
set_tracking_uri(uri)
client = MlflowClient()
version = client.get_model_version_by_alias(model, "live")
run = client.get_run(version.run_id)
loaded = pyfunc.load_model(f"models:/{model}@live")
import io, zipfile, numpy
with zipfile.ZipFile(bundle) as file:
    golden = numpy.load(io.BytesIO(file.read("golden.npz")))
found = loaded.predict({name: golden[name] for name in ("observations", "predictions")})
print(json.dumps({
    "params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags, "status": run.info.status,
    "losses": [[m.step, m.value] for m in client.get_metric_history(version.run_id, "critic_loss")],
    "files": sorted(one.path for one in client.list_artifacts(version.run_id)),
    "description": version.description, "version": version.version, "version_tags": version.tags,
    "inputs": loaded.metadata.signature.inputs.to_dict(), "outputs": loaded.metadata.signature.outputs.to_dict(),
    "off": float(abs(found["log_final_scores"] - golden["log_final_scores"]).max()),
}))
"""
UNTRACKED = """
from mtf_engine.work.mlflow import MlflowConfig, _client
with _client(MlflowConfig(export_id="", policy="", tracking_uri="http://127.0.0.1:1")):
    from mlflow.telemetry.client import get_telemetry_client
    from mlflow.telemetry.utils import is_telemetry_disabled
    print(is_telemetry_disabled(), get_telemetry_client())
"""


def python(*arguments: str) -> str:
    """Returns what a Python process prints, which MLflow cannot tell for a test's."""
    outside = {name: value for name, value in os.environ.items() if "PYTEST" not in name and name != "CI"}
    done = subprocess.run([sys.executable, *arguments], env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def full_mlflow(tmp_path_factory) -> Path:
    """The full MLflow in a virtual environment of its own: the one that MTF_MLFLOW names, else a new one."""
    if named := os.environ.get("MTF_MLFLOW"):
        return Path(named) / "bin" / "mlflow"
    venv = tmp_path_factory.mktemp("mlflow") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", f"mlflow=={VERSION}"], check=True)
    return venv / "bin" / "mlflow"


@pytest.fixture
def starting(full_mlflow, tmp_path) -> Iterator[Callable[[], str]]:
    """An MLflow server with its own SQLite file and artifacts; called, its address once it answers."""
    port, url = free_port(), ""
    stores = (
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination",
        tmp_path / "files",
    )
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    url, quiet = f"http://127.0.0.1:{port}", os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    with (tmp_path / "mlflow.log").open("wb") as log:
        command = [full_mlflow, "server", *stores, *where]
        process = subprocess.Popen(command, env=quiet, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield lambda: wait_until(answers, "MLflow answers") and url
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.slow
@pytest.mark.browser
def test_an_export_is_read_back_from_a_real_server_and_seen_on_its_page(
    starting, team, answering, tab: Tab, tmp_path
):
    server = starting()
    review.decide(team, "progressive-1", 1, "promote", name="Ada")
    (run,) = team.registry.runs(kind="train")
    command = [
        *MTF,
        "--workspace",
        str(team.path),
        "export",
        "live",
        "--for",
        "live",
        "--to",
        "mlflow",
        "--json",
    ]
    done = subprocess.run([*command, "--tracking-uri", server], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logged = json.loads(done.stdout)
    assert (logged["model"], logged["version"], logged["alias"]) == ("multi-task-fusion", "1", "live")
    exported = team.registry.runs(kind="export")[0]
    bundle = team.run_dir(exported.id) / "policy.zip"
    found = json.loads(python("-c", READ, server, "multi-task-fusion", str(bundle)))
    assert found["status"] == "FINISHED" and found["params"] == {n: str(v) for n, v in run.config.items()}
    rows = [row for row in metrics.read(team.run_dir(run.id)) if "critic_loss" in row]
    assert found["losses"] == [[row["step"], row["critic_loss"]] for row in rows] and len(rows) > 3
    (score,) = exported.result["manifest"]["evaluation"]["evaluations"]
    assert found["metrics"][f"{score['dataset_id']}/weighted_gauc"] == score["weighted_gauc"]
    assert found["files"] == ["card.md", "memo.html", "memo.md", "policy.zip"]
    assert found["tags"]["mtf.policy"] == run.id and not {"mlflow.user", "mlflow.source.name"} & {
        *found["tags"]
    }
    assert found["version_tags"] == {"mtf.policy": run.id, "mtf.approved": "True"}
    assert "Approved by Ada" in found["description"] and "## Limits" in found["description"]
    shapes = [one["tensor-spec"]["shape"] for one in (*found["inputs"], *found["outputs"])]
    assert shapes == [[-1, 67], [-1, -1, 8], [-1, -1]] and found["off"] < 1e-4
    assert python("-c", UNTRACKED).split() == ["True", "None"], "MLflow tells its makers nothing"

    tab.page.goto(logged["url"])
    expect(tab.page.get_by_text(run.id).first).to_be_visible()
    expect(tab.page.get_by_text("critic_loss").first).to_be_visible()
    tab.page.goto(f"{server}/#/models/multi-task-fusion/versions/1")
    expect(tab.page.get_by_text("live").first).to_be_visible()
    expect(tab.page.get_by_text("Approved by Ada").first).to_be_visible()
    tab.page.screenshot(path=str(tmp_path / "mlflow.png"))
    assert not tab.foreign

    failed = executor.wait(team, submit_mlflow(team, exported.id, answering))
    assert (
        failed.state is RunState.FAILED and f"the MLflow server {answering} did not take it" in failed.error
    )
