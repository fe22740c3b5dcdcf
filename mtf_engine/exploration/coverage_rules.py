"""The certificate's rules: what an explored log must hold exactly, or up to a fixed share of its rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.coverage_counts import CELLS, MOVED, CoverageCounts
from mtf_engine.spec import Spec

MIN_ROWS = 1_000
MAX_SHARE = 1e-3
"""Of a dimension's rows, at most this share may sit on a wall, lie outside the box, or be copies."""


class Check(Spec):
    """One question of the certificate. `figure` is compared with `threshold`; which way, `reason` says."""

    name: str
    passed: bool
    figure: float
    threshold: float
    reason: str = Field(description="one sentence, with the dimension that is worst")
    dimensions: tuple[str, ...] = Field(default=(), description="the dimensions that fail, or pairs of them")


class ExploredLog:
    """The counts of the dimensions that are free, as arrays."""

    def __init__(self, counts: CoverageCounts, names: Sequence[str]) -> None:
        self.counts = counts
        self.all_names = tuple(names)
        self.rows = counts.cells.sum(axis=1)
        free = np.flatnonzero(self.rows)
        self.names = tuple(np.array(names, object)[free])
        self.n = self.rows[free]
        self.cells = counts.cells[free]
        self.inside = self.cells[:, CELLS : 2 * CELLS]
        self.on_wall = np.asarray(counts.on_wall)[free]
        self.at_ends = np.asarray(counts.at_ends)[free]
        self.spread = np.asarray(counts.spread)[free]
        self.first = np.asarray(counts.first)[free]
        self.last = np.asarray(counts.last)[free]
        i, j = np.triu_indices(len(free), 1)
        self.pairs = counts.pair_cells[free[i], free[j]]  # [pairs, 5, 5]
        self.pair_names = tuple(f"{self.names[a]} and {self.names[b]}" for a, b in zip(i, j, strict=True))


def enough_rows(log: ExploredLog) -> Check:
    """Returns whether there are rows enough for the tests to see a defect."""
    n = log.counts.n_explored
    reason = f"{n:,} rows were explored; a certificate needs at least {MIN_ROWS:,}"
    return _check("rows", n, MIN_ROWS, n >= MIN_ROWS, reason)


def control_at_baseline(log: ExploredLog) -> Check:
    """Returns whether rows without a density are where the baseline policy put them."""
    moved, n = log.counts.control_moved, log.counts.n_control
    good = f"all {n:,} control rows are at the baseline action"
    bad = f"{moved:,} of {n:,} control rows are not at the baseline action: their density is not logged"
    return _check("control", moved, 0, moved == 0, bad if moved else good)


def constant_dimensions(log: ExploredLog) -> Check:
    """Returns whether every dimension whose box has a width moves in it."""
    if not len(log.n):
        return _check("constant", 0, MOVED, False, "every dimension's box has width 0: nothing is explored")
    stuck, worst = log.spread <= MOVED, int(log.spread.argmin())
    reason = (
        f"{log.names[worst]} never moves: its offsets or its actions span {log.spread[worst]:.3g}"
        if stuck.any()
        else f"every dimension moves, least of all {log.names[worst]}, over {log.spread[worst]:.3g}"
    )
    return _check("constant", log.spread[worst], MOVED, not stuck.any(), reason, named(log.names, stuck))


def declared_bounds(log: ExploredLog) -> Check:
    """Returns whether the logged bounds are those of the declared plan, resolved for each row."""
    if log.counts.undeclared is None:
        return _check("declared", 0, 0, True, "the log declares no plan, so its own bounds stand")
    share = np.asarray(log.counts.undeclared) / log.counts.n_requests
    worst, bad = int(share.argmax()), share > 0
    reason = (
        f"{log.all_names[worst]}: {share[worst]:.1%} of the rows carry other bounds than the declared plan"
        if bad.any()
        else "every row carries the bounds of the declared plan"
    )
    return _check("declared", share[worst], 0, not bad.any(), reason, named(log.all_names, bad))


def clipping(log: ExploredLog) -> Check:
    """Returns whether draws pile up on a wall of the box or the action space, or at their ends."""
    rows = log.counts.n_clipped / log.counts.n_explored
    share = np.maximum(log.on_wall, log.at_ends - 2) / log.n  # two draws are always outermost
    bad = share > MAX_SHARE
    figure = max(rows, share.max(initial=0))
    if bad.any():
        worst = int(share.argmax())
        where = "on a wall" if log.on_wall[worst] >= log.at_ends[worst] else "at their outermost offset"
        reason = f"{log.names[worst]}: {share[worst]:.1%} of the draws sit exactly {where}: they were clipped"
    elif rows > MAX_SHARE:
        reason = f"{rows:.1%} of the rows were clipped: their density is not that of their action"
    else:
        reason = f"at most {figure:.2%} of the draws were clipped or sit on a wall"
    return _check("clipping", figure, MAX_SHARE, figure <= MAX_SHARE, reason, named(log.names, bad))


def duplicates(log: ExploredLog) -> Check:
    """Returns whether the rows are draws of their own."""
    share = log.counts.n_duplicates / log.counts.n_explored
    reason = f"{log.counts.n_duplicates:,} rows ({share:.2%}) repeat the action of another row"
    return _check("duplicates", share, MAX_SHARE, share <= MAX_SHARE, reason)


def outside(log: ExploredLog) -> Check:
    """Returns whether the draws lie inside the logged bounds."""
    share = 1 - log.inside.sum(axis=1) / log.n
    bad = share > MAX_SHARE
    worst = int(share.argmax()) if len(share) else 0
    reason = (
        f"{log.names[worst]}: {share[worst]:.1%} of the draws lie outside the logged bounds"
        if bad.any()
        else "the draws lie inside the logged bounds"
    )
    return _check("outside", share.max(initial=0), MAX_SHARE, not bad.any(), reason, named(log.names, bad))


def _check(
    name: str, figure: float, threshold: float, passed: bool, reason: str, dimensions: tuple[str, ...] = ()
) -> Check:
    return Check(
        name=name,
        passed=bool(passed),
        figure=float(figure),
        threshold=threshold,
        reason=reason,
        dimensions=dimensions,
    )


def named(units: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    """Returns the `units` that are `chosen`, each once."""
    return tuple(dict.fromkeys(unit for unit, bad in zip(units, chosen, strict=True) if bad))
