"""The paper's Table 1 at laptop scale: weighted GAUC of every method, beside the published numbers.

    python benchmarks/table1.py [--env session|replay] [--world feed] [--methods all] [--datasets 1,1b,2,3] [--seeds 3]
        [--sessions 20000] [--users 10000] [--preset laptop] [--set NAME=VALUE] [--n-critics 2,4,8,24]
        [--workspace DIR] [--write]

In a world of synthetic users, or by replay of the KuaiRand log, whose test days then score. Beside the table every
method on every dataset, which part of a gain is the data's, and what the searches consumed. `--write` puts it
into docs/results.md.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import compared as made
from mtf_engine.study.comparison import Comparison
from mtf_engine.study.factorial import GAUC, factorial
from mtf_engine.study.paper_tables import order_said, table_1
from mtf_engine.workspace import Workspace

TITLES = {"session": "Table 1 in the world {world}", "replay": "Table 1 on KuaiRand, by replay"}


def sections(found: Comparison, workspace: Workspace) -> Iterator[str]:
    """Yields the parts of the section, as markdown."""
    rows, whole = table_1(found.cells), factorial(found.cells, GAUC)
    yield made.paper(rows, {GAUC: made.plain})
    baseline = made.of_seeds({cell.seed: cell.baseline_gauc for cell in found.cells if cell.baseline_gauc})
    yield f"{order_said(rows, GAUC)} The baseline: {made.told(baseline, made.plain)}."
    yield "Weighted GAUC of every method on every dataset:\n\n" + made.grid(found.cells, GAUC, made.plain)
    yield made.effects(whole, made.signed, ("data", "method", "rounds"))
    yield made.splits(found.cells, whole, made.signed)
    if not found.synthetic:
        said = "Minus the baseline on the same users, means over seeds of difference and interval over users:"
        yield f"{said}\n\n{made.against_baseline(found.cells)}"
    yield made.reach(found.cells, workspace)
    yield made.searches(found.cells)


if __name__ == "__main__":
    options = made.arguments(__doc__, list(TITLES))
    made.report(options, TITLES[options.env].format(world=options.world), sections)
