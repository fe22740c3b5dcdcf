"""Small decision problems whose best action is known, as logs of uniformly explored actions."""

import numpy as np

from mtf_engine.logs.schema import Transitions
from mtf_engine.spec import FusionSpec

N_FEATURES = 4


def one_step(optimum, half_width, n=4_000, seed=0, noise=0.05) -> Transitions:
    """Returns sessions of one request: reward 1 - |action - optimum|^2 / half_width^2, uniform actions."""
    generator = np.random.default_rng(seed)
    d = len(optimum)
    actions = generator.uniform(-half_width, half_width, (n, d)).astype(np.float32)
    rewards = 1 - (np.square(actions - np.float32(optimum)) / half_width**2).sum(axis=1)
    return transitions(
        observations=generator.normal(3, 2, (n, N_FEATURES)),
        actions=actions,
        rewards=rewards + noise * generator.normal(size=n),
        terminals=np.ones(n, bool),
        half_width=half_width,
    )


def worth(optimum, half_width, observations):
    """Returns the fitness of a policy in `one_step`: the mean reward of its actions, without noise."""

    def fitness(policy) -> float:
        missed = policy.act(observations).astype(np.float64) - optimum
        return float(1 - (np.square(missed) / half_width**2).sum(axis=1).mean())

    return fitness


def transitions(observations, actions, rewards, terminals, half_width, baseline_actions=None) -> Transitions:
    """Returns a log whose sessions end where `terminals` says; within one, the next row follows."""
    n, d = actions.shape
    baseline = np.zeros((n, d)) if baseline_actions is None else baseline_actions
    bounds = np.broadcast_to(half_width, (n, d))
    after = np.where(terminals, 0, np.minimum(np.arange(n) + 1, n - 1))
    arrays = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "next_observations": observations[after],
        "baseline_actions": baseline,
        "lower": -bounds,
        "upper": bounds,
        "next_baseline_actions": baseline[after],
        "next_lower": -bounds[after],
        "next_upper": bounds[after],
    }
    return Transitions(
        **{name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()},
        terminals=terminals,
        session_starts=np.flatnonzero(np.append(True, terminals[:-1])),
        fusion=FusionSpec.default([f"behaviour_{i}" for i in range(d)]),
        feature_names=tuple(f"feature_{i}" for i in range(observations.shape[1])),
        numeric_mask=(True,) * observations.shape[1],
    )


def sessions(n=600, n_actions=2, half_width=0.15, seed=0) -> Transitions:
    """Returns random sessions of three requests around a constant baseline, with random rewards."""
    generator = np.random.default_rng(seed)
    return transitions(
        observations=generator.normal(size=(n, N_FEATURES)),
        actions=generator.uniform(-half_width, half_width, (n, n_actions)),
        rewards=generator.normal(2, 1, n),
        terminals=np.arange(n) % 3 == 2,
        half_width=half_width,
    )
