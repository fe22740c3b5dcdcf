"""Small decision problems whose best action is known, as logs of uniformly explored actions."""

import numpy as np

from mtf_engine.logs.transitions import Layout, Transitions, known_steps
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


def transitions(
    observations,
    actions,
    rewards,
    terminals,
    half_width,
    baseline_actions=None,
    n_profile=None,
    watch_share=0.25,
) -> Transitions:
    """Returns a log whose sessions end where `terminals` says; within one, the next row follows.

    `watch_share` [n] or a number of each reward is for watch time; None: the log does not tell.
    """
    n, d = actions.shape
    baseline = np.zeros((n, d)) if baseline_actions is None else baseline_actions
    bounds = np.broadcast_to(half_width, (n, d))
    columns = {
        "observation": observations,
        "action": actions,
        "baseline_action": baseline,
        "lower": -bounds,
        "upper": bounds,
        "reward": rewards,
    }
    columns = {name: np.ascontiguousarray(values, np.float32) for name, values in columns.items()}
    columns |= {"session_id": np.cumsum(np.append(True, terminals[:-1])), "terminal": terminals}
    return held(
        columns,
        FusionSpec.default([f"behaviour_{i}" for i in range(d)]),
        tuple(f"feature_{i}" for i in range(observations.shape[1])),
        n_profile,
        None if watch_share is None else lambda: np.float32(watch_share) * columns["reward"],
    )


def held(columns, fusion, feature_names, n_profile=None, watch_rewards=None) -> Transitions:
    """Returns the transitions of requests that lie in memory, by session and step."""
    layout = Layout.of([columns])
    rows = layout.pack(columns)
    steps, left_out = zip(*known_steps(rows, layout), strict=True)
    mask = (True,) * len(feature_names)
    return Transitions(
        rows,
        np.concatenate(steps),
        layout,
        fusion,
        feature_names,
        mask,
        sum(left_out),
        n_profile,
        watch_rewards=watch_rewards,
    )


def sessions(n=600, n_actions=2, half_width=0.15, seed=0, watch_share=0.25) -> Transitions:
    """Returns random sessions of three requests around a constant baseline, with random rewards."""
    generator = np.random.default_rng(seed)
    return transitions(
        observations=generator.normal(size=(n, N_FEATURES)),
        actions=generator.uniform(-half_width, half_width, (n, n_actions)),
        rewards=generator.normal(2, 1, n),
        terminals=np.arange(n) % 3 == 2,
        half_width=half_width,
        watch_share=watch_share,
    )
