"""One request explained, against the product of formula 1 and a request written by hand."""

import numpy as np
import pytest

from mtf_engine.evaluation.explain import LOGGED, draw_request, explain, read_request
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.spec import FusionDimension, FusionSpec, Refusal, RewardSpec
from tests.test_evaluate import affine

FUSION = FusionSpec(
    predictions=("click", "like"),
    dimensions=(
        FusionDimension(prediction="click", kind="pow", low=0, high=2),
        FusionDimension(prediction="like", kind="bias", low=0, high=0.1),
    ),
)
META = DatasetMeta(
    name="log",
    source="csv",
    fusion=FUSION,
    reward=RewardSpec(weights={"like": 1.0}),
    signals=("like",),
    feature_names=("age", "mood"),
    numeric_mask=(True, True),
)
PREDICTIONS = np.float32([[0.8, 0.1], [0.4, 0.2], [0.9, 0.3], [0.1, 0.1]])


def requests(actions) -> dict[str, np.ndarray]:
    """Returns requests 7 and 8 of one user."""
    actions = np.float32(actions)
    return {
        "request_id": np.array([7, 8]),
        "session_id": np.array([3, 3]),
        "user_id": np.array(["u", "u"], object),
        "step": np.array([0, 1]),
        "timestamp": np.arange(2).astype("datetime64[s]").astype("datetime64[us]"),
        "split": np.full(2, "test", object),
        "segment": np.full(2, "new", object),
        "observation": np.float32([[1, 2], [3, 4]]),
        **dict.fromkeys(("baseline_action", "action", "lower", "upper"), actions),
        "pscore": np.full(2, np.nan),
        "clipped": np.zeros(2, np.int32),
        "reward": np.array([1.0, 0.0]),
        "terminal": np.array([False, True]),
        "truncated": np.zeros(2, bool),
    }


def written(folder, actions=((0.5, -1.0), (0.0, 0.0)), candidates=True) -> Dataset:
    """Request 7 showed items 30 and 10 of candidates 10, 20, 30, 40; request 8 showed 10 alone."""
    items, shown = np.array([10, 20, 30, 40]), np.array([2, 0, 0])
    impressions = {
        "request_id": np.array([7, 7, 8]),
        "user_id": np.full(3, "u", object),
        "item_id": items[shown],
        "position": np.array([0, 1, 0]),
        "predictions": PREDICTIONS[shown],
        "like": np.float32([1, 0, 0]),
        "reward": np.array([1.0, 0.0, 0.0]),
        "label": np.array([True, False, False]),
    }
    offered = {"request_id": np.full(4, 7), "item_id": items, "predictions": PREDICTIONS}
    tables = Tables(requests(actions), impressions, offered if candidates else None)
    write_dataset(folder, "d", META, [tables])
    return Dataset.open(folder / "d.duckdb")


def test_a_request_is_read_with_what_was_shown_first_and_then_what_was_not(tmp_path):
    request = read_request(written(tmp_path), 7)
    assert list(request.items["item_id"]) == [30, 10, 20, 40]
    assert list(request.items["position"][:2]) == [0, 1]
    assert request.items.loc[2:, ["position", "like", "reward", "label"]].isna().all(axis=None)
    assert list(request.items["label"][:2]) == [True, False]
    np.testing.assert_array_equal(request.predictions, PREDICTIONS[[2, 0, 1, 3]])
    assert (request.facts["user_id"], request.facts["segment"], request.facts["reward"]) == ("u", "new", 1.0)


def test_scores_are_the_product_of_formula_1(tmp_path):
    policy = affine((0.0, 0.0), slope=((0.1, 0.0), (0.0, 0.2)), fusion=FUSION)
    found = explain({"it": policy}, read_request(written(tmp_path), 7))
    for name, (pow_click, bias_like) in {
        LOGGED: (1.5, 0.0),
        "it": (1 + 0.1 * 1, 0.05 + 0.05 * 0.2 * 2),
    }.items():
        weights = found.weights[found.weights["policy"] == name]
        assert list(weights["dimension"]) == ["pow_click", "bias_like"]
        assert list(weights["weight"]) == pytest.approx([pow_click, bias_like], abs=1e-6)
        ranking = found.ranking[found.ranking["policy"] == name]
        product = PREDICTIONS[[2, 0, 1, 3], 0].astype(float) ** pow_click  # like has no pow
        assert list(np.exp(ranking["score"])) == pytest.approx(list(product), rel=1e-5)
        assert list(ranking["rank"]) == [1, 2, 3, 4]
        parts = ranking["part click"] + ranking["part like"]
        assert list(parts) == pytest.approx(list(ranking["score"]))


def test_items_that_tie_share_the_lowest_rank(tmp_path):
    flat = affine((-1.0, 0.0), fusion=FUSION)  # pow 0 of the only prediction that counts
    found = explain({"flat": flat}, read_request(written(tmp_path), 7))
    assert set(found.ranking["rank"][found.ranking["policy"] == "flat"]) == {1}


def test_a_log_without_actions_has_no_action_of_its_own(tmp_path):
    request = read_request(written(tmp_path, actions=np.full((2, 2), np.nan), candidates=False), 7)
    assert list(request.items["item_id"]) == [30, 10]
    found = explain({"it": affine((0.0, 0.0), fusion=FUSION)}, request)
    assert set(found.ranking["policy"]) == set(found.weights["policy"]) == {"it"}


def test_a_request_is_drawn_among_those_with_candidates(tmp_path):
    dataset = written(tmp_path)
    assert {draw_request(dataset, np.random.default_rng(seed)) for seed in range(5)} == {7}


def test_any_request_is_drawn_where_no_candidates_were_kept(tmp_path):
    dataset = written(tmp_path, candidates=False)
    assert {draw_request(dataset, np.random.default_rng(seed)) for seed in range(20)} == {7, 8}


def test_a_request_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Refusal, match="the dataset log has no request 9; draw one"):
        read_request(written(tmp_path), 9)


def test_a_policy_of_another_fusion_is_refused(tmp_path):
    other = affine((0.0, 0.0), fusion=FusionSpec.default(("click", "share")))
    with pytest.raises(Refusal, match="differ in their predictions"):
        explain({"other": other}, read_request(written(tmp_path), 7))
