"""The pages that read an evaluation: what they show is what was measured, and links open what they name."""

import json
import shutil
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mtf_engine import sealed
from mtf_engine.evaluation import EvaluationResult
from mtf_engine.questions.shadow import shadow_diff
from mtf_engine.runs import files
from pages.shared.places import CRITICS, DEVIATION, SHADOW
from tests.test_pages import button, checked, empty, filled, opened, tables, texts
from tests.workspaces import copy_workspace

__all__ = ["empty", "filled"]


def table(app, *columns: str):
    """Returns the first table of the page that has these columns."""
    return next(table for table in tables(app) if set(columns) <= set(table))


@pytest.fixture
def result(filled) -> EvaluationResult:
    (run,) = filled.registry.runs(kind="evaluate")
    return EvaluationResult.model_validate_json((filled.run_dir(run.id) / files.EVALUATION).read_bytes())


def test_compare_shows_what_was_evaluated(filled, result):
    app = opened("compare")
    scores = table(app, "users used")
    told = {policy.run_id: policy.weighted_gauc for policy in result.policies}
    assert dict(zip(scores["run_id"], scores["weighted GAUC"], strict=True)) == told
    assert "Synthetic" in app.warning[0].value
    assert "learned from explored, " in texts(app) and "users that it is judged by are among" in texts(app)
    gap = next(d for d in result.differences if (d.base, d.group) == ("baseline", "user")).resolvable_gap
    assert f"a true gap of {gap:.4f}" in texts(app)
    best = table(app, "by user (the paper's)")
    assert sum(best["by user (the paper's)"]) == pytest.approx(1)


def test_an_ab_test_of_the_same_policies_stands_beside_their_scores(filled, result):
    app = opened("compare")
    (test,) = filled.registry.runs(kind="abtest")
    (effect,) = (e for e in test.result["effects"] if e["metric"] == "session_reward")
    told = table(app, "difference of session reward, %")
    assert told["difference of session reward, %"][0] == pytest.approx(100 * effect["relative"])
    pair = next(d for d in result.differences if (d.base, d.group) == ("baseline", "user"))
    assert told["difference of weighted GAUC"][0] == pair.value
    agree = pair.value * effect["relative"] > 0
    assert f"Weighted GAUC and the A/B test order {'the policies' if agree else '0 of 1 pairs'}" in texts(app)


def test_the_base_of_differences_is_chosen_and_linked(filled, result):
    (other,) = (policy.run_id for policy in result.policies if policy.run_id != "baseline")
    for base, compared in (("baseline", other), (other, "baseline")):
        shown = table(opened("compare", base=base), "resolvable gap")
        assert list(shown["run_id"]) == [compared]
        (expected,) = (d.value for d in result.differences if d.base == base and d.group == "user")
        assert list(shown["difference"]) == [expected]


def test_segments_are_compared(filled, result):
    app = opened("compare", group="request")
    shown = table(app, "segment")
    assert list(shown["segment"]) == list(result.segments)
    app.selectbox(key="by_segment").set_value("score")
    checked(app.run())
    scores = table(app, "segment")
    assert len(scores) == len(result.segments) * len(result.policies)
    expected = {
        (s.segment, policy.run_id): s.weighted_gauc
        for policy in result.policies
        for s in policy.by_segment
        if s.group == "request"
    }
    told = dict(
        zip(zip(scores["segment"], scores["run_id"], strict=True), scores["weighted GAUC"], strict=True)
    )
    np.testing.assert_array_equal(
        [told[key] for key in expected], [np.nan if v is None else v for v in expected.values()]
    )


def test_compare_offers_to_evaluate_what_was_not(filled):
    explored = next(row for row in filled.registry.datasets() if row.name == "explored")
    app = opened("compare", dataset=explored.id)
    assert button(app, "Compare")
    assert f"evaluate baseline {filled.registry.runs(kind='train')[0].id} --on {explored.id}" in texts(app)


@pytest.mark.parametrize("page", ["compare", "deviation", "critics"])
def test_a_comparison_of_an_earlier_version_is_to_be_made_again(page, small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (run,) = copy.registry.runs(kind="evaluate")
    path = copy.run_dir(run.id) / files.EVALUATION
    less = json.loads(path.read_bytes())
    del less["segment_differences"]
    sealed.write(path, json.dumps(less).encode())
    for _ in range(2):
        app = opened(page)
        assert "compare again" in app.info[0].value
        assert button(app, "Compare")
        path.unlink(missing_ok=True)  # one from before there was such a file


def test_a_damaged_comparison_is_said_and_never_shown(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (run,) = copy.registry.runs(kind="evaluate")
    path = copy.run_dir(run.id) / files.EVALUATION
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    app = opened("compare")
    assert "evaluation.json is damaged" in app.error[0].value.replace("\\", "") and button(app, "Compare")


def test_deviation_shows_each_segment_within_its_bounds(filled, result):
    (policy,) = (p for p in result.policies if p.run_id != "baseline")
    everyone = table(opened("deviation"), "mean size")
    assert list(everyone["mean size"]) == [d.mean for d in policy.deviation.dimensions]
    segment = result.segments[1]
    theirs = table(opened("deviation", segment=segment, view="direction"), "mean drift")
    expected = policy.deviation_by_segment[segment].dimensions
    assert list(theirs["mean drift"]) == [d.drift_mean for d in expected]


def test_critics_are_told_apart(filled, result):
    (policy,) = (p for p in result.policies if p.disagreement)
    app = opened("critics", one="1", another="2")
    assert [h.value for h in app.header] == ["Together", "Inside against outside the bounds"]
    assert {"Each critic", "Two critics", "Against the log"} <= {e.label for e in app.expander}
    critics = table(app, "critic", "bias inside")
    assert list(critics["bias inside"]) == list(policy.disagreement.inside.biases)
    assert f"{policy.disagreement.pairs.correlation[0][1]:.3f}" in texts(app)
    assert sum(table(app, "actions", "critic 1")["actions"]) == policy.disagreement.n_requests
    calibration = result.calibrations[policy.run_id]
    assert sum(table(app, "steps")["steps"]) == calibration.n_steps
    assert f"{calibration.n_steps:,} steps" in texts(app)
    off = table(app, "std over critics", "root mean square error")
    assert list(off["steps"]) == [one.count for one in calibration.by_disagreement]


def test_critics_of_one_policy_are_overlaid_by_segment(filled, result):
    app = opened("critics", overlay="segments")
    assert set(table(app, "segment", "distance")["segment"]) <= set(result.segments)


def test_a_linked_request_is_explained(filled):
    (train,) = filled.registry.runs(kind="train")
    test = next(row for row in filled.registry.datasets() if row.name == "test")
    app = opened("explain", dataset=test.id, request="17")
    ranks = table(app, "item_id", "did", "rank, baseline")
    assert sorted(ranks["rank, baseline"]) == list(range(1, len(ranks) + 1))
    shown = ranks[ranks["position"].notna()]
    assert list(shown["rank, baseline"]) == list(shown["position"])  # the baseline made this log
    assert {"not shown"} == set(ranks["did"][ranks["position"].isna()])
    weights = table(app, "weight", "kind")
    assert set(weights["policy"]) == {"the log's own", "baseline", train.name}


def test_a_request_is_drawn(filled):
    app = opened("explain")
    assert "draw one" in app.info[0].value
    checked(button(app, "Draw one at random").click().run())
    assert app.text_input(key="request").value.isdigit()
    assert table(app, "item_id", "position") is not None


@pytest.mark.parametrize(("text", "told"), [("99999999", "no request 99999999"), ("one", "is no request id")])
def test_a_request_that_is_not_there_is_told_in_a_sentence(text, told, filled):
    assert told in opened("explain", request=text).error[0].value


def test_a_choice_stays_from_page_to_page_and_a_link_goes_before_it(filled, result):
    first, second = result.segments[:2]
    app = opened("deviation", segment=first)
    app.query_params.clear()
    app.query_params["tab"] = CRITICS
    assert checked(app.run()).selectbox(key="segment").value == first
    app.query_params["segment"] = second
    app.query_params["tab"] = DEVIATION
    assert checked(app.run()).selectbox(key="segment").value == second


def test_the_log_follows_the_policies_but_a_link_keeps_its_own(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (first,) = copy.registry.runs(kind="train")
    logs = {row.name: row.id for row in copy.registry.datasets()}
    second = first.model_copy(update={"id": "train-00000002", "dataset_id": logs["test"]})
    copy.registry.add_run(second)
    shutil.copytree(copy.run_dir(first.id), copy.run_dir(second.id))

    def scored_on(app: AppTest) -> str:
        return checked(app.run()).selectbox(key="on").value

    app = opened("policies", policies=first.id)
    assert scored_on(app) == logs["test"]
    app.multiselect(key="policies").set_value([second.id])
    assert scored_on(app) == logs["explored"], "the one that it was not trained on"
    app.query_params["policies"], app.query_params["on"] = [first.id], logs["explored"]
    assert [scored_on(app) for _ in range(2)] == [logs["explored"]] * 2, (
        "as the link says, at the next run too"
    )


def test_another_request_is_explained_from_its_own_most_moved_item(filled):
    app = opened("explain", request="17")
    tables(app)
    titles = app.selectbox(key="item").options
    app.selectbox(key="item").set_value(app.selectbox(key="item").options[-1])
    checked(app.run())
    app.text_input(key="request").input("18")
    tables(app)
    box = app.selectbox(key="item")
    assert box.options != titles
    assert box.index == 0


def test_the_page_of_critics_says_what_to_choose_where_a_policy_has_one(
    small_workspace, tmp_path, monkeypatch
):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (run,) = copy.registry.runs(kind="evaluate")
    path = copy.run_dir(run.id) / files.EVALUATION
    result = json.loads(path.read_bytes())
    for policy in result["policies"]:
        if policy["disagreement"]:
            policy["disagreement"]["pairs"]["levels"] = policy["disagreement"]["pairs"]["levels"][:1]
    sealed.write(path, json.dumps(result).encode())
    assert "choose one trained by a method with several critics" in opened("critics").info[0].value


def test_critics_show_a_histogram_inside_against_outside_of_all_and_of_one(filled):
    for which in ("all", "2"):
        app = opened("critics", differences_of=which)
        shown = next(table for table in tables(app) if "inside, %" in table)
        assert shown[["inside, %", "outside, %"]].sum().tolist() == pytest.approx([100, 100])
        assert "Inside against outside the bounds" in [header.value for header in app.header]


def test_the_shadow_diff_shows_what_the_command_tells_and_opens_each_request_in_explain(filled):
    (train,) = filled.registry.runs(kind="train")
    test = next(row for row in filled.registry.datasets() if row.name == "test")
    app = opened("policies", tab=SHADOW, policies=train.id, on=test.id, top_places="3")
    found = shadow_diff(filled, train.id, "baseline", test.id, top_k=3)
    assert f"{found.overlap.value:.1%}" in texts(app)
    assert list(table(app, "items in common")["share of requests"]) == list(found.in_common)
    requests = table(app, "request", "Explain")
    assert list(requests["request"]) == [one.request_id for one in found.requests]
    assert list(table(app, "of the log final score")["shift"]) == [
        found.score_mean.difference.value,
        found.score_spread.difference.value,
    ]
    risen = table(app, "tenth", "live")
    assert risen.groupby("prediction")["candidate"].sum().to_numpy() == pytest.approx(1)
    assert "By user segment" in {e.label for e in app.expander}
    assert f"shadow {train.id} --against baseline --on {test.id} --top-k 3" in texts(app)
    page, _, query = requests["Explain"][0].partition("?")
    explained = opened(page, **{name: values[0] for name, values in parse_qs(query).items()})
    assert explained.text_input(key="request").value == str(found.requests[0].request_id)
    assert table(explained, "item_id", "rank, baseline") is not None
    none = opened(page, tab=SHADOW, policies=train.id, on=test.id, top_places="90")
    assert "no request of this log" in none.error[0].value
