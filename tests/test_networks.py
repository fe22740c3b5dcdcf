"""Networks: the one-tensor ensemble is what a loop over separate critics would be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mtf_engine.policies.networks import (
    Actor,
    CriticEnsemble,
    Standardise,
    box,
    relative_actions,
    soft_update,
)
from mtf_engine.spec import MIN_WIDTH
from tests.searching import examples

WIDTHS = st.just(0.0) | st.floats(MIN_WIDTH, 1)
N_CRITICS, N_FEATURES, N_ACTIONS, N = 5, 4, 3, 7


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def identity(n):
    return Standardise(torch.zeros(n), torch.ones(n))


def ensemble(**changes) -> CriticEnsemble:
    arguments = dict(n_critics=N_CRITICS, n_features=N_FEATURES, n_actions=N_ACTIONS, hidden=(6, 8)) | changes
    critics = CriticEnsemble(**arguments)
    return critics.initialise(identity(N_FEATURES), 2.0, generator())


def separate(critics: CriticEnsemble) -> list[nn.Sequential]:
    """Returns the same critics as modules of their own."""
    modules = []
    for i in range(critics.n_critics):
        layers = []
        for j, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
            own = weight.reshape(len(weight), critics.n_critics, -1)[:, i] if j == 0 else weight[i]
            linear = nn.Linear(*own.shape)
            linear.weight = nn.Parameter(own.detach().t().clone())
            linear.bias = nn.Parameter(bias.reshape(critics.n_critics, -1)[i].detach().clone())
            layers += [linear, nn.ReLU()]
        modules.append(nn.Sequential(*layers[:-1]))
    return modules


@pytest.mark.parametrize("hidden", [(6,), (6, 1), (5, 7, 9)])
def test_gradients_hold_at_any_depth(hidden):
    critics = ensemble(hidden=hidden).double()
    state, seen = (part.double() for part in parts(generator(1)))
    parameters = tuple(critics.parameters())

    def q(actions, *values):
        return torch.func.functional_call(critics, dict(zip(names, values, strict=True)), (state, actions))

    names = [name for name, _ in critics.named_parameters()]
    torch.autograd.gradcheck(q, (seen.requires_grad_(), *parameters))


def gradient_of(critics: CriticEnsemble, i: int) -> torch.Tensor:
    """Returns all gradients of critic i, [parameters of one critic]."""
    first = critics.weights[0].grad.reshape(len(critics.weights[0]), critics.n_critics, -1)[:, i]
    biases = [b.grad.reshape(critics.n_critics, -1)[i] for b in critics.biases]
    return torch.cat([first.flatten(), *(w.grad[i].flatten() for w in critics.weights[1:]), *biases])


def parts(source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random states and action inputs."""
    return torch.randn(N, N_FEATURES + N_ACTIONS, generator=source), torch.randn(
        N, N_ACTIONS, generator=source
    )


def test_the_ensemble_equals_a_loop_over_critics():
    critics = ensemble()
    state, seen = parts(generator(1))
    alone = torch.stack([critic(torch.cat([state, seen], 1))[:, 0] for critic in separate(critics)])
    torch.testing.assert_close(critics(state, seen), alone, rtol=1e-5, atol=1e-6)


def test_the_ensembles_gradients_equal_those_of_a_loop_over_critics():
    critics = ensemble()
    state, seen = parts(generator(1))
    critics(state, seen).square().mean(dim=1).sum().backward()
    for i, critic in enumerate(separate(critics)):
        critic(torch.cat([state, seen], dim=1)).square().mean().backward()
        weights = [layer.weight.grad.t().flatten() for layer in critic[::2]]
        alone = torch.cat([*weights, *(layer.bias.grad for layer in critic[::2])])
        torch.testing.assert_close(gradient_of(critics, i), alone, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_actions_is_the_one_of_automatic_differentiation():
    critics = ensemble()
    state, seen = parts(generator(1))
    inputs = torch.cat([state, seen], dim=1).requires_grad_()
    torch.stack([critic(inputs)[:, 0] for critic in separate(critics)]).square().sum().backward()
    seen.requires_grad_()
    critics(state, seen, learn=False).square().sum().backward()
    torch.testing.assert_close(seen.grad, inputs.grad[:, -N_ACTIONS:], rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in critics.parameters())


def test_critics_start_apart_and_around_the_given_value():
    zeros = torch.zeros(1, N_FEATURES + N_ACTIONS), torch.zeros(1, N_ACTIONS)
    q = ensemble(n_critics=200)(*zeros)[:, 0]
    assert len(q.unique()) == 200
    assert q.mean().item() == pytest.approx(2.0, abs=0.1)


def test_a_critics_gradient_does_not_reach_the_others():
    critics = ensemble()
    critics(*parts(generator(1)))[2].sum().backward()
    assert gradient_of(critics, 2).abs().sum() > 0
    assert all(gradient_of(critics, i).abs().sum() == 0 for i in (0, 1, 3, 4))


def arrays(half_width=0.15, seed=0):
    """Returns the arguments of `q`, the actions last."""
    g = np.random.default_rng(seed)
    shapes = ((N, N_FEATURES), (N, N_ACTIONS), (N, N_ACTIONS))
    observations, baseline, actions = (g.uniform(-1, 1, s).astype(np.float32) for s in shapes)
    upper = np.full((N, N_ACTIONS), half_width, np.float32)
    return observations, baseline, -upper, upper, actions


def test_q_of_a_relative_action_is_the_same_in_wider_bounds():
    critics = ensemble()
    observations, baseline, lower, upper, _ = arrays()
    once = critics.q(observations, baseline, lower, upper, baseline + 0.7 * upper)
    twice = critics.q(observations, baseline, 2 * lower, 2 * upper, baseline + 1.4 * upper)
    assert once.shape == (N_CRITICS, N) and once.dtype == np.float32
    np.testing.assert_allclose(once, twice, atol=1e-5)


def test_q_of_no_rows_is_empty():
    rows = np.zeros((0, N_FEATURES), np.float32), *np.zeros((4, 0, N_ACTIONS), np.float32)
    assert ensemble().q(*rows).shape == (N_CRITICS, 0)


def test_q_of_a_raw_action_knows_no_bounds():
    critics = ensemble(action_input="raw")
    observations, baseline, lower, upper, actions = arrays()
    wide = critics.q(observations, baseline, 2 * lower, 2 * upper, actions)
    np.testing.assert_array_equal(critics.q(observations, baseline, lower, upper, actions), wide)


def test_an_unexplored_dimension_leaves_the_critics_input():
    critics = ensemble(explored=[0, 2])
    *context, actions = arrays()
    moved = actions + np.float32([0, 0.5, 0])
    np.testing.assert_array_equal(critics.q(*context, actions), critics.q(*context, moved))
    assert len(critics.weights[0]) == N_FEATURES + N_ACTIONS + 2


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), WIDTHS)
@examples(50)
def test_deviation_is_in_half_widths_and_zero_where_the_width_is_zero(action, half_width):
    actions = torch.tensor([action])
    half = torch.tensor([[half_width, 0.0]])
    centre, found_half = box(torch.full((1, 2), 0.25), -half, half)
    relative = relative_actions(actions, centre, found_half)
    assert relative[0, 1] == 0
    torch.testing.assert_close(relative * half, (actions - 0.25) * (half > 0), rtol=1e-4, atol=1e-6)


def test_only_numeric_features_that_vary_are_standardised():
    g = np.random.default_rng(0)
    numeric, one_hot, constant = g.normal(50, 9, 500), g.integers(0, 2, 500), np.full(500, 7.0)
    observations = np.stack([numeric, one_hot, constant], axis=1).astype(np.float32)
    standard = Standardise.of(observations.mean(0), observations.std(0), [True, False, True])
    scaled = standard(torch.as_tensor(observations)).numpy()
    assert scaled[:, 0].mean() == pytest.approx(0, abs=1e-5) and scaled[:, 0].std() == pytest.approx(
        1, abs=1e-5
    )
    np.testing.assert_array_equal(scaled[:, 1], one_hot)
    np.testing.assert_allclose(scaled[:, 2], 0, atol=1e-6)
    assert standard(torch.tensor([[1e9, 1.0, 7.0]]))[0, 0] == 5


def test_an_actor_is_drawn_from_its_own_generator():
    before = torch.get_rng_state()
    first, same, other = (Actor(4, 2, (8,)).initialise(identity(4), generator(s)) for s in (0, 0, 1))
    observations = torch.randn(5, 4, generator=generator(9))
    assert torch.equal(first(observations), same(observations))
    assert not torch.equal(first(observations), other(observations))
    assert torch.equal(torch.get_rng_state(), before)
    assert first(1e6 * observations).abs().max() <= 1


def test_soft_update_moves_the_target_the_share_tau():
    target, source = ensemble(), ensemble()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in target.parameters()]
    soft_update(target, source, 0.08)
    for parameter, start in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, start + 0.08)
