"""What the worlds are, before any method is tried in them; and how the live policy of one was learned.

    python benchmarks/premises.py [--worlds feed] [--seeds 0 1 2] [--users 2000] [--generations 14] [--threads 2]
    python benchmarks/premises.py --learn-live feed

Prints the table of docs/session.md and keeps what was measured beside the world's parameters, where the tests
read it. `--learn-live` prints the live policy that the world's earlier generation learns anew.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import World, names
from mtf_engine.runs.storage import live_policy
from mtf_engine.study.generation import by_segment, learn_live
from mtf_engine.study.premises import PREMISES, Premises, measure, store, stored

LEARNERS, GENERATIONS = 600, 22
"""Users and generations of the search that the live policy of `feed` came from."""


def table(measured: Sequence[Premises]) -> str:
    """Returns the premises as markdown: a column for each world and seed, misses marked."""
    heads = ["premise", "asked", *(f"{p.world}, seed {p.seed}" for p in measured)]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for premise in PREMISES:
        cells = [
            f"{premise.value(p):{premise.form}}{'' if premise.holds(p) else ' (missed)'}" for p in measured
        ]
        lines.append(f"| {premise.what} | {premise.asked} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, or learns the live policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=names(), default=["feed"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of users and catalogue")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--generations", type=int, default=14, help="of the search for the best anywhere")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learn-live", metavar="WORLD", choices=names())
    args = parser.parse_args()
    start = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - start:.0f} s: {what}", file=sys.stderr, flush=True)

    if args.learn_live:
        config = SessionConfig(world=args.learn_live)
        learned = learn_live(config, LEARNERS, GENERATIONS, args.threads, tell)
        print(learned.model_dump_json(indent=1))
        own = World.named(config.world).live
        assert own is not None
        apart = np.abs(by_segment(learned) - by_segment(own)).max()
        tell(f"an action is at most {apart:.4f} from that of the world's own live policy")
        return
    for name in args.worlds:
        found = []
        for seed in args.seeds:
            config = SessionConfig(world=name, seed=seed)
            live = live_policy(SessionEnvironment(config))
            found.append(measure(config, live, args.users, args.generations, args.threads))
            tell(f"{name}, seed {seed}")
        store(found)
    print(table([premises for name in args.worlds for premises in stored(name)]))


if __name__ == "__main__":
    main()
