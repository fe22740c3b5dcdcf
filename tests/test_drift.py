import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from mtf_engine.exploration.drift import bounds_from_drift, drift_quantiles
from mtf_engine.exploration.wall_pressure import RULE, WallPressure, wall_pressure
from mtf_engine.spec import BoundsPlan, Box, Refusal
from tests.searching import examples

N = 20_000
NAMES = ("pow_click", "pow_like", "bias_click")


def draw_bounds(drift, *, seed=0, segments=None, users=None, **options):
    n = len(drift)
    segments = np.full(n, "all users") if segments is None else segments
    users = np.arange(n) if users is None else users
    options = {"n_bootstrap": 0} | options
    return bounds_from_drift(
        drift, np.zeros_like(drift), segments, users, np.random.default_rng(seed), **options
    )


def test_quantiles_of_a_known_drift_by_segment():
    drift = np.linspace(-1, 1, 2_001)[:, None] * [0.1, 0.2, 0.0] + [0, 0, 0.3]
    segments = np.where(np.arange(2_001) < 1_000, "new", "loyal")
    rows = {
        (r.segment, r.dimension): r for r in drift_quantiles(drift, np.zeros((2_001, 3)), segments, NAMES)
    }
    assert len(rows) == 9
    assert rows[None, "pow_click"].quantiles["0.05"] == pytest.approx(-0.09)
    assert rows[None, "pow_like"].mean_absolute == pytest.approx(0.1, abs=1e-4)
    assert rows["new", "pow_like"].quantiles["0.5"] == pytest.approx(-0.1, abs=2e-4)
    assert rows["loyal", "bias_click"].quantiles["0.99"] == pytest.approx(0.3)


def test_the_box_of_a_normal_drift_is_the_one_of_theory():
    drift = np.random.default_rng(1).normal([0.05, -0.02], [0.05, 0.1], (200_000, 2))
    result = draw_bounds(drift, share=0.9)
    reach = norm.ppf((1 + math.sqrt(0.9)) / 2)
    assert result.boxes[0].level == pytest.approx(math.sqrt(0.9), abs=2e-3)
    assert result.boxes[0].held == pytest.approx(0.9, abs=1e-3)
    assert result.plan.lower == pytest.approx((0.05 - reach * 0.05, -0.02 - reach * 0.1), abs=0.01)
    assert result.plan.upper == pytest.approx((0.05 + reach * 0.05, -0.02 + reach * 0.1), abs=0.01)


def test_a_skewed_drift_gets_its_shortest_interval_not_the_central_one():
    drift = np.random.default_rng(2).exponential(0.05, (100_000, 1))
    plan = draw_bounds(drift, share=0.9).plan
    assert plan.lower[0] == pytest.approx(0, abs=1e-3)
    assert plan.upper[0] == pytest.approx(0.05 * math.log(10), abs=3e-3)


def test_dimensions_that_drift_together_need_a_level_no_higher_than_the_share():
    drift = np.random.default_rng(3).uniform(-0.1, 0.1, (N, 1)) * [1, 2, 3]
    assert draw_bounds(drift, share=0.8).boxes[0].level == pytest.approx(0.8, abs=0.01)


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    d=st.integers(1, 4),
    share=st.floats(0.05, 1),
)
def test_the_box_always_holds_its_share_and_all_of_it_at_1(seed, n, d, share):
    drift = np.random.default_rng(seed).normal(0, 0.2, (n, d)).clip(-1, 1).round(2)
    box = draw_bounds(drift, share=share).boxes[0]
    inside = ((drift >= box.lower) & (drift <= box.upper)).all(axis=1).mean()
    assert inside == box.held >= share - 1e-12
    whole = draw_bounds(drift, share=1.0).plan
    assert whole.lower == pytest.approx(drift.min(axis=0), abs=1.01e-4)
    assert whole.upper == pytest.approx(drift.max(axis=0), abs=1.01e-4)


def test_the_bootstrap_interval_covers_the_true_edge_and_counts_users_not_rows():
    covered, widths = 0, []
    truth = norm.ppf(0.95) * 0.1
    for seed in range(20):
        drift = np.random.default_rng([5, seed]).normal(0, 0.1, (500, 1))
        box = draw_bounds(drift, seed=seed, share=0.9, n_bootstrap=100).boxes[0]
        low, high = box.upper_interval[0]
        covered += low <= truth <= high
        widths.append(high - low)
    assert covered >= 16
    again = np.repeat(drift, 10, axis=0)
    box = draw_bounds(again, share=0.9, n_bootstrap=100, users=np.repeat(np.arange(500), 10)).boxes[0]
    assert (box.n_rows, box.n_users) == (5_000, 500)
    assert box.upper_interval[0][1] - box.upper_interval[0][0] > 0.6 * np.median(widths)


def test_segments_get_their_own_boxes_and_small_ones_none():
    generator = np.random.default_rng(4)
    segments = np.repeat(["loyal", "new", "rare"], [2_000, 2_000, 99])
    drift = generator.uniform(-0.1, 0.1, (4_099, 1)) + (segments == "new")[:, None] * 0.3
    result = draw_bounds(drift, share=1.0, segments=segments, by_segment=True)
    assert set(result.plan.segments) == {"loyal", "new"}
    assert result.plan.segments["new"].lower[0] == pytest.approx(0.2, abs=1e-3)
    assert result.plan.segments["loyal"].upper[0] == pytest.approx(0.1, abs=1e-3)
    assert result.left_out == {"rare": 99}
    assert draw_bounds(drift, segments=segments).plan.segments == {}


def test_the_plan_may_be_made_to_contain_the_baseline_and_travels_as_yaml():
    drift = np.random.default_rng(6).uniform(0.1, 0.2, (N, 2))
    assert draw_bounds(drift).plan.lower[0] > 0.09
    result = draw_bounds(drift, include_baseline=True)
    assert result.plan.lower == (0, 0)
    assert BoundsPlan.from_yaml(result.plan.to_yaml()) == result.plan
    assert type(result).model_validate_json(result.model_dump_json()) == result


def test_same_seed_same_intervals():
    drift = np.random.default_rng(7).normal(0, 0.1, (300, 2))
    assert draw_bounds(drift, n_bootstrap=20) == draw_bounds(drift, n_bootstrap=20)


@pytest.mark.parametrize(
    ("drift", "share", "sentence"),
    [
        (np.zeros((0, 2)), 0.9, "there are no rows"),
        (np.full((3, 2), np.nan), 0.9, "an action is not a number"),
        (np.zeros((3, 2)), 0.0, "a share of 0 is none"),
    ],
)
def test_what_is_no_drift_is_refused(drift, share, sentence):
    with pytest.raises(Refusal, match=sentence):
        draw_bounds(drift, share=share)


def pressure(offsets, *, plan=None, baseline=0.0, segments=None, **options) -> WallPressure:
    offsets = np.asarray(offsets, float)
    baselines = np.full_like(offsets, baseline)
    segments = np.full(len(offsets), "any") if segments is None else segments
    plan = plan or BoundsPlan.symmetric(0.15, offsets.shape[1])
    names = NAMES[: offsets.shape[1]]
    return wall_pressure(plan, np.clip(baselines + offsets, -1, 1), baselines, segments, names, **options)


def spread(low, high, n=1_000):
    return np.linspace(low, high, n)


def test_shares_at_and_beyond_each_wall_are_counted():
    offsets = np.repeat([-0.2, -0.149, 0.0, 0.15, 0.25], [50, 100, 700, 100, 50])[:, None]
    row = pressure(offsets).rows[0]
    assert (row.below, row.at_lower, row.at_upper, row.above) == pytest.approx((0.05, 0.1, 0.1, 0.05))
    assert (row.distance_below, row.distance_above) == pytest.approx((0.05, 0.1))


PRESSED = np.repeat([-0.17, 0.0], [200, 800])
PLANTED = {
    "widen": (np.r_[PRESSED[:500], -PRESSED[:500]], (-0.225, 0.225), "widen to [-0.225, 0.225]"),
    "widen far": (np.r_[spread(-0.1, 0.15, 500), spread(0.3, 0.4, 500)], (-0.15, 0.5452 - 0.15), "widen to"),
    "shift": (np.r_[spread(0, 0.1, 500), np.full(500, 0.16)], (-0.075, 0.225), "shift to"),
    "widen one side": (np.r_[spread(-0.14, 0.1, 800), np.full(200, 0.15)], (-0.15, 0.225), "widen to"),
    "narrow": (spread(-0.02, 0.05), (-0.0493, 0.0793), "narrow to"),
    "keep": (spread(-0.12, 0.12), (-0.15, 0.15), "keep"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_walls_move_by_the_stated_rule(case):
    offsets, walls, sentence = PLANTED[case]
    result = pressure(offsets[:, None])
    row = result.rows[0]
    assert row.proposal == case.split()[0]
    assert (row.new_lower, row.new_upper) == pytest.approx(walls, abs=2e-3)
    assert (result.plan.lower[0], result.plan.upper[0]) == (row.new_lower, row.new_upper)
    assert sentence in row.reason
    assert "25% of the width" in RULE


def test_pressing_at_the_end_of_the_real_range_is_not_answered_by_a_wall():
    row = pressure(np.full((1_000, 1), 0.1), baseline=0.95).rows[0]
    assert row.proposal == "range" and row.at_range_end == 1
    assert (row.new_lower, row.new_upper) == (-0.15, 0.15)
    assert "give it a wider range" in row.reason


def test_each_box_of_the_plan_is_judged_on_its_own_rows():
    segments = np.repeat(["loyal", "new"], 1_000)
    offsets = np.r_[spread(-0.12, 0.12), np.full(1_000, 0.15)][:, None]
    plan = BoundsPlan(lower=(-0.15,), upper=(0.15,), segments={"new": Box(lower=(-0.3,), upper=(0.3,))})
    result = pressure(offsets, plan=plan, segments=segments)
    assert [(r.segment, r.proposal, r.n_rows) for r in result.rows] == [
        (None, "keep", 1_000),
        ("new", "narrow", 1_000),
    ]
    one_box = pressure(offsets, segments=segments, by_segment=True)
    assert {r.segment: r.proposal for r in one_box.rows} == {None: "widen", "loyal": "keep", "new": "shift"}
    assert one_box.plan.segments["loyal"] == Box(lower=(-0.15,), upper=(0.15,))
    assert one_box.plan.segments["new"] == Box(lower=(-0.075,), upper=(0.225,))


def test_a_fixed_dimension_is_kept():
    result = pressure(np.zeros((500, 2)), plan=BoundsPlan(lower=(-0.1, 0.0), upper=(0.1, 0.0)))
    assert [r.proposal for r in result.rows] == ["narrow", "keep"]
    assert WallPressure.model_validate_json(result.model_dump_json()) == result


def test_rows_without_a_segment_count_in_the_default_only():
    segments = np.where(np.arange(1_000) < 500, "new", None)
    drift = np.linspace(-0.1, 0.1, 1_000)[:, None]
    assert set(draw_bounds(drift, segments=segments, by_segment=True).plan.segments) == {"new"}
    assert {r.segment for r in drift_quantiles(drift, 0 * drift, segments, ("a",))} == {None, "new"}
    assert {r.segment for r in pressure(drift, segments=segments, by_segment=True).rows} == {None, "new"}
