"""Any Gymnasium environment with a bounded Box action as sessions: the action is the weight vector itself.

An episode is the one session of a user of its own. Nothing is shown, so there are no impressions: the return
stands for consumption, the length for duration. An episode is seeded by (seed, user), so two policies start
in the same state and draw the same numbers in the same order.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import Active, Candidates, Impressions, Step, draws
from mtf_engine.environments.names import MODULES
from mtf_engine.environments.session import FIRST_SECOND, USERS_PER_SEED
from mtf_engine.fusion import pows_and_biases
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec

SEEDS = 1 << 31
IDS = re.compile(r"([a-zA-Z]\w*(\.\w+)*:)?([\w-]+/)?[\w-]+")
"""A version at its end is not asked for: Gymnasium then takes the latest."""


class GymnasiumEnvironment:
    """Episodes of the environment that `make` makes; see `Environment` for the interface.

    Each action dimension in [-1, 1] is scaled to the Box; action 0 is its middle. `truncated` ends an episode
    whose future still counts, a terminal step one that has none.
    """

    synthetic = True
    batch = 64
    reward = RewardSpec(weights={"reward": 1.0})
    signals: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    item_mask: tuple[bool, ...] = ()
    encoder = None

    def __init__(self, make: Callable[[], gymnasium.Env], name: str, seed: int = 0) -> None:
        self.name = name
        self._make, self._seed = make, seed
        self._idle = [make()]
        self._playing: list[gymnasium.Env] = []
        self._space = self._idle[0].observation_space
        self._box = _box(self._idle[0].action_space, name)
        self.fusion = _fusion(self._box)
        n_features = gymnasium.spaces.flatdim(self._space)
        self.feature_names = tuple(f"observation_{i}" for i in range(n_features))
        self.numeric_mask = (True,) * n_features

    @classmethod
    def named(cls, name: str, seed: int = 0) -> Self:
        """Returns the environment "gym:ID", or "gym:MODULE:ID" where a module registers it."""
        gym_id = name.partition(":")[2]
        if not IDS.fullmatch(gym_id):
            raise Refusal(f"{gym_id!r} is no id of Gymnasium; write one like Pendulum-v1, or MODULE:ID")

        module, _, registered = gym_id.rpartition(":")
        if module:
            _import(module)

        def make() -> gymnasium.Env:
            return gymnasium.make(registered, disable_env_checker=True)

        try:
            return cls(make, name, seed)
        except (gymnasium.error.Error, ImportError) as error:
            raise Refusal(f"Gymnasium has no environment {gym_id!r}: {error}") from None

    def visits(self, first: int, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns new users for every collection seed, each with their first session."""
        return np.arange(first, first + n) + seed * USERS_PER_SEED, np.zeros(n, np.int64)

    def passes(self, n_requests: int, seed: int) -> int:
        """Returns 1: users are always new."""
        return 1

    def reset(self, users: NDArray[np.int64], sessions: NDArray[np.int64]) -> None:
        """Starts one episode for each user code and session number."""
        n = len(users)
        self._idle += self._playing
        self._idle += [self._make() for _ in range(n - len(self._idle))]
        self._playing, self._idle = self._idle[:n], self._idle[n:]
        keys = draws.child(
            draws.child(draws.child(draws.root(self._seed), draws.Channel.EPISODES), users), sessions
        )
        self._users, self._sessions, self._step = users, np.arange(n), 0
        pairs = zip(self._playing, draws.below(keys, SEEDS).tolist(), strict=True)
        self._observations = self._flat([env.reset(seed=seed)[0] for env, seed in pairs])

    @property
    def active(self) -> Active:
        n = len(self._sessions)
        return Active(
            sessions=self._sessions,
            users=np.char.add("e", self._users[self._sessions].astype(str)),
            segments=np.full(n, "all"),
            seconds=np.full(n, FIRST_SECOND + self._step),
            step=self._step,
        )

    def observe(self) -> NDArray[np.float32]:
        """Returns the observations of the active sessions, [n, n_features]."""
        return self._observations

    def candidates(self, rows: slice) -> Candidates:
        """Returns nothing to choose from, [n, 0]."""
        shown = self._nothing(len(self._sessions[rows]))
        return Candidates(shown.item_id, shown.predictions)

    def step(self, actions: NDArray[np.float32], typical: NDArray[np.float32] | None = None) -> Step:
        """Returns what happens when the active sessions are served with `actions` [n, d] in [-1, 1]."""
        weights = pows_and_biases(self.fusion, actions)[0].reshape(-1, *self._box.shape)
        weights = np.clip(weights, self._box.low, self._box.high).astype(self._box.dtype)
        after = [env.step(weight) for env, weight in zip(self._playing, weights, strict=True)]
        observations, rewards, terminals, truncated, _ = zip(*after, strict=True)
        ended = np.array(terminals, bool) | np.array(truncated, bool)
        self._idle += [env for env, over in zip(self._playing, ended, strict=True) if over]
        self._playing = [env for env, over in zip(self._playing, ended, strict=True) if not over]
        seen, cut = self._flat(observations), np.array(truncated, bool) & ~np.array(terminals, bool)
        self._observations = seen[~ended]
        self._sessions, self._step = self._sessions[~ended], self._step + 1
        return Step(
            rewards=np.array(rewards, np.float64),
            terminals=np.array(terminals, bool),
            truncated=cut,
            impressions=self._nothing(len(rewards)),
            led_to=seen[cut],
        )

    def _flat(self, observations: Any) -> NDArray[np.float32]:
        flat = [gymnasium.spaces.flatten(self._space, one) for one in observations]
        return np.array(flat, np.float32).reshape(-1, len(self.feature_names))

    def _nothing(self, n: int) -> Impressions:
        return Impressions(
            item_id=np.empty((n, 0), np.int64),
            predictions=np.empty((n, 0, len(self.fusion.predictions)), np.float32),
            signals=np.empty((n, 0, 0), np.float32),
            reward=np.empty((n, 0)),
            label=np.empty((n, 0), bool),
        )


def _import(module: str) -> None:
    """Imports a module that registers environments: an installed one, else of the folder that `MODULES` names.

    A Refusal where there is none or it fails. The folder comes last, so that nothing in it hides what is installed.
    """
    folder = str(Path(os.environ.get(MODULES) or ".").resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise Refusal(
                f"the module {module!r} cannot be imported: {error}; install what it needs"
            ) from None
        raise Refusal(
            f"there is no module {module!r}, neither installed nor in {Path(folder).name}; call from the folder that "
            f"holds {module.replace('.', '/')}.py, or name that folder in {MODULES}"
        ) from None
    except Exception as error:  # whatever code of one's own may raise
        raise Refusal(f"the module {module!r} cannot be imported: {type(error).__name__}: {error}") from None


def _box(space: gymnasium.Space, name: str) -> gymnasium.spaces.Box:
    """Returns the action space; a Refusal where it is no bounded Box."""
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded() or not space.shape:
        raise Refusal(f"{name} takes actions of {space}; only a bounded Box of numbers can be explored")
    return space


def _fusion(box: gymnasium.spaces.Box) -> FusionSpec:
    """Returns a spec with a weight for each number of the action, on its own range."""
    names = [f"action_{i}" for i in range(int(np.prod(box.shape)))]
    return FusionSpec.weights(names, box.low.ravel(), box.high.ravel())
