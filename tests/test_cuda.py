"""Where there is a card, a method trains on it: draws, targets, checkpoints, and a resume to the bit."""

from itertools import islice

import numpy as np
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import fit, load_critics, make_config, save_critics
from mtf_engine.policies.policy import Policy
from tests.problems import sessions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

BY_GRADIENT = tuple(name for name, algo in ALGOS.items() if "hidden" in algo.Config.model_fields)
STEPS, STOPPED = 12, 6


def trainer(method, **changes):
    """Returns a small training on the card."""
    asked = {"hidden": "8", "batch_size": "16", "n_steps": str(STEPS), "log_every": "1", "device": "cuda"}
    known = {
        name: value for name, value in (asked | changes).items() if name in ALGOS[method].Config.model_fields
    }
    return ALGOS[method](make_config(method, "laptop", known, seed=0), sessions())


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_a_training_goes_on_from_its_checkpoint_to_the_bit(method, tmp_path):
    whole, path = trainer(method), tmp_path / "checkpoint.pt"
    rows = list(fit(whole, sessions()))
    list(islice(fit(trainer(method, checkpoint_every=str(STOPPED)), sessions(), path), STOPPED + 1))
    resumed = trainer(method, checkpoint_every=str(STOPPED))
    later = list(fit(resumed, sessions(), path))
    assert [row["step"] for row in later] == list(range(STOPPED + 1, STEPS + 1))
    clock = {"seconds", "steps_per_second"}
    for row, again in zip(rows[STOPPED:], later, strict=True):
        assert {k: v for k, v in row.items() if k not in clock} == {
            k: v for k, v in again.items() if k not in clock
        }
    seen = sessions()[:].observations
    np.testing.assert_array_equal(resumed.policy.act(seen), whole.policy.act(seen))


@pytest.mark.parametrize("method", BY_GRADIENT)
def test_what_was_trained_on_the_card_is_read_without_it(method, tmp_path):
    algo = trainer(method)
    list(fit(algo, sessions()))
    algo.policy.save(tmp_path / "policy")
    seen = sessions()[:].observations
    read = Policy.load(tmp_path / "policy")
    np.testing.assert_allclose(read.act(seen), algo.policy.act(seen), atol=1e-5)
    if critics := getattr(algo, "critics", None):
        save_critics(critics, tmp_path / "critics")
        assert all(
            weights.device.type == "cpu" for weights in load_critics(tmp_path / "critics").parameters()
        )
