"""Registers sardine-rec's recommender as one whose action is the ideal item's place in 10 dimensions.

`gym:benchmarks.sardine_ideal:SardineIdeal-v0`, where sardine-rec is installed, as it is for the tests.
"""

import gymnasium
import sardine  # noqa: F401  registers its environments
from sardine.wrappers import IdealState, TopK

ENVIRONMENT = "sardine/SlateTopK-Uncertain-v0"


def ideal() -> gymnasium.Env:
    """Returns the environment, of 100 requests an episode, each of which shows the 10 items nearest to the action."""
    inner = gymnasium.make(ENVIRONMENT, disable_env_checker=True)
    return TopK(IdealState(inner), "ideal", min_action=-1.0, max_action=1.0)


gymnasium.register("SardineIdeal-v0", entry_point=ideal)
