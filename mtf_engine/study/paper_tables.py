"""Tables 1 and 2 of IntegratedRL-MTF (arXiv 2404.17589), published and found, row by row.

The paper trains the compared methods on dataset 1 and its own on 2 ("without PTM", progressive training) and in
five rounds. Its Table 2 has no row without PTM and no weighted GAUC; what it does not publish is None.
"""

from collections.abc import Iterable, Sequence

from mtf_engine.spec import Spec
from mtf_engine.study.comparison import ROUNDS, Cell, marked
from mtf_engine.study.factorial import GAUC, OverSeeds, over_seeds, values_of

OURS, NAME = "integrated_rl", "IntegratedRL-MTF"
BASE = "evolution_strategy", "1"
"""What Table 2 is relative to."""
PAPER = (
    ("evolution_strategy", "1", "ES", 0.7836, 0.0, 0.0),
    ("ddpg", "1", "DDPG", 0.7881, 0.0139, 0.0081),
    ("cql_sac", "1", "CQL+SAC", 0.7892, 0.0162, 0.0095),
    ("batchrl_mtf", "1", "BatchRL-MTF", 0.7894, 0.0179, 0.0098),
    ("iql", "1", "IQL", 0.7906, 0.0209, 0.0115),
    (OURS, "2", "IntegratedRL-MTF without PTM", 0.7941, None, None),
    (OURS, ROUNDS, "IntegratedRL-MTF", 0.7953, 0.0464, 0.0174),
)
"""Method, dataset, the paper's name, weighted GAUC, and relative valid consumption and duration time."""
CONSUMPTION = ("valid_consumption", "duration_time")


class Row(Spec):
    """One row of a table: by metric what was published and what was found, None where there is no such figure.

    `dataset` is what the method was trained on here: the pooled log of five rounds where its own were not played.
    """

    method: str
    dataset: str
    name: str
    published: dict[str, float | None]
    found: dict[str, OverSeeds | None]


def table_1(cells: Sequence[Cell]) -> list[Row]:
    """Returns weighted GAUC of the paper's rows, and below them of methods that it does not have."""
    known = values_of(cells, GAUC)
    return [
        Row(
            method=method,
            dataset=dataset,
            name=name,
            published={GAUC: gauc},
            found={GAUC: over_seeds(known.get((method, dataset), {}))},
        )
        for method, dataset, name, gauc, *_ in _rows(cells)
    ]


def table_2(cells: Sequence[Cell]) -> list[Row]:
    """Returns what users consume under each policy relative to the evolution strategy, as in the paper.

    Within a seed all policies met the same users, so the difference is that of their means per user.
    """
    return [
        Row(
            method=method,
            dataset=dataset,
            name=name,
            published=dict(zip(CONSUMPTION, consumed, strict=True)),
            found={metric: _relative(cells, (method, dataset), metric) for metric in CONSUMPTION},
        )
        for method, dataset, name, _, *consumed in _rows(cells)
        if (method, dataset) != (OURS, "2")
    ]


def order(rows: Iterable[Row], metric: str) -> list[str]:
    """Returns the names of the rows in the order found, the highest mean first."""
    known = [(found.value, row.name) for row in rows if (found := row.found[metric])]
    return [name for _, name in sorted(known, key=lambda pair: -pair[0])]


def order_said(rows: Sequence[Row], metric: str) -> str:
    """Returns the order found in a sentence, which says so where the paper's own method is not first."""
    names = order(rows, metric)
    if len(names) < 2:
        return "Too few of these policies are known yet to order them."
    ours = [name for name in names if name.startswith(NAME)]
    lost = f" {NAME} does not win here." if ours and ours[0] != names[0] else ""
    return f"Order found, by the mean: {', '.join(names)}.{lost}"


def _rows(cells: Sequence[Cell]) -> Iterable[tuple]:
    """Yields the paper's rows, then one for each other method, on dataset 1; floors are marked."""
    there = {(cell.method, cell.dataset) for cell in cells}
    for method, dataset, *published in PAPER:
        pooled = dataset == ROUNDS and (method, ROUNDS) not in there and (method, "3") in there
        yield (method, "3" if pooled else dataset, *published)
    others = dict.fromkeys(cell.method for cell in cells if cell.method not in {row[0] for row in PAPER})
    for method in others:
        yield (method, "1", marked(method, method.replace("_", " ")), None, None, None)


def _relative(cells: Iterable[Cell], ours: tuple[str, str], metric: str) -> OverSeeds | None:
    means: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        for effect in cell.effects if cell.n_critics is None else ():
            if effect.metric == metric:
                means.setdefault((cell.method, cell.dataset), {})[cell.seed] = effect.mean
    own, base = means.get(ours, {}), means.get(BASE, {})
    return over_seeds({seed: own[seed] / base[seed] - 1 for seed in own if base.get(seed)})
