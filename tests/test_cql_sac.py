"""CQL+SAC: random actions lie in their box and have its density; densities are those written out."""

import math

import numpy as np
import pytest
import torch

from mtf_engine.algos.cql_sac import CQLSAC, CQLSACConfig
from tests.problems import sessions, transitions

SMALL = dict(n_critics=2, hidden=(8,), batch_size=16)


def trainer(log=None, **changes) -> CQLSAC:
    return CQLSAC(CQLSACConfig(**(SMALL | changes)), log or sessions())


def batch_of(algo, log=None):
    return algo.prepare(log or sessions()).draw(16, torch.Generator().manual_seed(5))


def test_random_actions_fill_their_box_and_have_its_density():
    algo = trainer(cql_random_range=2.0)
    actions, log_density = algo._random(batch_of(algo), 2_000)
    assert 0.29 < float(actions.abs().max()) <= 0.3
    assert log_density.unique().tolist() == [pytest.approx(-2 * math.log(0.6), rel=1e-5)]


def test_a_box_that_reaches_beyond_the_range_is_cut_and_its_density_with_it():
    algo = trainer(cql_random_range=100.0)
    actions, log_density = algo._random(batch_of(algo), 2_000)
    assert 0.99 < float(actions.abs().max()) <= 1
    assert log_density.unique().tolist() == [pytest.approx(-2 * math.log(2), rel=1e-5)]


def test_a_fixed_dimension_has_no_density():
    log = sessions()
    width = np.tile([0.15, 0.0], (len(log), 1))
    fixed = transitions(log[:].observations, log[:].actions * [1, 0], log[:].rewards, log[:].terminals, width)
    algo = trainer(fixed)
    batch = batch_of(algo, fixed)
    _, log_density = algo._random(batch, 3)
    assert log_density.unique().tolist() == [pytest.approx(-math.log(0.6), rel=1e-5)]
    raw = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    algo._normal = lambda *shape: raw
    actions, log_density = algo._sample(batch.observations, batch.explored)
    std = float(algo.log_std.bias.detach().exp()[0])
    first = actions[:, 0].detach().double().numpy()
    normal = np.exp(-(np.arctanh(first) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(log_density.detach(), np.log(normal / (1 - first**2)), rtol=1e-4)


@pytest.mark.parametrize("baseline", [0.0, -0.8])
def test_its_actions_start_as_wide_as_the_logged_ones(baseline):
    log, around = sessions(), np.full((600, 2), baseline)
    log = transitions(
        log[:].observations, log[:].actions + around, log[:].rewards, log[:].terminals, 0.15, around
    )
    algo = trainer(log)
    batch = batch_of(algo, log)
    actions, _ = algo._sample(batch.observations, batch.explored, 4_000)
    assert float(actions.detach().std()) == pytest.approx((log[:].actions - baseline).std(), rel=0.1)


def test_a_learned_alpha_follows_the_gap():
    for threshold, grows in ((-100.0, True), (100.0, False)):
        algo = trainer(lagrange_threshold=threshold)
        algo.update(batch_of(algo))
        assert (float(algo.log_multiplier[0].detach()) > 0) is grows
    fixed = trainer()
    fixed.update(batch_of(fixed))
    assert float(fixed.log_multiplier[0].detach()) == 0
