"""The curves that the dashboard draws are what training computes."""

import numpy as np
import pytest

from mtf_engine.learning.penalty_curves import actor_curves, critic_curves
from mtf_engine.spec import Refusal

OFFSETS = np.linspace(-0.5, 0.5, 201) + 1e-4
BOX = (-0.1, 0.2)
BETA = 0.3


def excess(offsets: np.ndarray) -> np.ndarray:
    low, high = BOX
    return np.maximum(np.maximum(low - offsets, offsets - high), 0) / (BETA * (high - low))


def test_the_bounds_penalty_follows_formula_5_and_its_repairs():
    x = excess(OFFSETS)
    curves = actor_curves(OFFSETS, *BOX, beta=BETA, eta=1.2)
    expected = {
        "expm1": np.expm1(x),
        "exp": np.where(x > 0, np.exp(x), 0),
        "linear": x,
        "printed": np.where(x > 0, np.exp(-x), 0),
    }
    assert set(curves) == set(expected)
    for form, value in expected.items():
        near = x < 5
        assert curves[form].value[near] == pytest.approx(1.2 * value[near], abs=1e-5), form


def test_a_critic_learns_less_of_what_leaves_the_bounds():
    x = excess(OFFSETS)
    near = x < 5
    for q in (3.0, -3.0):
        curves = critic_curves(OFFSETS, *BOX, beta=BETA, delta=0.5, q=q)
        assert curves["target"].value[near] == pytest.approx((q - 0.5 * np.expm1(x))[near], abs=1e-5)
        assert curves["decay"].value == pytest.approx(q - (1 - np.exp(-x)) * abs(q), abs=1e-5)
        assert curves["printed"].value == pytest.approx(q)
        assert not curves["printed"].gradient.any()


def test_gradients_are_those_of_the_values():
    curves = {**actor_curves(OFFSETS, *BOX, beta=BETA, eta=1.2)} | {
        f"critic {form}": curve
        for form, curve in critic_curves(OFFSETS, *BOX, beta=BETA, delta=1.0, q=2.0).items()
    }
    smooth = np.abs(OFFSETS[:, None] - BOX).min(axis=1) > 0.02
    for form, curve in curves.items():
        numeric = np.gradient(curve.value, OFFSETS)
        scale = np.abs(curve.gradient).max() + 1
        assert np.abs(numeric - curve.gradient)[smooth][1:-1].max() < 0.02 * scale, form


def test_every_form_but_the_printed_one_pulls_an_action_back():
    outside = BOX[1] + 0.01 < OFFSETS
    for form, curve in actor_curves(OFFSETS, *BOX, beta=BETA, eta=1.2).items():
        assert (np.sign(curve.gradient[outside]) == (-1 if form == "printed" else 1)).all(), form


def test_a_fixed_dimension_has_no_curve():
    with pytest.raises(Refusal, match="has no width"):
        actor_curves(OFFSETS, 0.1, 0.1, beta=BETA, eta=1)
