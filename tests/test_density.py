"""Exploration-density efficiency: the stated digits, Monte Carlo, and numerical integration over any box."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.integrate import quad

from mtf_engine.exploration import density_efficiency
from mtf_engine.exploration.density import (
    density_efficiency_box,
    log_density_efficiency_box,
    log_mixture_efficiency_box,
)
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.spec import BoundsPlan, Refusal
from tests.searching import examples

H, S, D = 0.15, 0.2, 10


def test_the_five_definitions_at_the_paper_s_box():
    expected = {
        "centre": 169.8192,
        "mean": 418.9377,
        "min": 2827.743,
        "cells(5)": 1052.288,
        "range(1.5)": 1024.0,
    }
    assert density_efficiency(H, S, D) == pytest.approx(expected, rel=1e-6)


def test_one_dimension_worked_by_hand():
    # The box is +-1 sigma, of mass .682689; its outermost fifths, .6 to 1 sigma, hold .115598 each.
    result = density_efficiency(half_width=2, sigma=2, dims=1)
    assert result["centre"] == pytest.approx(math.sqrt(2 * math.pi) / 2)
    assert result["mean"] == pytest.approx(1 / 0.682689, rel=1e-6)
    assert result["min"] == pytest.approx(math.sqrt(2 * math.pi) / 2 * math.exp(1 / 2))
    assert result["cells(5)"] == pytest.approx(0.2 / 0.115598, rel=1e-5)
    assert result["range(1.5)"] == pytest.approx(1.5)


def test_monte_carlo_confirms_the_mean_and_the_range_in_ten_dimensions():
    generator = np.random.default_rng(0)
    inside = (
        np.abs(
            generator.normal(
                0,
                S,
                (1_500_000, D),
            )
        )
        <= H
    )
    assert 1 / inside.all(1).mean() == pytest.approx(density_efficiency(H, S, D)["mean"], rel=0.06)
    reach = np.abs(generator.uniform(-1.5 * S, 1.5 * S, (1_500_000, D))) <= H
    assert 1 / reach.all(1).mean() == pytest.approx(density_efficiency(H, S, D)["range(1.5)"], rel=0.1)


@pytest.mark.parametrize(("name", "at"), [("centre", 0.0), ("min", H)])
def test_monte_carlo_confirms_the_density_at_a_point(name, at):
    draws = np.random.default_rng(1).normal(0, S, (D, 1_500_000))
    window = 0.01
    gaussian = (np.abs(draws - at) < window / 2).mean(1) / window  # one estimate a dimension
    assert np.prod(1 / (2 * H) / gaussian) == pytest.approx(density_efficiency(H, S, D)[name], rel=0.06)


@pytest.mark.parametrize(("lower", "upper"), [((-H, -H), (H, H)), ((-0.05, -0.3), (0.2, 0.1))])
def test_monte_carlo_confirms_the_samples_until_each_cell_is_full(lower, upper):
    k, cells = 20_000, 3

    def samples_needed(draws):
        cell = np.floor((draws - lower) / np.subtract(upper, lower) * cells).astype(int)
        flat = np.where(((cell >= 0) & (cell < cells)).all(1), cell @ [cells, 1], -1)
        return max(np.flatnonzero(flat == c)[k - 1] for c in range(cells**2))

    generator = np.random.default_rng(2)
    ratio = samples_needed(generator.normal(0, S, (2_500_000, 2))) / samples_needed(
        generator.uniform(lower, upper, (400_000, 2))
    )
    expected = density_efficiency_box(lower, upper, S, cells=cells)["cells(3)"]
    assert ratio == pytest.approx(expected, rel=0.04)


def integrated(lower, upper, sigma, cells, z):
    """Returns the definitions by quadrature and by search over a fine grid, dimension after dimension."""
    result = dict.fromkeys(("centre", "mean", "min", f"cells({cells})", f"range({z:g})"), 1.0)

    def density(x):
        return math.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))

    def mass(a, b):
        return quad(density, a, b, epsabs=0, epsrel=1e-11)[0]

    for low, high in zip(lower, upper, strict=True):
        densities = [density(x) for x in (*np.linspace(low, high, 101), 0.0 if low < 0 < high else low)]
        edges = np.linspace(low, high, cells + 1)
        uniform = 1 / (high - low)
        result["centre"] *= uniform / max(densities)
        result["mean"] *= 1 / mass(low, high)
        result["min"] *= uniform / min(densities)
        result[f"cells({cells})"] *= (1 / cells) / min(mass(a, b) for a, b in pairwise(edges))
        result[f"range({z:g})"] *= 2 * z * sigma * uniform
    return result


@pytest.mark.parametrize("box", [((-H, -H), (H, H)), ((-0.05, -0.3), (0.2, 0.1)), ((-0.1, 0), (0.3, 0))])
def test_a_mixture_s_definitions_are_those_of_its_own_density_on_a_grid(box):
    mixture, cells = Mixture(sigma=0.15, random_share=0.3, random_sigma=0.7), 3
    found = log_mixture_efficiency_box(*box, mixture, cells=cells, z=1.6)
    edges = [np.linspace(low, high, 30 * cells + 1) for low, high in zip(*box, strict=True) if low < high]
    middles = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), axis=-1)
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1)

    def density(points):
        flat = points.reshape(-1, len(edges))
        return mixture.density(np.zeros_like(flat), flat, np.ones(flat.shape, bool)).reshape(
            points.shape[:-1]
        )

    volume = np.prod([e[-1] - e[0] for e in edges])
    inside = density(middles) * volume / middles[..., 0].size
    for axis in range(len(edges)):
        inside = np.add.reduceat(inside, np.arange(0, inside.shape[axis], 30), axis=axis)
    nearest = density(np.array([np.clip(0, e[0], e[-1]) for e in edges]))
    boxes = [volume / (2 * min(reach, 1)) ** len(edges) for reach in (1.6 * 0.15, 1.6 * 0.7)]
    expected = {
        "centre": 1 / volume / nearest,
        "mean": 1 / inside.sum(),
        "min": 1 / volume / density(corners).min(),
        "cells(3)": cells ** -len(edges) / inside.min(),
        "range(1.6)": 1 / (0.7 * boxes[0] + 0.3 * boxes[1]),
    }
    assert {name: math.exp(log) for name, log in found.items()} == pytest.approx(expected, rel=2e-3)


asymmetric = st.lists(st.tuples(st.floats(-0.6, 0.6), st.floats(0.01, 0.6)), min_size=1, max_size=4).map(
    lambda sides: (np.array([low for low, _ in sides]), np.array([low + width for low, width in sides]))
)


@st.composite
def cut(draw):
    """Boxes of a plan around a baseline action near the edge of the action space, cut there."""
    baseline = draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=4))
    plan = BoundsPlan.symmetric(draw(st.floats(0.02, 0.6)), len(baseline))
    lower, upper = plan.resolve(np.float32([baseline]), np.array(["any"]))
    return lower[0].astype(float), upper[0].astype(float)


@examples(300)
@given(
    box=st.one_of(asymmetric, cut()),
    sigma=st.floats(0.1, 0.5),
    cells=st.integers(1, 7),
    z=st.sampled_from([1.0, 1.5, 3.0]),
)
@example(box=(np.array([0.3]), np.array([0.4])), sigma=0.1, cells=5, z=1.5)
@example(box=(np.array([-0.15, -0.15]), np.array([0.15, 0.0])), sigma=0.2, cells=5, z=1.5)
def test_numerical_integration_agrees_over_asymmetric_and_cut_boxes(box, sigma, cells, z):
    assume((box[1] > box[0]).all())
    expected = integrated(*box, sigma, cells, z)
    result = density_efficiency_box(*box, sigma, cells=cells, z=z)
    assert result == pytest.approx(expected, rel=1e-8)
    ordered = [result[name] for name in ("centre", "mean", f"cells({cells})", "min")]
    assert ordered == sorted(ordered) or np.allclose(np.diff(ordered).clip(max=0), 0, atol=1e-9 * ordered[-1])


def test_a_fixed_dimension_does_not_count():
    with_fixed = density_efficiency_box([-H, 0.1, -H], [H, 0.1, H], S)
    assert with_fixed == pytest.approx(density_efficiency(H, S, 2))


def test_each_dimension_may_have_its_own_sigma():
    result = density_efficiency_box([-H, -H], [H, H], [0.2, 0.4])
    one, two = density_efficiency(H, 0.2, 1), density_efficiency(H, 0.4, 1)
    assert result == pytest.approx({name: one[name] * two[name] for name in one})


def test_far_and_wide_boxes_have_logarithms_and_no_overflow():
    logs = log_density_efficiency_box([8.0] * 10, [10.0] * 10, 0.2)
    assert logs["centre"] == pytest.approx(10 * (math.log(math.sqrt(2 * math.pi) * 0.2 / 2) + 40**2 / 2))
    assert logs["centre"] < logs["mean"] < logs["cells(5)"] < logs["min"]
    with pytest.raises(Refusal, match="exceeds 1e308"):
        density_efficiency_box([8.0] * 10, [10.0] * 10, 0.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"half_width": 0.0}, "a half width of 0 is no box"),
        ({"half_width": math.nan}, "a half width of nan is no box"),
        ({"sigma": -1.0}, "a sigma of -1 is no noise"),
        ({"dims": 0}, "0 dimensions cannot be explored"),
        ({"cells": 0}, "need at least 1 cell"),
    ],
)
def test_what_is_no_box_and_no_noise_is_refused(arguments, sentence):
    with pytest.raises(Refusal, match=sentence):
        density_efficiency(**arguments)


def test_a_box_upside_down_is_refused():
    with pytest.raises(Refusal, match=r"dimension 1 runs from 0.2 to -0.1; give lower <= upper"):
        density_efficiency_box([-0.1, 0.2], [0.1, -0.1], S)
