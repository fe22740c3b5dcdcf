"""Policy: one file, by names, never unpickled."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import make_config
from mtf_engine.policies.networks import Actor, Standardise
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import FusionSpec, Refusal
from tests.problems import sessions

FUSION = FusionSpec.default(("click", "like"), bias=("click",))
FEATURES = ("age", "clicks", "new")


@pytest.fixture
def policy() -> Policy:
    standardise = Standardise(torch.tensor([30.0, 2.0, 0.0]), torch.tensor([9.0, 1.0, 1.0]))
    network = Actor(3, 3, (8,)).initialise(standardise, torch.Generator().manual_seed(0))
    return Policy(network, FUSION, FEATURES, (True, True, False), {"algo": "integrated_rl", "plan": None})


@pytest.fixture
def observations() -> np.ndarray:
    return np.random.default_rng(0).normal(20, 30, (50, 3)).astype(np.float32)


def test_a_loaded_policy_is_the_saved_one(policy, observations, tmp_path):
    policy.save(tmp_path / "policy.safetensors")
    loaded = Policy.load(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(loaded.act(observations), policy.act(observations))
    assert (loaded.fusion, loaded.feature_names, loaded.numeric_mask, loaded.info) == (
        policy.fusion, policy.feature_names, policy.numeric_mask, policy.info,
    )  # fmt: skip
    assert loaded.to_bytes() == policy.to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"]


def test_a_process_that_knows_no_method_loads_the_policy_of_each(tmp_path):
    log = sessions(n=64)
    for name in ALGOS:
        ALGOS[name](make_config(name, "demo", {}, 0), log, None).policy.save(tmp_path / name)
    reads = (
        "import sys; from pathlib import Path; from mtf_engine.policies.policy import Policy; "
        "print(*[Policy.load(path).info['algo'] for path in sorted(Path(sys.argv[1]).iterdir())])"
    )
    done = subprocess.run([sys.executable, "-c", reads, tmp_path], capture_output=True, text=True)
    assert done.stdout.split() == sorted(ALGOS), done.stderr


def test_the_baseline_gives_everybody_action_zero(observations, tmp_path):
    Policy.baseline(FUSION, FEATURES, (True, True, False)).save(tmp_path / "b.safetensors")
    actions = Policy.load(tmp_path / "b.safetensors").act(observations)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, np.zeros((50, 3)))


@pytest.mark.parametrize("n", [1, 7, 63, 100, 255])
def test_actions_do_not_depend_on_who_else_is_asked(n):
    generator = torch.Generator().manual_seed(0)
    scale = Standardise(torch.zeros(74), torch.ones(74))
    network = Actor(74, 10, (64, 64)).initialise(scale, generator)
    names = tuple(f"feature_{i}" for i in range(74))
    policy = Policy(network, FUSION, names, (True,) * 74)
    observations = torch.randn(500, 74, generator=generator).numpy()
    together = policy.act(observations)
    apart = np.concatenate([policy.act(observations[i : i + n]) for i in range(0, 500, n)])
    np.testing.assert_array_equal(apart, together)
    assert 0 < np.abs(together).max() <= 1


@pytest.mark.parametrize(
    ("fusion", "features", "sentence"),
    [
        (FUSION, ("clicks", "age", "new"), "features: number 1 is age in the policy and clicks in the data"),
        (FUSION, ("age", "clicks"), "features: the policy has 3, the data 2"),
        (
            FusionSpec.default(("click", "share")),
            FEATURES,
            "predictions: number 2 is like in the policy and share",
        ),
        (FusionSpec.default(("click", "like")), FEATURES, "action dimensions: the policy has 3, the data 2"),
    ],
)
def test_data_with_other_names_is_refused(policy, fusion, features, sentence):
    policy.check(FUSION, FEATURES)
    with pytest.raises(Refusal, match=sentence):
        policy.check(fusion, features)


def test_a_file_that_is_no_policy_is_refused_and_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "policy.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(Refusal, match=r"policy\.safetensors cannot be read as a network"):
        Policy.load(path)
    with pytest.raises(Refusal, match="cannot be read"):
        Policy.load(tmp_path / "absent.safetensors")
