"""The policy of BatchRL-MTF: the best of its candidates by the first critic, whoever else is asked."""

import numpy as np
import pytest
import torch

from mtf_engine.policies.candidates import CandidatePolicy
from mtf_engine.policies.networks import ConstantAction, CriticEnsemble, Standardise
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import FusionSpec

N_FEATURES, N_ACTIONS, N = 3, 2, 70
HALF_WIDTH = torch.tensor([0.2, 0.0])
"""The second dimension is fixed."""


def candidate_policy(baseline=None, seed=0) -> CandidatePolicy:
    """Returns a policy whose networks say something."""
    generator = torch.Generator().manual_seed(seed)
    critics = CriticEnsemble(2, N_FEATURES, N_ACTIONS, (8,), explored=[0])
    critics.initialise(Standardise(torch.ones(N_FEATURES), torch.full((N_FEATURES,), 2.0)), 0.0, generator)
    baseline = baseline or ConstantAction(N_FEATURES, N_ACTIONS)
    network = CandidatePolicy(baseline, critics, (8,), n_candidates=6, perturbation=0.1)
    network.initialise(torch.tensor([0.05, 0.0]), HALF_WIDTH, generator)
    for layers in (network.decoder, network.shift):
        torch.nn.init.normal_(layers[-1].weight, generator=generator)
    return network.requires_grad_(False)


@pytest.fixture
def observations() -> torch.Tensor:
    return torch.randn(N, N_FEATURES, generator=torch.Generator().manual_seed(9))


def policy(network: CandidatePolicy) -> Policy:
    features = tuple(f"feature_{i}" for i in range(N_FEATURES))
    fusion = FusionSpec.default([f"behaviour_{i}" for i in range(N_ACTIONS)])
    return Policy(network, fusion, features, (True,) * N_FEATURES)


def test_it_serves_the_candidate_that_the_first_critic_likes_best(observations):
    network = candidate_policy()
    baseline = np.zeros((N, N_ACTIONS), np.float32)
    lower, upper = np.tile([-0.15, 0.0], (N, 1)), np.tile([0.25, 0.0], (N, 1))
    state = torch.cat([network.critics.standardise(observations), torch.zeros(N, N_ACTIONS)], dim=1)
    latents = network.latents[:, None].expand(-1, N, -1)
    candidates = network.perturbed(state, network.decode(state, latents)).numpy()
    context = (observations.numpy(), baseline, lower.astype(np.float32), upper.astype(np.float32))
    q = np.stack([network.critics.q(*context, actions)[0] for actions in candidates])
    best = candidates[q.argmax(axis=0), np.arange(N)]
    assert len(np.unique(q.argmax(axis=0))) > 1
    np.testing.assert_allclose(network(observations).numpy(), best, atol=1e-6)


def test_a_fixed_dimension_keeps_the_action_of_the_baseline(observations):
    baseline = ConstantAction(N_FEATURES, N_ACTIONS)
    baseline.action.copy_(torch.tensor([0.1, -0.4]))
    actions = candidate_policy(baseline)(observations)
    assert (actions[:, 1] == torch.tensor(-0.4)).all()
    assert actions[:, 0].std() > 0


def test_it_starts_as_its_baseline_to_the_bit(observations):
    baseline = candidate_policy(seed=1)
    network = candidate_policy(baseline)
    network.initialise(torch.zeros(N_ACTIONS), HALF_WIDTH, torch.Generator().manual_seed(2))
    assert torch.equal(network(observations), baseline(observations))


def test_a_policy_of_the_third_round_is_saved_with_those_it_started_from(observations, tmp_path):
    third = policy(candidate_policy(candidate_policy(candidate_policy(seed=1), seed=2), seed=3))
    third.save(tmp_path / "policy.safetensors")
    loaded = Policy.load(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(loaded.act(observations.numpy()), third.act(observations.numpy()))
    assert loaded.to_bytes() == third.to_bytes()


def test_an_action_is_the_same_whoever_else_is_asked(observations):
    served = policy(candidate_policy())
    together = served.act(observations.numpy())
    alone = np.concatenate([served.act(row[None]) for row in observations.numpy()])
    np.testing.assert_array_equal(alone, together)
