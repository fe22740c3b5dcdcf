"""Search methods: the fitness they are handed, what it costs, and what each makes of it."""

from datetime import timedelta

import numpy as np
import pytest

from mtf_engine.algos import ALGOS
from mtf_engine.algos.evolution_strategy import EvolutionStrategy
from mtf_engine.environments.play import play
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.evaluation import evaluate
from mtf_engine.fusion import LogPredictions, log_final_score
from mtf_engine.learning.search import BUDGET
from mtf_engine.learning.training import fit, make_config
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import estimates, metrics
from mtf_engine.runs.executor import completed, wait
from mtf_engine.runs.storage import live_policy, open_dataset, open_policy
from mtf_engine.spec import FusionSpec, Refusal
from mtf_engine.study.comparison import FLOORS
from mtf_engine.work.fitness import consumed, open_fitness
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace
from pages.shared import results
from tests.problems import sessions, transitions, worth
from tests.workspaces import copy_workspace

SEARCHES = [
    name for name, algo in ALGOS.items() if "fitness" in algo.Config.model_fields and name not in FLOORS
]
"""All but the best single head, which needs no more than one for each prediction."""
LOG = sessions()
FITNESS = worth((0.2, -0.3), 0.5, LOG[:].observations)


def changed(**columns):
    """Returns the log with other columns."""
    names = ("observations", "actions", "rewards", "terminals", "baseline_actions")
    return transitions(half_width=0.15, **{name: getattr(LOG[:], name) for name in names} | columns)


def searcher(name, log=LOG, baseline=None, **settings):
    return ALGOS[name](make_config(name, "laptop", settings, seed=0), log, baseline)


@pytest.fixture(scope="module")
def workspace(small_workspace, tmp_path_factory):
    return copy_workspace(small_workspace, tmp_path_factory.mktemp("search") / "workspace")


@pytest.mark.parametrize("preset", ["laptop", "paper", "demo"])
def test_in_a_preset_all_searches_may_ask_equally_often(preset):
    configs = [make_config(name, preset, {}, seed=0) for name in SEARCHES]
    assert len({config.n_steps * getattr(config, "population", 1) for config in configs}) == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_on_the_laptop_all_searches_may_ask_equally_often(name):
    algo = searcher(name)
    config = algo.config
    assert config.n_steps * getattr(config, "population", 1) == BUDGET
    asked = []
    next(fit(algo, lambda policy: asked.append(policy) or FITNESS(policy)))
    assert len(asked) == algo.policy.info["evaluations"] == BUDGET // config.n_steps


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_tells_the_best_fitness_so_far(name):
    rows = list(fit(searcher(name, n_steps="4"), FITNESS))
    best = [row["fitness_best"] for row in rows]
    assert best == sorted(best)
    assert all(row.get("fitness", row.get("fitness_mean")) <= row["fitness_best"] for row in rows)


def test_the_grid_tries_every_level_of_each_dimension_and_keeps_the_best():
    algo = searcher("grid_search", n_steps="14")
    list(fit(algo, FITNESS))
    tried = np.array(algo.trials.actions)
    levels = np.linspace(-1, 1, 7)
    for part in (tried[:7], tried[7:]):
        (moved,) = np.flatnonzero(np.ptp(part, axis=0))
        np.testing.assert_allclose(part[:, moved], levels)
    np.testing.assert_allclose(algo.policy.act(LOG[:].observations[:1]), [[1 / 3, -1 / 3]], atol=1e-6)


def test_a_wide_profile_is_reduced_to_what_300_parameters_can_weigh():
    generator = np.random.default_rng(0)
    wide = changed(observations=generator.normal(size=(len(LOG), 400)), n_profile=350)
    network = searcher("evolution_strategy", wide, n_parameters="300").policy.network
    assert sum(p.numel() for p in network.parameters()) == 300
    assert not network.components[350:].any() and network.components[:350].any()
    with pytest.raises(Refusal, match="n_parameters: 3 are too few for a bias and a weight in each of 2 dim"):
        searcher("evolution_strategy", n_parameters="3")


def test_the_evolution_strategy_starts_as_a_baseline_that_is_linear_in_the_profile():
    slope = np.float32([[0.1, 0], [0, -0.1], [0, 0], [0, 0]])
    log = changed(baseline_actions=np.clip(LOG[:].observations, -3, 3) @ slope * 0.5)
    actions = searcher("evolution_strategy", log).policy.act(LOG[:].observations)
    np.testing.assert_allclose(actions, log[:].baseline_actions, atol=1e-3)
    with pytest.warns(UserWarning, match="the policy starts up to .* from the baseline policy"):
        searcher("evolution_strategy", changed(baseline_actions=np.abs(LOG[:].observations[:, :2]) / 9))


def test_the_evolution_strategy_tells_users_apart():
    wanted = np.where(LOG[:].observations[:, :1] > 0, np.float32([[0.4, 0]]), np.float32([[-0.4, 0]]))

    def fitness(policy) -> float:
        return -float(np.square(policy.act(LOG[:].observations) - wanted).mean())

    algo: EvolutionStrategy = searcher("evolution_strategy", n_steps="40", population="10")
    list(fit(algo, fitness))
    actions = algo.policy.act(LOG[:].observations)
    assert actions[wanted[:, 0] > 0, 0].mean() > 0.2 > -0.2 > actions[wanted[:, 0] < 0, 0].mean()


def test_logarithms_taken_once_give_the_scores_of_formula_one():
    generator = np.random.default_rng(0)
    spec = FusionSpec.default(("a", "b", "c"), negative=("b",), bias=("c",))
    predictions = np.float32(generator.uniform(size=(50, 3)) * (generator.uniform(size=(50, 3)) < 0.9))
    request = generator.integers(10, size=50)
    prepared = LogPredictions(spec, predictions)
    for _ in range(2):
        actions = np.float32(generator.uniform(-1, 1, (10, spec.n_actions)))
        expected = log_final_score(spec, actions[request], predictions.astype(np.float64))
        np.testing.assert_allclose(prepared.log_final_score(actions, request), expected, rtol=1e-6)


def test_the_fitness_is_the_weighted_gauc_of_training_rows(workspace):
    log = open_dataset(workspace, "explored")
    rows = log.evaluation_rows("train")
    policy = Policy.baseline(rows.fusion, rows.feature_names, log.meta.numeric_mask)
    fitness = open_fitness(workspace, "explored", {"fitness": "weighted_gauc", "batch_size": 10_000})
    (expected,) = evaluate({"it": policy}, rows, n_bootstrap=2).policies
    assert fitness(policy) == pytest.approx(expected.weighted_gauc, abs=1e-12)
    assert fitness.size == {"users": len(np.unique(rows.user)), "impressions": len(rows.request)}
    few = open_fitness(workspace, "explored", {"fitness": "weighted_gauc", "batch_size": 30})
    assert few.size["users"] == 30


def test_the_fitness_is_the_mean_reward_of_a_request_in_the_logs_environment(workspace):
    config = {"fitness": "reward", "batch_size": 40, "seed": 3, "n_threads": 1}
    fitness = open_fitness(workspace, "explored", config)
    log, env = open_dataset(workspace, "explored"), SessionEnvironment()
    policy = live_policy(env)
    outcome = play(env, policy, *fitness.visits)
    assert fitness(policy) == outcome.rewards.sum() / outcome.requests.sum()
    assert fitness.size == {"sessions": 40}
    limited = {**config, "n_steps": 5, "population": 2, "max_sessions": 305}
    few = open_fitness(workspace, "explored", limited)
    assert few.size == {"sessions": 30} and consumed(few, 10)["sessions_in_all"] <= 305
    np.testing.assert_array_equal(few.visits, np.stack(fitness.visits)[:, :30])
    known = log.query("SELECT DISTINCT user_id FROM requests")["user_id"]
    assert known.str.startswith("u").all()
    assert not set(known) & {f"u{code}" for code in fitness.visits[0]}, "users that the log does not know"
    assert open_fitness(workspace, "explored", {"gamma": 0.9}) is None, "of an RL method"


def test_a_log_from_elsewhere_has_no_environment_to_be_rewarded_in(workspace):
    row = workspace.dataset("explored")
    workspace.registry.add_dataset(row.model_copy(update={"id": "dataset-0", "name": "mine", "run_id": None}))
    with pytest.raises(Refusal, match="mine was not collected from an environment here; set fitness=weight"):
        open_fitness(workspace, "mine", {"fitness": "reward", "batch_size": 40, "seed": 0, "n_threads": 1})


def test_a_run_keeps_what_it_was_searched_for_and_how_often(workspace, in_process):
    settings = {"n_steps": "2", "population": "4", "fitness": "reward", "batch_size": "20"}
    run_id = submit_train(workspace, "explored", algo="evolution_strategy", preset="demo", settings=settings)
    run = completed(workspace, wait(workspace, run_id))
    assert run.config["fitness"] == "reward"
    assert run.result["search"] == {"evaluations": 8, "sessions": 20, "sessions_in_all": 160}
    policy = open_policy(workspace, run_id, open_dataset(workspace, "explored").meta)
    assert policy.info["evaluations"] == 8 and policy.info["fitness"] == "reward"
    (told,) = results.searches([run_id, "baseline"], {run_id: run}).to_dict("records")
    assert (told["fitness"], told["evaluations"], told["sessions in all"]) == ("reward", 8, 160)


def test_a_search_is_estimated_by_what_its_evaluations_look_at(workspace, tmp_path):
    row = workspace.dataset("explored")

    def seconds(**settings) -> float:
        config = make_config("evolution_strategy", "laptop", settings, seed=0).model_dump(mode="json")
        return estimates.estimate(Workspace(tmp_path), "evolution_strategy", config, row).seconds

    assert seconds(population="28") > 1.5 * seconds(population="14")
    few = {"fitness": "reward", "max_sessions": "139"}
    for algo in ("grid_search", "bayesian_optimization", "evolution_strategy"):
        with pytest.raises(Refusal, match="max_sessions: 139 are fewer than the 140 evaluations"):
            make_config(
                algo, "laptop", few, seed=0
            )  # so before a training, rounds, a comparison or a tuning starts
    config = make_config("grid_search", "laptop", {"fitness": "reward", "max_sessions": "1400"}, seed=0)
    said = estimates.search_cost(Workspace(tmp_path), "grid_search", config.model_dump(mode="json"), row)
    assert "140 evaluations of 10 sessions each, 1,400 in all, which take about 1 min" in said
    assert estimates.search_cost(Workspace(tmp_path), "iql", {}, row) is None
    assert seconds(fitness="reward", batch_size="4000") > 1.9 * seconds(fitness="reward", batch_size="2000")


def test_a_search_is_estimated_whatever_became_of_the_collections_before_it(workspace, tmp_path):
    here = Workspace(tmp_path)
    config = make_config("grid_search", "laptop", {"fitness": "reward"}, seed=0).model_dump(mode="json")
    began = now()

    def add(run_id: str, seconds: float, **values) -> None:
        ended = began + timedelta(seconds=seconds)
        times = {"created_at": began, "started_at": began, "finished_at": ended}
        kind = run_id.partition("-")[0]
        run = {"id": run_id, "kind": kind, "name": "", "state": RunState.COMPLETED, **times, "config": {}}
        here.registry.add_run(RunRow(**run | values))

    def log(number: int):
        details = {"details": {"env": "gym:Pendulum-v1"}}
        row = workspace.dataset("explored")
        changed = {"id": f"dataset-{number}", "run_id": f"collect-{number}", "meta": row.meta | details}
        here.registry.add_dataset(row := row.model_copy(update=changed))
        return row

    logs = log(1), log(2)  # rows alone: no estimate opens a file of a log

    def told(**changes):
        return estimates.estimate(here, "grid_search", config | changes, logs[0])

    guessed = told().seconds
    assert guessed == pytest.approx(140 * 5000 / estimates.PLAY_RATE, rel=0.01)
    add("collect-1", estimates.START + 10, result={"sessions": 500})
    add("collect-2", estimates.START + 10, config={"n_sessions": 1000})
    assert told().seconds == pytest.approx(140 * 5000 / 50, rel=0.01)
    add("train-2", 100, config=config, algo="grid_search", dataset_id="dataset-2")
    here.run_dir("train-2").mkdir()
    metrics.append(here.run_dir("train-2"), {"step": 10, "seconds": 100.0})
    assert told().seconds == pytest.approx(140 * 20, rel=0.01) and told().basis == "as in train-2"
    fewer = told(max_sessions=1400)
    assert (
        fewer.basis == "scaled from train-2, which had other sizes" and fewer.seconds < told().seconds / 100
    )
    here.registry.delete_runs("collect-2")
    assert told().basis == "as in train-2"
    file = here.run_dir("train-2") / "metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b"100", b"900"))
    assert "a guess" in told().basis
    here.registry.delete_runs("collect-1")
    assert told().seconds == guessed
