"""Progressive rounds: one run of ordinary ones, which ends the same however often it is killed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks import resume_rounds
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.evaluation.abtest import Effect
from mtf_engine.logs import aggregates
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.joining import joined_meta
from mtf_engine.registry import BASELINE, RunRow, RunState
from mtf_engine.release.rounds import Estimate, Round, policy_figures, predicted_return, share_of, verdict
from mtf_engine.runs import executor
from mtf_engine.runs.spread import spread
from mtf_engine.runs.storage import live_policy, load_policy, open_dataset, open_policy
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work.collect import CollectConfig
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.paper_data import submit_paper_data
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.workspace import Workspace
from tests.fixtures import kuairand as sample
from tests.test_gymnasium import PENDULUM
from tests.test_replay import source
from tests.waiting import wait_until
from tests.workspaces import copy_workspace, stop_all

SMALL = {"n_steps": "61", "checkpoint_every": "10", "log_every": "10", "validate_every": "20"}
SMALL |= {"batch_size": "16", "n_critics": "3", "hidden": "8"}


def submit(workspace: Workspace, **changes: Any) -> str:
    values = {
        "env": "session:feed",
        "rounds": 2,
        "sessions_per_round": 60,
        "seed": 3,
        "name": "small",
        "promote": "always",  # so small a training is rarely better, and what is promoted is looked at
        "ab_users": 0,
        **changes,
    }
    settings = SMALL | values.pop("settings", {})
    return submit_progressive(workspace, algo="integrated_rl", preset="demo", settings=settings, **values)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, borne: None) -> Iterator[Workspace]:
    """A workspace in which no run outlives the tests."""
    workspace = Workspace(tmp_path_factory.mktemp("rounds") / "workspace")
    yield workspace
    stop_all(workspace)


@pytest.fixture(scope="module")
def whole(workspace: Workspace) -> RunRow:
    """Two cumulative rounds, played without a break."""
    run_id = submit(workspace, train_on="cumulative", ab_users=50)
    return executor.completed(workspace, executor.wait(workspace, run_id))


@pytest.fixture(scope="module")
def told(whole: RunRow) -> list[Round]:
    return [Round.model_validate(one) for one in (whole.result or {})["rounds"]]


def test_a_round_explores_around_what_the_last_one_promoted(workspace: Workspace, told: list[Round]) -> None:
    first, second = told
    assert (first.baseline, second.baseline) == ("baseline", first.candidate)
    log = open_dataset(workspace, second.dataset_id)
    promoted = open_policy(workspace, first.candidate, log.meta)
    rows = log.arrays("SELECT observation, baseline_action, action, pscore FROM requests")
    np.testing.assert_allclose(rows["baseline_action"], promoted.act(rows["observation"]), atol=1e-6)
    control = np.isnan(rows["pscore"])
    assert 0 < control.mean() < 0.5
    np.testing.assert_array_equal(rows["action"][control], rows["baseline_action"][control])


def test_rounds_share_sessions_users_and_steps_as_they_should(
    workspace: Workspace, told: list[Round]
) -> None:
    logs = [open_dataset(workspace, one.dataset_id) for one in told]
    users = [set(log.query("SELECT DISTINCT user_id FROM requests")["user_id"]) for log in logs]
    assert not users[0] & users[1], "every round meets new users"
    assert [log.query("SELECT max(session_id) + 1 AS n FROM requests")["n"][0] for log in logs] == [60, 60]
    assert [one.steps for one in told] == [30, 31]
    assert [share_of(61, number, 5) for number in range(1, 6)] == [12, 12, 12, 12, 13]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:the actor starts"
)  # from so short a log, which is told where it works alone
def test_rounds_end_the_same_by_one_process_and_by_two(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    """Logs and scores are divided in two, however short they are."""
    for module, name, least in (
        ("environments.collect", "CANDIDATE_REQUESTS", 100),
        ("environments.collect", "WORTH_SPREADING", 0),
        ("evaluation.scored", "PART_ROWS", 200),
        ("work.evaluate", "WORTH_SPREADING", 0),
    ):
        monkeypatch.setattr(f"mtf_engine.{module}.{name}", least)
    monkeypatch.setattr(SessionEnvironment, "batch", 20)
    told, spreads = [], []

    def counted(work: Any, shards: Any, n_workers: int) -> Any:
        spreads.append(n_workers)
        return spread(work, shards, n_workers)

    for module in ("collect", "evaluate"):
        monkeypatch.setattr(f"mtf_engine.work.{module}.spread", counted)
    for n_workers in (1, 2):
        run_id = submit(workspace, rounds=1, n_workers=n_workers)
        run = executor.completed(workspace, executor.wait(workspace, run_id))
        (one,) = (run.result or {})["rounds"]
        hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
        told.append((hashes[one["dataset_id"]], one["policy"], one["log"], one["promoted"]))
    assert told[0] == told[1] and spreads == [2, 2], "the log and its scores"


@pytest.mark.slow
def test_passes_go_over_the_log_of_each_round(workspace: Workspace) -> None:
    settings = {name: value for name, value in SMALL.items() if name != "n_steps"} | {"passes": "40"}
    run_id = submit_progressive(
        workspace, algo="integrated_rl", preset="demo", settings=settings, env="session:feed", rounds=2,
        sessions_per_round=30, train_on="cumulative", name="passes", seed=5, ab_users=0,
    )  # fmt: skip
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    rounds = [Round.model_validate(one) for one in (run.result or {})["rounds"]]
    trained = [workspace.registry.run(one.candidate) for one in rounds]
    sizes = [(run.result or {})["transitions"] for run in trained]
    assert [run.n_steps for run in trained] == [run.step for run in trained] == [one.steps for one in rounds]
    assert [one.steps for one in rounds] == [max(500, round(size * 40 / 16)) for size in sizes] and sizes[
        0
    ] < sizes[1]


@pytest.mark.slow
def test_rounds_are_played_on_a_log_that_is_replayed(workspace: Workspace, tmp_path: Path) -> None:
    log = sample.write(tmp_path / "log", sample.impressions(), sample.users())
    imported = submit_import(workspace, log, format="kuairand", name="log")
    source = executor.completed(workspace, executor.wait(workspace, imported)).dataset_id
    run_id = submit(workspace, env="replay", source=source, train_on="cumulative")
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    one, two = [Round.model_validate(told) for told in (run.result or {})["rounds"]]
    assert (one.baseline, two.baseline) == ("baseline", one.candidate) and not one.effects
    logs = [open_dataset(workspace, told.dataset_id) for told in (one, two)]
    assert {log.meta.source for log in logs} == {"replay"} and not one.synthetic
    assert [log.query("SELECT max(session_id) + 1 AS n FROM requests")["n"][0] for log in logs] == [60, 60]
    candidate = open_policy(workspace, one.candidate, logs[1].meta)
    rows = logs[1].arrays("SELECT observation, baseline_action FROM requests")
    np.testing.assert_allclose(rows["baseline_action"], candidate.act(rows["observation"]), atol=1e-6)
    assert two.policy.gauc.value is not None and two.log.control_gauc.value is not None


def test_a_cumulative_round_learns_from_all_logs_so_far(workspace: Workspace, told: list[Round]) -> None:
    logs = [open_dataset(workspace, one.dataset_id) for one in told]
    pooled = open_dataset(workspace, str(workspace.registry.run(told[1].candidate).dataset_id))
    assert pooled.meta.details["joins"] == [one.dataset_id for one in told]
    assert pooled.n_requests == sum(log.n_requests for log in logs)
    first, second = parts = [log.transitions() for log in logs]
    both = pooled.transitions()
    starts = [first.session_starts, len(first) + second.session_starts]
    np.testing.assert_array_equal(both.session_starts, np.concatenate(starts))
    for column in ("observations", "actions", "baseline_actions", "lower", "upper", "rewards", "terminals"):
        expected = np.concatenate([getattr(part[:], column) for part in parts])
        np.testing.assert_array_equal(getattr(both[:], column), expected, err_msg=column)
    assert told[1].signal == aggregates.signal(pooled).everybody
    assert told[0].signal is None, "its sessions are too few to tell"


def test_the_scale_of_rewards_is_fixed_by_the_first_round(workspace: Workspace, told: list[Round]) -> None:
    meta = open_dataset(workspace, told[0].dataset_id).meta
    first, second = (open_policy(workspace, one.candidate, meta).info["reward_scale"] for one in told)
    assert first == second == workspace.registry.run(told[1].candidate).config["reward_scale"]
    assert workspace.registry.run(told[0].candidate).config["reward_scale"] is None


def test_what_a_round_tells_is_what_its_log_says(workspace: Workspace, told: list[Round]) -> None:
    one = told[1]
    log = open_dataset(workspace, one.dataset_id)
    by_session = log.query(
        "SELECT sum(reward) AS total, sum(reward * 0.9 ** step) AS discounted, any_value(pscore) IS NULL AS control "
        "FROM requests GROUP BY session_id"
    )
    control = by_session[by_session["control"]]
    assert one.log.control_reward.value == pytest.approx(control["total"].mean())
    assert one.log.control_return.value == pytest.approx(control["discounted"].mean())
    assert one.log.explored_reward.value == pytest.approx(by_session[~by_session["control"]]["total"].mean())
    rows = log.evaluation_rows("validation")
    policy, first = (open_policy(workspace, name, log.meta) for name in (one.candidate, BASELINE))
    np.testing.assert_allclose(
        one.policy.walked,
        np.abs(policy.act(rows.observations) - first.act(rows.observations)).mean(0),
        rtol=1e-5,
    )
    assert one.policy.gauc.value == pytest.approx(
        workspace.registry.run(one.runs["evaluate"]).result["policies"][0]["weighted_gauc"]
    )
    assert one.policy.predicted_return is not None and one.policy.predicted_return.n_users > 0


class Telling:
    """Critics whose Q is the first feature, and twice it."""

    def q(self, observations, baseline_actions, lower, upper, actions):  # type: ignore[no-untyped-def]
        return np.stack([observations[:, 0], 2 * observations[:, 0]])


def test_what_critics_predict_is_told_over_users_not_over_their_sessions(tmp_path: Path) -> None:
    env_log = source(tmp_path, lengths=(40,) * 300)
    env = ReplayEnvironment(env_log, ReplayConfig.named("replay"))
    baseline = live_policy(env)
    collection = Collection(
        plan=BoundsPlan.symmetric(0.1, 2), explore="uniform", n_requests=2_000, control_share=0.1, seed=1
    )
    write_dataset(tmp_path, "log", collection.meta(env, "log", "replay"), collect(env, baseline, collection))
    log = Dataset.open(tmp_path / "log.duckdb")
    first = log.query(
        "SELECT user_id, observation[1] AS q FROM requests WHERE split = 'validation' AND step = 0"
    )
    policy = replace(baseline, info={"reward_scale": 0.5})
    predicted = predicted_return(log, policy, Telling())
    assert predicted is not None and predicted.value == pytest.approx(3 * first["q"].mean())
    assert 1 < predicted.n_users == first["user_id"].nunique() < len(first)
    assert predicted_return(env_log, policy, Telling()) is None, "nobody acted in it"


def test_a_round_tells_its_ab_test_against_its_own_baseline(workspace: Workspace, told: list[Round]) -> None:
    for one in told:
        tested = workspace.registry.run(one.runs["abtest"])
        assert tested.result is not None and tested.config["base"] == one.baseline
        assert [effect.model_dump(mode="json") for effect in one.effects] == tested.result["effects"]
        assert "in the A/B test" in one.why


def test_parts_are_ordinary_runs_with_folders_and_logs(workspace: Workspace, whole: RunRow) -> None:
    parts = workspace.registry.runs(parent_id=whole.id)
    kinds = ["abtest", "evaluate", "train", "join", "collect", "abtest", "evaluate", "train", "collect"]
    assert [part.kind for part in parts] == kinds
    assert {part.state for part in parts} == {RunState.COMPLETED}
    assert all((workspace.run_dir(part.id) / "run.log").exists() and part.provenance for part in parts)
    assert [part.dataset_id for part in parts if part.kind == "collect"][-1] in {
        row.id for row in workspace.registry.datasets()
    }
    log = (workspace.run_dir(whole.id) / "run.log").read_text()
    assert all(part.id in log for part in parts)
    assert whole.step == whole.n_steps == 8


@pytest.mark.slow
def test_killed_at_a_random_moment_it_ends_as_if_it_had_not_been(workspace: Workspace, whole: RunRow) -> None:
    killed = submit(workspace, train_on="cumulative", ab_users=50)
    generator = np.random.default_rng()
    n_done, seconds = int(generator.integers(0, 5)), generator.uniform(0, 0.2)
    print(f"killed {seconds:.2f} s after {n_done} of 9 parts")
    resume_rounds.kill(workspace, killed, seconds, n_done)
    parts = workspace.registry.runs(parent_id=killed)
    assert not [part.id for part in parts if part.state is RunState.RUNNING]
    executor.resume(workspace, killed)
    executor.completed(workspace, executor.wait(workspace, killed))
    assert resume_rounds.differences(workspace, whole.id, killed) == []


@pytest.mark.slow
def test_a_part_is_cancelled_and_resumed_with_the_whole(workspace: Workspace) -> None:
    run_id = submit(workspace, settings={"n_steps": "1000000"}, name="long")

    def at_work() -> list[RunRow]:
        return [p for p in workspace.registry.runs(parent_id=run_id) if p.kind == "train" and p.step]

    (part,) = wait_until(at_work, "a part trains")
    assert part.state is RunState.RUNNING and len(workspace.registry.queue()) == 0
    executor.cancel(workspace, part.id)
    assert executor.wait(workspace, run_id).state is RunState.CANCELLED
    stopped = workspace.registry.run(part.id)
    assert stopped.state is RunState.CANCELLED and stopped.step > 0

    executor.resume(workspace, part.id)
    wait_until(lambda: workspace.registry.run(part.id).step > stopped.step, "the part goes on where it was")
    os.kill(workspace.registry.run(run_id).pid or 0, signal.SIGTERM)
    assert executor.wait(workspace, run_id).state is RunState.INTERRUPTED
    assert workspace.registry.run(part.id).state is RunState.INTERRUPTED
    with pytest.raises(Refusal, match=f"{run_id} was interrupted at step 1 of 6"):
        executor.completed(workspace, workspace.registry.run(run_id))


@pytest.mark.slow
def test_a_failed_part_fails_the_whole_in_its_words(workspace: Workspace) -> None:
    run_id = submit(workspace, plan=BoundsPlan.symmetric(0.1, 3), name="misfit")
    run = executor.wait(workspace, run_id)
    (part,) = workspace.registry.runs(parent_id=run_id)
    assert run.state is part.state is RunState.FAILED
    assert f"{part.id}, the collect of misfit round 1, failed" in str(run.error)
    assert "3 dimensions" in str(run.error)
    workspace.delete_runs(run_id)
    assert workspace.registry.run(part.id).parent_id is None, "a part stays, as a run of its own"


def test_an_ab_test_outweighs_the_ranking_of_logged_impressions() -> None:
    worse = Estimate(value=-0.1, ci_low=-0.2, ci_high=-0.05, n_users=9)
    figures = {"mean": 2.0, "base_mean": 1.0, "ci_low": 0.9, "ci_high": 1.1, "p_value": 0.01}
    effect = Effect(policy="p", metric="session_reward", relative=1.0, by_seed=(), users_live=9, **figures)
    assert verdict("if-better", worse, [effect]) == (
        True,
        "better: session reward +100.00% against the baseline in the A/B test",
    )


@pytest.mark.parametrize(
    ("promote", "difference", "promoted"),
    [
        ("always", -0.1, True),
        ("if-better", -0.1, False),
        ("if-better", 0.1, True),
        ("if-better", None, False),
    ],
)
def test_what_is_promoted_and_why(promote: Any, difference: float | None, promoted: bool) -> None:
    found = Estimate(value=difference, ci_low=None, ci_high=None, n_users=9)
    decided, why = verdict(promote, found)
    assert decided is promoted
    assert ("no validation user" in why) if difference is None else (f"{difference:+.4f}" in why)


def test_logs_of_different_worlds_are_not_joined(workspace: Workspace, told: list[Round]) -> None:
    meta = open_dataset(workspace, told[0].dataset_id).meta
    other = meta.model_copy(update={"name": "other", "signals": ("click",)})
    with pytest.raises(Refusal, match="differ in their signals"):
        joined_meta("both", ["a", "b"], [meta, other])


@pytest.mark.parametrize(("env", "users"), [("session:feed", 2_000), (PENDULUM, 400), ("replay", 0)])
def test_rounds_are_judged_by_an_ab_test_where_users_can_be_met_again_and_keep_the_best(
    small_workspace: Workspace, tmp_path: Path, in_process: None, env: str, users: int
) -> None:
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    source = "test" if env == "replay" else None
    run_id = submit_progressive(
        copy,
        algo="integrated_rl",
        preset="demo",
        settings=SMALL,
        env=env,
        source=source,
        sessions_per_round=9,
    )
    run = copy.registry.run(run_id)
    config = run.config
    assert run.state is RunState.QUEUED and config["source"] == (source and copy.dataset(source).id)
    assert (config["ab_users"], config["promote"]) == (users, "if-better")
    assert config["criteria"]["metric"] == ("session_reward" if users else "weighted_gauc")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rounds": 62}, "too few for 62 rounds"),
        ({"env": "replay"}, "--from"),
        ({"baseline": "train-0"}, "no run 'train-0'"),
    ],
)
def test_rounds_that_cannot_be_are_refused_at_once(workspace: Workspace, changes: dict, reason: str) -> None:
    before = workspace.registry.runs()
    with pytest.raises(Refusal, match=reason):
        submit(workspace, **changes)
    assert workspace.registry.runs() == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": SMALL | {"n_steps": "3"}}, "3 steps are too few for 5 rounds"),
        ({"env": "replay:20/3/5"}, "replay needs the dataset to replay"),
        ({"env": "replay:2/3/5"}, "shows 3 of 2"),
        ({"env": "session:mars"}, "no world 'mars'"),
    ],
)
def test_the_papers_datasets_that_cannot_be_are_refused_at_once(
    workspace: Workspace, changes: dict, reason: str
) -> None:
    before = workspace.registry.runs()
    asked = {
        "env": "session:feed",
        "sessions": 40,
        "algo": "integrated_rl",
        "preset": "demo",
        "settings": SMALL,
    }
    with pytest.raises(Refusal, match=reason):
        submit_paper_data(workspace, **asked | changes)
    assert workspace.registry.runs() == before


@pytest.mark.parametrize(
    ("written", "whole"),
    [("session", "session:clickbait"), ("replay", "replay:8/3/5"), ("replay:020/ 3/5", "replay:20/3/5")],
)
def test_one_environment_has_one_name(written: str, whole: str) -> None:
    source = "dataset-1" if "replay" in written else None
    config = CollectConfig(env=written, source=source, n_sessions=1, name="log")
    assert config.env == whole and CollectConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("written", ["session:", "replay:", "gym:"])
def test_a_name_that_ends_early_is_no_environment(written: str) -> None:
    source = "dataset-1" if "replay" in written else None
    with pytest.raises(ValidationError, match="names no environment; write session:WORLD"):
        CollectConfig(env=written, source=source, n_sessions=1, name="log")


@pytest.mark.slow
def test_the_papers_datasets_are_of_four_groups_of_users_and_of_equal_size(workspace: Workspace) -> None:
    run_id = submit_paper_data(
        workspace,
        env="session:feed",
        sessions=40,
        algo="integrated_rl",
        preset="demo",
        settings=SMALL,
        seed=1,
    )
    resume_rounds.kill(workspace, run_id, 6.0)
    executor.resume(workspace, run_id)
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    logs = {name: open_dataset(workspace, i) for name, i in (run.result or {})["datasets"].items()}
    assert {name: log.meta.name for name, log in logs.items()} == {
        n: n for n in ("1", "1b", "2", "test", "3")
    }
    assert {n: log.meta.exploration for n, log in logs.items()} == {
        "1": "gaussian", "1b": "gaussian", "2": "uniform", "test": "baseline", "3": "uniform",
    }  # fmt: skip
    assert logs["1"].meta.sigma == 0.2 and logs["1b"].meta.sigma == pytest.approx(0.15 / 3**0.5)
    users = {n: set(log.query("SELECT DISTINCT user_id FROM requests")["user_id"]) for n, log in logs.items()}
    assert users["1"] == users["1b"], "the same users, explored otherwise"
    groups = [users[name] for name in ("1", "2", "3", "test")]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 160
    assert len(set(logs["3"].arrays("SELECT baseline_action FROM requests")["baseline_action"][:, 0])) > 1


def test_a_round_tells_where_its_policy_ranks_against_a_good_thing(small_workspace):
    (run,) = small_workspace.registry.runs(kind="train")
    (evaluated,) = small_workspace.registry.runs(kind="evaluate")
    log, policy = open_dataset(small_workspace, "explored"), load_policy(small_workspace, run.id)
    first, *others = log.meta.fusion.dimensions
    wide = first.model_copy(update={"low": -2.0, "high": 0.5})  # its pow is -0.75 at action 0
    fusion = log.meta.fusion.model_copy(update={"dimensions": (wide, *others)})
    asked = (policy, policy, None, evaluated.result, (run.id, BASELINE))
    assert not any(one.share for one in policy_figures(log, *asked).negative_pows), "they merely may be"
    log.__dict__["meta"] = log.meta.model_copy(update={"fusion": fusion})
    (told,) = (one for one in policy_figures(log, *asked).negative_pows if one.share)
    pows = 1.25 * policy.act(log.evaluation_rows().observations)[:, 0] - 0.75
    assert told.prediction == first.prediction and told.share == pytest.approx((pows < 0).mean())
    assert told.lowest == pytest.approx(pows.min(), abs=1e-6) and told.share > 0
