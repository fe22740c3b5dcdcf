"""One definition of an action at the wall of its bounds: who counts it counts the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtf_engine.evaluation.deviation import deviation
from mtf_engine.exploration.wall_pressure import wall_pressure
from mtf_engine.exploration.walls import AT_WALL, at_wall
from mtf_engine.learning.watch import is_at_wall
from mtf_engine.release import rounds
from mtf_engine.spec import BoundsPlan

LOWER, UPPER = -0.2, 0.3
NEAR = AT_WALL * (UPPER - LOWER)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0.0, False),
        (UPPER - 2 * NEAR, False),
        (UPPER - NEAR / 2, True),
        (UPPER, True),
        (UPPER * 1.3, True),
        (LOWER + 2 * NEAR, False),
        (LOWER + NEAR / 2, True),
        (LOWER * 5, True),
    ],
)
def test_at_the_wall_is_near_it_or_beyond(offset, expected):
    assert at_wall(*np.array([[offset], [LOWER], [UPPER]])) == expected
    assert not at_wall(*np.array([[offset], [0.1], [0.1]])), "a fixed dimension has no wall"


@given(arrays.arrays(np.float32, (40, 1), elements=st.floats(-0.5, 0.5, width=32)))
def test_whoever_counts_it_counts_the_same(offsets):
    inside = (
        np.abs(np.minimum(offsets - LOWER, UPPER - offsets) - NEAR) > 1e-5
    )  # but for float32's last digit
    offsets = offsets[inside][:, None]
    if not len(offsets):
        return
    lower, upper = np.full_like(offsets, LOWER), np.full_like(offsets, UPPER)
    expected = at_wall(offsets, lower, upper).mean()
    baseline = np.zeros_like(offsets)
    (dimension,) = deviation(("pow_click",), offsets, baseline, (lower, upper)).dimensions
    assert dimension.bounds is not None and dimension.bounds.share_at_wall == pytest.approx(expected)
    assert rounds._share_at_wall(offsets, lower, upper) == pytest.approx(expected)
    plan = BoundsPlan(lower=(LOWER,), upper=(UPPER,))
    (row,) = wall_pressure(plan, offsets, baseline, np.full(len(offsets), "all"), ("pow_click",)).rows
    assert row.below + row.at_lower + row.at_upper + row.above == pytest.approx(expected)
    relative = torch.as_tensor((offsets - (LOWER + UPPER) / 2) / ((UPPER - LOWER) / 2))
    assert is_at_wall(relative).float().mean() == pytest.approx(expected)
