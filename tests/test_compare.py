"""A comparison of methods: one run whose parts are ordinary runs, two at a time, none of them done twice."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.evaluation.personalisation import BY_SEGMENT, EVERYBODY, personalisation
from mtf_engine.learning.training import make_config
from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import executor
from mtf_engine.runs.campaign import as_asked_now, goes_on, stored
from mtf_engine.spec import Refusal
from mtf_engine.study.comparison import ROUNDS, Cell, Comparison
from mtf_engine.work import paper_data
from mtf_engine.work.study import CompareConfig, asked_for, cells, parts, submit_compare, title
from mtf_engine.workspace import Workspace
from tests.test_evaluate_pages import table
from tests.test_pages import opened
from tests.waiting import wait_until
from tests.workspaces import stop_all

SMALL = {"n_steps": "20", "batch_size": "16", "n_critics": "3", "hidden": "8", "validate_every": "20"}
DESIGN = {"datasets": ("2",), "seeds": (4,), "env": "session:feed", "sessions": 40, "users": 30}


def design(**changes: Any) -> CompareConfig:
    training = make_config("integrated_rl", "demo", SMALL, 0).model_dump(mode="json")
    return CompareConfig.model_validate(
        {"training": {"integrated_rl": training}, "preset": "demo", **DESIGN, **changes}
    )


def submit(workspace: Workspace, **changes: Any) -> str:
    settings = SMALL | changes.pop("settings", {})
    return submit_compare(
        workspace,
        methods=("integrated_rl",),
        preset="demo",
        settings=settings,
        **DESIGN | changes,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, borne: None) -> Iterator[Workspace]:
    """A workspace in which no run outlives the tests."""
    workspace = Workspace(tmp_path_factory.mktemp("compare") / "workspace")
    yield workspace
    stop_all(workspace)


@pytest.fixture(scope="module")
def whole(workspace: Workspace) -> RunRow:
    """One method on one dataset with one seed."""
    return executor.completed(workspace, executor.wait(workspace, submit(workspace)))


def test_the_factorial_has_every_method_on_every_dataset_with_every_seed() -> None:
    config = design(datasets=("1", "1b", "2", "3"), seeds=(0, 1), rounds=True, n_critics=(2, 24))
    found = list(cells(config))
    assert [(cell.dataset, cell.n_critics) for cell in found if cell.seed == 1] == [
        ("1", None), ("1b", None), ("2", None), ("3", None), ("rounds", None), ("2", 2), ("2", 24),
    ]  # fmt: skip
    planned = parts(config)
    kinds = [part.kind.name for part in planned]
    # a seed: 4 collections, the join of 3, its five rounds, which are those of the method itself, 6 trainings
    assert [kinds.count(kind) for kind in ("collect", "join", "progressive", "train")] == [8, 2, 2, 12]
    assert kinds.count("evaluate") == kinds.count("abtest") == len(found) == 14
    assert len({part.name for part in planned}) == len(planned)


def test_every_method_is_trained_with_its_own_settings_and_the_seed_of_its_cell() -> None:
    training = {
        method: make_config(method, "demo", {}, 0).model_dump(mode="json")
        for method in ("grid_search", "integrated_rl")
    }
    config = design(training=training, rounds=True, n_critics=(2,))
    assert [cell.method for cell in cells(config) if cell.dataset == ROUNDS] == ["integrated_rl"], (
        "a search learns nothing from rounds"
    )
    orders = {part.name: part.order(Ready()) for part in parts(config) if part.kind.name == "train"}
    assert {name: order.config for name, order in orders.items()} == {
        "grid_search on dataset 2, seed 4": {**training["grid_search"], "seed": 4},
        "integrated_rl on dataset 2, seed 4": {**training["integrated_rl"], "seed": 4},
        "integrated_rl on dataset 2, 2 critics, seed 4": {
            **training["integrated_rl"], "seed": 4, "n_critics": 2,
        },
    }  # fmt: skip


class Ready(dict):
    """Every part, done."""

    def __missing__(self, name: str) -> RunRow:
        return RunRow(
            id=name,
            kind="collect",
            name=name,
            state=RunState.COMPLETED,
            created_at=now(),
            config={},
            dataset_id=name,
        )


def test_a_part_waits_for_what_it_reads() -> None:
    planned = {part.name: part for part in parts(design(datasets=("3",)))}
    trained = title(Cell(method="integrated_rl", dataset="3", seed=4))
    assert planned[f"score of {trained}"].needs == (trained, "dataset test, seed 4")
    assert planned[trained].needs == ("dataset 3, seed 4",)
    assert planned["dataset 3, seed 4"].needs == ("integrated_rl in five rounds, seed 4",)


def test_a_seed_draws_data_training_and_test_users_of_its_own() -> None:
    orders = [part.order({}) for part in parts(design(seeds=(0, 1))) if part.kind.name == "collect"]
    seeds = [order.seed for order in orders]
    assert len(set(seeds)) == len(seeds) == 4
    groups = {paper_data.group_seed(seed, group) for seed in (0, 1) for group in range(1, 6)}
    assert len(groups) == 10 and set(seeds) <= groups


def test_a_comparison_by_replay_is_scored_on_the_log_and_has_no_ab_test() -> None:
    planned = parts(design(env="replay", source="dataset-1", datasets=("1", "2")))
    assert {part.kind.name for part in planned} == {"collect", "train", "evaluate"}
    assert all(
        part.order({}).config["source"] == "dataset-1" for part in planned if part.kind.name == "collect"
    )


def test_where_nothing_is_shown_the_ab_test_alone_scores_and_searches_are_for_reward(
    workspace: Workspace,
) -> None:
    planned = parts(design(env="gym:Pendulum-v1"))
    assert [part.kind.name for part in planned] == ["collect", "train", "abtest"]
    asked = asked_for(
        workspace, methods=("grid_search", "integrated_rl"), preset="demo", settings={},
        **DESIGN | {"env": "gym:Pendulum-v1", "half_width": 1.0},
    )  # fmt: skip
    assert (
        asked.training["grid_search"]["fitness"] == "reward"
        and "fitness" not in asked.training["integrated_rl"]
    )


@pytest.mark.slow
def test_methods_are_compared_in_a_gymnasium_environment(workspace: Workspace, monkeypatch) -> None:
    small = {"batch_size": "5", "n_steps": "3"}
    asked = DESIGN | {"env": "gym:Pendulum-v1", "sessions": 20, "users": 6, "half_width": 1.0}
    methods = ("integrated_rl", "best_single_head")
    run_id = submit_compare(workspace, methods=methods, preset="demo", settings=SMALL | small, **asked)
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    found = Comparison.model_validate(run.result)
    assert [cell.method for cell in found.cells] == [*methods] and found.synthetic
    assert all(cell.gauc is None and cell.value("return") is not None for cell in found.cells)
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    app = opened("compare_methods", run=run_id)
    frame = table(app, "method", "kind", "trained on")
    assert frame.set_index("method")["kind"].dropna().to_dict() == {"best_single_head": "floor"}


def test_a_cell_tells_its_score_and_its_ab_test(workspace: Workspace, whole: RunRow) -> None:
    (cell,) = Comparison.model_validate(whole.result).cells
    evaluated = next(run for run in workspace.registry.runs(kind="evaluate"))
    assert evaluated.result is not None
    assert cell.gauc == evaluated.result["policies"][0]["weighted_gauc"]
    assert cell.baseline_gauc == evaluated.result["policies"][1]["weighted_gauc"]
    floors = evaluated.result["floors"]
    scores = {row["run_id"]: row["weighted_gauc"] for row in evaluated.result["policies"]}
    assert cell.floors == {name: scores[name] for name in floors} and floors[1] == "regression"
    tested = workspace.registry.runs(kind="abtest")[0]
    assert tested.config["seeds"] == [paper_data.group_seed(4, 5)] and tested.config["base"] == "baseline"
    assert cell.value("session_reward") == tested.result["effects"][2]["relative"]  # type: ignore[index]
    assert {one.to for one in cell.personalisation} == {EVERYBODY, BY_SEGMENT}
    assert cell.policy is not None and workspace.trained(cell.policy).seed == 4


def missing(workspace: Workspace, config: CompareConfig) -> list[str]:
    """Returns the parts of a comparison that are not stored, and those that wait for one of them."""
    done: dict[str, RunRow] = {}
    for part in parts(config):
        if all(need in done for need in part.needs) and (run := stored(workspace, part, part.order(done))):
            done[part.name] = run
    return [part.name for part in parts(config) if part.name not in done]


def test_what_is_stored_is_found_again_by_what_it_did(workspace: Workspace, whole: RunRow) -> None:
    assert submit(workspace) == whole.id, "asked the same, it is the same run"
    assert submit(workspace, n_workers=2) == whole.id, "whoever works"
    config = CompareConfig.model_validate(whole.config)
    assert missing(workspace, config) == missing(workspace, config.model_copy(update={"n_workers": 2})) == []
    own = "integrated_rl on dataset 2, 2 critics, seed 4"
    with_critics = config.model_copy(update={"n_critics": (2,)})
    assert missing(workspace, with_critics) == [own, f"score of {own}", f"A/B test of {own}"]
    more_users = config.model_copy(update={"users": 31})
    assert missing(workspace, more_users) == ["A/B test of integrated_rl on dataset 2, seed 4"]
    assert len(missing(workspace, config.model_copy(update={"sessions": 45}))) == len(parts(config))


def test_what_an_earlier_version_stored_without_later_settings_is_found_again(
    workspace: Workspace, whole: RunRow
) -> None:
    config, added = CompareConfig.model_validate(whole.config), ("to", "random_share", "n_workers")
    rows = [run for run in workspace.registry.runs(RunState.COMPLETED) if run.kind in ("collect", "compare")]
    try:
        for run in rows:
            less = {name: value for name, value in run.config.items() if name not in added}
            workspace.registry.update_run(run.id, config=less)
        assert missing(workspace, config) == [] and submit(workspace) == whole.id
    finally:
        for run in rows:
            workspace.registry.update_run(run.id, config=run.config)


def test_one_that_goes_on_is_worked_on_by_as_many_as_are_asked_for_now(
    workspace: Workspace, whole: RunRow
) -> None:
    asked = {**whole.config, "n_workers": 3}
    for state, n_workers in ((RunState.COMPLETED, 1), (RunState.RUNNING, 1), (RunState.INTERRUPTED, 3)):
        try:
            workspace.registry.update_run(whole.id, state=state)
            as_asked_now(workspace, whole.id, asked)
            assert workspace.registry.run(whole.id).config["n_workers"] == n_workers
        finally:
            workspace.registry.update_run(whole.id, state=whole.state, config=whole.config)


def test_its_processes_share_each_log_and_each_score(workspace: Workspace, whole: RunRow) -> None:
    completed = {run.name: run for run in workspace.registry.runs(RunState.COMPLETED)}
    everything = {"datasets": ("1", "1b", "2", "3"), "n_workers": 3, "rounds": True}
    config = CompareConfig.model_validate(whole.config | everything)
    divided = [
        (part.kind.name, part.order(completed).config["n_workers"])
        for part in parts(config)
        if part.kind.name in ("collect", "progressive")
        or part.name == "score of integrated_rl on dataset 2, seed 4"
    ]
    assert divided and set(divided) == {("collect", 3), ("progressive", 3), ("evaluate", 3)}


OTHER_CODE = "0123456789abcdef"


def test_results_of_other_code_are_not_taken_unless_asked_for(workspace: Workspace, whole: RunRow) -> None:
    config = CompareConfig.model_validate(whole.config)
    trained, data = "integrated_rl on dataset 2, seed 4", "dataset 2, seed 4"
    rows = {run.name: run for run in workspace.registry.runs(RunState.COMPLETED)}
    part = {part.name: part for part in parts(config)}[trained]
    order, provenance = part.order({data: rows[data]}), rows[trained].provenance or {}
    older = {**provenance, "code": {**provenance["code"], "source": OTHER_CODE}}
    workspace.registry.update_run(rows[trained].id, provenance=older)
    try:
        assert trained in missing(workspace, config) and data not in missing(workspace, config)
        assert stored(workspace, part, order) is None
        taken = stored(workspace, part, order, reuse="any")
        assert taken is not None and taken.id == rows[trained].id
        begun = workspace.registry.run(rows[trained].id)
        assert not goes_on(begun, "any"), "it is done anew, not handed over as it is"
        interrupted = begun.model_copy(update={"state": RunState.INTERRUPTED})
        assert not goes_on(interrupted, "same-code") and goes_on(interrupted, "any")
        assert goes_on(interrupted.model_copy(update={"provenance": None}), "same-code"), "it never began"
    finally:
        workspace.registry.update_run(rows[trained].id, provenance=provenance)


@pytest.mark.slow
def test_a_second_call_does_only_what_is_missing(workspace: Workspace, whole: RunRow) -> None:
    before = {run.id for run in workspace.registry.runs()}
    again = executor.completed(workspace, executor.wait(workspace, submit(workspace, n_critics=(2,))))
    new = [run for run in workspace.registry.runs() if run.id not in before]
    assert sorted(run.kind for run in new) == ["abtest", "compare", "evaluate", "train"]
    old, critics = Comparison.model_validate(again.result).cells
    assert old == Comparison.model_validate(whole.result).cells[0]
    assert workspace.trained(str(critics.policy)).config["n_critics"] == 2


def test_a_method_with_weights_for_each_item_is_a_row_of_its_own(workspace: Workspace) -> None:
    methods = ("integrated_rl", "integrated_rl:item", "linear_one_step")
    config = asked_for(workspace, methods=methods, preset="demo", settings=SMALL, rounds=True, **DESIGN)
    levels = {method: own.get("action_level") for method, own in config.training.items()}
    assert levels == dict(zip(methods, ("request", "item", None), strict=True))
    trained = [(part.name, part.algo) for part in parts(config) if part.kind.name == "train"]
    assert ("integrated_rl:item on dataset 2, seed 4", "integrated_rl") in trained and len(trained) == 3
    in_rounds = [cell.method for cell in cells(config) if cell.dataset == ROUNDS]
    assert in_rounds == ["integrated_rl", "linear_one_step"], (
        "a round explores around one action of the request"
    )
    with pytest.raises(Refusal, match="grid_search has no setting action_level"):
        asked_for(workspace, methods=("grid_search:item",), preset="demo", settings={}, **DESIGN)


def test_what_no_part_could_be_made_of_is_refused(workspace: Workspace) -> None:
    before = len(workspace.registry.runs())
    with pytest.raises(Refusal, match="none of integrated_rl has a setting n_step"):
        submit(workspace, settings={"n_step": "3"})
    with pytest.raises(Refusal, match="--from"):
        submit(workspace, env="replay")
    with pytest.raises(Refusal, match="gives every training its seed"):
        submit(workspace, settings={"seed": "3"})
    with pytest.raises(Refusal, match=r"n_critics.0: .* greater than or equal to 2"):
        submit(workspace, n_critics=(1,))
    with pytest.raises(Refusal, match=r"datasets: .*named only once"):
        submit(workspace, datasets=("2", "2"))
    with pytest.raises(Refusal, match="4 steps are too few for 5 rounds"):
        submit(workspace, datasets=("3",), settings={"n_steps": "4"})
    design = DESIGN | {"datasets": ("3",)}
    with pytest.raises(Refusal, match="made with integrated_rl, which the settings would not reach"):
        submit_compare(workspace, methods=("iql",), preset="demo", settings={"n_steps": "5"}, **design)
    assert len(workspace.registry.runs()) == before


class Telling:
    """Acts differently on whatever it observes."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.repeat(np.sin(observations.sum(1, keepdims=True)), 10, axis=1).astype(np.float32)


class Constant:
    """Gives everybody the same action."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.full((len(observations), 10), 0.3, np.float32)


def test_a_constant_policy_loses_nothing_by_its_mean_and_a_telling_one_loses_something() -> None:
    env = SessionEnvironment()
    for effect in personalisation(env, "constant", Constant(), 200):
        assert effect.relative == pytest.approx(0, abs=1e-9)
    found = personalisation(env, "telling", Telling(), 200)
    assert {(e.policy, e.to) for e in found} == {("telling", EVERYBODY), ("telling", BY_SEGMENT)}
    assert {e.metric for e in found} == {"valid_consumption", "duration_time", "session_reward"}
    assert all(effect.relative != 0 for effect in found if effect.metric == "session_reward")


@pytest.mark.slow
def test_killed_cancelled_and_resumed_it_ends_as_if_it_had_not_been(
    workspace: Workspace, whole: RunRow
) -> None:
    asked = {"seeds": (5, 6), "settings": {"n_steps": "40"}}
    run_id = submit(workspace, **asked)

    def at_work() -> list[RunRow]:
        parts = workspace.registry.runs(RunState.RUNNING, parent_id=run_id)
        assert len(parts) <= executor.MAX_WORKING
        return parts

    wait_until(at_work, "parts are at work")
    os.kill(workspace.registry.run(run_id).pid or 0, signal.SIGKILL)
    executor.wait(workspace, run_id)
    executor.resume(workspace, run_id)
    wait_until(lambda: [part for part in at_work() if part.kind == "train"], "a part trains")
    executor.cancel(workspace, run_id)
    assert executor.wait(workspace, run_id).state is RunState.CANCELLED
    assert all(part.cancel_requested_at for part in at_work()), "parts stop with what they are parts of"
    executor.resume(workspace, run_id)
    resumed = executor.completed(workspace, executor.wait(workspace, run_id))

    other = Workspace(workspace.path.parent / "undisturbed")
    undisturbed = executor.completed(other, executor.wait(other, submit(other, **asked)))
    left, right = (Comparison.model_validate(run.result).cells for run in (resumed, undisturbed))
    alike = {"policy", "test_dataset", "seconds"}
    for mine, theirs in zip(left, right, strict=True):
        rows = [cell.model_dump_json(exclude=alike) for cell in (mine, theirs)]
        assert rows[0].replace(str(mine.policy), "") == rows[1].replace(str(theirs.policy), "")
