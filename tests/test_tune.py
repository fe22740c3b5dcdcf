"""Searches over settings: the same trials with the same seed, killed or not; failed trials are told and go by."""

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import make_config
from mtf_engine.logs.splits import TEST, VALIDATION
from mtf_engine.registry import RunRow, RunState, now
from mtf_engine.runs import estimates, executor
from mtf_engine.runs.campaign import Campaign, Part
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal
from mtf_engine.study.space import Range, read_space, suggested, tunable
from mtf_engine.study.tuning import FEWEST, Change, Trial, Tuning, best_of, importance, propose
from mtf_engine.work.train import KIND as TRAIN
from mtf_engine.work.tune import Search, TuneConfig, space_of, submit_tune
from mtf_engine.workspace import Workspace
from pages.shared.places import TUNE
from pages.shared.words import plain
from pages.train import _tune_charts
from tests.test_cli import Shell
from tests.test_pages import button, checked, opened, texts
from tests.waiting import wait_until
from tests.workspaces import copy_workspace, stop_all, worked_on_here

SEARCH = {"ridge": "0.1..1000 log", "target": "td_residual,return"}


def submit(workspace: Workspace, dataset: str = "explored", **changes: Any) -> str:
    asked = {"algo": "linear_one_step", "preset": "laptop", "settings": {"n_steps": "2"}, "search": SEARCH}
    return submit_tune(workspace, dataset, **{**asked, "trials": 4, "seed": 1, **changes})


def searched(workspace: Workspace, run_id: str) -> Tuning:
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    return Tuning.model_validate(run.result)


def told(found: Tuning) -> list[tuple]:
    """Returns what of the trials does not depend on the run that searched."""
    return [(trial.number, trial.settings, trial.state, trial.score) for trial in found.trials]


@pytest.fixture(scope="module")
def workspace(small_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return copy_workspace(small_workspace, tmp_path_factory.mktemp("tune") / "workspace")


@pytest.fixture(scope="module")
def whole(workspace: Workspace) -> RunRow:
    """A search without a break."""
    with worked_on_here():
        return executor.completed(workspace, executor.wait(workspace, submit(workspace)))


@pytest.fixture(scope="module")
def found(whole: RunRow) -> Tuning:
    return Tuning.model_validate(whole.result)


def test_a_trial_is_an_ordinary_training_scored_on_validation_users(
    workspace: Workspace, whole: RunRow, found: Tuning
) -> None:
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3] and whole.step == whole.n_steps == 4
    for trial in found.trials:
        run = workspace.registry.run(trial.run_id)
        assert (run.kind, run.state, run.parent_id) == ("train", RunState.COMPLETED, whole.id)
        assert trial.score == run.best_score == run.result["validation"]["best_score"]
        assert trial.settings == {name: run.config[name] for name in SEARCH}
        assert run.config["n_steps"] == 2 and run.seed == run.config["seed"] == 1
    assert len({str(trial.settings) for trial in found.trials}) == 4
    assert all(0.1 <= trial.settings["ridge"] <= 1000 for trial in found.trials)


def test_the_defaults_are_the_first_trial_and_the_best_is_held_against_them(
    workspace: Workspace, found: Tuning
) -> None:
    defaults, best = found.trials[0], found.best
    assert defaults.settings == {"ridge": 1.0, "target": "td_residual"}
    assert best.score == max(trial.score for trial in found.trials) > defaults.score
    assert best.gain == best.score - defaults.score
    scored = workspace.registry.run(best.change.run_id)
    assert scored.config["policies"] == [f"{best.run_id}@best", f"{defaults.run_id}@best"]
    assert best.change.ci_low <= best.change.value <= best.change.ci_high and best.change.split == VALIDATION
    assert "the best of 4 trials by the same users, so this is optimistic: score both on another" in best.said
    assert found.importance is None and found.importance_said.startswith("Importance needs 8")


def test_the_command_searches_the_same_with_the_same_seed(workspace: Workspace, found: Tuning) -> None:
    search = [part for one in SEARCH.items() for part in ("--search", "=".join(one))]
    shell = Shell(workspace.path)
    document = shell(
        *("tune", "explored", "--algo", "linear_one_step", "--set", "n_steps=2", "--trials", "3"),
        *(*search, "--seed", "1"),
    )
    again = Tuning.model_validate({name: document[name] for name in Tuning.model_fields})
    assert told(again) == told(found)[:3]
    assert set(document) == {"run_id", *Tuning.model_fields}
    assert propose(space(), found.trials[:1], seed=2) != found.trials[1].settings, (
        "another seed, other trials"
    )


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_search_that_lost_its_end_is_resumed_to_the_same(
    workspace: Workspace, tmp_path: Path, at_once: int
) -> None:
    place = copy_workspace(workspace, tmp_path / "copy")
    with worked_on_here():
        run_id = submit(place, seed=5, at_once=at_once)
        found = searched(place, run_id)
    kept = {trial.run_id for trial in found.trials[:2]}
    place.delete_runs(*(run.id for run in place.registry.runs(parent_id=run_id) if run.id not in kept))
    place.registry.update_run(run_id, state=RunState.INTERRUPTED, result=None)
    with worked_on_here(last_first=True):
        executor.resume(place, run_id)
        resumed = searched(place, run_id)
    assert told(resumed) == told(found)
    assert {trial.run_id for trial in resumed.trials} & {trial.run_id for trial in found.trials} == kept
    assert resumed.best.change.value == found.best.change.value


def test_what_ends_first_decides_no_trial(workspace: Workspace, tmp_path: Path) -> None:
    """One search has its trials end in their order, and one has the last of three that wait end first."""
    outcomes = []
    for last_first in (False, True):
        place = copy_workspace(workspace, tmp_path / f"{last_first}")
        with worked_on_here(last_first):
            run_id = submit(place, trials=6, at_once=3, seed=6)
            outcomes.append(searched(place, run_id))
        ended = sorted(place.registry.runs(kind="train", parent_id=run_id), key=lambda run: run.finished_at)
        numbers = [int(run.name.rpartition(" ")[2]) for run in ended]
        assert (numbers == sorted(numbers)) is not last_first
    assert told(outcomes[0]) == told(outcomes[1])
    assert outcomes[0].best.said == outcomes[1].best.said


def test_what_the_same_code_has_trained_is_not_trained_again(workspace: Workspace, whole: RunRow) -> None:
    with worked_on_here():
        run_id = submit(workspace, trials=5, name="longer")
        longer, shorter = searched(workspace, run_id), Tuning.model_validate(whole.result)
    assert longer.trials[:4] == shorter.trials
    trained = workspace.registry.runs(kind="train", parent_id=run_id)
    assert [run.name for run in trained] == ["longer trial 4"]


def test_one_begun_by_a_version_that_did_its_trials_itself_only_coordinates_now(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copy_workspace(workspace, tmp_path / "copy")
    with monkeypatch.context() as patch:
        patch.setattr(executor, "MAX_WORKING", 0)
        run_id = submit(place, trials=2, seed=7)
    before = {name: value for name, value in place.registry.run(run_id).config.items() if name != "at_once"}
    place.registry.update_run(run_id, state=RunState.INTERRUPTED, coordinates=False, config=before)
    with worked_on_here():
        executor.resume(place, run_id)
        searched(place, run_id)
    assert place.registry.run(run_id).coordinates


def test_a_search_whose_log_is_gone_cannot_go_on(workspace: Workspace, tmp_path: Path) -> None:
    place = copy_workspace(workspace, tmp_path / "copy")
    with worked_on_here():
        run_id = submit(place, trials=2)
        searched(place, run_id)
        place.registry.update_run(run_id, state=RunState.INTERRUPTED)
        log = place.registry.run(run_id).dataset_id
        place.registry.delete_dataset(str(log))
        executor.resume(place, run_id)
        with pytest.raises(Refusal, match=f"there is no dataset '{log}'"):
            searched(place, run_id)


def test_trials_whose_search_was_killed_can_be_cancelled(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    whole = submit(workspace, trials=3)
    update = workspace.registry.update_run
    trials = [executor.submit(workspace, TRAIN, {}, name=f"trial {i}", parent_id=whole) for i in range(2)]
    for trial in trials:
        update(trial, state=RunState.QUEUED)
    update(whole, state=RunState.INTERRUPTED)
    executor.cancel(workspace, trials[0])
    states = [workspace.registry.run(one).state for one in (whole, *trials)]
    assert states == [RunState.INTERRUPTED, RunState.CANCELLED, RunState.QUEUED]
    executor.cancel(workspace, whole)
    assert workspace.registry.run(trials[1]).state is RunState.CANCELLED
    with pytest.raises(Refusal, match="is interrupted already, so there is nothing to cancel"):
        executor.cancel(workspace, whole)
    workspace.delete_runs(whole)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(
    workspace: Workspace, found: Tuning, tmp_path: Path, at_once: int
) -> None:
    """The search is killed, or one of its trials."""
    place, other = (copy_workspace(workspace, tmp_path / name) for name in ("killed", "whole"))
    asked, generator = {"trials": 12, "seed": 8, "at_once": at_once}, random.Random()
    run_id, whole = submit(place, **asked), submit(other, **asked)
    for n_done in sorted(generator.randrange(12) for _ in range(4)):
        wait_until(lambda n=n_done: n_trained(place, run_id) >= n, f"{n_done} trials are done")
        wait_until(lambda: at_work(place, run_id) or is_completed(place, run_id), "it is at work")
        for pid in generator.sample(pids := at_work(place, run_id), k=min(1, len(pids))):
            with suppress(ProcessLookupError):  # that one has just ended
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: n_trained(place, run_id) and is_completed(place, run_id), "it is completed")
    killed, unharmed = searched(place, run_id), searched(other, whole)
    for one in (place, other):
        stop_all(one)
    assert told(killed) == told(unharmed)
    assert killed.importance == unharmed.importance and set(killed.importance) == set(SEARCH)


def at_work(workspace: Workspace, run_id: str) -> list[int]:
    """Returns the processes that work on a search, which goes on where it has ended before its end, and its trials."""
    n_trained(workspace, run_id)
    return [run.pid for run in workspace.registry.runs(RunState.RUNNING) if run.pid is not None]


def is_completed(workspace: Workspace, run_id: str) -> bool:
    return workspace.registry.run(run_id).state is RunState.COMPLETED


def n_trained(workspace: Workspace, run_id: str) -> int:
    """Returns how many trials of a search are done, which goes on where it has ended before its end."""
    executor.reconcile(workspace)
    if workspace.registry.run(run_id).state.can_resume:
        executor.resume(workspace, run_id)
    return len(workspace.registry.runs(RunState.COMPLETED, kind="train", parent_id=run_id))


FAILING = {"algo": "evolution_strategy", "search": {"n_parameters": "4,5,60"}, "seed": 2} | {
    "settings": {"n_steps": "1", "population": "4", "batch_size": "20"}
}
"""A search whose default settings alone can be trained."""


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_failed_trial_is_told_and_the_others_go_on(
    workspace: Workspace, tmp_path: Path, at_once: int
) -> None:
    place = copy_workspace(workspace, tmp_path / "copy")
    with worked_on_here():
        run_id = submit(place, **FAILING, trials=3, at_once=at_once)
        found = searched(place, run_id)
        attempts = [place.registry.run(trial.run_id).attempt for trial in found.trials]
        place.registry.update_run(run_id, state=RunState.INTERRUPTED, result=None)
        executor.resume(place, run_id)
        assert searched(place, run_id) == found
    assert [place.registry.run(trial.run_id).attempt for trial in found.trials] == attempts, "tried once"
    assert [trial.state for trial in found.trials] == ["completed", "failed", "failed"]
    assert "n_parameters: " in found.trials[1].error and found.trials[1].score is None
    assert place.registry.run(found.trials[1].run_id).state is RunState.FAILED
    assert found.best.number == 0 and found.best.change is None
    assert found.best.said.endswith("on validation users; no other trial is completed.")


def test_where_every_trial_fails_the_search_does(workspace: Workspace) -> None:
    settings = {"n_steps": "1", "population": "4", "n_parameters": "4"}
    asked = {"algo": "evolution_strategy", "settings": settings, "search": {"sigma": "0.1..1 log"}}
    with worked_on_here(), pytest.raises(Refusal, match=r"all 2 trials failed; the first: .* are too few"):
        searched(workspace, submit(workspace, **asked, trials=2))


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ([], "there is nothing to search; name a setting"),
        (["actor_lr=1..2"], "integrated_rl has no setting actor_lr; it can search .*actor_learning_rate"),
        (["seed=0..9"], r"seed is not tuned: .*\(--seed\)"),
        (["device=cpu,cuda"], "device is not tuned: "),
        (["n_steps=10..20"], "n_steps is set to 60 and searched as well"),
        (["n_critics=1..24"], "n_critics: .* greater than or equal to 2"),
        (["gamma=0.5..1"], "gamma: .* less than 1"),
        (["n_critics=2.5..8"], "n_critics is a whole number"),
        (["n_critics=2,many"], "n_critics: .* valid integer"),
        (["n_critics="], "n_critics has nothing to try"),
        (["n_critics=8"], "n_critics has 8 to try; .* fix it instead"),
        (["n_critics=8,08"], "n_critics names a choice twice"),
        (["n_critics=8..2"], "n_critics=8..2 is empty"),
        (["eta=low..high"], "eta=low..high cannot be read; write eta=LOW..HIGH"),
        (["eta=0..1 log"], "eta=0..1 log has no logarithm at 0"),
        (["eta=0..inf"], "eta=0..inf cannot be read"),
        (["penalty=0..1"], "penalty is no number"),
        (["penalty=exp,cube"], "penalty: "),
        (["passes=1..2"], "n_steps and passes both say how long to train"),
        (["eta"], "--search eta has no value"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(
    workspace: Workspace, search: Sequence[str], reason: str
) -> None:
    before = len(workspace.registry.runs())
    options = [part for one in search for part in ("--search", one)]
    refused = Shell(workspace.path).refused("tune", "explored", "--set", "n_steps=60", *options)
    with pytest.raises(Refusal, match=reason):
        raise Refusal(refused)
    assert len(workspace.registry.runs()) == before


def test_a_log_without_validation_users_is_refused(workspace: Workspace) -> None:
    with pytest.raises(Refusal, match="of test, which is undefined: the log has no validation users"):
        submit(workspace, dataset="test")


def space() -> Any:
    return read_space("linear_one_step", "laptop", {"n_steps": "2"}, SEARCH)


IMPOSSIBLE = {"algo": "evolution_strategy", "search": {"n_steps": "1,8", "population": "4,40"}} | {
    "settings": {"fitness": "reward", "max_sessions": "200"}
}
"""A search whose settings can each be made, and the larger ones not together."""


def proposed(order: random.Random, **changes: Any) -> tuple[tuple[Trial, ...], int]:
    """Returns the trials of a search whose trainings end in any `order`, and the most that were at work at a time.

    Nothing is trained: a score is made of the settings.
    """
    asked = {"algo": "linear_one_step", "settings": {"n_steps": "2"}, "search": SEARCH, "seed": 1} | changes
    config = TuneConfig(preset="laptop", space=asked.pop("search"), trials=30, **asked)
    row = dict(kind="train", state=RunState.COMPLETED, created_at=now())
    campaign = Campaign(cast("Job", None))
    search = Search(
        RunRow(id="tune-1", name="a search", config={}, **row), config, space_of(config), campaign
    )
    working: list[Part] = list(search.to_train())
    most = len(working)
    while working:
        part = working.pop(order.randrange(len(working)))
        made = part.order({}).config
        score = -abs(np.log10(made.get("ridge", 1.0)) - 1.5) + 0.01 * len(str(made.get("target")))
        campaign.done[part.name] = RunRow(id=part.name, name="", config=made, best_score=score, **row)
        working += search.to_train()
        most = max(most, len(working))
    return search.trials, most


@pytest.mark.parametrize("changes", [{}, {"search": {"target": "td_residual,return"}}, IMPOSSIBLE])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_trials_depend_on_the_seed_and_on_how_many_are_at_once_alone(
    at_once: int, changes: dict[str, Any]
) -> None:
    trials, most = proposed(random.Random(0), at_once=at_once, **changes)
    assert [trial.number for trial in trials] == list(range(30)) and most <= at_once
    for seed in range(1, 4):
        assert proposed(random.Random(seed), at_once=at_once, **changes)[0] == trials
    if not changes:
        assert most == at_once and len({str(trial.settings) for trial in trials}) == 30
        assert (proposed(random.Random(0), at_once=1)[0] == trials) is (at_once == 1)
    else:
        assert len({trial.run_id for trial in trials if trial.run_id}) <= 4, "the same settings, the same run"
    if changes == IMPOSSIBLE:
        failed = [trial for trial in trials if trial.state == "failed"]
        assert failed and all("max_sessions" in str(trial.error) and trial.run_id is None for trial in failed)


BEFORE = [
    (1.0, "td_residual"), (36.86, "return"), (32.48, "return"), (366.6, "td_residual"), (18.84, "td_residual"),
    (8.935, "return"), (3.429, "return"), (0.4065, "return"), (0.3957, "td_residual"), (424.3, "td_residual"),
    (0.9441, "return"), (310.7, "return"), (26.08, "td_residual"), (49.5, "td_residual"), (41.39, "return"),
    (58.07, "return"), (7.07, "td_residual"), (32.55, "return"),
]  # fmt: skip
"""What was proposed by the version before several trials could be at once, trials 4 and 12 having failed."""


def test_one_at_a_time_the_trials_are_those_of_the_versions_before() -> None:
    trials: list[Trial] = [completed(0, {"ridge": 1.0, "target": "td_residual"}, -1.5 + 0.11)]
    for number in range(1, len(BEFORE)):
        settings = propose(space(), trials, seed=1)
        score = -abs(np.log10(settings["ridge"]) - 1.5) + 0.01 * len(settings["target"])
        trial = completed(number, settings, score)
        failed = {"state": "failed", "score": None} if number in (4, 12) else {}
        trials.append(trial.model_copy(update=failed))
    assert [tuple(trial.settings.values()) for trial in trials] == BEFORE


def test_settings_of_which_no_score_is_known_are_not_proposed_again() -> None:
    trials, _ = proposed(random.Random(0), at_once=1)
    known = trials[:20]
    first = propose(space(), known, seed=3)
    beside = [propose(space(), known, seed=seed, pending=[first] * 6) for seed in range(20)]
    alone = [propose(space(), known, seed=seed) for seed in range(20)]
    near = [
        sum(abs(np.log10(one["ridge"]) - np.log10(first["ridge"])) < 0.1 for one in some)
        for some in (beside, alone)
    ]
    assert near[0] < near[1]


def test_what_is_proposed_is_inside_and_whole_where_it_must_be() -> None:
    search = {"n_critics": "2..24", "hidden": "8|16,16", "tau": "1e-4..1 log", "n_rewards": "1,3"}
    read = read_space("integrated_rl", "demo", {}, search)
    assert read["n_critics"] == Range(low=2, high=24, whole=True) and read["hidden"].tried == ("8", "16,16")
    trials: list[Trial] = []
    for number in range(30):
        settings = propose(read, trials, seed=0)
        assert isinstance(settings["n_critics"], int) and all(read[n].holds(v) for n, v in settings.items())
        make_config("integrated_rl", "demo", {name: str(value) for name, value in settings.items()}, seed=0)
        trials.append(completed(number, settings, -abs(np.log10(settings["tau"]) + 2)))
    late = [np.log10(trial.settings["tau"]) for trial in trials[15:]]
    assert np.median(np.abs(np.add(late, 2))) < 0.5, "it learns where the score is high"


def completed(number: int, settings: dict, score: float) -> Trial:
    return Trial(number=number, settings=settings, state="completed", score=score, run_id=f"train-{number}")


def test_importance_is_told_of_enough_trials_that_differ() -> None:
    draws = np.random.default_rng(0).uniform(-1, 3, size=40)
    trials = [
        completed(i, {"ridge": 10.0**x, "target": ("td_residual", "return")[i % 2]}, -abs(x - 1))
        for i, x in enumerate(draws)
    ]
    shares, said = importance(space(), trials)
    assert shares["ridge"] > 0.8 and sum(shares.values()) == pytest.approx(1) and "40 trials" in said
    assert importance(space(), trials)[0] == shares, "the same at every call"
    assert importance(space(), trials[: FEWEST - 1])[0] is None
    equal = [trial.model_copy(update={"score": 0.5}) for trial in trials]
    assert importance(space(), equal) == (
        None,
        "All trials score the same, so no setting is more important than another.",
    )


def test_defaults_outside_the_ranges_are_tried_and_not_learned_from() -> None:
    outside = completed(0, {"ridge": 1e9, "target": "return"}, 0.9)
    assert best_of([outside]).number == 0
    inside = outside.model_copy(update={"settings": {"ridge": 1.0, "target": "return"}})
    assert propose(space(), [outside], 0) == propose(space(), [inside], 0), "the first ones are random"


@pytest.mark.parametrize(
    ("split", "low", "words"),
    [
        (
            TEST,
            0.001,
            "On test users, by whom no trial was chosen, the change is +0.0040 (+0.0010 to +0.0070",
        ),
        (TEST, -0.001, "95 % over users), which may be chance."),
        (VALIDATION, 0.001, "so this is optimistic: score both on another log"),
        (VALIDATION, None, "the change is not known: too few users"),
    ],
)
def test_a_change_is_worth_what_its_users_tell(split: str, low: float | None, words: str) -> None:
    change = Change(value=0.004, ci_low=low, ci_high=0.007, split=split, run_id="evaluate-1")
    best = best_of([completed(0, {}, 0.6), completed(1, {}, 0.62)], change)
    assert words in best.said and best.gain == pytest.approx(0.02)


@pytest.mark.parametrize("algo", ALGOS)
def test_what_is_suggested_can_be_searched(algo: str) -> None:
    config = make_config(algo, "laptop", {}, seed=0)
    fields = type(config).model_fields
    offered = {name: suggested(fields[name], getattr(config, name)) for name in tunable(type(config))}
    offered = {name: text for name, text in offered.items() if text}
    length = {"passes"} if "n_steps" in offered else set()
    read = read_space(algo, "laptop", {}, {name: offered[name] for name in offered.keys() - length})
    assert set(read) == offered.keys() - length and len(read) > 3


@pytest.fixture
def shown(workspace: Workspace, whole: RunRow, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    return workspace


def test_the_page_tells_the_best_and_leads_to_the_form_filled_with_it(
    shown: Workspace, whole: RunRow, found: Tuning
) -> None:
    app = opened("start", tab=TUNE, tune=whole.id)
    assert plain(found.best.said) in texts(app) and plain(found.importance_said) in texts(app)
    best, trials = app.dataframe[0].value, app.dataframe[-1].value
    assert best["defaults"].tolist() == ["1.0", "td_residual"]
    assert best[f"trial {found.best.number}"].tolist() == [str(one) for one in found.best.settings.values()]
    assert trials["score"].tolist() == [trial.score for trial in found.trials]
    assert trials["Train"].tolist() == [f"start?from={trial.run_id}" for trial in found.trials]
    filled = opened("start", **{"from": found.best.run_id})
    ridge = filled.number_input(key=f"linear_one_step.{found.best.run_id}.ridge")
    assert ridge.value == found.best.settings["ridge"]


def test_the_form_of_a_search_is_its_command_line_and_starts_it(
    shown: Workspace, whole: RunRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shown.dataset("explored").id
    app = opened("start", tab=TUNE, tune=whole.id, dataset=log, algo="linear_one_step")
    app.multiselect(key="tune settings linear_one_step").set_value(["ridge", "target"])
    app.number_input(key="tune trials").set_value(2)
    app.number_input(key="tune at once").set_value(3)
    app.number_input(key="tune fixed linear_one_step.laptop.n_steps").set_value(1)
    checked(app.run())
    app.text_input(key="tune linear_one_step.laptop.ridge").set_value("5..2")
    (refused,) = checked(app.run()).error
    assert refused.value.startswith(plain("ridge=5..2 is empty; write the lower end first"))
    assert "Start the search" not in [one.label for one in app.button]
    app.text_input(key="tune linear_one_step.laptop.ridge").set_value("0.5..2 log")
    said = texts(checked(app.run()))
    assert "--search 'ridge=0.5..2 log' --search target=td_residual,return --set n_steps=1" in said
    assert (
        "--trials 2 --at-once 3 --seed 0 --background" in said
        and plain("2 trials, 3 at once, of which this machine works on 2 at a time: about") in said
    )
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    checked(button(app, "Start the search").click().run())
    (run,) = shown.registry.queue()
    assert run.config["space"] == {"ridge": "0.5..2 log", "target": "td_residual,return"}
    assert run.config["at_once"] == 3 and run.coordinates
    assert app.selectbox(key="tune").value == run.id and button(app, "Cancel")
    executor.cancel(shown, run.id)


def test_the_page_shows_trials_as_they_end_also_before_the_defaults(shown: Workspace, whole: RunRow) -> None:
    trial = completed(1, {"ridge": 20.0, "target": "return"}, 0.6).model_copy(update={"run_id": whole.id})
    later = trial.model_copy(update={"number": 3, "score": 0.55})
    early = Tuning(trials=(trial, later), best=best_of([trial, later]))
    try:
        shown.registry.update_run(whole.id, result=early.model_dump(mode="json"))
        app = opened("start", tab=TUNE, tune=whole.id)
        assert plain("Trial 1 scores highest, 0.6000") in texts(app)
        assert plain("the default settings have no score yet.") in texts(app)
        assert list(app.dataframe[0].value.columns) == ["setting", "trial 1"]
        assert app.dataframe[-1].value["trial"].tolist() == [1, 3]
    finally:
        shown.registry.update_run(whole.id, result=whole.result)


def test_several_at_once_are_judged_to_end_sooner_where_there_is_room(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("integrated_rl", "laptop", {}, seed=0).model_dump(mode="json")
    asked = (workspace, "integrated_rl", config, workspace.dataset("explored"), 20)
    monkeypatch.setattr(executor, "MAX_WORKING", 2)
    one, two, four = (estimates.search(*asked, at_once=at_once).seconds for at_once in (1, 2, 4))
    assert two == four == pytest.approx(estimates.START + (one - estimates.START) / 2)
    monkeypatch.setenv("MTF_EXECUTOR", "ray://head:8265")
    assert estimates.search(*asked, at_once=4).seconds < four


def frame() -> Any:
    trials = [
        completed(0, {"ridge": 1.0, "target": "td_residual"}, 0.6),
        Trial(number=1, settings={"ridge": 10.0, "target": "return"}, state="failed", error="it diverged"),
        completed(2, {"ridge": 1000.0, "target": "return"}, 0.65),
        completed(3, {"ridge": None, "target": "return"}, 0.62),
    ]
    return _tune_charts.trials_table(trials)


def test_the_history_draws_each_score_and_the_best_so_far() -> None:
    assert frame()["best so far"].tolist() == [0.6, 0.6, 0.65, 0.65]
    best, scores = _tune_charts.history(frame()).data
    assert list(scores.x) == [0, 2, 3] and list(scores.y) == [0.6, 0.65, 0.62]
    assert list(best.y) == [0.6, 0.65, 0.65]
    assert _tune_charts.history(frame()).layout.shapes[0].y0 == 0.6, "the defaults' score is a line"


def test_parallel_coordinates_have_a_line_for_each_trial_that_can_be_drawn() -> None:
    drawn = _tune_charts.parallel(frame(), space()).data[0]
    ridge, target, score = drawn.dimensions
    assert list(ridge["values"]) == [0, 3] and list(ridge["ticktext"]) == ["0.1", "1", "10", "100", "1e+03"]
    assert list(target["values"]) == [0, 1] and list(target["ticktext"]) == ["td_residual", "return"]
    assert list(score["values"]) == list(drawn.line.color) == [0.6, 0.65]


def test_the_longest_bar_of_importance_is_on_top() -> None:
    table = pd.DataFrame({"setting": ["a", "b<i>"], "importance": [0.9, 0.1]})
    (bars,) = _tune_charts.importance_bars(table).data
    assert list(bars.y) == ["b&lt;i&gt;", "a"] and list(bars.x) == [0.1, 0.9]
