"""DDPG: its actor leaves the data; slow targets and the critic's weight decay keep Q in reach of the returns there."""

import pytest

from mtf_engine.algos.ddpg import DDPG, DDPGConfig
from mtf_engine.learning.training import fit
from tests.problems import sessions

SMALL = dict(n_steps=600, log_every=600, hidden=(32, 32), batch_size=64)
LARGEST_Q, FAR = 1.5, 2.0
"""Multiples of the largest return, and standard deviations of the logged actions, beyond which a sentinel speaks."""


def ends(**changes) -> tuple[float, float]:
    """Returns Q of a trained actor's actions in largest returns, and how far they are from the data."""
    log = sessions()
    *_, row = fit(DDPG(DDPGConfig(**SMALL | changes), log), log)
    return row["q_mean"] / row["largest_return"], row["distance_from_data"]


def test_as_published_its_critic_does_not_diverge_where_its_actor_drifts_to():
    q, distance = ends()
    assert q < LARGEST_Q / 2
    assert distance > FAR


@pytest.mark.slow
def test_fast_targets_diverge_and_weight_decay_slows_them():
    with_decay, without = ends(tau=0.005)[0], ends(tau=0.005, critic_weight_decay=0.0)[0]
    assert LARGEST_Q < with_decay < 0.9 * without
