"""What fusion weights can gain on the real log at all: one vector for all users, inside the bounds and anywhere.

CMA-ES searches the vector with the best weighted GAUC on the training rows; the test rows judge it. Beside it, the
mean reward of a replayed request (training days) under each vector. KuaiRand's folder is named by MTF_KUAIRAND,
else it is ../shared/data/kuairand.

    python benchmarks/real_log_headroom.py [--evaluations 600] [--requests 20000]
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cma asks for matplotlib, for plots that are not drawn here
    import cma

from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.replay import ReplayEnvironment
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.spec import BoundsPlan

KUAIRAND = Path(os.environ.get("MTF_KUAIRAND", Path(__file__).parents[1] / "../shared/data/kuairand"))
HALF_WIDTH, SEED = 0.15, 1


class OneVector:
    """Serves every request with the same action."""

    def __init__(self, action: np.ndarray) -> None:
        self.action = np.float32(action)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Returns the action for each observation."""
        return np.tile(self.action, (len(observations), 1))


def best_vector(score: Ranking, limit: float, evaluations: int) -> np.ndarray:
    """Returns the action within +-`limit` that CMA-ES found best by `score`."""
    options = {"bounds": [-limit, limit], "seed": SEED, "maxfevals": evaluations, "verbose": -9}
    start = np.zeros(score.rows.fusion.n_actions)
    found = cma.fmin2(lambda action: -score(OneVector(action)), start, limit / 3, options)[0]
    return np.clip(found, -limit, limit)


def replay_reward(dataset: Dataset, action: np.ndarray, n_requests: int) -> float:
    """Returns the mean reward of a replayed request; the sessions are the same for every action."""
    env = ReplayEnvironment(dataset, seed=SEED)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    collection = Collection(explore="baseline", plan=plan, n_requests=n_requests, seed=SEED)
    batches = list(collect(env, OneVector(action), collection))
    return float(np.concatenate([batch.requests["reward"] for batch in batches]).mean())


def main(evaluations: int, n_requests: int) -> None:
    """Prints what each vector reaches as a markdown table."""
    log = read_log(KUAIRAND, "kuairand")
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), "real", log.meta, log.batches)
        dataset = Dataset.open(Path(folder) / "real.duckdb")
        train, test = (Ranking(dataset.evaluation_rows(split)) for split in ("train", "test"))
        vectors = {
            "baseline": np.zeros(train.rows.fusion.n_actions),
            f"best within ±{HALF_WIDTH}": best_vector(train, HALF_WIDTH, evaluations),
            "best anywhere": best_vector(train, 1.0, evaluations),
        }
        print("| one vector for all | training rows | test rows | reward of a replayed request |")
        print("| --- | --- | --- | --- |")
        for name, action in vectors.items():
            reward = replay_reward(dataset, action, n_requests)
            print(
                f"| {name} | {train(OneVector(action)):.4f} | {test(OneVector(action)):.4f} | {reward:.3f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=600)
    parser.add_argument("--requests", type=int, default=20_000)
    arguments = parser.parse_args()
    main(arguments.evaluations, arguments.requests)
