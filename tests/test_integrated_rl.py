"""IntegratedRL-MTF: its formulas against slow oracles, and what the repaired penalty is for."""

import numpy as np
import pytest
import torch

from mtf_engine.algos.integrated_rl import IntegratedRL, IntegratedRLConfig
from mtf_engine.learning.penalties import FORMS, penalty, relative_excess
from mtf_engine.learning.start import starting_actor
from mtf_engine.learning.training import fit
from mtf_engine.policies.networks import Actor, box, relative_actions
from mtf_engine.policies.policy import Policy
from tests.problems import one_step, sessions, transitions

BETA = 0.3
SMALL = dict(n_critics=3, hidden=(8, 8), batch_size=16)


def trainer(log=None, baseline=None, **changes) -> IntegratedRL:
    return IntegratedRL(IntegratedRLConfig(**(SMALL | changes)), log or sessions(), baseline)


def moved_out(algo: IntegratedRL, action=0.9) -> IntegratedRL:
    """Returns the trainer with both actors far outside the bounds, so that every penalty counts."""
    for actor in (algo.actor, algo.target_actor):
        torch.nn.init.normal_(actor.last.weight, generator=torch.Generator().manual_seed(3))
        torch.nn.init.constant_(actor.last.bias, action)
    return algo


def batch_of(algo: IntegratedRL, log=None):
    return algo.prepare(log or sessions()).draw(16, torch.Generator().manual_seed(5))


# Formula 5


def cost(x: float, form: str) -> float:
    """Returns the penalty of an excess of x relative widths, written out."""
    linear_on = np.exp(5) * (x - 5) if x > 5 else 0
    grown = np.exp(min(x, 5)) + linear_on
    return {"expm1": grown - 1, "exp": grown, "linear": x, "printed": np.exp(-x)}[form] if x > 0 else 0


@pytest.mark.parametrize("form", FORMS)
def test_a_penalty_and_its_gradient_are_those_written_out(form):
    action = torch.tensor([-0.9, -0.2, -0.1, 0.0, 0.14, 0.16, 0.2, 0.3, 0.7, 1.0], requires_grad=True)
    value = penalty(relative_excess(action / 0.15, BETA), form)
    excess = (np.abs(action.detach().numpy().astype(float)) - np.float32(0.15)).clip(0) / (BETA * 0.3)
    np.testing.assert_allclose(value.detach(), [cost(x, form) for x in excess], rtol=1e-4, atol=1e-5)
    value.sum().backward()
    slope = [(cost(x + 1e-6, form) - cost(x, form)) / 1e-6 if x > 0 else 0 for x in excess]
    expected = np.sign(action.detach().numpy()) * slope / (BETA * 0.3)
    np.testing.assert_allclose(action.grad, expected, rtol=2e-3, atol=1e-4)


def test_a_dimension_of_width_zero_costs_nothing():
    width = torch.tensor([[0.5, 0.0]])
    far = torch.tensor([[1.5, 1.5]])
    excess = relative_excess(relative_actions(far, *box(torch.zeros(1, 2), -width, width)), BETA)
    assert excess.tolist() == [[pytest.approx(2 / (2 * BETA)), 0.0]]


def settle(form: str, n=2_000) -> np.ndarray:
    """Returns n actions from inside +-.15 after gradient descent on -Q + 1.2 d, Q = -(a - .2)^2."""
    actions = torch.rand(n, generator=torch.Generator().manual_seed(0)).mul_(0.3).sub_(0.15).requires_grad_()
    optimiser = torch.optim.Adam([actions], lr=2e-3)
    for _ in range(1_000):
        optimiser.zero_grad()
        cost = penalty(relative_excess(actions / 0.15, BETA), form)
        ((actions - 0.2).square() + 1.2 * cost).sum().backward()
        optimiser.step()
    return actions.detach().numpy()


def test_the_printed_penalty_drives_actions_out_of_the_box():
    actions = settle("printed")
    assert not (np.abs(actions - 0.2) < 0.01).any(), "none may end at the optimum"
    assert (np.abs(actions) > 0.15).all()
    assert np.median(actions) == pytest.approx(0.446, abs=0.002)


@pytest.mark.parametrize("form", ["expm1", "exp", "linear"])
def test_a_growing_penalty_keeps_actions_at_the_bound(form):
    actions = settle(form)
    assert actions.max() <= 0.155
    assert actions.min() >= 0.13


@pytest.mark.parametrize(
    "form", ["expm1", pytest.param("printed", marks=pytest.mark.filterwarnings("ignore"))]
)
def test_a_trained_actor_stays_in_the_box_unless_the_penalty_is_as_printed(form):
    log = one_step([0.2], half_width=0.15)
    algo = trainer(
        log, penalty=form, n_steps=600, gamma=0.0, actor_learning_rate=3e-3, hidden=(16,), batch_size=64
    )
    list(fit(algo, log))
    action = algo.policy.act(log[:].observations)
    assert (action > 0.16).all() if form == "printed" else ((action > 0.1) & (action < 0.156)).all()


def test_the_printed_penalty_warns():
    with pytest.warns(UserWarning, match="pushes the actor out"):
        trainer(penalty="printed")


# Formulas 4 and 6, one critic and one transition at a time


def q_of(critics, i, algo, batch, row, action, prefix=""):
    """Returns critic i's value of one action, from its own slice of the weights."""
    state, centre, half = (
        getattr(batch, f"{prefix}{name}" if name != "state" or prefix else name)[row]
        for name in ("state", "centre", "half_width")
    )
    relative = torch.tensor(
        [(a - c) / h if h > 0 else 0.0 for a, c, h in zip(action, centre, half, strict=True)]
    )
    hidden = torch.cat([state, action if algo.config.action_input == "raw" else relative])
    for j, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
        own = weight.reshape(len(weight), critics.n_critics, -1)[:, i] if j == 0 else weight[i]
        hidden = hidden @ own + bias.reshape(critics.n_critics, -1)[i]
        hidden = hidden if j == len(critics.weights) - 1 else hidden.relu()
    return hidden[0]


def distance(action, centre, half, form):
    """Returns d(action), summed over dimensions."""
    excess = [
        float(abs(a - c) - h) / float(BETA * 2 * h) for a, c, h in zip(action, centre, half, strict=True) if h
    ]
    return sum(cost(x, form) for x in excess)


def slow_losses(algo: IntegratedRL, batch) -> tuple[float, float]:
    """Returns the critics' and the actor's loss by loops over critics and transitions."""
    c = algo.config
    critic_loss, actor_loss = 0.0, 0.0
    for row in range(len(batch)):
        following = algo.target_actor.head(batch.next_observations[row])
        context = (batch.next_centre[row], batch.next_half_width[row])
        for i in range(c.n_critics):
            bootstrap = q_of(algo.target_critics, i, algo, batch, row, following, "next_")
            if c.critic_penalty == "target":
                bootstrap = bootstrap - c.delta * distance(following, *context, c.penalty)
            elif c.critic_penalty == "decay":
                bootstrap = bootstrap - (1 - np.exp(-distance(following, *context, "linear"))) * abs(
                    bootstrap
                )
            target = batch.rewards[row] + batch.discounts[row] * bootstrap
            critic_loss += float((q_of(algo.critics, i, algo, batch, row, batch.actions[row]) - target) ** 2)
        action = algo.actor.head(batch.observations[row])
        q = np.array([float(q_of(algo.critics, i, algo, batch, row, action)) for i in range(c.n_critics)])
        d = distance(action, batch.centre[row], batch.half_width[row], c.penalty)
        actor_loss += -q.mean() + c.eta * d + c.lambda_std * np.sqrt(q.var() + 1e-6)
    return critic_loss / len(batch), actor_loss / len(batch)


@pytest.mark.filterwarnings("ignore:penalty=printed")
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"penalty": "exp", "critic_penalty": "decay"},
        {"penalty": "linear", "action_input": "raw"},
        {"penalty": "printed", "critic_penalty": "printed"},
    ],
)
@torch.no_grad()
def test_both_losses_equal_loops_over_critics_and_transitions(switches):
    algo = moved_out(trainer(eta=0.7, lambda_std=0.4, delta=0.6, **switches))
    batch = batch_of(algo)
    found = float(algo._critic_loss(batch)), float(algo._actor_loss(batch))
    assert found == pytest.approx(slow_losses(algo, batch), rel=1e-4)


def test_the_discount_stops_at_terminal_steps():
    algo = trainer(gamma=0.8)
    data = algo.prepare(sessions()).at(torch.arange(600))
    np.testing.assert_allclose(data.discounts, np.where(sessions()[:].terminals, 0, 0.8), rtol=1e-6)


def test_the_actor_step_leaves_the_critics_alone():
    algo = trainer()
    batch = batch_of(algo)
    algo._actor_loss(batch).backward(inputs=list(algo.actor.parameters()))
    assert all(p.grad is None for p in algo.critics.parameters())
    assert algo.actor.last.weight.grad.abs().sum() > 0


def test_targets_move_every_few_steps_only():
    algo = trainer(target_update_interval=2, tau=0.5)
    start = [p.clone() for p in algo.target_critics.parameters()]
    algo.update(batch_of(algo))
    assert all(torch.equal(p, s) for p, s in zip(algo.target_critics.parameters(), start, strict=True))
    algo.update(batch_of(algo))
    for target, before, now in zip(
        algo.target_critics.parameters(), start, algo.critics.parameters(), strict=True
    ):
        torch.testing.assert_close(target, (before + now) / 2)


def test_the_target_actor_follows_the_actor():
    algo = trainer(target_update_interval=1, tau=0.5)
    for _ in range(3):
        before = [p.clone() for p in algo.target_actor.parameters()]
        algo.update(batch_of(algo))
        for target, was, now in zip(
            algo.target_actor.parameters(), before, algo.actor.parameters(), strict=True
        ):
            torch.testing.assert_close(target, (was + now) / 2)
    assert not torch.equal(
        algo.target_actor.head(batch_of(algo).observations), algo.actor.head(batch_of(algo).observations)
    )


def test_diagnosis_changes_nothing_and_names_each_dimension():
    algo = moved_out(trainer())
    before = algo.generator.get_state()
    found = algo.diagnose(batch_of(algo))
    assert found["share_outside/pow_behaviour_0"] > 0.5
    assert found["q_std_outside"] > 0 and found["penalty"] > 0
    assert set(found) >= {"q_mean", "q_std_inside", "share_at_wall/pow_behaviour_1", "reward_scale"}
    assert torch.equal(algo.generator.get_state(), before)


# The start


def test_the_actor_starts_exactly_as_a_constant_baseline():
    log = sessions()
    assert np.abs(trainer(log).policy.act(log[:].observations)).max() == 0


def test_the_actor_takes_over_the_weights_of_a_baseline_of_its_shape():
    log = sessions()
    baseline = moved_out(trainer(log)).policy
    algo = trainer(log, baseline)
    np.testing.assert_array_equal(algo.policy.act(log[:].observations), baseline.act(log[:].observations))


def test_the_actor_is_fitted_to_a_baseline_of_another_shape():
    g = np.random.default_rng(0)
    observations = g.normal(size=(500, 4))
    log = transitions(
        observations=observations,
        actions=0.1 * np.tanh(observations[:, :2] / 2),
        rewards=g.normal(size=500),
        terminals=np.ones(500, bool),
        half_width=0.15,
        baseline_actions=0.1 * np.tanh(observations[:, :2] / 2),
    )
    with pytest.warns(UserWarning, match=r"starts .* from the baseline"):
        actor = starting_actor(log, (16, 16), None, torch.Generator().manual_seed(0))
    error = np.abs(actor(torch.as_tensor(log[:].observations)).detach().numpy() - log[:].baseline_actions)
    assert np.quantile(error, 0.99) < 5e-3


def test_rewards_are_scaled_by_the_return_and_critics_start_at_its_mean():
    log = sessions()
    algo = trainer(log)
    returns = log.returns(0.9)
    assert algo.policy.info["reward_scale"] == pytest.approx(1 / returns.std())
    assert algo.critics.biases[-1].detach().unique().item() == pytest.approx(returns.mean() / returns.std())
    assert trainer(log, reward_scale=0.5).policy.info["reward_scale"] == 0.5


def test_a_foreign_baseline_shape_still_names_its_features():
    log = sessions()
    other = Policy(Actor(4, 2, (8, 8)), log.fusion, ("a", "b", "c", "d"), (True,) * 4)
    with pytest.raises(Exception, match="features: number 1 is a in the policy and feature_0"):
        trainer(log, other)


def test_a_log_without_width_is_refused():
    with pytest.raises(Exception, match="explores no dimension"):
        trainer(sessions(half_width=0.0))
