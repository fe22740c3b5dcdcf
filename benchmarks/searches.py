"""The search methods on the real log, by command line, as `real_log.py` takes the methods that learn.

Each asks 140 times for the weighted GAUC of training rows, none is held to the bounds; the last three days judge.
KuaiRand's folder is named by MTF_KUAIRAND, else it is ../shared/data/kuairand. Prints a table of docs/benchmarks.md.

    python benchmarks/searches.py [--requests 30000] [--workspace DIR]
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.real_log import KUAIRAND, CommandLine, collect, print_scores, print_times

METHODS = ("grid_search", "bayesian_optimization", "evolution_strategy")


def main(workspace: Path, n_requests: int) -> None:
    """Prints the scores and the times, of one search after the other, as markdown tables."""
    run = CommandLine(workspace)
    real = run.timed("import", lambda: run("dataset", "import", str(KUAIRAND), "--format", "kuairand"))
    explored = run.timed("collect", partial(collect, run, real, "uniform", n_requests))
    found = {}
    for method in METHODS:
        trained = run.timed(
            method, partial(run, "train", explored["dataset_id"], "--algo", method, "--seed", "1")
        )
        found[trained["run_id"]] = method
        print(method, run("runs", "show", trained["run_id"])["result"]["search"], file=sys.stderr)
    scores = run.timed("evaluate", lambda: run("evaluate", *found, "baseline", "--on", real["dataset_id"]))
    print_scores(scores, found)
    print_times(run.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The search methods on the real log, by command line.")
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.workspace or Path(folder), options.requests)
