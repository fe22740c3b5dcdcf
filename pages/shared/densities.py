"""Exploration density as the frames and words that charts and tables show: the five named definitions."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mtf_engine.exploration.density import log_density_efficiency_box, log_mixture_efficiency_box
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.spec import Box
from pages.shared.words import power_of_ten


class Definition(NamedTuple):
    """One meaning of "for the same density, how many samples of Gaussian noise for one uniform one"."""

    title: str
    meaning: str
    formula: str


DEFINITIONS = {
    "centre": Definition(
        "centre",
        "the densities compared at the baseline action, where the Gaussian is densest",
        r"\sqrt{2\pi}\,\sigma / 2h",
    ),
    "mean": Definition(
        "mean",
        "the mean densities in the box compared: 1 / (the Gaussian's mass in it)",
        r"1 / (2\Phi(h/\sigma) - 1)",
    ),
    "min": Definition(
        "corner",
        "the densities compared in the box's farthest corner, where the Gaussian is thinnest",
        r"\sqrt{2\pi}\,\sigma\,e^{h^2/2\sigma^2} / 2h",
    ),
    "cells(5)": Definition(
        "5 cells",
        "samples until each cell of a grid of 5 cells a dimension holds many",
        r"\tfrac15 / (\Phi(h/\sigma) - \Phi(\tfrac35 h/\sigma))",
    ),
    "range(1.5)": Definition(
        "range",
        "the volume of ±1.5 sigma over that of the box; with sigma 0.2, half width 0.15 and 10 dimensions "
        "this is the 2^10 that the paper prints",
        r"1.5\,\sigma / h",
    ),
}
"""The definitions by the engine's key, in the order they are shown; formulas are per dimension."""
MEANINGS = {key: f"Power of 2; {definition.meaning}." for key, definition in DEFINITIONS.items()}
"""What the columns of the curves' frames say."""
GRID = 60
"""Points of a curve."""


def times(log: float) -> str:
    """Returns how many samples e^`log` are, in words short enough for a tile."""
    if log < math.log(99_999):
        return f"{math.exp(log):,.0f} ×" if log > math.log(20) else f"{math.exp(log):.3g} ×"
    if log < math.log(999_499):
        return f"{math.exp(log) / 1_000:.0f} k ×"
    power = math.floor((log - math.log(9.95)) / math.log(10)) + 1  # 9.95 and above is said as 1.0 of the next
    return f"{math.exp(log - power * math.log(10)):.1f} · {power_of_ten(power)} ×"


def efficiency(box: Box, sigma: float, mixture: Mixture | None = None) -> pd.DataFrame:
    """Returns one row a definition: samples of Gaussian noise, or of `mixture`, for one uniform sample in `box`."""
    logs = _logs(box.lower, box.upper, sigma, mixture)
    return pd.DataFrame(
        {
            "definition": key,
            "samples": times(logs[key]),
            "log2": logs[key] / math.log(2),
            "meaning": definition.meaning,
        }
        for key, definition in DEFINITIONS.items()
    )


def efficiency_over_sigma(box: Box, sigmas: np.ndarray, mixture: Mixture | None = None) -> pd.DataFrame:
    """Returns log2 of each definition's efficiency, one row a sigma."""
    rows = [_logs(box.lower, box.upper, sigma, mixture) for sigma in sigmas]
    return _curves("sigma", sigmas, rows)


def efficiency_over_half_width(
    half_widths: np.ndarray, sigma: float, dims: int, mixture: Mixture | None = None
) -> pd.DataFrame:
    """Returns log2 of each definition's efficiency, one row a half width."""
    edges = [np.full(dims, h) for h in half_widths]
    return _curves("half width", half_widths, [_logs(-e, e, sigma, mixture) for e in edges])


def efficiency_over_dims(
    half_width: float, sigma: float, dims: np.ndarray, mixture: Mixture | None = None
) -> pd.DataFrame:
    """Returns log2 of each definition's efficiency, one row a number of dimensions."""
    edges = [np.full(d, half_width) for d in dims]
    return _curves("dimensions", dims, [_logs(-e, e, sigma, mixture) for e in edges])


def _logs(lower: Any, upper: Any, sigma: float, mixture: Mixture | None) -> dict[str, float]:
    """Returns the log of each definition's efficiency; a mixture's own sigma gives way to `sigma`."""
    if mixture is None:
        return log_density_efficiency_box(lower, upper, sigma)
    return log_mixture_efficiency_box(lower, upper, mixture.model_copy(update={"sigma": float(sigma)}))


def _curves(name: str, values: np.ndarray, rows: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame({name: values, **{key: [r[key] / math.log(2) for r in rows] for key in DEFINITIONS}})
