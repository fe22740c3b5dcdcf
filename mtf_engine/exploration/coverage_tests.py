"""The certificate's tests: what chance alone would hardly make of an explored log."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, chdtrc, ndtr

from mtf_engine.exploration.coverage_counts import CELLS, PAIR_CELLS
from mtf_engine.exploration.coverage_rules import Check, ExploredLog, named

ALPHA = 1e-3
"""Chance that an evenly explored log fails any of the tests."""
N_TESTS = 6
GAP = 0.5
"""A cell below this share of its even count, between two that are not, is a gap."""


def gaps(log: ExploredLog) -> Check:
    """Returns whether no cell between two filled ones is nearly empty: a binomial tail for each cell."""
    even = log.inside.sum(axis=1, keepdims=True) / CELLS
    low = log.inside < GAP * even
    full = ~low
    between = np.logical_or.accumulate(full, 1) & np.logical_or.accumulate(full[:, ::-1], 1)[:, ::-1]
    p = np.where(low & between, bdtr(log.inside, log.inside.sum(axis=1, keepdims=True), 1 / CELLS), 1)

    def describe(unit: int) -> str:
        name, cell = log.names[unit // CELLS], unit % CELLS
        held = log.inside.flat[unit] / even[unit // CELLS, 0]
        return (
            f"{name} has a gap: between {cell / CELLS:.0%} and {(cell + 1) / CELLS:.0%} of the way from "
            f"lower to upper lie {held:.0%} of the draws expected"
        )

    units = tuple(np.repeat(log.names, CELLS).tolist())
    return _test("gaps", p.ravel(), units, describe, "no stretch inside a box is empty")


def shift(log: ExploredLog) -> Check:
    """Returns whether the mean lies at the centre of the box: a z-test on the cells' centres."""
    centres = (np.arange(-CELLS, 2 * CELLS) + 0.5) / CELLS
    mean = log.cells @ centres / log.n
    variance = np.maximum(log.cells @ centres**2 / log.n - mean**2, 1e-9)
    p = 2 * ndtr(-np.abs(mean - 0.5) / np.sqrt(variance / log.n))

    def describe(unit: int) -> str:
        side = "above" if mean[unit] > 0.5 else "below"
        distance = f"{abs(mean[unit] - 0.5):.1%} of a width {side} the box's centre"
        return f"{log.names[unit]} is shifted: its mean lies {distance}"

    return _test("shift", p, log.names, describe, "the mean of every dimension lies at its box's centre")


def uniformity(log: ExploredLog) -> Check:
    """Returns whether the density is even over the range that was drawn: chi-square over its cells."""
    drawn = [_drawn_cells(cells) for cells in log.cells]
    statistic = [((c - c.mean()) ** 2).sum() / c.mean() if len(c) > 1 else 0.0 for c in drawn]
    p = chdtrc([max(len(c) - 1, 1) for c in drawn], statistic)

    def describe(unit: int) -> str:
        cells = drawn[unit] / drawn[unit].mean()
        third = len(cells) // 3
        middle, ends = cells[third:-third].mean(), np.r_[cells[:third], cells[-third:]].mean()
        shape = "thinner at the ends" if middle > ends else "thicker at the ends"
        return (
            f"{log.names[unit]} is not uniform but {shape}: of {len(cells)} equal cells the fullest holds "
            f"{cells.max():.2f} times the mean, the emptiest {cells.min():.2f}"
        )

    return _test(
        "uniformity", p, log.names, describe, "every dimension is as dense in one place as in another"
    )


def _drawn_cells(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the cells between the outermost draws, less an end that is no wall: it is filled in part."""
    occupied = np.flatnonzero(cells)
    first, last = int(occupied[0]), int(occupied[-1])
    return cells[first + (first != CELLS) : last + (last == 2 * CELLS - 1)]


def reach(log: ExploredLog) -> Check:
    """Returns whether the outermost draws come as near to the walls as `n` uniform draws do."""
    distance = np.clip([log.first, 1 - log.last], 0, 1)  # [2, d]
    p = np.exp(log.n * np.log1p(-np.minimum(distance, 1 - 1e-9)))

    def describe(unit: int) -> str:
        wall, i = divmod(unit, len(log.names))
        return (
            f"{log.names[i]} stops short: no draw comes nearer to its {('lower', 'upper')[wall]} wall than "
            f"{distance[wall, i]:.1%} of the width"
        )

    return _test("reach", p.ravel(), log.names * 2, describe, "the draws of every dimension reach both walls")


def dependence(log: ExploredLog) -> Check:
    """Returns whether no two dimensions are correlated, nor their squared distances from the centre."""
    line = np.arange(PAIR_CELLS) - PAIR_CELLS // 2
    scores = np.stack([line, line**2])  # moving together; straying together
    n = np.maximum(log.pairs.sum(axis=(1, 2)), 1)[:, None]
    rows, columns = log.pairs.sum(axis=2), log.pairs.sum(axis=1)
    mean = np.stack([rows @ scores.T, columns @ scores.T]) / n  # [2, pairs, 2]
    variance = np.stack([rows @ scores.T**2, columns @ scores.T**2]) / n - mean**2
    product = np.einsum("sa,pab,sb->ps", scores, log.pairs, scores) / n
    correlation = (product - mean.prod(axis=0)) / np.sqrt(np.maximum(variance.prod(axis=0), 1e-9))
    p = 2 * ndtr(-np.abs(correlation) * np.sqrt(n))  # [pairs, 2]

    def describe(unit: int) -> str:
        what = ("positions", "squared distances from the centre")[unit % 2]
        return f"the {what} of {log.pair_names[unit // 2]} are correlated, {correlation.flat[unit]:+.3f}"

    units = tuple(np.repeat(log.pair_names, 2).tolist())
    return _test(
        "dependence", p.ravel(), units, describe, "no two dimensions are correlated, nor their squares"
    )


def pairs(log: ExploredLog) -> Check:
    """Returns whether the 5 x 5 cells of every two dimensions are those of independence: chi-square."""
    n = log.pairs.sum(axis=(1, 2), keepdims=True)
    expected = log.pairs.sum(axis=2, keepdims=True) * log.pairs.sum(axis=1, keepdims=True) / np.maximum(n, 1)
    some = np.maximum(expected, 1e-9)
    statistic = ((log.pairs - expected) ** 2 / some).sum(axis=(1, 2))
    used = [(log.pairs.sum(axis=axis) > 0).sum(axis=1) - 1 for axis in (1, 2)]
    p = chdtrc(np.maximum(used[0] * used[1], 1), statistic)

    def describe(unit: int) -> str:
        ratio = (log.pairs[unit] / some[unit])[expected[unit] > 0]
        return (
            f"{log.pair_names[unit]} are not independent: of {PAIR_CELLS} x {PAIR_CELLS} cells the emptiest "
            f"holds {ratio.min():.0%} of its due, the fullest {ratio.max():.0%}"
        )

    return _test(
        "pairs",
        p,
        log.pair_names,
        describe,
        "the cells of every two dimensions are as full as their margins say",
    )


def _test(
    name: str, p_values: NDArray[np.float64], units: Sequence[str], describe: Callable[[int], str], good: str
) -> Check:
    """Returns the check that rejects where a p-value, corrected by Holm over `units`, is below its level."""
    level = ALPHA / N_TESTS
    if not len(p_values):
        return Check(name=name, passed=True, figure=1, threshold=level, reason=good)
    corrected = _holm(p_values)
    failing, worst = corrected < level, int(corrected.argmin())
    return Check(
        name=name,
        passed=not failing.any(),
        figure=float(corrected[worst]),
        threshold=level,
        reason=f"{describe(worst)} (p = {corrected[worst]:.1e})" if failing.any() else good,
        dimensions=named(units, failing),
    )


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
