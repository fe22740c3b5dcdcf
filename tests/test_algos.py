"""The contract that every entry of ALGOS keeps."""

import copy
import math
from itertools import islice

import numpy as np
import onnxruntime
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import fit, load_critics, make_config, save_critics
from mtf_engine.policies import reference_scorer
from mtf_engine.policies.candidates import CandidatePolicy
from mtf_engine.policies.graphs import policy_graph
from mtf_engine.policies.networks import Actor, ConstantAction, LinearPolicy, OffsetPolicy
from mtf_engine.policies.policy import Policy
from tests.problems import N_FEATURES, one_step, sessions, transitions, worth

GRAPHED = {
    Actor: "integrated_rl",
    CandidatePolicy: "batchrl_mtf",
    ConstantAction: "grid_search",
    LinearPolicy: "evolution_strategy",
    OffsetPolicy: "linear_one_step",
}
"""A method with a network of each class."""
BY_ITEM = "integrated_rl by item"
"""With a setting that every method with an actor has: the policy then gives every item weights of its own."""
pytestmark = pytest.mark.parametrize("name", [*ALGOS, BY_ITEM])

SMALL = {"n_critics": "3", "hidden": "8,8", "batch_size": "16", "log_every": "1", "checkpoint_every": "2"}
OPTIMUM, HALF_WIDTH = (0.2, -0.3), 0.5
QUICK = {
    "hidden": "32", "n_steps": "800", "gamma": "0", "critic_learning_rate": "0.003", "actor_learning_rate": "0.002",
}  # fmt: skip
FINDS_IT = {
    "integrated_rl": QUICK | {"n_critics": "3"},
    "unified_rl": QUICK
    | {
        "n_critics": "2",
        "hidden": "16",
        "n_steps": "300",
        "batch_size": "128",
        "critic_learning_rate": "0.04",
    },
    "ddpg": QUICK
    | {
        "n_steps": "600",
        "batch_size": "128",
        "critic_learning_rate": "0.02",
        "actor_learning_rate": "0.0003",
        "critic_weight_decay": "0",  # the published one makes Q too flat for a maximum inside the box
    },
    "cql_sac": QUICK
    | {"n_steps": "500", "batch_size": "64", "n_action_samples": "4", "alpha": "0.1"}
    | {"critic_learning_rate": "0.02", "actor_learning_rate": "0.0006"},
    "batchrl_mtf": QUICK
    | {"n_steps": "600", "batch_size": "128", "critic_learning_rate": "0.02"}
    | {"actor_learning_rate": "0.001", "perturbation": "0.4"},
    "iql": QUICK
    | {"n_steps": "600", "batch_size": "128", "critic_learning_rate": "0.02", "actor_learning_rate": "0.001"},
    "evolution_strategy": {"n_steps": "60", "population": "10"},
    "grid_search": {"n_steps": "28"},
    "bayesian_optimization": {"n_steps": "18"},
}
"""Settings with which a method solves the one-step problem in seconds, where those of `laptop` take longer."""
TOLERANCE = {"grid_search": 1 / 6}
"""How near the optimum: .05, but for the grid half a step, and closer where the answer is exact."""
REWARDS = {
    "from -1e6 to 1e6": lambda generator, n: generator.uniform(-1e6, 1e6, n),
    "constant": lambda generator, n: np.full(n, -1e6),
}
CLOCK = ("seconds", "steps_per_second")
SEEDLESS = ("best_single_head",)
"""Methods that draw nothing, so every seed has the same."""


def best_found(name, log, half_width) -> np.ndarray:
    """Returns where a method ends on the one-step problem: at its optimum, but IQL imitates and floors do not search.

    Of single heads the first is the nearest; the linear step goes to the corner of the box that the optimum lies
    towards. IQL's policy is the mean of logged actions, uniform here, weighed by exp(temperature * scaled reward);
    V is the same for all and cancels, and no weight reaches the cap.
    """
    if name == "best_single_head":
        return np.array([1.0, -1.0])
    if name == "linear_one_step":
        return half_width * np.sign(OPTIMUM)
    if name != "iql":
        return np.array(OPTIMUM)
    action = np.linspace(-half_width, half_width, 2_001)
    temperature = 3 / log[:].rewards.std()
    weights = [np.exp(-temperature * (action - optimum) ** 2 / half_width**2) for optimum in OPTIMUM]
    return np.array([np.average(action, weights=weight) for weight in weights])


def trainer(name, log, seed=0, baseline=None, **changes):
    method, *by_item = name.split(" by ")
    settings = {k: v for k, v in (SMALL | changes).items() if k in ALGOS[method].Config.model_fields}
    settings |= dict.fromkeys(["action_level"] * len(by_item), "item")
    return ALGOS[method](make_config(method, "laptop", settings, seed), told_of(name, log), baseline)


def told_of(name, log):
    """Returns the log, its last feature that of an item where a method has weights for each."""
    if name != BY_ITEM:
        return log
    told = copy.copy(log)
    told.item_names, told.typical = log.feature_names[-1:], (0.1,) * log.fusion.n_actions
    return told


def acted(policy, observations):
    """Returns the policy's actions [n, d], one item a request."""
    if policy.action_level == "request":
        return policy.act(observations)
    return policy.act_on(observations[:, :-1], observations[:, -1:])


def learn(algo, log, *rest):
    """Trains on what the method learns from: the log, or for a search method what a policy is worth."""
    source = worth(OPTIMUM, HALF_WIDTH, log[:].observations) if "fitness" in algo.Config.model_fields else log
    return fit(algo, source, *rest)


def weights(algo) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in algo.policy.network.state_dict().items()}


def identical(a, b) -> bool:
    """Returns whether two nested states agree to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return a == b


def test_presets_are_valid_and_every_setting_is_described(name):
    name = name.removesuffix(" by item")
    assert set(ALGOS[name].presets) == {"laptop", "paper", "demo"}
    for preset in ALGOS[name].presets:
        config = make_config(name, preset, {}, seed=3)
        assert config.seed == 3
        assert type(config).model_validate_json(config.model_dump_json()) == config
    assert all(field.description for field in ALGOS[name].Config.model_fields.values())
    assert set(ALGOS[name].Config.model_fields) >= {
        "n_steps", "batch_size", "checkpoint_every", "n_threads", "seed", "device",
    }  # fmt: skip


def test_metrics_are_finite_and_actions_in_range_and_deterministic(name):
    log = sessions()
    algo = trainer(name, log, n_steps="5")
    rows = list(learn(algo, log))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    actions = acted(algo.policy, 1e4 * log[:].observations)
    assert actions.dtype == np.float32 and np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, acted(algo.policy, 1e4 * log[:].observations))


def test_same_seed_same_weights(name):
    log = sessions()
    algos = [trainer(name, log, seed, n_steps="3") for seed in (1, 1, 3)]
    for algo in algos:
        list(learn(algo, log))
    first, same, other = map(weights, algos)
    assert identical(first, same)
    assert identical(first, other) == (name in SEEDLESS)


@pytest.mark.parametrize("steps", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(name, steps, tmp_path):
    log, n_steps = sessions(), str(2 * steps)
    whole = trainer(name, log, n_steps=n_steps)
    rows = list(learn(whole, log))

    path = tmp_path / "checkpoint.pt"
    killed = trainer(name, log, n_steps=n_steps)
    list(islice(learn(killed, log, path), steps + 1))
    resumed = trainer(name, log, n_steps=n_steps)
    rest = list(learn(resumed, log, path))

    assert rest[0]["step"] == steps + 1
    clock = {"seconds": 0, "steps_per_second": 0}
    assert [row | clock for row in rest] == [row | clock for row in rows[steps:]]
    assert identical(resumed.state_dict(), whole.state_dict())


def test_a_saved_policy_and_its_critics_answer_as_the_trained_ones(name, tmp_path):
    log = sessions()
    algo = trainer(name, log, n_steps="3")
    list(learn(algo, log))
    algo.policy.save(tmp_path / "policy.safetensors")
    loaded = Policy.load(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(acted(loaded, log[:].observations), acted(algo.policy, log[:].observations))
    assert loaded.info["algo"] == name.removesuffix(" by item")
    assert loaded.action_level == ("item" if name == BY_ITEM else "request")
    if loaded.action_level == "request":
        scored = reference_scorer.act(*reference_scorer.read(loaded.to_bytes()), log[:].observations)
        np.testing.assert_allclose(scored, loaded.act(log[:].observations), atol=1e-5)
    if algo.critics is not None:
        save_critics(algo.critics, tmp_path / "critics.safetensors")
        context = (log[:].observations, log[:].baseline_actions, log[:].lower, log[:].upper, log[:].actions)
        again = load_critics(tmp_path / "critics.safetensors").q(*context)
        np.testing.assert_array_equal(again, algo.critics.q(*context))


def test_its_graph_answers_as_the_policy(name):
    log = sessions()
    algo = trainer(name, log, n_steps="3")
    if GRAPHED[type(algo.policy.network)] != name:
        return  # a graph is its network's, and that method's is of this class; that of items: test_item_actions
    list(learn(algo, log))
    session = onnxruntime.InferenceSession(policy_graph(algo.policy, None))
    (actions,) = session.run(None, {"observations": log[:].observations})
    np.testing.assert_allclose(actions, acted(algo.policy, log[:].observations), atol=1e-6)
    if algo.policy.action_level == "request":
        scored = reference_scorer.act(*reference_scorer.read(algo.policy.to_bytes()), log[:].observations)
        np.testing.assert_allclose(scored, actions, atol=1e-5)


@pytest.mark.parametrize("rewards", [*REWARDS, pytest.param("zero", marks=pytest.mark.slow)])
def test_rewards_of_any_sign_and_size_train(name, rewards):
    generator, n = np.random.default_rng(0), 60
    log = transitions(
        observations=generator.normal(size=(n, N_FEATURES)),
        actions=generator.uniform(-0.15, 0.15, (n, 2)),
        rewards=REWARDS[rewards](generator, n) if rewards in REWARDS else np.zeros(n),
        terminals=np.arange(n) % 2 == 1,
        half_width=0.15,
    )
    algo = trainer(name, log, n_steps="3", gamma="0.9")
    rows = list(learn(algo, log))
    values = [value for row in rows for metric, value in row.items() if metric not in CLOCK]
    assert len(rows) == 3 and np.isfinite(values).all() and np.abs(values).max() < 1e7
    assert np.isfinite(acted(algo.policy, log[:].observations)).all()


def test_it_starts_as_a_baseline_of_its_own_kind(name):
    log = sessions()
    first = trainer(name, log, n_steps="3")
    list(learn(first, log))
    second = trainer(name, log, baseline=first.policy)
    np.testing.assert_array_equal(
        acted(second.policy, log[:].observations), acted(first.policy, log[:].observations)
    )


def test_it_finds_the_optimum_of_a_one_step_problem(name):
    if name == BY_ITEM:
        return  # the same losses on the same numbers; test_item_actions has a world in which items count
    log = one_step(OPTIMUM, HALF_WIDTH)
    best = best_found(name, log, HALF_WIDTH)
    algo = ALGOS[name](make_config(name, "laptop", FINDS_IT.get(name, {}), seed=0), log)
    assert np.abs(algo.policy.act(log[:].observations) - best).max() > 0.1, "the start may not be the answer"
    list(learn(algo, log))
    actions = algo.policy.act(log[:].observations)
    np.testing.assert_allclose(actions.mean(axis=0), best, atol=TOLERANCE.get(name, 0.05))
    assert actions.std(axis=0).max() < 0.05
