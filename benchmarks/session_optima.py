"""The search behind every figure of the session environment: its best weights, and how far apart they are.

    python benchmarks/session_optima.py [--world clickbait] [--users 1500] [--generations 30]
        [--test-users 50000] [--write]

Searches on some users, measures on others, and prints the tables of docs/session.md, the weighted GAUC of the
same weights on a log of the default ones among them. With `--write` what was found is kept beside the
environment, where the tests and the dashboard read it; `--stored` measures what is kept without a new search.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.names import FIRST_WORLD
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import World, names
from mtf_engine.evaluation import weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan
from mtf_engine.study.optima import NAMES, Optima, find_optima
from mtf_engine.study.properties import Properties, landscape_dimensions, measure

GAUC_REQUESTS, GAUC_SEED = 30_000, 3


def found(world: str, n_users: int, generations: int, n_test_users: int) -> Properties:
    """Returns what the search found and what it is worth; tells on standard error how far it is."""
    start = time.monotonic()
    optima = find_optima(
        SessionConfig(world=world),
        n_users,
        generations,
        lambda what: print(f"{time.monotonic() - start:.0f} s: {what}", file=sys.stderr, flush=True),
    )
    dimensions = landscape_dimensions(optima, n_users)
    return measure(optima, n_test_users).model_copy(update={"effective_dimensions": dimensions})


def gaucs(optima: Optima) -> dict[str, float | None]:
    """Returns the weighted GAUC by user of each weights on a log that the default ones have collected."""
    env = SessionEnvironment(optima.config)
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    plan = BoundsPlan.symmetric(0.15, env.fusion.n_actions)
    how = Collection(explore="baseline", plan=plan, n_requests=GAUC_REQUESTS, seed=GAUC_SEED)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), "log", how.meta(env, "log", "session"), collect(env, baseline, how))
        rows = Dataset.open(Path(folder) / "log.duckdb").evaluation_rows()
    scores = {
        name: log_final_score(rows.fusion, optima.actions(name, rows.segment)[rows.request], rows.predictions)
        for name in NAMES
    }
    users = rows.user[rows.request]
    return {name: weighted_gauc(s, rows.label, rows.reward + 1, users).value for name, s in scores.items()}


def tables(properties: Properties) -> str:
    """Returns standings, gains and weights as markdown."""
    head = ["weights", "session reward", "requests", "reward of a request", "weighted GAUC"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    scores = gaucs(properties.optima)
    for row in properties.standings:
        lines.append(
            f"| {NAMES[row.name]} | {row.session_reward:.2f} | {row.requests:.2f} | {row.request_reward:.3f} | "
            f"{scores[row.name]:.4f} |"
        )
    lines += ["", "| | against | session reward, 95 % interval |", "| --- | --- | --- |"]
    for gain in properties.gains:
        interval = f"{gain.relative:+.1%} ({gain.ci_low:+.1%} to {gain.ci_high:+.1%})"
        lines.append(f"| {NAMES[gain.name]} | {NAMES[gain.base]} | {interval} |")
    lines += ["", "| dimension | best anywhere | " + " | ".join(properties.optima.segments) + " |"]
    lines.append("| --- " * (2 + len(properties.optima.segments)) + "|")
    for i, name in enumerate(World.named(properties.optima.config.world).fusion.names):
        cells = [properties.optima.everywhere[i], *(w[i] for w in properties.optima.segments.values())]
        lines.append(f"| {name} | " + " | ".join(f"{cell:+.2f}" for cell in cells) + " |")
    lines += ["", f"Effective dimensions around the best weights: {properties.effective_dimensions:.1f}."]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=names(), default=FIRST_WORLD)
    parser.add_argument("--users", type=int, default=1_500)
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--test-users", type=int, default=50_000)
    parser.add_argument("--write", action="store_true", help="keep what was found beside the environment")
    parser.add_argument("--stored", action="store_true", help="tell what is kept, search nothing")
    options = parser.parse_args()
    properties = (
        Properties.stored(options.world)
        if options.stored
        else found(options.world, options.users, options.generations, options.test_users)
    )
    if properties is None:
        sys.exit(f"nothing is stored of the world {options.world}; call this without --stored")
    if options.write:
        properties.store()
    print(tables(properties))
