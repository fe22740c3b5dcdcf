"""CMA-ES with a generator of ours: the one place that imports `cma`."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def strategy(
    start: ArrayLike, step: float, normal: Callable[..., NDArray[np.float64]], **options: Any
) -> Any:
    """Returns a CMA-ES (Hansen, arXiv 1604.00772) around `start` [n] that minimises what it is told.

    `normal(*shape)` gives its standard normal draws; `options` are those of `cma`. It asks and tells, and does
    the same to the bit when it is asked and told the same again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not import matplotlib", UserWarning)
        import cma  # takes a second, and warns where its plots could not be drawn

    own = {"randn": normal, "seed": np.nan, "verbose": -9}  # NaN leaves numpy's global generator alone
    return cma.CMAEvolutionStrategy(np.asarray(start, np.float64), step, own | options)
