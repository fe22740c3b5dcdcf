"""What a comparison comes to: the factorial's effects, how well the log's score ranks, and the paper's tables.

Every figure is taken within a seed, then averaged; its 95 % interval is Student's t over seeds. In the session
environment a seed has users of its own, so what users differ by is in that interval; replayed users are the same
for all seeds, and it is not. One seed alone has none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from mtf_engine.evaluation.abtest import student
from mtf_engine.spec import Spec
from mtf_engine.study.comparison import ROUNDS, Cell

GAUC = "weighted_gauc"
METRICS = (GAUC, "valid_consumption", "duration_time", "session_reward", "return", "length")
"""Weighted GAUC on the test log; the others relative to the baseline, by A/B test; two are of what shows nothing."""
FEWEST_RANKED = 3

Values = dict[tuple[str, str], dict[int, float]]
"""By method and dataset, the value of each seed."""


class OverSeeds(Spec):
    """The mean over seeds with its 95 % interval and p-value against 0, which one seed alone does not have."""

    value: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    by_seed: dict[int, float]


def over_seeds(by_seed: Mapping[int, float]) -> OverSeeds | None:
    """Returns the mean of one value a seed with Student's interval; None of no seed."""
    values = np.array(list(by_seed.values()))
    if not len(values):
        return None
    mean = float(values.mean())
    none = dict.fromkeys(("ci_low", "ci_high", "p_value"))
    return OverSeeds(
        value=mean, by_seed=dict(by_seed), **(student(mean, values) if len(values) > 1 else none)
    )


def values_of(cells: Iterable[Cell], metric: str) -> Values:
    """Returns what is known of `metric`, in cells with the methods' own number of critics."""
    found: Values = {}
    for cell in cells:
        value = cell.value(metric)
        if value is not None and cell.n_critics is None:
            found.setdefault((cell.method, cell.dataset), {})[cell.seed] = value
    return found


class FactorialEffect(Spec):
    """What one method, one dataset, one pairing of both or own rounds add; None where it is of all of them."""

    of: Literal["data", "method", "both", "rounds"]
    method: str | None
    dataset: str | None
    found: OverSeeds


class Factorial(Spec):
    """The two-way decomposition of a factorial, and what it leaves out.

    A method's effect is its mean over datasets minus the mean of all, a dataset's likewise over methods, that of
    both what a cell has beyond their sum. `shares` are the parts of the variance among cells, the mean over
    seeds of each cell: what seeds differ by is in them too, most of all in that of both. `left_out` are
    methods without a value in some cell.
    """

    metric: str
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    grand_mean: OverSeeds | None
    effects: tuple[FactorialEffect, ...]
    shares: dict[str, float]
    left_out: tuple[str, ...]


def factorial(cells: Sequence[Cell], metric: str) -> Factorial:
    """Returns the effects on `metric` in the cells of methods that have one for every dataset and seed.

    While seeds are being worked on, those that have all cells count; cells with another number of critics never.
    """
    known = values_of(cells, metric)
    own = [cell for cell in cells if cell.n_critics is None]
    every = dict.fromkeys(cell.method for cell in own)
    datasets = tuple(d for d in dict.fromkeys(cell.dataset for cell in own) if d != ROUNDS)
    begun = sorted({cell.seed for cell in own})
    seeds = tuple(s for s in begun if all(s in known.get((m, d), ()) for m in every for d in datasets))
    seeds = seeds or tuple(begun)
    whole = [m for m in every if all(set(seeds) <= set(known.get((m, d), ())) for d in datasets)]
    y = np.array([[[known[m, d][s] for d in datasets] for m in whole] for s in seeds])  # [seeds, m, d]
    y = y.reshape(len(seeds), len(whole), len(datasets))
    parts = _decomposed(y) if y.size else {}
    return Factorial(
        metric=metric,
        methods=tuple(whole),
        datasets=datasets,
        seeds=seeds,
        grand_mean=over_seeds(dict(zip(seeds, y.mean(axis=(1, 2)).tolist(), strict=True)))
        if y.size
        else None,
        effects=(*_told(parts, whole, datasets, seeds), *_rounds(known)),
        shares=_shares(parts),
        left_out=tuple(m for m in every if m not in whole),
    )


def _decomposed(y: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the effects of values [seeds, methods, datasets], each in an array of three dimensions."""
    grand = y.mean(axis=(1, 2), keepdims=True)
    method = y.mean(axis=2, keepdims=True) - grand
    data = y.mean(axis=1, keepdims=True) - grand
    return {"data": data, "method": method, "both": y - grand - method - data}


def _told(
    parts: Mapping[str, np.ndarray], methods: Sequence[str], datasets: Sequence[str], seeds: Sequence[int]
) -> Iterable[FactorialEffect]:
    for of, effect in parts.items():
        for i, method in enumerate(methods if of != "data" else [None]):
            for j, dataset in enumerate(datasets if of != "method" else [None]):
                found = over_seeds(dict(zip(seeds, effect[:, i, j].tolist(), strict=True)))
                assert found is not None
                yield FactorialEffect(of=of, method=method, dataset=dataset, found=found)


def _shares(parts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the part of each effect in the variance among cells, after averaging over seeds."""
    if not parts:
        return {}
    shape = parts["both"].shape[1:]
    squares = {of: float((np.broadcast_to(e.mean(axis=0), shape) ** 2).sum()) for of, e in parts.items()}
    total = sum(squares.values())
    return {of: square / total for of, square in squares.items()} if total else {}


def _rounds(known: Values) -> Iterable[FactorialEffect]:
    """Yields what a method's own rounds add to what it makes of each dataset."""
    for (method, dataset), own in known.items():
        for (other, data), values in known.items() if dataset == ROUNDS else ():
            if other == method and data != ROUNDS and (found := over_seeds(_minus(own, values))):
                yield FactorialEffect(of="rounds", method=method, dataset=data, found=found)


def _minus(values: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    return {seed: values[seed] - base[seed] for seed in values if seed in base}


class GainSplit(Spec):
    """A method on one dataset against another method on another dataset, and which part is the data's.

    `data` is what the dataset brings the other method, `method` what the method brings on the other's dataset,
    `both` the rest of the total.
    """

    total: OverSeeds
    data: OverSeeds
    method: OverSeeds
    both: OverSeeds


def gain_split(
    cells: Iterable[Cell], metric: str, ours: tuple[str, str], base: tuple[str, str]
) -> GainSplit | None:
    """Returns the split of `ours` (method, dataset) over `base`; None where no seed has all four cells."""
    known = values_of(cells, metric)
    corners = [known.get(pair, {}) for pair in (ours, base, (base[0], ours[1]), (ours[0], base[1]))]
    top, bottom, other_data, other_method = corners
    seeds = set.intersection(*(set(corner) for corner in corners))

    def found(of: Callable[[int], float]) -> OverSeeds | None:
        return over_seeds({seed: of(seed) for seed in sorted(seeds)})

    split = {
        "total": found(lambda s: top[s] - bottom[s]),
        "data": found(lambda s: other_data[s] - bottom[s]),
        "method": found(lambda s: other_method[s] - bottom[s]),
        "both": found(lambda s: top[s] - other_data[s] - other_method[s] + bottom[s]),
    }
    return GainSplit.model_validate(split) if seeds else None


class RankAgreement(Spec):
    """How alike the log's weighted GAUC and an A/B metric rank the policies of a seed: 1 the same, -1 reversed.

    `p_value`s of the intervals test whether the agreement differs from none, 0.
    """

    metric: str
    n_policies: int
    kendall: OverSeeds
    spearman: OverSeeds


def rank_agreement(cells: Iterable[Cell], metric: str) -> RankAgreement | None:
    """Returns the agreement over all policies of each seed; None where no seed has three that can be ranked."""
    from scipy import stats  # a second to load, and workers that rank nothing come by here

    by_seed: dict[int, list[tuple[float, float]]] = {}
    for cell in cells:
        truth = cell.value(metric)
        if cell.gauc is not None and truth is not None:
            by_seed.setdefault(cell.seed, []).append((cell.gauc, truth))
    ranked = {seed: np.array(pairs).T for seed, pairs in by_seed.items() if len(pairs) >= FEWEST_RANKED}
    ranked = {seed: pairs for seed, pairs in ranked.items() if (np.ptp(pairs, axis=1) > 0).all()}
    kendall = over_seeds({s: float(stats.kendalltau(*pairs).statistic) for s, pairs in ranked.items()})
    spearman = over_seeds({s: float(stats.spearmanr(*pairs).statistic) for s, pairs in ranked.items()})
    if kendall is None or spearman is None:
        return None
    most = max(pairs.shape[1] for pairs in ranked.values())
    return RankAgreement(metric=metric, n_policies=most, kendall=kendall, spearman=spearman)
