"""The loop: what it yields and when, what it refuses, and configs from strings."""

import io
import math
from itertools import islice

import numpy as np
import pytest
import torch

from mtf_engine import sealed
from mtf_engine.algos import ALGOS
from mtf_engine.learning.config import LEAST_STEPS
from mtf_engine.learning.training import check_device, checkpoint_step, fit, load_critics, make_config
from mtf_engine.runs import executor
from mtf_engine.spec import Refusal
from mtf_engine.work.train import submit_train
from tests.problems import sessions
from tests.workspaces import copy_workspace

SMALL = {"n_critics": "2", "hidden": "4", "batch_size": "8"}


def trainer(log=None, **changes):
    config = make_config("integrated_rl", "laptop", SMALL | changes, seed=0)
    return ALGOS["integrated_rl"](config, log or sessions())


def test_rows_come_every_few_steps_and_at_the_last():
    rows = list(fit(trainer(n_steps="7", log_every="3"), sessions()))
    assert [row["step"] for row in rows] == [3, 6, 7]
    losses = {
        "critic_loss",
        "actor_loss",
        "q_mean",
        "q_std_inside",
        "q_std_outside",
        "penalty",
        "reward_scale",
    }
    shares = {"share_outside/pow_behaviour_0", "share_at_wall/pow_behaviour_1"}
    names = {"step", "seconds", "steps_per_second"} | losses | shares
    assert all(names <= set(row) and all(map(math.isfinite, row.values())) for row in rows)


def test_how_often_rows_come_does_not_change_the_training():
    often, seldom = (trainer(n_steps="6", log_every=every) for every in ("1", "6"))
    for algo in (often, seldom):
        list(fit(algo, sessions()))
    for a, b in zip(often.actor.parameters(), seldom.actor.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_follows_the_rows_it_covers(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert checkpoint_step(path) == 0
    training = fit(trainer(n_steps="9", log_every="1", checkpoint_every="4"), sessions(), path)
    list(islice(training, 4))
    assert not path.exists(), "row 4 must be out before a checkpoint says that step 4 is done"
    next(training)
    assert checkpoint_step(path) == 4
    list(training)
    assert checkpoint_step(path) == 9
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.pt", "hashes.txt"}


def test_a_finished_training_yields_nothing_more(tmp_path):
    path = tmp_path / "checkpoint.pt"
    done = trainer(n_steps="3")
    list(fit(done, sessions(), path))
    again = trainer(n_steps="3")
    assert list(fit(again, sessions(), path)) == []
    np.testing.assert_array_equal(
        again.policy.act(sessions()[:].observations), done.policy.act(sessions()[:].observations)
    )


def test_seconds_go_on_after_a_resume(tmp_path):
    path = tmp_path / "checkpoint.pt"
    before = list(islice(fit(trainer(n_steps="4", log_every="1", checkpoint_every="2"), sessions(), path), 3))
    after = list(fit(trainer(n_steps="4", log_every="1", checkpoint_every="2"), sessions(), path))
    assert after[0]["seconds"] > before[1]["seconds"]


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(fit(trainer(n_steps="2"), sessions(), path))
    with pytest.raises(Refusal, match="belongs to a training with other settings"):
        list(fit(trainer(n_steps="2", eta="0.5"), sessions(), path))


def test_a_training_of_a_card_goes_on_without_one(tmp_path):
    path, longer = tmp_path / "checkpoint.pt", {"n_steps": "4", "log_every": "1", "checkpoint_every": "2"}
    list(islice(fit(trainer(**longer), sessions(), path), 3))
    state = torch.load(path, weights_only=True)
    assert state["config"]["device"] == "cpu"
    state["config"]["device"] = "cuda"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    sealed.write(path, buffer.getvalue())
    assert [row["step"] for row in fit(trainer(**longer), sessions(), path)] == [3, 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_card_that_is_not_there_is_named():
    check_device("cpu")
    with pytest.raises(Refusal, match="no such card on the machine that trains: set device=cpu"):
        check_device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_run_for_a_card_goes_on_without_one_where_that_is_said(small_workspace, tmp_path, in_process):
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    settings = SMALL | {"n_steps": "3", "hidden": "16", "device": "cuda"}
    run_id = submit_train(
        workspace, "explored", algo="integrated_rl", preset="demo", settings=settings, seed=0
    )
    refused = executor.wait(workspace, run_id)
    assert "PyTorch sees no such card" in str(refused.error)
    executor.resume(workspace, run_id, device="cpu")
    done = executor.completed(workspace, executor.wait(workspace, run_id))
    assert (done.step, done.config["device"]) == (3, "cpu")
    (collected, *_) = workspace.registry.runs(kind="collect")
    with pytest.raises(Refusal, match="no training, so it has no device"):
        executor.resume(workspace, collected.id, device="cpu")


def test_a_diverging_training_is_refused_by_name():
    algo = trainer(critic_learning_rate="1e18", n_steps="20", log_every="1")
    with pytest.raises(Refusal, match=r"diverged by step \d+ \(.*_loss.*\); set lower learning rates"):
        list(fit(algo, sessions()))


def test_the_thread_count_is_the_configs_and_is_given_back():
    before = torch.get_num_threads()
    during = [
        torch.get_num_threads() for _ in fit(trainer(n_steps="2", log_every="1", n_threads="2"), sessions())
    ]
    assert during == [2, 2]
    assert torch.get_num_threads() == before


def test_settings_come_as_strings_over_the_preset():
    config = make_config(
        "integrated_rl",
        "demo",
        {"hidden": "32,16", "eta": "0.5", "reward_scale": "", "penalty": "linear"},
        seed=7,
    )
    assert (config.hidden, config.eta, config.reward_scale, config.penalty) == ((32, 16), 0.5, None, "linear")
    assert (config.n_steps, config.seed) == (500, 7)


def test_a_training_without_a_number_of_steps_goes_so_many_times_over_the_log():
    transitions = sessions()
    algo = trainer(n_steps="", passes="20", batch_size="16")
    assert list(fit(algo, transitions))[-1]["step"] == algo.step == algo.config.steps(len(transitions))
    assert algo.step == round(len(transitions) * 20 / 16) > LEAST_STEPS
    assert trainer(n_steps="", passes="0.001").config.steps(3) == LEAST_STEPS
    assert make_config("grid_search", "laptop", {"n_steps": "7"}, seed=0).steps(10_000) == 7


def test_passes_take_the_place_of_a_presets_number_of_steps():
    assert make_config("integrated_rl", "demo", {}, 0).steps(10**6) == 500
    assert (
        make_config("integrated_rl", "demo", {"passes": "2", "batch_size": "100"}, 0).steps(10**6) == 20_000
    )
    assert make_config("integrated_rl", "laptop", {"n_steps": "40"}, 0).steps(10**6) == 40
    with pytest.raises(Refusal, match="n_steps and passes both say how long to train; set one of them"):
        make_config("integrated_rl", "demo", {"n_steps": "40", "passes": "2"}, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("best", "laptop", {}), "there is no algorithm best; choose one of .*integrated_rl"),
        (
            ("integrated_rl", "huge", {}),
            "integrated_rl has no preset huge; choose one of laptop, paper, demo",
        ),
        (
            ("integrated_rl", "laptop", {"etta": "1"}),
            "integrated_rl has no setting etta; its settings are .*eta",
        ),
        (
            ("integrated_rl", "laptop", {"n_steps": "many"}),
            "config of integrated_rl is not valid: n_steps: .*integer",
        ),
        (("integrated_rl", "laptop", {"n_steps": "0"}), "n_steps: .*greater than or equal to 1"),
        (("integrated_rl", "laptop", {"tau": "nan"}), "tau: .*"),
        (
            ("integrated_rl", "laptop", {"penalty": "exq"}),
            "penalty: Input should be 'expm1', 'exp', 'linear' or",
        ),
        (("integrated_rl", "laptop", {"hidden": "64,x"}), "hidden.1: .*integer"),
        (("integrated_rl", "laptop", {"hidden": ""}), "hidden: .*at least 1 item"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(arguments, sentence):
    with pytest.raises(Refusal, match=sentence):
        make_config(*arguments, seed=0)


def test_a_file_that_is_no_critics_is_refused(tmp_path):
    algo = trainer()
    algo.policy.save(tmp_path / "critics.safetensors")
    with pytest.raises(Refusal, match="is no CriticEnsemble"):
        load_critics(tmp_path / "critics.safetensors")
