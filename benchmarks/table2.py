"""The paper's Table 2 at laptop scale: what users consume under each policy, by A/B test of synthetic users.

    python benchmarks/table2.py [--world feed] [--methods all] [--datasets 1,1b,2,3] [--seeds 3] [--sessions 20000]
        [--users 10000] [--preset laptop] [--set NAME=VALUE] [--n-critics 2,4,8,24] [--workspace DIR] [--write]

Beside the table the session reward of every method on every dataset and its effects, how well weighted GAUC
ranks policies, what personalisation is worth, and the number of critics. `--write` puts it into docs/results.md.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import compared as made
from mtf_engine.study.comparison import Cell, Comparison
from mtf_engine.study.factorial import GAUC, METRICS, factorial, rank_agreement
from mtf_engine.study.paper_tables import CONSUMPTION, order_said, table_2
from mtf_engine.workspace import Workspace

REWARD = "session_reward"


def sections(found: Comparison, _: Workspace) -> Iterator[str]:
    """Yields the parts of the section, as markdown."""
    cells, whole = found.cells, factorial(found.cells, REWARD)
    rows = table_2(cells)
    yield "Relative to the evolution strategy, as published:\n\n" + made.paper(
        rows, dict.fromkeys(CONSUMPTION, made.percent)
    )
    yield order_said(rows, CONSUMPTION[0])
    yield "Session reward relative to the baseline:\n\n" + made.grid(cells, REWARD, made.percent)
    yield made.effects(whole, made.percent, ("data", "method", "both", "rounds"))
    yield made.splits(cells, whole, made.percent)
    yield "How weighted GAUC ranks the policies of a seed beside the A/B test:\n\n" + agreement(cells)
    yield "What session reward falls by under a policy's own mean actions:\n\n" + personalised(cells)
    yield "Number of critics, `integrated_rl` on dataset 2:\n\n" + critics(cells)


def agreement(cells: Sequence[Cell]) -> str:
    """Returns the rank agreement of weighted GAUC with each metric of the A/B test."""
    found = [one for metric in METRICS if metric != GAUC and (one := rank_agreement(cells, metric))]
    body = (
        [
            made.named(one.metric),
            f"{one.n_policies}",
            *(made.told(rank, "{:+.2f}".format, True) for rank in (one.kendall, one.spearman)),
        ]
        for one in found
    )
    return made.markdown(["A/B metric", "policies", "Kendall", "Spearman"], body)


def personalised(cells: Sequence[Cell]) -> str:
    """Returns what is lost under the mean action of each policy, and under its mean of each segment."""
    lost: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for cell in cells:
        for one in cell.personalisation if cell.n_critics is None else ():
            if one.metric == REWARD and one.relative is not None:
                by_kind = lost.setdefault((cell.method, cell.dataset), {})
                by_kind.setdefault(one.to, {})[cell.seed] = one.relative
    kinds = ("mean action", "mean per segment")
    body = (
        [
            made.code(method),
            dataset,
            *(made.told(made.of_seeds(by_kind[kind]), made.percent, True) for kind in kinds),
        ]
        for (method, dataset), by_kind in lost.items()
    )
    return made.markdown(["method", "trained on", *kinds], body)


def critics(cells: Sequence[Cell]) -> str:
    """Returns weighted GAUC and the A/B metrics by the number of critics."""
    numbers = sorted({cell.n_critics for cell in cells if cell.n_critics})
    body = []
    for number in numbers:
        own = [cell for cell in cells if cell.n_critics == number]
        by_metric = [{c.seed: v for c in own if (v := c.value(metric)) is not None} for metric in METRICS]
        forms = [made.plain if metric == GAUC else made.percent for metric in METRICS]
        row = [made.told(made.of_seeds(v), form) for v, form in zip(by_metric, forms, strict=True)]
        body.append([f"{number}", *row])
    return made.markdown(["critics", *map(made.named, METRICS)], body)


if __name__ == "__main__":
    options = made.arguments(__doc__, ["session"])
    made.report(options, f"Table 2 in the world {options.world}", sections)
