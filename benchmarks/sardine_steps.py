"""Prints how many requests a second sardine-rec serves when its environment is stepped one by one, as JSON.

Run by `benchmarks/environment.py` in a virtual environment that has sardine-rec.
"""

import json
import sys
import time

import gymnasium
import sardine  # noqa: F401  registers its environments
from sardine.wrappers import IdealState, TopK

ENVIRONMENT = "sardine/SlateTopK-Uncertain-v0"


def main(seconds: float) -> None:
    """Steps random actions for so many seconds."""
    env = TopK(IdealState(gymnasium.make(ENVIRONMENT)), "ideal", min_action=-1.0, max_action=1.0)
    env.action_space.seed(0)
    env.reset(seed=0)
    n_steps, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        n_steps += 1
        if terminated or truncated:
            env.reset()
    inner = env.unwrapped
    sizes = {"items": int(inner.num_items), "shown": int(inner.slate_size)}
    print(json.dumps({"environment": ENVIRONMENT, "rate": n_steps / spent, **sizes}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
