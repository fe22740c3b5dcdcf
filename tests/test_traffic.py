import numpy as np
import pytest
from scipy.stats import poisson

from mtf_engine.exploration.traffic import BoxSize, Traffic, plan_size
from mtf_engine.spec import BoundsPlan, Box, Refusal

TRAFFIC = Traffic(sessions_per_day=1_000, requests_per_session=5, control_share=0.1)


def test_the_paper_s_plan_by_hand():
    (size,) = plan_size(BoundsPlan.symmetric(0.15, 10), TRAFFIC, k=10, cells=5)
    assert size.covered == pytest.approx([0.15] * 10)
    assert 10**size.log10_volume == pytest.approx(0.15**10)
    assert [d.together for d in size.demands] == [1, 2, 10]
    assert [d.cells for d in size.demands] == [5, 25, 5**10]
    assert [d.requests for d in size.demands] == [50, 250, 10 * 5**10]
    for demand in size.demands:
        assert demand.sessions == pytest.approx(demand.requests_sure / 4.5)
        assert demand.days == pytest.approx(demand.sessions / 1_000)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_all_cells_hold_k_with_the_confidence(k):
    (size,) = plan_size(BoundsPlan.symmetric(0.15, 2), TRAFFIC, k=k, cells=4, confidence=0.9)
    demand = size.demands[1]
    assert poisson.sf(k - 1, demand.requests_sure / 16) ** 16 == pytest.approx(0.9)
    draws = np.random.default_rng(0).multinomial(round(demand.requests_sure), np.full(16, 1 / 16), 4_000)
    assert 0.885 < (draws.min(axis=1) >= k).mean() < 0.935, "counts of a fixed total are a little evener"


def test_fixed_dimensions_do_not_count_and_boxes_are_cut_at_the_edge():
    plan = BoundsPlan(lower=(-0.2, 0.0, -0.2), upper=(0.2, 0.0, 0.2))
    (size,) = plan_size(plan, TRAFFIC, baseline_action=np.array([0, 0, 0.9]))
    assert size.free_dimensions == 2
    assert size.covered == pytest.approx((0.2, 0, 0.15))
    assert 10**size.log10_volume == pytest.approx(0.03)
    assert [d.together for d in size.demands] == [1, 2]
    (nothing,) = plan_size(BoundsPlan.symmetric(0.0, 3), TRAFFIC)
    assert nothing.demands == () and nothing.log10_volume == 0


def test_each_segment_waits_for_its_own_traffic():
    plan = BoundsPlan(lower=(-0.1,), upper=(0.1,), segments={"new": Box(lower=(-0.3,), upper=(0.3,))})
    default, new = plan_size(plan, TRAFFIC, shares={"new": 0.25})
    assert new.demands[0].days == pytest.approx(3 * default.demands[0].days)
    assert new.demands[0].sessions == default.demands[0].sessions
    assert new.covered == pytest.approx((0.3,))
    assert BoxSize.model_validate_json(new.model_dump_json()) == new
    none, _ = plan_size(plan, TRAFFIC, shares={"new": 1.0})
    assert none.demands == ()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 0}, "k and cells of at least 1"),
        ({"confidence": 1.0}, "a confidence between 0 and 1"),
        ({"shares": {"old": 0.2}}, "the plan has no old"),
        ({"shares": {"new": 1.2}}, "add up to at most 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    plan = BoundsPlan(lower=(-0.1,), upper=(0.1,), segments={"new": Box(lower=(-0.3,), upper=(0.3,))})
    with pytest.raises(Refusal, match=sentence):
        plan_size(plan, TRAFFIC, **options)
