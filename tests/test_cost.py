import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm, spearmanr

from mtf_engine.exploration.cost import (
    CandidateLists,
    ExplorationCost,
    exploration_cost,
    read_candidate_lists,
)
from mtf_engine.exploration.deviation import expected_largest, within_gaussian, within_mixture, within_uniform
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.exploration.policies import explore
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.spec import BoundsPlan, Box, FusionSpec, Refusal, RewardSpec
from tests.searching import examples

PREDICTIONS = tuple(f"p{i}" for i in range(8))
FUSION = FusionSpec.default(PREDICTIONS, bias=PREDICTIONS[:2])
PLAN = BoundsPlan.symmetric(0.15, 10)
ANY = np.array(["any"])


def lists(sizes, *, seed=0, baseline=0.0, fusion=FUSION) -> CandidateLists:
    generator = np.random.default_rng(seed)
    first = np.append(0, np.cumsum(sizes))
    return CandidateLists(
        source="candidates",
        baseline_actions=np.full((len(sizes), fusion.n_actions), baseline, np.float32),
        segments=np.full(len(sizes), "any"),
        first=first,
        predictions=generator.uniform(0.01, 0.99, (first[-1], len(fusion.predictions))).astype(np.float32),
    )


def cost(candidates, plan=PLAN, *, fusion=FUSION, seed=0, **options) -> ExplorationCost:
    return exploration_cost(fusion, candidates, plan, np.random.default_rng(seed), **options)


def test_beyond_point_four_is_37_percent_for_the_normal_and_nothing_for_the_box():
    result = cost(lists([8] * 50))
    assert result.gaussian.beyond == pytest.approx(1 - (1 - 2 * norm.sf(2)) ** 10, abs=1e-12)
    assert result.gaussian.beyond == pytest.approx(0.372, abs=5e-4)
    assert result.uniform.beyond == 0


def test_the_largest_deviation_is_that_of_theory():
    result = cost(lists([8] * 50))
    assert result.uniform.largest == pytest.approx(0.15 * 10 / 11, abs=1e-7)
    theory = quad(lambda t: 1 - (1 - 2 * norm.sf(t / 0.2)) ** 10, 0, 1)[0]
    assert result.gaussian.largest == pytest.approx(theory, abs=1e-5)


@examples(30)
@given(
    baseline=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=4),
    low=st.floats(-0.6, 0.1),
    width=st.sampled_from([0.0, 0.1, 0.5]),
    sigma=st.floats(0.05, 0.5),
    edge=st.sampled_from(["truncate", "clip"]),
    far=st.floats(0.01, 0.7),
)
def test_deviations_agree_with_drawn_actions(baseline, low, width, sigma, edge, far):
    d, n = len(baseline), 20_000
    plan = BoundsPlan(lower=(low,) * d, upper=(low + width,) * d, edge=edge)
    actions = np.float32([baseline])
    luck, part = np.random.default_rng(3).random((n, d)), np.random.default_rng(4).random(n)
    mixture = Mixture(sigma=sigma, random_share=0.3, random_sigma=0.4)
    for kind, within in (
        ("uniform", within_uniform(plan, actions, ANY)),
        ("gaussian", within_gaussian(sigma, plan, actions, ANY)),
        ("mixed", within_mixture(mixture, plan, actions, ANY)),
    ):
        drawn = explore(
            kind, np.repeat(actions, n, 0), plan, np.repeat(ANY, n), sigma=sigma,
            control=np.zeros(n, bool), luck=luck, mixture=mixture, part=part,
        )  # fmt: skip
        largest = np.abs(drawn.actions - actions).max(axis=1)
        near = np.abs(largest - far) < 1e-5  # clipped draws sit on one value, known to float32
        assert within(far)[0] == pytest.approx((largest <= far).mean(), abs=0.02 + near.mean())
        assert expected_largest(within, plan) == pytest.approx(largest.mean(), abs=0.01)


def test_a_slow_replay_agrees():
    candidates = lists([5, 9, 5, 30, 2], seed=4, baseline=0.3)
    result = cost(candidates, k=3, n_draws=2, seed=9)
    luck = np.random.default_rng(9).random((2, 5, 10))
    changed, correlation = [], []
    for r in range(4):
        items = candidates.predictions[candidates.first[r] : candidates.first[r + 1]]
        base = candidates.baseline_actions[r]
        noise = luck[:, r] * 0.3 - 0.15
        before = np.array(log_final_score(FUSION, base[None], items[None])[0])
        for eps in noise:
            after = np.array(log_final_score(FUSION, np.float32(base + eps)[None], items[None])[0])
            top = [set(np.argsort(-s)[:3].tolist()) for s in (before, after)]
            changed.append(len(top[0] - top[1]) / 3)
            correlation.append(spearmanr(before, after).statistic)
    assert result.n_requests == 4 and result.n_left_out == 1
    assert result.uniform.top_changed.value == pytest.approx(np.mean(changed))
    assert result.uniform.rank_correlation.value == pytest.approx(np.mean(correlation))


def test_a_plan_without_width_and_one_prediction_alone_change_nothing():
    still = cost(lists([8] * 40), BoundsPlan.symmetric(0.0, 10)).uniform
    assert still.top_changed.value == 0 and still.rank_correlation.value == 1 and still.largest == 0
    one = FusionSpec.default(("click",))
    result = cost(lists([8] * 40, fusion=one), BoundsPlan.symmetric(0.15, 1), fusion=one)
    assert result.gaussian.rank_correlation.value == 1, "a positive pow of one prediction keeps its order"


def test_two_candidates_swap_as_often_as_the_angle_says():
    """Log-predictions (0, -2) and (-1.8, 0): the order swaps where 1.8 pow_a < 2 pow_b does."""
    fusion = FusionSpec.default(("a", "b"))
    pair = np.exp(-np.float32([[0, 2], [1.8, 0]]))
    candidates = CandidateLists(
        "candidates",
        np.zeros((4_000, 2), np.float32),
        np.full(4_000, "any"),
        np.arange(4_001) * 2,
        np.tile(pair, (4_000, 1)),
    )
    result = cost(candidates, BoundsPlan.symmetric(0.15, 2), fusion=fusion, k=1)
    u = np.linspace(-0.15, 0.15, 2_001)
    swapped = (1.8 * (1 + u[:, None]) < 2 * (1 + u)).mean()
    expected = min(swapped, 1 - swapped)
    assert result.uniform.top_changed.value == pytest.approx(expected, abs=0.02)
    assert result.uniform.top_changed.low < expected < result.uniform.top_changed.high
    gaussian = norm.sf(0.2 / (0.2 * math.hypot(1.8, 2)))
    assert result.gaussian.top_changed.value == pytest.approx(gaussian, abs=0.02)


def test_segments_have_their_own_boxes_and_costs_are_json():
    candidates = lists([8] * 100)
    wide = BoundsPlan(
        lower=PLAN.lower, upper=PLAN.upper, segments={"any": Box(lower=(-0.6,) * 10, upper=(0.6,) * 10)}
    )
    result = cost(candidates, wide)
    assert result.uniform.top_changed.value > 2 * cost(candidates).uniform.top_changed.value
    assert result.uniform.beyond == pytest.approx(1 - (2 / 3) ** 10, abs=1e-6)
    assert ExplorationCost.model_validate_json(result.model_dump_json()) == result
    assert cost(candidates, wide) == result


def test_lists_no_longer_than_k_are_refused():
    with pytest.raises(Refusal, match="no request has more than 8 candidates"):
        cost(lists([8] * 3), k=8)


@pytest.mark.parametrize("source", ["candidates", "impressions"])
def test_candidate_lists_come_from_a_dataset_file(tmp_path, source):
    n, shown = 60, 4
    meta = DatasetMeta(
        name="x", source="session", fusion=FUSION, reward=RewardSpec(weights={"click": 1.0}),
        signals=("click",), feature_names=("age",), numeric_mask=(True,),
    )  # fmt: skip
    ids, generator = np.arange(n), np.random.default_rng(0)
    users = np.array([f"u{9 - i // 10}" for i in ids], dtype=object)
    absent = np.full((n, 10), np.nan, np.float32)
    baseline = generator.uniform(-1, 1, (n, 10)).astype(np.float32) if source == "candidates" else absent
    requests = {
        "request_id": ids, "session_id": ids, "user_id": users, "step": np.zeros(n, np.int32),
        "timestamp": np.full(n, np.datetime64("2026-01-01", "us")), "split": np.full(n, "train", object),
        "segment": np.array([f"s{i % 3}" for i in ids], object), "observation": np.zeros((n, 1), np.float32),
        "baseline_action": baseline, "action": absent, "lower": absent, "upper": absent,
        "pscore": np.full(n, np.nan), "clipped": np.zeros(n, np.int32), "reward": np.zeros(n),
        "terminal": np.ones(n, bool), "truncated": np.zeros(n, bool),
    }  # fmt: skip

    def items(k):
        predictions = np.repeat(ids, k)[:, None] + np.tile(np.arange(8), (n * k, 1))
        return {
            "request_id": np.repeat(ids, k), "item_id": np.arange(n * k),
            "predictions": predictions.astype(np.float32),
        }  # fmt: skip

    impressions = items(shown) | {
        "user_id": np.repeat(users, shown), "position": np.tile(np.arange(shown, dtype=np.int32), n),
        "click": np.zeros(n * shown, np.float32), "reward": np.zeros(n * shown),
        "label": np.zeros(n * shown, bool),
    }  # fmt: skip
    kept = items(12) if source == "candidates" else None
    write_dataset(tmp_path, "x", meta, [Tables(requests, impressions, kept)])
    dataset = Dataset.open(tmp_path / "x.duckdb")
    found = read_candidate_lists(dataset.arrays, 20)
    assert found.source == source
    assert np.diff(found.first).tolist() == [12 if source == "candidates" else shown] * 20
    request = found.predictions[found.first[:-1], 0].astype(int)  # the first prediction names the request
    assert found.segments.tolist() == [f"s{i % 3}" for i in request]
    assert np.array_equal(found.baseline_actions, np.nan_to_num(baseline[request]))
    assert exploration_cost(FUSION, found, PLAN, np.random.default_rng(0)).n_requests == 20
