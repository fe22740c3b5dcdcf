"""A method is one file, one line in ALGOS and one row of README: whoever adds it changes nothing else."""

import inspect
import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pydantic import Field

from docs.reference import reference
from mtf_engine.algos import ALGOS
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.policies.networks import ConstantAction
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.runs.worker import run_job
from mtf_engine.work import kinds
from pages.shared import charts
from tests import test_algos, test_docs
from tests.test_cli import Shell
from tests.test_pages import checked, opened, texts
from tests.workspaces import copy_workspace

NAME = "elite_mean"


# What stands from here to the end of the class would be mtf_engine/algos/elite_mean.py.
class EliteMeanConfig(TrainerConfig):
    """Settings of the elite mean."""

    n_steps: int = Field(default=20, ge=1, description="batches looked at (ours)")
    batch_size: int = Field(default=4_000, ge=1, description="transitions a batch (ours)")
    elite: float = Field(default=0.01, gt=0, le=1, description="share of a batch that counts (ours)")


@dataclass(frozen=True)
class Elite:
    """Logged actions [n, d] and their rewards [n]."""

    actions: np.ndarray
    rewards: np.ndarray

    def draw(self, n: int, generator: torch.Generator) -> "Elite":
        rows = torch.randint(len(self.rewards), (n,), generator=generator).numpy()
        return Elite(self.actions[rows], self.rewards[rows])


class EliteMean:
    """Moves to the mean of each batch's best rewarded actions; everybody gets the same."""

    Config = EliteMeanConfig
    presets = {"laptop": {}, "paper": {}, "demo": {"n_steps": 3}}
    critics = None

    def __init__(self, config, transitions, baseline=None) -> None:
        self.config, self.step = config, 0
        self.generator = torch.Generator().manual_seed(config.seed)
        log = transitions[:]
        start = log.baseline_actions if baseline is None else baseline.act(log.observations)
        self.policy = Policy(
            ConstantAction.of(len(transitions.feature_names), start.mean(axis=0, dtype=np.float64)),
            transitions.fusion,
            transitions.feature_names,
            transitions.numeric_mask,
            {"algo": NAME},
        )

    def prepare(self, transitions) -> Elite:
        return Elite(transitions[:].actions, transitions[:].rewards)

    def update(self, batch: Elite) -> dict[str, float]:
        best = np.argsort(-batch.rewards)[: max(1, int(self.config.elite * len(batch.rewards)))]
        self.step += 1
        self.policy.network.action.lerp_(torch.as_tensor(batch.actions[best].mean(axis=0)), 1 / self.step)
        return {"elite_reward": float(batch.rewards[best].mean())}

    def diagnose(self, batch: Elite) -> dict[str, float]:
        return {}

    def state_dict(self):
        action = self.policy.network.action.clone()
        return {"action": action, "generator": self.generator.get_state(), "step": self.step}

    def load_state_dict(self, state) -> None:
        self.policy.network.action.copy_(state["action"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]


@pytest.fixture(autouse=True)
def added(monkeypatch) -> None:
    """The one line in ALGOS."""
    monkeypatch.setitem(ALGOS, NAME, EliteMean)


@pytest.fixture
def own(small_workspace, tmp_path, monkeypatch) -> Shell:
    """A workspace whose runs are worked on in this process, which alone knows the method."""
    shell = Shell(tmp_path / "workspace")
    copy_workspace(small_workspace, shell.workspace.path)
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    monkeypatch.setenv("MTF_WORKSPACE", str(shell.workspace.path))
    before = signal.getsignal(signal.SIGTERM)
    yield shell
    signal.signal(signal.SIGTERM, before)


CONTRACT = [
    test
    for name, test in vars(test_algos).items()
    if name.startswith("test_") and test is not test_algos.test_its_graph_answers_as_the_policy
]
"""All but the graph, seconds to export, which has nothing new: a ConstantAction's."""


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_it_is_held_to_the_contract(promise, tmp_path):
    available = {"name": NAME, "tmp_path": tmp_path, "steps": 2, "rewards": "from -1e6 to 1e6"}
    promise(**{what: available[what] for what in inspect.signature(promise).parameters})


def test_the_command_line_trains_it_and_its_policy_is_compared(own):
    told = own("train", "explored", "--algo", NAME, "--preset", "demo", "--set", "elite=0.5", "--background")
    assert run_job(own.workspace, told["run_id"], kinds()) is RunState.COMPLETED
    run = own("runs", "show", told["run_id"])
    assert (run["algo"], run["step"], run["config"]["elite"]) == (NAME, 3, 0.5)
    policy = open_policy(own.workspace, told["run_id"], open_dataset(own.workspace, "explored").meta)
    assert policy.info["algo"] == NAME
    assert NAME in own.refused("train", "explored", "--algo", "magic")


def test_the_form_offers_it_with_its_settings(own):
    app = opened("start", algo=NAME)
    app.number_input(key=f"{NAME}.laptop.elite").set_value(0.2)
    checked(app.run())
    assert f"--algo {NAME} --preset laptop --set elite=0.2" in texts(app)
    assert NAME in opened("rounds").selectbox(key="rounds algo").options


def test_a_run_of_it_is_drawn(own):
    told = own(
        "train", "explored", "--algo", NAME, "--preset", "demo", "--set", "log_every=1", "--background"
    )
    run_job(own.workspace, told["run_id"], kinds())
    opened("runs", run=told["run_id"])
    assert charts.metric_title("elite_reward") == ("elite reward", "")
    assert charts.method_colour(NAME) != charts.BASELINE


def test_the_reference_lists_its_settings_and_readme_must_name_it():
    assert f"## Settings of `{NAME}`" in reference()
    assert "| `elite` | 0.01 | share of a batch that counts (ours) |" in reference()
    with pytest.raises(AssertionError):
        test_docs.test_readme_names_every_algorithm(NAME)
