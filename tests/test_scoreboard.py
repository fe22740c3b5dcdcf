"""The scoreboard: both metrics beside the live policy in words, and what waits for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.questions.scoreboard import Change, Standing, Verdict, scoreboard, waiting
from mtf_engine.registry import BASELINE, RunRow, RunState, new_id, now
from mtf_engine.release import review
from mtf_engine.workspace import Workspace
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_pages import checked, filled, opened, texts  # noqa: F401 (a fixture)
from tests.workspaces import copy_workspace

ENDS = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


def change(low: float, high: float) -> Change:
    return Change(value=(low + high) / 2, low=low, high=high, run_id="evaluate-1")


@pytest.mark.parametrize(
    ("gauc", "reward", "verdict"),
    [
        ((0.1, 0.2), (0.1, 0.2), "better"),
        ((-0.2, -0.1), (-0.2, -0.1), "worse"),
        ((-0.1, 0.1), (-0.1, 0.1), "not told apart"),
        ((0.1, 0.2), (-0.2, -0.1), "metrics disagree"),
        ((-0.2, -0.1), (0.1, 0.2), "metrics disagree"),
        ((-0.1, 0.1), (0.1, 0.2), "better"),
        ((-0.2, -0.1), None, "worse"),
        (None, (0.1, 0.2), "better"),
        (None, None, "not measured"),
    ],
)
def test_both_metrics_make_one_verdict(gauc, reward, verdict):
    changes = {"gauc": gauc and change(*gauc), "reward": reward and change(*reward)}
    assert Standing(policy="train-1", name="one", **changes).verdict == verdict
    assert Standing(policy="train-1", name="one", is_live=True, **changes).verdict is Verdict.LIVE


@given(ENDS, ENDS)
def test_a_verdict_says_better_only_where_an_interval_does_and_none_says_worse(gauc, reward):
    told = Standing(policy="p", name="p", gauc=change(*gauc), reward=change(*reward)).verdict
    above, below = gauc[0] > 0 or reward[0] > 0, gauc[1] < 0 or reward[1] < 0
    assert (told is Verdict.BETTER) == (above and not below)
    assert (told is Verdict.DISAGREE) == (above and below)


def test_a_policy_stands_beside_the_live_one_by_its_newest_figures(filled):  # noqa: F811
    (training,), (evaluation,), (test,) = (
        filled.registry.runs(kind=k) for k in ("train", "evaluate", "abtest")
    )
    live, policy = scoreboard(filled)
    assert (live.policy, live.verdict, live.gauc) == (BASELINE, Verdict.LIVE, None)
    assert policy.policy == training.id and policy.name == training.name
    (difference,) = (
        row
        for row in evaluation.result["differences"]
        if (row["run_id"], row["base"], row["group"]) == (training.id, BASELINE, "user")
    )
    assert (policy.gauc.value, policy.gauc.low, policy.gauc.run_id) == (
        difference["value"], difference["ci_low"], evaluation.id,
    )  # fmt: skip
    assert policy.reward.run_id == test.id


def test_what_was_scored_on_all_rows_of_its_own_log_is_not_told(small_workspace, tmp_path):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    (training,), (evaluation,) = (copy.registry.runs(kind=kind) for kind in ("train", "evaluate"))
    assert scoreboard(copy)[1].gauc is not None
    on_its_own = {"id": "evaluate-own", "dataset_id": training.dataset_id, "created_at": now()}
    flattering = evaluation.model_copy(update=on_its_own)
    copy.registry.add_run(flattering)
    assert scoreboard(copy)[1].gauc.run_id == evaluation.id, "the newer one is of rows that it learned from"
    held_out = {**flattering.result, "split": "validation"}
    copy.registry.update_run("evaluate-own", result=held_out)
    assert scoreboard(copy)[1].gauc.run_id == "evaluate-own"


def test_what_is_made_live_is_what_others_are_measured_against(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "copy")
    (training,) = workspace.registry.runs(kind="train")
    add_rounds(workspace, a_round(1, BASELINE).model_copy(update={"candidate": training.id}))
    review.decide(workspace, "progressive-1", 1, "promote", name="Ada", reason="because")
    live, *others = scoreboard(workspace)
    assert live.policy == training.id and live.is_live and not others, "nothing was measured against it"


def test_the_next_step_measures_against_what_is_live(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (training,) = copy.registry.runs(kind="train")
    add_rounds(copy, a_round(1, BASELINE).model_copy(update={"candidate": "train-live"}))
    review.decide(copy, "progressive-1", 1, "promote", name="Ada", reason="because")
    board = next(table.value for table in opened().dataframe if "verdict" in table.value).set_index("id")
    assert board["verdict"][training.id] == "? not measured"
    assert f"policies=train-live&policies={training.id}#compare" in board["next"][training.id]


def test_a_round_that_an_earlier_version_left_interrupted_waits_too(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    add_rounds(workspace, a_round(1, BASELINE), promote="by-hand")
    said = "round 1 waits for a decision: `review show progressive-1`"
    workspace.registry.update_run("progressive-1", state=RunState.INTERRUPTED, error=said)
    assert [one.kind for one in waiting(workspace, {})] == ["round"]
    assert [s.waits_in for s in scoreboard(workspace)] == [None, "progressive-1"]


def test_what_waits_for_people_is_told_once(tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    add_rounds(workspace, a_round(1, BASELINE), a_round(2, "train-1"))
    assert waiting(workspace, {}) == []
    workspace.registry.update_run("progressive-1", state=RunState.WAITING)
    row = {"created_at": now(), "state": RunState.FAILED, "config": {}, "name": "mine", "error": "no room"}
    for changes in ({}, {"parent_id": "progressive-1"}, {"archived": True}):
        workspace.registry.add_run(RunRow(id=new_id("train"), kind="train", **row | changes))
    told = [(one.kind, one.reason) for one in waiting(workspace, {})]
    assert told == [("round", "round 2 waits for a decision"), ("run", "no room")]


def test_home_shows_who_is_better_and_what_comes_next(filled):  # noqa: F811
    board = next(table.value for table in opened().dataframe if "verdict" in table.value)
    assert board["verdict"].iloc[0] == "● live" and board["policy"].iloc[1] == "small"
    assert board["next"].iloc[1].endswith(("#export", "#why"))
    assert board["at the wall"].iloc[1] is not None
    assert "Does weighted GAUC rank policies as users do?" in [header.value for header in opened().subheader]


def test_home_lists_a_failed_certificate_and_a_round_to_decide(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    opened("coverage", dataset=copy.dataset("explored").id)  # counts it: 1,010 requests are too few
    add_rounds(copy, a_round(1, BASELINE))
    copy.registry.update_run("progressive-1", state=RunState.WAITING)
    app = checked(opened())
    said = texts(app).replace("\\", "")
    assert "fails its certificate" in said and "round 1 waits for a decision" in said
