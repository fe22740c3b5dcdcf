"""The Gymnasium adapter promises: any bounded Box is a weight vector, and a log of it trains as any other."""

import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sardine.wrappers import IdealState, TopK

from mtf_engine.algos import ALGOS
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.gymnasium import GymnasiumEnvironment
from mtf_engine.environments.play import play
from mtf_engine.evaluation import ab_test
from mtf_engine.exploration.pilot import read_arms
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.joining import joined, joined_meta
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work.collect import submit_collect
from mtf_engine.workspace import Workspace

PENDULUM = "gym:Pendulum-v1"
README = Path(__file__).parent.parent / "README.md"


class Corridor(gymnasium.Env):
    """A place from 0 on that each step raises by one; it ends at its end, or is cut off before."""

    action_space = spaces.Box(np.float32([[0, -3]]), np.float32([[1, 5]]))
    observation_space = spaces.Dict({"place": spaces.Box(0, 100), "kind": spaces.Discrete(2)})

    def __init__(self, end=4, cut=10):
        self.end, self.cut = end, cut

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.kind = 0, self.np_random.integers(2)
        return self._seen(), {}

    def step(self, action):
        self.place += 1
        reward = float(action[0, 0] + 100 * action[0, 1])
        return self._seen(), reward, self.place == self.end, self.place == self.cut, {}

    def _seen(self):
        return {"place": np.float32([self.place]), "kind": self.kind}


def corridor(**ends):
    return GymnasiumEnvironment(lambda: Corridor(**ends), "gym:corridor")


def sardine():
    """Returns sardine-rec's recommender, whose action is the ideal item's place in 10 dimensions."""

    def make():
        env = gymnasium.make("sardine/SlateTopK-Uncertain-v0", disable_env_checker=True)
        return TopK(IdealState(env), "ideal", min_action=-1.0, max_action=1.0)

    return GymnasiumEnvironment(make, "gym:sardine")


def baseline_of(env):
    return Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)


def collected(env, folder, n_sessions, batch=None, half_width=1.0):
    """Returns a uniform log around the baseline, and its hash."""
    plan = BoundsPlan.symmetric(half_width, env.fusion.n_actions)
    collection = Collection(plan=plan, n_sessions=n_sessions, control_share=0)
    meta, name = collection.meta(env, "log", "gym"), f"log{batch}"
    ledger = write_dataset(folder, name, meta, collect(env, baseline_of(env), collection, batch))
    return Dataset.open(folder / f"{name}.duckdb", ledger), ledger.content_hash


def learned(env, folder, n_sessions, **settings):
    """Returns the A/B test of a policy that learned from a uniform log, against the baseline."""
    transitions = collected(env, folder, n_sessions)[0].transitions()
    texts = {name: str(value) for name, value in settings.items()}
    config = make_config("integrated_rl", preset="demo", settings=texts, seed=0)
    algo = ALGOS["integrated_rl"](config, transitions, baseline_of(env))
    for _ in fit(algo, transitions):
        pass
    return ab_test(env, {"baseline": baseline_of(env), "learned": algo.policy}, "baseline", 40)


def test_an_action_from_minus_one_to_one_spans_the_box():
    env = corridor()
    assert [(d.low, d.high) for d in env.fusion.dimensions] == [(0, 1), (-3, 5)]
    env.reset(*env.visits(0, 3, 0))
    step = env.step(np.float32([[-1, -1], [0, 0], [1, 1]]))
    assert step.rewards.tolist() == [0 - 300, 0.5 + 100, 1 + 500]
    assert env.feature_names == ("observation_0", "observation_1", "observation_2")
    assert env.observe()[:, 2].tolist() == [1, 1, 1]
    assert (env.observe()[:, :2].sum(axis=1) == 1).all()


def test_returns_and_lengths_are_those_of_the_environment_stepped_by_hand():
    env = GymnasiumEnvironment.named(PENDULUM)
    visits = env.visits(0, 70, 3)
    outcome = play(env, baseline_of(env), *visits)
    assert (outcome.requests == 200).all() and len(np.unique(outcome.rewards)) == 70
    env.reset(*visits)
    angles = np.arctan2(env.observe()[:, 1], env.observe()[:, 0])
    by_hand = gymnasium.make("Pendulum-v1").unwrapped
    for angle, velocity, total in zip(angles[:3], env.observe()[:3, 2], outcome.rewards, strict=False):
        by_hand.reset()
        by_hand.state = np.array([angle, velocity], np.float64)
        expected = sum(by_hand.step(np.zeros(1, np.float32))[1] for _ in range(200))
        assert total == pytest.approx(expected, rel=1e-3)


def test_batch_size_changes_nothing_in_a_log(tmp_path):
    env = GymnasiumEnvironment.named(PENDULUM)
    assert collected(env, tmp_path, 12)[1] == collected(env, tmp_path, 12, batch=5)[1]


def test_two_policies_start_in_the_same_state():
    env = GymnasiumEnvironment.named(PENDULUM)
    env.reset(*env.visits(0, 5, 0))
    first = env.observe()
    play(env, baseline_of(env), *env.visits(0, 9, 1))
    env.reset(*env.visits(0, 5, 0))
    assert (env.observe() == first).all() and len(np.unique(first[:, 0])) == 5


def test_a_terminal_step_ends_what_counts_and_a_truncated_one_bootstraps(tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "twice").mkdir()
    ended = collected(corridor(end=4, cut=10), tmp_path, 6)[0].transitions()
    log = collected(corridor(end=10, cut=4), tmp_path / "cut", 6)[0]
    cut = log.transitions()
    assert ended[:].terminals.reshape(-1, 4).tolist() == [[False] * 3 + [True]] * (len(ended) // 4)
    assert ended.n_left_out == 0 and not ended.after(slice(3, None, 4)).observations.any()
    assert not cut[:].terminals.any() and cut.n_left_out == 0
    after = cut.after(slice(3, None, 4))
    assert after.observations[:, 2].tolist() == [4] * (len(cut) // 4), (
        "where it led is kept, without an action"
    )
    assert (after.upper == 1).all() and (after.lower == -1).all()
    assert read_arms(log.arrays, 0.9).sessions.sum() == 6 and log.n_requests == 6 * 5
    write_dataset(
        tmp_path / "twice", "log", joined_meta("log", ("a", "b"), [log.meta] * 2), joined([log, log])
    )
    twice = Dataset.open(tmp_path / "twice" / "log.duckdb")
    assert twice.n_requests == 2 * log.n_requests and len(twice.transitions()) == 2 * len(cut)


def test_a_log_has_no_impressions_and_says_where_it_is_from(tmp_path):
    log = collected(corridor(), tmp_path, 6)[0]
    assert log.n_impressions == 0 and "candidates" not in log.tables and log.meta.synthetic
    assert log.meta.fusion.names == ("pow_action_0", "pow_action_1") and log.meta.source == "gym"
    assert log.meta.details["env"] == "gym:corridor"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gym:Pendulum-v99", "no environment 'Pendulum-v99'"),
        ("gym:no_such_module:Pendulum-v1", r"holds no_such_module\.py, or name that folder in MTF_MODULES"),
        ("gym:", "write one like Pendulum-v1"),
        ("gym:..tests:Pendulum-v1", "write one like Pendulum-v1"),
        ("gym:a:b:Pendulum-v1", "write one like Pendulum-v1"),
        ("gym:GymV21Environment-v0", "pip install"),
        ("gym:CartPole-v1", r"takes actions of Discrete\(2\)"),
    ],
)
def test_what_cannot_be_explored_is_refused(name, told):
    with pytest.raises(Refusal, match=told):
        GymnasiumEnvironment.named(name)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A current folder with README's environment of one's own; nothing of it stays imported."""
    block = re.search(r"```python\n(# matching\.py.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "matching.py").write_text(block[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("matching", None)
    gymnasium.registry.pop("Matching-v0", None)


def test_readmes_own_environment_is_found_in_the_current_folder_and_collected_from(own):
    env = GymnasiumEnvironment.named("gym:matching:Matching-v0")
    assert sys.path[-1] == str(own)
    log = collected(env, own, 20)[0]
    rows = log.arrays("SELECT observation, action, reward FROM requests WHERE NOT isnan(action[1])")
    reward = 2 - np.abs(rows["action"] - rows["observation"]).sum(axis=1)
    assert len(reward) == 100 and log.n_requests == 120  # where each cut episode led is a row more
    assert rows["reward"] == pytest.approx(reward, abs=1e-5)


def test_a_run_finds_ones_own_environment_whoever_starts_its_worker(own, tmp_path_factory, monkeypatch):
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    env = "gym:matching:Matching-v0"
    with monkeypatch.context() as patched:
        patched.setattr(executor, "MAX_WORKING", 0)
        run_id = submit_collect(workspace, env=env, n_requests=20, name="own")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    executor.wait(workspace, run_id)
    assert workspace.registry.run(run_id).state is RunState.COMPLETED


@pytest.mark.slow
def test_a_policy_learns_what_is_wanted_in_readmes_own_environment(own):
    rates = {"actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2}
    env = GymnasiumEnvironment.named("gym:matching:Matching-v0")
    test = learned(env, own, 100, n_steps=200, n_critics=2, hidden="16", **rates)
    assert test.effect("learned", "return").ci_low > 0.1


def test_a_module_that_fails_is_told_in_its_own_words(own):
    (own / "broken.py").write_text("import no_such_package\n")
    (own / "wrong.py").write_text("1 / 0\n")
    with pytest.raises(
        Refusal, match="'broken' cannot be imported: No module named 'no_such_package'; install"
    ):
        GymnasiumEnvironment.named("gym:broken:Broken-v0")
    with pytest.raises(Refusal, match="'wrong' cannot be imported: ZeroDivisionError"):
        GymnasiumEnvironment.named("gym:wrong:Wrong-v0")


@pytest.mark.slow
def test_a_worker_finds_the_modules_of_the_folder_that_a_command_is_called_from(own, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from mtf_engine.cli import app; app()",
        "--workspace",
        str(tmp_path / "w"),
        "--json",
    ]
    asked = [
        "dataset",
        "collect",
        "--env",
        "gym:matching:Matching-v0",
        "--explore",
        "uniform",
        "--requests",
        "20",
    ]
    done = subprocess.run([*command, *asked], cwd=own, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["requests"] == 20, done.stderr


def test_an_unbounded_action_is_refused():
    class Endless(Corridor):
        action_space = spaces.Box(-np.inf, np.inf, (1,))

    with pytest.raises(Refusal, match="bounded Box"):
        GymnasiumEnvironment(Endless, "gym:endless")


@pytest.mark.slow
def test_a_policy_learned_from_a_sardine_log_beats_the_baseline(tmp_path):
    test = learned(
        sardine(), tmp_path, 50, n_steps=600, n_critics=3, hidden="32,32", actor_learning_rate=1e-3
    )
    assert test.metrics == ("return", "length")
    effect = test.effect("learned", "return")
    assert effect.ci_low > 0.1 and effect.mean > effect.base_mean > 0


@pytest.mark.slow
def test_a_policy_learned_from_a_pendulum_log_beats_the_baseline(tmp_path):
    settings = {"n_steps": 2_000, "n_critics": 4, "hidden": "64,64", "gamma": 0.97}
    effect = learned(GymnasiumEnvironment.named(PENDULUM), tmp_path, 150, **settings).effect(
        "learned", "return"
    )
    assert effect.ci_low > 0.2 and 0 > effect.mean > effect.base_mean
