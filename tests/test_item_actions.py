"""Weights for each item: state of user and item, one action a pair, and a world where nothing else can win."""

import zipfile
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from mtf_engine.algos import ALGOS
from mtf_engine.environments import Active, Candidates, Impressions, Step, best
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.play import play
from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.evaluation import evaluate
from mtf_engine.evaluation.calibration import calibration
from mtf_engine.evaluation.evaluate import evaluation
from mtf_engine.evaluation.explain import LOGGED, explain, read_request
from mtf_engine.evaluation.personalisation import personalisation
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.evaluation.scored import Scoring, scored
from mtf_engine.fusion import LogPredictions, log_final_score
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.joining import joined_meta
from mtf_engine.logs.schema import Tables
from mtf_engine.observation import item_states
from mtf_engine.policies.bundle import export, verify
from mtf_engine.policies.bundle_readme import bundle_readme, serving_lines
from mtf_engine.policies.examples import Examples
from mtf_engine.policies.graphs import Clip
from mtf_engine.policies.importing import import_bundle
from mtf_engine.policies.policy import Policy
from mtf_engine.runs import executor
from mtf_engine.spec import BoundsPlan, FusionDimension, FusionSpec, Refusal, RewardSpec
from mtf_engine.work.abtest import submit_abtest
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.export import submit_export
from mtf_engine.work.mlflow import _signature
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace
from tests.test_datasets import META, tables, written
from tests.test_pages import opened, texts
from tests.workspaces import copy_workspace

HALF_WIDTH = 0.5
SETTINGS = {
    "hidden": "16", "n_critics": "3", "gamma": "0", "n_steps": "300", "batch_size": "64",
    "critic_learning_rate": "0.01", "actor_learning_rate": "0.01",
}  # fmt: skip


class Kinds:
    """Sessions of one request: the prediction tells how good an item of kind a is, and how bad one of kind b.

    No weights that all items share can be worth more than chance, 0.5 an item.
    """

    name, synthetic, batch, encoder = "kinds", True, 4096, None
    fusion = FusionSpec(
        predictions=("p",), dimensions=(FusionDimension(prediction="p", kind="pow", low=-2, high=2),)
    )
    reward, signals = RewardSpec(weights={"good": 1.0}), ("good",)
    feature_names, numeric_mask = ("mood",), (True,)
    item_features, item_mask = ("kind=a", "kind=b"), (False, False)
    n_candidates, n_shown = 6, 2

    def visits(self, first, n, seed):
        return np.arange(first, first + n), np.full(n, seed)

    def passes(self, n_requests, seed):
        return 1

    def reset(self, users, sessions):
        rng = np.random.default_rng([users[0], sessions[0]])
        self._users, self._mood = users, rng.normal(size=(len(users), 1)).astype(np.float32)
        shape = (len(users), self.n_candidates)
        self._p = rng.uniform(0.02, 0.98, (*shape, 1)).astype(np.float32)
        self._items = np.eye(2, dtype=np.float32)[rng.integers(0, 2, shape)]

    @property
    def active(self):
        n = len(self._users)
        return Active(np.arange(n), self._users.astype(str), np.full(n, "all"), np.zeros(n), 0)

    def observe(self):
        return self._mood

    def candidates(self, rows):
        n = len(self._users[rows])
        return Candidates(np.tile(np.arange(self.n_candidates), (n, 1)), self._p[rows], self._items[rows])

    def step(self, actions, typical=None):
        rows = best(log_final_score(self.fusion, actions, self._p, typical=typical), self.n_shown)
        p, items = (np.take_along_axis(of, rows[..., None], 1) for of in (self._p, self._items))
        good = np.where(items[..., :1] == 1, p, 1 - p)
        shown = Impressions(rows, p, good, good[..., 0].astype(float), good[..., 0] > 0.5, items)
        n, self._users, self._mood = len(rows), self._users[:0], self._mood[:0]
        return Step(shown.reward.sum(axis=1), np.ones(n, bool), np.zeros(n, bool), shown)


ENV = Kinds()
BASELINE = Policy.baseline(ENV.fusion, ENV.feature_names, ENV.numeric_mask)
PLAN = BoundsPlan.symmetric(HALF_WIDTH, 1)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("kinds")
    collection = Collection(plan=PLAN, n_sessions=1_500, seed=1)
    write_dataset(folder, "log", collection.meta(ENV, "log", "session"), collect(ENV, BASELINE, collection))
    return Dataset.open(folder / "log.duckdb")


def learned(log: Dataset, level: str, method: str = "integrated_rl", **settings):
    steps = log.transitions(by_item=level == "item")
    own = {name: v for name, v in (SETTINGS | settings).items() if name in ALGOS[method].Config.model_fields}
    algo = ALGOS[method](make_config(method, "laptop", own | {"action_level": level}, 0), steps, BASELINE)
    assert len(list(fit(algo, steps))) > 0
    return algo


@pytest.fixture(scope="module")
def by_item(log):
    return learned(log, "item")


def value(policy) -> float:
    """Returns the mean reward of an item."""
    return float(play(ENV, policy, *ENV.visits(0, 2_000, 99)).rewards.mean() / ENV.n_shown)


def test_weights_for_each_item_win_where_nothing_else_can(log, by_item):
    request = learned(log, "request").policy
    assert (request.action_level, by_item.policy.action_level) == ("request", "item")
    assert value(request) == pytest.approx(0.5, abs=0.02)
    assert value(by_item.policy) > 0.7
    rows = log.evaluation_rows("validation")
    found = evaluate(
        {"item": by_item.policy, "request": request}, rows, n_bootstrap=50, critics={"item": by_item.critics}
    )
    item, other = found.policies
    assert item.weighted_gauc > 0.9 and other.weighted_gauc < 0.7
    assert found.differences[0].ci_low > 0.2
    steps = log.known_steps("validation", by_item=True)
    asked = {"dataset_id": "log", "split": "validation", "gamma": 0.0, "reward_scale": 1.0, "n_bootstrap": 9}
    assert calibration(by_item.critics, steps, **asked).correlation > 0.2
    assert item.deviation.n_requests == len(rows.request) and item.disagreement.n_requests == len(
        rows.request
    )
    assert Ranking(rows)(by_item.policy) == pytest.approx(item.weighted_gauc, abs=1e-6)


@pytest.mark.parametrize("method", ["ddpg", "cql_sac", "batchrl_mtf", "iql"])
def test_every_method_with_an_actor_can_have_weights_for_each_item(log, method, tmp_path):
    policy = learned(log, "item", method, n_steps="2", n_action_samples="2").policy
    policy.save(tmp_path / "policy.safetensors")
    again = Policy.load(tmp_path / "policy.safetensors")
    assert again.item_names == ENV.item_features
    observations, items = np.float32([[0.5], [1]]), np.eye(2, dtype=np.float32)
    actions = again.act_on(observations, np.stack([items, items]))
    assert actions.shape == (2, 2, 1)
    np.testing.assert_array_equal(actions[:, 1], again.act_on(observations, items[[1, 1]]))


def test_impressions_as_steps_lead_to_what_the_next_request_showed_at_their_place(tmp_path):
    batch = tables([3, 1, 2], truncated=(2,))
    kept = np.delete(np.arange(12), 5)  # the third request shows one item alone
    shown = {name: column[kept] for name, column in batch.impressions.items()}
    features = np.arange(22, dtype=np.float32).reshape(11, 2)
    meta = META.model_copy(update={"item_features": ("x", "y"), "item_mask": (True, False)})
    dataset = written(tmp_path, Tables(batch.requests, shown | {"item_features": features}), meta=meta)
    steps = dataset.transitions(by_item=True)
    found, after = steps[:], steps.after(slice(None))
    expected = []  # (session, place, request, row of the impressions, row that follows)
    for session, requests in enumerate(([0, 1, 2], [3], [4, 5])):
        for place in range(2):
            rows = [np.flatnonzero(shown["request_id"] == r)[place : place + 1].tolist() for r in requests]
            for i, (request, row) in enumerate(zip(requests, rows, strict=True)):
                follows = rows[i + 1] if i + 1 < len(rows) else []
                if row and (follows or batch.requests["terminal"][request]):
                    expected.append((session, place, request, row[0], follows[0] if follows else None))
    assert len(steps) == len(expected) == 3 + 1 + 1 + 1 + 1 + 1
    requests, rows = [e[2] for e in expected], [e[3] for e in expected]
    observed = np.concatenate([batch.requests["observation"][requests], features[rows]], axis=1)
    np.testing.assert_array_equal(found.observations, observed)
    np.testing.assert_array_equal(found.rewards, shown["reward"][rows].astype(np.float32))
    np.testing.assert_array_equal(found.actions, batch.requests["action"][requests])
    following = [features[e[4]] if e[4] is not None else [0, 0] for e in expected]
    np.testing.assert_array_equal(after.observations[:, -2:], np.float32(following))
    assert steps.feature_names == ("a", "b", "c", "x", "y") and steps.observed_names == ("a", "b", "c")
    assert steps.numeric_mask == (True, True, False, True, False)


def test_a_log_without_item_features_has_the_logarithms_of_its_predictions(tmp_path):
    batch = tables([2, 2])
    steps = written(tmp_path, batch).transitions(by_item=True)
    assert steps.item_names == ("log_click", "log_like")
    logs = np.log(batch.impressions["predictions"])
    np.testing.assert_allclose(np.sort(steps[:].observations[:, 3:], 0), np.sort(logs, 0), rtol=1e-6)
    bare = Tables(batch.requests, {name: column[:0] for name, column in batch.impressions.items()})
    (tmp_path / "bare").mkdir()
    with pytest.raises(Refusal, match="shows no items, so there are none to give weights of their own"):
        written(tmp_path / "bare", bare).transitions(by_item=True)
    with pytest.raises(Refusal, match="the data lacks item features that it reads: kind=a; take a log"):
        item_states(("kind=a", "log_click"), (), None, ("click", "like"), batch.impressions["predictions"])
    with pytest.raises(Refusal, match="differ in their item_features"):
        joined_meta("both", ("a", "b"), (META, META.model_copy(update={"item_features": ("x",)})))


def test_synthetic_and_replayed_candidates_tell_of_their_items(tmp_path):
    env = SessionEnvironment()
    plan = BoundsPlan.symmetric(0.1, env.fusion.n_actions)
    collection = Collection(plan=plan, n_sessions=12)
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    write_dataset(tmp_path, "log", collection.meta(env, "log", "session"), collect(env, baseline, collection))
    log = Dataset.open(tmp_path / "log.duckdb")
    assert log.meta.item_features == ("log_duration", "kind=short", "kind=middle", "kind=long")
    for table in ("impressions", "candidates"):
        rows = log.arrays(f"SELECT item_id, item_features FROM {table}")
        kinds = env.catalogue.kind[rows["item_id"]]
        np.testing.assert_array_equal(
            rows["item_features"][:, 0], env.catalogue.log_duration[rows["item_id"]]
        )
        np.testing.assert_array_equal(rows["item_features"][:, 1:], np.eye(3)[kinds])
    replay = ReplayEnvironment(log, ReplayConfig(n_candidates=4, n_shown=2, n_requests=2))
    replay.reset(*replay.visits(0, 5, 0))
    offered = replay.candidates(slice(None))
    np.testing.assert_array_equal(offered.item_features[..., 0], env.catalogue.log_duration[offered.item_id])
    n, k = offered.item_id.shape
    wanted = np.zeros((n, k, env.fusion.n_actions), np.float32)
    shown = replay.step(wanted).impressions
    np.testing.assert_array_equal(shown.item_features[..., 0], env.catalogue.log_duration[shown.item_id])


def test_a_bundle_takes_item_features_and_answers_as_the_policy(log, by_item, tmp_path):
    rows = log.evaluation_rows("validation")
    Examples.of(rows).save(tmp_path / "examples.safetensors")
    kept = Examples.load(tmp_path / "examples.safetensors")
    manifest = export(by_item.policy, tmp_path / "policy.zip", rows=kept)
    assert verify(tmp_path / "policy.zip")["ok"]
    assert (manifest["action_level"], manifest["item_features"]) == ("item", ["kind=a", "kind=b"])
    assert manifest["inputs"]["item_features"].startswith("float32 [requests, candidates, features]")
    lines, served = serving_lines(manifest, str(tmp_path / "policy.zip")), {}
    exec(lines, served)
    assert served["log_final_scores"].shape == (1, 60) and "mtf serve" not in bundle_readme(
        manifest, "policy.zip"
    )
    scores = _signature("scores", manifest).inputs
    graph = onnxruntime.InferenceSession(zipfile.ZipFile(tmp_path / "policy.zip").read("scores.onnx"))
    assert {one.name for one in graph.get_inputs()} == set(scores.input_names())
    with pytest.raises(Refusal, match="has weights for each item, which are not imported"):
        import_bundle((tmp_path / "policy.zip").read_bytes(), "policy.zip")
    bare = replace(kept, predictions=kept.predictions[:0], item_features=None)
    with pytest.raises(Refusal, match="weights for each item, and the rows show none"):
        export(by_item.policy, tmp_path / "bare.zip", rows=bare)


def test_scored_share_by_share_it_ranks_as_at_once(log, by_item):
    rows = log.evaluation_rows()
    policies = {"item": by_item.policy, "request": BASELINE}
    how, alone = Scoring(rows.whole, 8), Scoring(rows.whole, 1)
    parts = list(scored(policies, rows, how, {"item"}))
    assert len(parts) > 4 and all(len(part.acted["item"].asked.rank) for part in parts)
    whole = evaluation(policies, parts, how)
    at_once = evaluation(policies, scored(policies, rows, alone), alone)
    assert (whole.n_impressions, whole.n_users) == (at_once.n_impressions, at_once.n_users)
    for one, other in zip(whole.policies, at_once.policies, strict=True):
        assert one.weighted_gauc == pytest.approx(other.weighted_gauc, rel=1e-12)
        for mine, its in zip(one.deviation.dimensions, other.deviation.dimensions, strict=True):
            assert mine.counts == its.counts


def test_held_in_bounds_every_item_is(log, by_item):
    plan = BoundsPlan.symmetric(0.1, 1)
    held = Clip(BASELINE, plan).of(by_item.policy)
    items = np.eye(2, dtype=np.float32)[None]
    free = by_item.policy.act_on(np.float32([[0]]), items)
    assert free[0, 0] > 0.3 and free[0, 1] < -0.3
    np.testing.assert_allclose(held.act_on(np.float32([[0]]), items), np.sign(free) * 0.1, rtol=1e-6)


def test_a_request_is_explained_item_by_item(log, by_item):
    request = read_request(log, 0)
    found = explain({"item": by_item.policy}, request)
    weights, ranking = found.weights, found.ranking[found.ranking["policy"] == "item"]
    own = weights[weights["policy"] == "item"]
    assert own["item"].tolist() == list(range(len(request.items))) == ranking["item"].tolist()
    assert weights[weights["policy"] == LOGGED]["item"].isna().all()
    actions = own["action"].to_numpy(np.float32).reshape(1, -1, 1)
    score = log_final_score(ENV.fusion, actions, request.predictions[None], typical=by_item.policy.typical)[0]
    np.testing.assert_allclose(ranking["score"], score, rtol=1e-5)


def test_weights_of_its_own_move_an_item_by_what_is_predicted_of_it_alone():
    spec, typical = ENV.fusion, np.exp(np.float64([-3]))
    predictions = np.exp(np.float64([[[-1], [-2], [-3], [-6]]]))
    pows = np.array([1.0, 1.0, -1.0, -1.0])
    expected = pows * [2, 1, 0, -3]  # logarithms less the typical one
    actions = pows.reshape(1, 4, 1) / 2
    np.testing.assert_allclose(log_final_score(spec, actions, predictions, typical=typical)[0], expected)
    flat = LogPredictions(spec, predictions[0]).log_final_score(actions[0], np.arange(4), typical)
    np.testing.assert_allclose(flat, expected)
    same, all_the_same = np.full((1, 4, 1), 0.3), np.full((1, 1), 0.3)
    told = [log_final_score(spec, of, predictions, typical=typical) for of in (same, all_the_same)]
    np.testing.assert_allclose(told[0], told[1])
    np.testing.assert_allclose(
        np.ptp(told[1] - log_final_score(spec, all_the_same, predictions)), 0, atol=1e-12
    )


def test_what_needs_one_action_of_a_request_says_so(by_item):
    observations = np.float32([[0.0]])
    with pytest.raises(Refusal, match=r"weights for each item \(action_level=item\)"):
        by_item.policy.act(observations)
    with pytest.raises(Refusal, match="has one action for all items of a request"):
        BASELINE.act_on(observations, np.zeros((1, 1, 2)))
    assert personalisation(ENV, "item", by_item.policy, 10) == ()


def test_a_training_by_item_starts_as_the_baseline_and_goes_on_from_one_of_its_kind(log, by_item):
    steps = log.transitions(by_item=True)
    config = make_config("integrated_rl", "laptop", SETTINGS | {"action_level": "item"}, 0)
    fresh = ALGOS["integrated_rl"](config, steps, BASELINE)
    seen = torch.as_tensor(steps[:9].observations)
    with torch.inference_mode():
        np.testing.assert_allclose(fresh.actor(seen), np.zeros((9, 1)), atol=1e-6)
        onward = ALGOS["integrated_rl"](config, steps, by_item.policy)
        np.testing.assert_array_equal(onward.actor(seen), by_item.actor(seen))


@pytest.mark.slow
def test_every_page_shows_such_a_policy_or_says_why_not(small_workspace, tmp_path, monkeypatch, in_process):
    copy_workspace(small_workspace, tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "workspace"))
    workspace = Workspace(tmp_path / "workspace")

    def done(run_id: str) -> str:
        executor.completed(workspace, executor.wait(workspace, run_id))
        return run_id

    settings = {"n_steps": "20", "n_critics": "3", "hidden": "32", "action_level": "item"}
    run = done(submit_train(workspace, "explored", algo="integrated_rl", preset="demo", settings=settings))
    done(submit_evaluate(workspace, [run, f"{run}@best"], "test"))
    told = done(
        submit_abtest(
            workspace, [run], against="baseline", env="session:feed", n_users=40, personalisation=True
        )
    )
    assert not workspace.registry.run(told).result["personalisation"]
    done(submit_export(workspace, run))
    by_default = opened("start", algo="integrated_rl")
    assert by_default.selectbox(key="integrated_rl.laptop.action_level").value == "request"
    on = workspace.dataset("test").id
    explained = opened("explain", dataset=on, policies=run, request="17")
    assert "A policy with weights for each item has a mark an item" in texts(explained)
    for page in ("compare", "abtest", "deviation", "critics"):
        opened(page, dataset=on)
    for page in ("drift", "walls"):
        assert "policy has weights for each item" in texts(opened(page, run=run, dataset=on))
    for page in ("", "runs", "export", "review", "rounds"):
        opened(page or None, **({"run": run} if page in ("runs", "export") else {}))
    refused = submit_collect(
        workspace, env="session:feed", n_requests=20, explore="uniform", seed=1, name="around", baseline=run
    )
    assert "has weights for each item" in str(executor.wait(workspace, refused).error)
    with pytest.raises(Refusal, match="a round explores around one action of the request"):
        submit_progressive(
            workspace,
            algo="integrated_rl",
            preset="demo",
            settings=settings,
            env="session:feed",
            sessions_per_round=50,
        )
