"""Policies that are no runs: one action for everybody, used wherever a policy is."""

import numpy as np
import pytest

from mtf_engine.fusion import pows_and_biases
from mtf_engine.policies.fixed import fixed_action
from mtf_engine.spec import FusionSpec, Refusal
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


def test_fixed_policies_are_scored_beside_a_training_under_their_names(shell):
    found = shell("evaluate", "head:click", "default", "baseline", "--on", "test")
    scores = {row["run_id"]: row["weighted_gauc"] for row in found}
    assert [*scores] == ["head:click", "default", "baseline"]
    assert len(set(scores.values())) == 3
    assert "no prediction 'clicks'" in shell.refused("evaluate", "head:clicks", "--on", "test")
    assert "no run 'heads:click'" in shell.refused("evaluate", "heads:click", "--on", "test")


def test_a_log_is_explored_around_a_fixed_policy_and_tested_against_it(shell):
    around = ("--baseline", "head:click", "--explore", "baseline")
    made = shell("dataset", "collect", "--env", "session", *around, "--requests", "200")
    row = shell.workspace.dataset(made["dataset_id"])
    assert row.meta["baseline"] == "head:click"
    tested = shell("abtest", "head:click", "random:3", "--against", "baseline", "--users", "40")
    assert {effect["policy"] for effect in tested["effects"]} == {"head:click", "random:3"}


@pytest.fixture(scope="module")
def scored(shell) -> dict[str, object]:
    """The choices of a training, a prediction alone and weights on the log that they are scored on."""
    (train,) = shell.workspace.registry.runs(kind="train")
    chosen, on = [train.id, "head:click", "constant:pow_click=1"], shell.workspace.dataset("test").id
    shell("evaluate", *chosen, "baseline", "--on", on)
    return {"policies": chosen, "on": on}


@pytest.mark.parametrize("page", ["compare", "deviation", "critics", "explain", "abtest"])
def test_the_page_of_policies_offers_each_prediction_alone_and_takes_weights_from_a_link(
    shell, scored, monkeypatch, page
):
    monkeypatch.setenv("MTF_WORKSPACE", str(shell.workspace.path))
    app = opened(page, **scored)
    box = app.multiselect(key="policies")
    assert box.value == scored["policies"] and "click alone" in box.options
    if page == "compare":
        assert {"click alone", "constant:pow_click=1"} <= set(tables(app)[0]["policy"])
    if page == "abtest":
        assert "head:click constant:pow_click=1 --against baseline" in texts(app).replace("'", "")
