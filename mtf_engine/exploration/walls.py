"""When an action is at the wall of its bounds: the one definition, for all who count it."""

import numpy as np
from numpy.typing import NDArray

AT_WALL = 0.02
"""Within this share of the width of a bound, or beyond it, an action is at the wall."""


def at_wall(offsets: NDArray, lower: NDArray, upper: NDArray) -> NDArray[np.bool_]:
    """Returns whether each offset from the baseline action is at a wall of its bounds; all of one shape.

    A dimension of width 0 has no wall.
    """
    width = upper - lower
    return (np.minimum(offsets - lower, upper - offsets) <= AT_WALL * width) & (width > 0)
