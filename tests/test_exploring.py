"""Bounds judged on what a workspace holds: by functions that pages and the command line share."""

import json
import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.samples import sample, sample_path
from mtf_engine.questions.exploring import PlanChange, collection_cost, plan_changes, policy_actions
from mtf_engine.runs.storage import live_policy, open_dataset
from mtf_engine.spec import BoundsPlan, Box, Refusal
from mtf_engine.workspace import Workspace

PLAN = BoundsPlan.symmetric(0.1, 2)


def test_plans_differ_where_their_boxes_do_and_a_missing_box_is_the_default():
    other = BoundsPlan(
        lower=(-0.1, -0.2), upper=(0.1, 0.1), segments={"new": Box(lower=(-0.1, -0.1), upper=(0.3, 0.1))}
    )
    wider = {"lower": -0.1, "upper": 0.1, "other_lower": -0.2, "other_upper": 0.1}
    assert plan_changes(PLAN, other, ("a", "b")) == [
        PlanChange(segment=None, dimension="b", **wider),
        PlanChange(segment="new", dimension="a", lower=-0.1, upper=0.1, other_lower=-0.1, other_upper=0.3),
    ]
    assert plan_changes(PLAN, PLAN) == []
    with pytest.raises(Refusal, match="2 and 3 dimensions"):
        plan_changes(PLAN, BoundsPlan.symmetric(0.1, 3))


def trained(workspace: Workspace) -> str:
    return workspace.registry.runs(kind="train")[0].id


def test_a_policy_acts_on_a_sample_of_a_log(small_workspace):
    acted = policy_actions(small_workspace, trained(small_workspace), "explored", n_requests=50)
    assert acted.new_actions.shape == acted.baseline_actions.shape == (50, len(acted.names))
    assert len(acted.segments) == len(acted.users) == 50
    again = policy_actions(small_workspace, trained(small_workspace), "explored", n_requests=50)
    assert np.array_equal(acted.new_actions, again.new_actions)


def test_the_sample_of_a_large_log_is_drawn_once_and_kept_beside_it(small_workspace, tmp_path, monkeypatch):
    original = open_dataset(small_workspace, "explored")
    (copy := tmp_path / original.path.name).write_bytes(original.path.read_bytes())
    dataset = Dataset.open(copy)
    drawn = sample(dataset, 50)
    assert sample_path(copy, 50).is_file()
    monkeypatch.setattr(Dataset, "table", None)
    for name, values in sample(dataset, 50).items():
        assert values.dtype == drawn[name].dtype and np.array_equal(values, drawn[name]), name
    monkeypatch.undo()
    monkeypatch.setattr(Dataset, "content_hash", "of other rows")
    assert np.array_equal(sample(dataset, 50)["observation"], drawn["observation"])
    assert pq.read_schema(sample_path(copy, 50)).metadata[b"content_hash"] == b"of other rows"


def test_a_policy_acts_on_every_request_of_a_small_log(small_workspace):
    acted = policy_actions(small_workspace, trained(small_workspace), "test")
    row = small_workspace.dataset("test")
    assert len(acted.new_actions) == row.n_requests
    log = open_dataset(small_workspace, "test")
    live = live_policy(log.meta).act(log.arrays("SELECT observation FROM requests")["observation"])
    np.testing.assert_allclose(np.sort(acted.baseline_actions, axis=0), np.sort(live, axis=0), atol=1e-6)


def test_a_plan_of_other_dimensions_has_no_cost_here(small_workspace):
    with pytest.raises(Refusal, match="the plan has 2 dimensions"):
        collection_cost(small_workspace, "explored", PLAN)


def test_the_command_line_keeps_compares_proposes_and_prices_plans(small_workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_REGISTRY_URL", f"sqlite:///{_copy(small_workspace, tmp_path)}")

    def shell(*arguments: str):
        done = CliRunner().invoke(
            app, ["--workspace", str(small_workspace.path), "--json", "bounds", *arguments]
        )
        assert done.exit_code == 0, (done.exception, done.output)
        return json.loads(done.stdout)

    n = len(small_workspace.dataset("explored").meta["fusion"]["dimensions"])
    file = tmp_path / "plan.yaml"
    file.write_text(BoundsPlan.symmetric(0.1, n).to_yaml())
    shell("save", "narrow", str(file), "--note", "by hand")
    run = trained(small_workspace)
    (box,) = shell("drift", run, "--on", "explored", "--share", ".9", "--save", "around it")
    assert box["held"] >= 0.9
    assert [row["dimension"] for row in shell("diff", "narrow", "around it")]
    walls = shell("walls", run, "--on", "explored", "--bounds", "narrow", "--save", "moved")
    assert len(walls) == n
    listed = {row["name"]: row["note"] for row in shell("list")}
    assert set(listed) == {"narrow", "around it", "moved"}
    assert listed["around it"] == f"from drift of {run} on explored, 90 %"
    assert shell("cost", "explored", "--bounds", "narrow")["uniform"]["beyond"] == 0
    assert shell("show", "narrow")["upper"] == [0.1] * n
    assert shell("delete", "narrow", "--yes") == {"name": "narrow", "deleted": True, "needed_by": []}
    certificate = shell("coverage", "explored")
    assert "needs at least 1,000" in certificate["reason"] and not certificate["passed"]


def _copy(workspace: Workspace, folder) -> str:
    """Returns the path of a copy of the registry, so that plans are stored elsewhere."""
    copy = folder / "registry.sqlite"
    with sqlite3.connect(workspace.path / "registry.sqlite") as source, sqlite3.connect(copy) as target:
        source.backup(target)
    return str(copy)
