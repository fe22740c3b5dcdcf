"""Slopes told best for what they cost: the closed forms against a numerical optimiser, and what no box can beat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mtf_engine.exploration.spending import cheapest, cost, information, most_telling
from mtf_engine.spec import Refusal
from tests.searching import examples


@st.composite
def markets(draw, least=1):
    """Rates, curvatures and caps of some dimensions; a curvature may be 0."""
    d = draw(st.integers(least, 6))
    rates = np.array(draw(st.lists(st.floats(1, 100), min_size=d, max_size=d)))
    costs = np.array(draw(st.lists(st.just(0.0) | st.floats(0.01, 10), min_size=d, max_size=d)))
    most = np.array(draw(st.lists(st.floats(0.01, 0.06), min_size=d, max_size=d)))
    return rates, costs, most


shares = st.floats(0.02, 1)


def oracle(objective, bound, most):
    """Returns the least of `objective` over v in (0, most] with `bound(v) >= 0`, by SLSQP from several starts."""
    tried = [
        minimize(
            lambda x: objective(most * x),
            np.full(len(most), start),
            method="SLSQP",
            bounds=[(1e-4, 1)] * len(most),
            constraints={"type": "ineq", "fun": lambda x: bound(most * x)},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        for start in (0.1, 0.5, 1.0)
    ]
    return min(one.fun for one in tried if bound(most * one.x) > -1e-7)


@examples(40)
@given(markets(), shares)
def test_no_box_of_the_same_information_costs_less(market, share):
    rates, costs, most = market
    wished = share * information(rates, most)
    found = cheapest(rates, costs, most, wished)
    assert (found > 0).all() and (found <= most).all()
    assert information(rates, found) >= wished * (1 - 1e-9)
    scale = cost(costs, most) or 1.0
    least = oracle(lambda v: cost(costs, v) / scale, lambda v: 1 - wished * np.mean(1 / (rates * v)), most)
    assert cost(costs, found) / scale == pytest.approx(least, abs=2e-5)


@examples(40)
@given(markets(), shares)
def test_no_box_of_the_same_cost_tells_more(market, share):
    rates, costs, most = market
    allowed = share * cost(costs, most)
    found = most_telling(rates, costs, most, allowed)
    assert (found > 0).all() and (found <= most).all()
    assert cost(costs, found) <= allowed * (1 + 1e-9)
    scale, unit = cost(costs, most) or 1.0, information(rates, most)
    least = oracle(
        lambda v: np.log(unit * np.mean(1 / (rates * v))),
        lambda v: (allowed - cost(costs, v)) / scale + 1e-9,
        most,
    )
    assert np.log(unit / information(rates, found)) == pytest.approx(least, abs=2e-5)


@settings(deadline=None)
@given(markets(), shares, st.booleans())
def test_the_two_questions_have_one_answer(market, share, each):
    rates, costs, most = market
    wished = share * information(rates, most, each)
    found = cheapest(rates, costs, most, wished, each)
    if costs.any():
        again = most_telling(rates, costs, most, cost(costs, found), each)
        assert information(rates, again, each) == pytest.approx(wished, rel=1e-6)


@given(markets(least=2))
def test_while_no_cap_is_met_every_slopes_error_and_cost_are_balanced(market):
    rates, costs, most = market
    costs = costs + 0.01
    found = cheapest(rates, costs, most, 1e-3 * information(rates, most))
    assert np.ptp(np.log(found * np.sqrt(costs * rates))) < 1e-6


@given(markets(), shares)
def test_with_each_all_errors_are_one(market, share):
    rates, costs, most = market
    found = cheapest(rates, costs, most, share * information(rates, most, each=True), each=True)
    assert np.ptp(np.log(rates * found)) < 1e-6 and (found <= most).all()


def test_two_dimensions_by_hand():
    """k = (1, 4), r = (1, 1): v in proportion 2 to 1; mean of 1/v = (1/2 + 1) / 2 at v = (2, 1)."""
    rates, costs, wide = np.ones(2), np.array([1.0, 4.0]), np.full(2, 9.0)
    assert cheapest(rates, costs, wide, 4 / 3) == pytest.approx([2, 1])
    assert most_telling(rates, costs, wide, 3.0) == pytest.approx([2, 1])
    capped = cheapest(rates, costs, np.array([1.0, 9.0]), 4 / 3)  # 1/v_2 = 1.5 - 1
    assert capped == pytest.approx([1, 2])


def test_a_dimension_that_costs_nothing_is_explored_as_far_as_allowed():
    found = most_telling(np.ones(3), np.array([0.0, 1.0, 1.0]), np.full(3, 0.05), 0.01)
    assert found == pytest.approx([0.05, 0.01, 0.01])


def test_more_than_the_widest_box_tells_is_refused_with_what_it_would_take():
    with pytest.raises(Refusal, match=r"give 4 times the sessions"):
        cheapest(np.ones(2), np.ones(2), np.full(2, 0.05), 0.2)
