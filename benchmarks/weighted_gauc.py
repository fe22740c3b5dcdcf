"""Measures `weighted_gauc` against a loop over scikit-learn and against DuckDB SQL, in one run.

The loop calls scikit-learn's weighted `roc_auc_score` once for each user, over all users. A second process
scores `--large-rows` rows and reports its time and its peak memory, inputs included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import psutil
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.evaluation import weighted_gauc

SQL = """
WITH ties AS (
    SELECT users, scores,
        sum(weights) FILTER (labels) AS positive, sum(weights) FILTER (NOT labels) AS negative
    FROM rows GROUP BY users, scores
), below AS (
    SELECT users, coalesce(positive, 0) AS positive, coalesce(negative, 0) AS negative,
        coalesce(sum(negative) OVER (
            PARTITION BY users ORDER BY scores ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS lower
    FROM ties
), groups AS (
    SELECT sum(positive * (lower + negative / 2)) / (sum(positive) * sum(negative)) AS auc,
        sum(positive + negative) AS weight
    FROM below GROUP BY users HAVING sum(positive) > 0 AND sum(negative) > 0
)
SELECT sum(weight * auc) / sum(weight) FROM groups
"""


def random_rows(n_rows: int, n_users: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns rows in random order; scores carry some signal, a tenth of them tie."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=n_rows)
    tied = generator.random(n_rows) < 0.1
    scores[tied] = scores[tied].round(1)
    return {
        "scores": scores,
        "labels": generator.random(n_rows) < 1 / (1 + np.exp(-scores)),
        "weights": 1 + generator.exponential(2, n_rows),
        "users": generator.integers(0, n_users, n_rows),
    }


def sklearn_loop(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, users: np.ndarray) -> float:
    """Returns the weighted GAUC by one call of `roc_auc_score` for each user with both classes."""
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order], prepend=-1))
    total = weight = 0.0
    for rows in np.split(order, starts[1:]):
        mine = labels[rows]
        if mine.any() and not mine.all():
            user_weight = weights[rows].sum()
            total += user_weight * roc_auc_score(mine, scores[rows], sample_weight=weights[rows])
            weight += user_weight
    return total / weight


def duckdb_sql(rows: dict[str, np.ndarray], n_threads: int) -> float:
    """Returns the weighted GAUC by one SQL statement over the same arrays."""
    with duckdb.connect(config={"threads": n_threads}) as con:
        con.register("rows", rows)
        return con.sql(SQL).fetchall()[0][0]


def timed(call: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Returns the median seconds of `repeats` calls and the value of the last."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), value


def large(n_rows: int, n_users: int, n_threads: int) -> None:
    """Prints seconds on one thread and on several, and peak resident bytes of this process, as JSON."""
    rows = random_rows(n_rows, n_users)
    before = psutil.Process().memory_info().rss
    seconds, value = timed(lambda: weighted_gauc(**rows).value, 3)
    threaded, same = timed(lambda: weighted_gauc(**rows, n_threads=n_threads).value, 3)
    assert value == same
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": seconds, "threaded": threaded, "inputs": before, "peak": peak}))


def compare(n_rows: int, n_users: int, n_threads: int) -> None:
    """Prints the times of all three on the same rows, and how they compare."""
    rows = random_rows(n_rows, n_users)
    by_user = {name: values[np.argsort(rows["users"], kind="stable")] for name, values in rows.items()}
    ours, value = timed(lambda: weighted_gauc(**rows).value, 3)
    clustered, clustered_value = timed(lambda: weighted_gauc(**by_user).value, 3)
    sql, sql_value = timed(lambda: duckdb_sql(rows, n_threads), 3)
    loop, loop_value = timed(lambda: sklearn_loop(**rows), 1)
    print(f"{n_rows:,} rows, {n_users:,} users")
    for name, seconds, other in (
        ("weighted_gauc, 1 thread, median of 3", ours, value),
        ("  the same, rows by user as logs are", clustered, clustered_value),
        (f"DuckDB SQL, {n_threads} threads, median of 3", sql, sql_value),
        ("scikit-learn loop, all users, once", loop, loop_value),
    ):
        print(f"  {name:40} {seconds:9.3f} s  {seconds / ours:7.2f}x  value off by {abs(other - value):.0e}")


def main() -> None:
    """Runs the comparison and the large case, and says on which machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--large-rows", type=int, default=10_000_000)
    parser.add_argument("--large-users", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of DuckDB and the large case")
    parser.add_argument("--only-large", action="store_true", help="score the large case alone, print JSON")
    options = parser.parse_args()
    if options.only_large:
        large(options.large_rows, options.large_users, options.threads)
        return
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, numpy {np.__version__}")
    compare(options.rows, options.users, options.threads)
    sizes = ["--large-rows", str(options.large_rows), "--large-users", str(options.large_users)]
    sizes += ["--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, __file__, "--only-large", *sizes], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    print(
        f"{options.large_rows:,} rows, {options.large_users:,} users\n"
        f"  weighted_gauc, 1 thread, median of 3     {found['seconds']:9.3f} s\n"
        f"  the same, {options.threads} threads                      {found['threaded']:9.3f} s  peak RSS "
        f"{found['peak'] / 2**30:.2f} GiB (inputs and interpreter {found['inputs'] / 2**30:.2f} GiB)"
    )


if __name__ == "__main__":
    main()
