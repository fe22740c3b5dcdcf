"""Measures how often the A/B test's intervals hold the truth, and what pairing by user is worth, in one run.

Two constant policies play many samples of synthetic users. The truth is the difference over all of them. Beside
the paired interval of each sample stands that of an unpaired test, as it is live: the same number of users in
each arm, none of them in both (Welch's, by the delta method).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.names import FIRST_WORLD
from mtf_engine.environments.play import play
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.evaluation.abtest import METRICS, relative_effect, users_live

ACTIONS = {"candidate": 0.3, "base": 0.0}
"""Of all ten weights: the two policies differ by a few per cent of session reward."""
Z = norm.ppf(0.975)


class Constant:
    """A policy that serves everybody with the same weights."""

    def __init__(self, value: float, n_actions: int) -> None:
        self.action = np.full(n_actions, value, np.float32)

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.tile(self.action, (len(observations), 1))


def unpaired(ours: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Returns the relative difference of two arms of different users [n], and its 95 % interval's half width."""
    a, b = ours.mean(), base.mean()
    variance = ours.var(ddof=1) / b**2 + base.var(ddof=1) * (a / b**2) ** 2
    return a / b - 1, Z * np.sqrt(variance / len(ours))


def held(estimates: np.ndarray, halves: np.ndarray, truth: float) -> float:
    """Returns the share of intervals that hold `truth`."""
    return float((np.abs(estimates - truth) < halves).mean())


def compare(ours: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """Returns coverage and half widths of both tests, from a metric of all users [samples, users]."""
    truth = ours.mean() / base.mean() - 1
    effects = [relative_effect(a[None], b[None]) for a, b in zip(ours, base, strict=True)]
    paired = np.array([(e["relative"], e["ci_high"] - e["relative"]) for e in effects]).T
    others = np.roll(base, 1, axis=0)  # the base's arm is the next sample's users
    live = np.array([unpaired(a, b) for a, b in zip(ours, others, strict=True)]).T
    return {
        "difference": truth,
        "paired_coverage": held(*paired, truth),
        "unpaired_coverage": held(*live, truth),
        "paired_half_width": paired[1].mean(),
        "unpaired_half_width": live[1].mean(),
        "users_saved": float((live[1].mean() / paired[1].mean()) ** 2),
        "users_live": users_live(ours, base) or 0,
    }


def main() -> None:
    """Plays, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--users", type=int, default=400, help="of each sample")
    asked = parser.parse_args()
    env = SessionEnvironment(SessionConfig(world=FIRST_WORLD))
    visits = env.visits(0, asked.samples * asked.users, seed=9)
    outcomes = {
        name: play(env, Constant(value, env.fusion.n_actions), *visits) for name, value in ACTIONS.items()
    }
    found = {
        metric: compare(
            *(getattr(o, field).reshape(asked.samples, asked.users).astype(float) for o in outcomes.values())
        )
        for metric, field in METRICS.items()
    }
    print(json.dumps({"samples": asked.samples, "users": asked.users, "metrics": found}, indent=2))


if __name__ == "__main__":
    main()
