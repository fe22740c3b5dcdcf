"""Policies that are no runs: one action for everybody, used wherever a policy is."""

import zipfile

import numpy as np
import onnxruntime
import pytest

from mtf_engine.evaluation.weighted_gauc import weighted_gauc
from mtf_engine.fusion import pows_and_biases
from mtf_engine.policies.fixed import fixed_action
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import FusionSpec, Refusal
from mtf_engine.work.export import submit_export
from tests.test_cli import Shell
from tests.test_pages import opened, tables, texts
from tests.workspaces import copy_workspace

SPEC = FusionSpec.default(("click", "like", "skip"), negative=("skip",), bias=("click",))


def weights(name: str) -> list[float]:
    """Returns the fusion weights of a fixed policy, in the order of its dimensions."""
    pows, biases = pows_and_biases(SPEC, fixed_action(name, SPEC)[None].astype(np.float32))
    return [round(float(w), 6) for w in (*pows[0], biases[0, 0])]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default", [1, 1, -1, 0.05]),
        ("head:like", [0, 2, 0, 0]),
        ("head:skip", [0, 0, -2, 0]),
        ("constant:0.5,2,-1,0.1", [0.5, 2, -1, 0.1]),
        ("constant:pow_like=0.25,bias_click=0", [1, 0.25, -1, 0]),
    ],
)
def test_a_fixed_policy_has_the_weights_that_its_name_says(name, expected):
    assert weights(name) == expected


def test_a_random_policy_is_drawn_by_its_seed_from_all_ranges():
    assert weights("random:7") == weights("random:7") != weights("random:8")
    drawn = np.array([fixed_action(f"random:{seed}", SPEC) for seed in range(200)])
    assert (np.abs(drawn) <= 1).all() and (np.abs(drawn.mean(axis=0)) < 0.15).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("head:likes", "there are click, like, skip"),
        ("constant:1,2", "has 2 weights, and there are 4 dimensions"),
        ("constant:1,2,x,0", "sets pow_skip to x; write a number from -2 to 0"),
        ("constant:1,2,0,nan", "sets bias_click to nan"),
        ("constant:3,0,0,0", "sets pow_click to 3; write a number from 0 to 2"),
        ("constant:pow_likes=1", "is not NAME=WEIGHT"),
        ("constant:pow_like=1,2", "is not NAME=WEIGHT"),
        ("constant:pow_like=1,pow_like=2", "each once"),
        ("random:x", "has no seed"),
        ("random:-1", "has no seed"),
        ("random:" + "9" * 50, "has no seed"),
    ],
)
def test_a_name_without_such_weights_is_refused(name, said):
    with pytest.raises(Refusal) as refused:
        fixed_action(name, SPEC)
    assert said in str(refused.value)


@pytest.fixture(scope="module")
def shell(small_workspace, tmp_path_factory) -> Shell:
    return Shell(copy_workspace(small_workspace, tmp_path_factory.mktemp("fixed") / "workspace").path)


JUDGED = ("head:click", "default", "constant:pow_click=1")


@pytest.fixture(scope="module")
def judged(shell) -> dict[str, dict]:
    """The rows of a training, of fixed policies and the baseline on a log without training rows, by policy."""
    (train,) = shell.workspace.registry.runs(kind="train")
    found = shell("evaluate", train.id, *JUDGED, "baseline", "--on", "test")
    return {row["run_id"]: row for row in found}


def test_fixed_policies_are_scored_beside_a_training_under_their_names(shell, judged):
    scores = {name: judged[name]["weighted_gauc"] for name in (*JUDGED, "baseline")}
    assert len(set(scores.values())) == 4
    assert "no prediction 'clicks'" in shell.refused("evaluate", "head:clicks", "--on", "test")
    assert "no run 'heads:click'" in shell.refused("evaluate", "heads:click", "--on", "test")


def test_an_evaluation_shows_floors_chosen_on_training_rows_alone(shell, judged):
    (train,) = shell.workspace.registry.runs(kind="train")
    *asked, head, regression = judged
    assert asked == [train.id, *JUDGED, "baseline"] and regression == "regression"
    assert [row["floor"] for row in judged.values()] == [False] * 5 + [True] * 2
    (run, *_) = shell.workspace.registry.runs(kind="evaluate")
    assert run.result["floors_from"] == train.dataset_id, (
        "the log that the training learned from has training rows"
    )
    rows = open_dataset(shell.workspace, "explored").evaluation_rows("train")
    alone = {
        d.prediction: weighted_gauc(
            rows.predictions[:, rows.fusion.predictions.index(d.prediction)] * (1 if d.high > 0 else -1),
            rows.label, rows.reward + 1, rows.impression_user,
        ).value
        for d in rows.fusion.dimensions if d.kind == "pow"
    }  # fmt: skip
    assert head == f"head:{max(alone, key=alone.get)}"
    assert "floors_from" in run.result and not shell("evaluate", "baseline", "--on", "test")[1:]
    assert "neither this log nor" in shell.refused("evaluate", "regression", "--on", "test")
    said = "an environment is none"
    assert said in shell.refused("abtest", "regression", "--users", "9")


@pytest.mark.slow
def test_a_policy_that_is_no_run_is_exported_for_logs_like_one(shell, tmp_path):
    made = shell("export", "regression", "--on", "explored", "--to", str(tmp_path / "policy.zip"))
    assert made["ok"] and made["manifest"]["origin"]["name"] == "regression"
    with zipfile.ZipFile(tmp_path / "policy.zip") as file:
        actor = onnxruntime.InferenceSession(file.read("policy.onnx"))
    log = open_dataset(shell.workspace, "explored")
    (actions,) = actor.run(None, {"observations": log.evaluation_rows().observations[:2]})
    rows = log.evaluation_rows("train")
    expected = fixed_action("regression", rows.fusion, rows)
    np.testing.assert_allclose(actions, [expected, expected], atol=1e-6)


def test_a_policy_that_is_no_run_is_exported_for_a_log_and_drawn_ones_are_not(shell, tmp_path):
    to = ("--to", str(tmp_path / "policy.zip"))
    assert "name the log" in shell.refused("export", "head:click", *to)
    assert "drawn blindly" in shell.refused("export", "random:3", "--on", "test", *to)
    assert "no prediction 'clicks'" in shell.refused("export", "head:clicks", "--on", "test", *to)
    assert "is not approved" in shell.refused("export", "default", "--on", "test", "--for", "live", *to)
    config = shell.workspace.registry.run(
        submit_export(shell.workspace, "constant:pow_click=1", on="test")
    ).config
    assert (config["run_id"], config["on"]) == ("constant:pow_click=1", shell.workspace.dataset("test").id)


def test_a_log_is_explored_around_a_fixed_policy_and_tested_against_it(shell):
    around = ("--baseline", "head:click", "--explore", "baseline")
    made = shell("dataset", "collect", "--env", "session", *around, "--requests", "200")
    row = shell.workspace.dataset(made["dataset_id"])
    assert row.meta["baseline"] == "head:click"
    tested = shell("abtest", "head:click", "random:3", "--against", "baseline", "--users", "40")
    assert {effect["policy"] for effect in tested["effects"]} == {"head:click", "random:3"}


@pytest.mark.parametrize("page", ["compare", "deviation", "critics", "explain", "abtest"])
def test_the_page_of_policies_offers_each_prediction_alone_and_takes_weights_from_a_link(
    shell, judged, monkeypatch, page
):
    monkeypatch.setenv("MTF_WORKSPACE", str(shell.workspace.path))
    chosen = [next(iter(judged)), "head:click", "constant:pow_click=1"]
    app = opened(page, policies=chosen, on=shell.workspace.dataset("test").id)
    box = app.multiselect(key="policies")
    assert box.value == chosen and "click alone" in box.options
    if page == "compare":
        named = [*tables(app)[0]["policy"]]
        assert {"click alone", "constant:pow_click=1"} <= set(named)
        assert named[-2].endswith(" alone (floor)") and named[-1] == "regression weights (floor)"
        assert "Floors, which fusion has to beat" in texts(app)
    if page == "abtest":
        assert "head:click constant:pow_click=1 --against baseline" in texts(app).replace("'", "")
        app = opened(page, policies=["head:clicks"])
        assert "Choose a policy above" in texts(app) and "--against" not in texts(app)


@pytest.fixture(scope="module")
def two_logs(small_workspace, tmp_path_factory) -> Shell:
    """A workspace whose newest training is of a log with other features, and with fewer predictions."""
    both = Shell(copy_workspace(small_workspace, tmp_path_factory.mktemp("two") / "workspace").path)
    both("dataset", "import", "docs/example_log", "--name", "example")
    both("train", "example", "--algo", "integrated_rl", "--preset", "demo", "--set", "n_steps=2")
    return both


def logs_offered(app) -> set[str]:
    return {option.split(" · ")[0] for option in app.selectbox(key="on").options}


def test_policies_are_offered_for_the_logs_that_have_what_they_take(two_logs, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(two_logs.workspace.path))
    newest, older = two_logs.workspace.registry.runs(kind="train")
    app = opened("compare")
    assert app.multiselect(key="policies").value == [newest.id] and logs_offered(app) == {"example"}
    assert "share alone" not in app.multiselect(key="policies").options
    app.multiselect(key="policies").set_value([older.id]).run()
    assert "share alone" in app.multiselect(key="policies").options
    assert logs_offered(app) == {"explored", "test"}
    app.multiselect(key="policies").set_value([older.id, newest.id]).run()
    assert "no log with the features and actions of all these policies" in app.info[0].value
    for policy, logs in (
        ("head:share", {"explored", "test"}),
        ("head:like", {"explored", "test", "example"}),
    ):
        assert logs_offered(opened("compare", policies=policy)) == logs
        assert logs_offered(opened("export", run=policy)) == logs


def test_regression_is_exported_for_logs_with_training_rows_alone(two_logs, tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(two_logs.workspace.path))
    assert logs_offered(opened("export", run="regression")) == {"explored", "example"}
    to = ("--to", str(tmp_path / "policy.zip"))
    said = two_logs.refused("export", "regression", "--on", "test", *to)
    assert "fitted to training rows, and test has none" in said
    assert not [run for run in two_logs.workspace.registry.runs(kind="export") if run.name == "regression"]
