"""Searches over a method's settings: each trial is an ordinary training, scored on the log's validation users."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field

from mtf_engine.registry import BEST, DatasetRow, RunRow, RunState
from mtf_engine.runs import parts
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Seed, Spec, Threads
from mtf_engine.study.space import Space, Value, read_space, text_of
from mtf_engine.study.tuning import DEFAULTS, Change, Trial, Tuning, best_of, importance, propose
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.train import KIND as TRAINING
from mtf_engine.work.train import check_learns, validation_on
from mtf_engine.workspace import Workspace

MOST_TRIALS = 1_000


class TuneConfig(Spec):
    """Search over settings of `algo`: those of `preset` and `settings` are fixed, `space` says what is tried."""

    algo: str
    preset: str
    settings: dict[str, str] = Field(description="fixed, as --set takes them")
    space: dict[str, str] = Field(description="LOW..HIGH, LOW..HIGH log or A,B,C by setting")
    trials: int = Field(ge=2, le=MOST_TRIALS, description="the default settings are the first")
    seed: Seed = Field(default=0, description="of what is proposed, and of each training")
    n_threads: Threads = 1


def submit_tune(
    workspace: Workspace,
    dataset: str,
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    search: Mapping[str, str],
    trials: int,
    seed: int = 0,
    name: str | None = None,
) -> str:
    """Returns the id of the run that searches; a Refusal where a setting or the log cannot be searched on."""
    row, config = asked_for(
        workspace,
        dataset,
        algo=algo,
        preset=preset,
        settings=settings,
        search=search,
        trials=trials,
        seed=seed,
    )
    _, why_none = validation_on(open_dataset(workspace, row.id))
    if why_none:
        raise Refusal(
            f"trials would be scored by weighted GAUC of validation users of {row.name}, which is undefined: "
            f"{why_none}; take a log of a recommender, with impressions of both classes and a validation split"
        )
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=name or f"{algo} on {row.name}",
        dataset_id=row.id,
        algo=algo,
        seed=seed,
        n_steps=trials,
    )


def asked_for(
    workspace: Workspace, dataset: str, *, settings: Mapping[str, str], search: Mapping[str, str], **how: Any
) -> tuple[DatasetRow, TuneConfig]:
    """Returns the log and the search; a Refusal where the settings cannot be searched so.

    `how` are the other fields of `TuneConfig`.
    """
    from mtf_engine.learning.training import make_config

    row = workspace.dataset(dataset)
    check_learns(row)
    threads = make_config(how["algo"], how["preset"], settings, seed=0).n_threads
    values = {"settings": dict(settings), "space": dict(search), "n_threads": threads, **how}
    config = TuneConfig.asked("the search", values)
    space_of(config)
    return row, config


def space_of(config: TuneConfig) -> Space:
    """Returns what is tried of each setting."""
    return read_space(config.algo, config.preset, config.settings, config.space)


def tune(job: Job, config: TuneConfig) -> dict[str, Any]:
    """Tries settings one after the other, and returns the best of them and what it has over the defaults.

    Trials that are done are not done again, so a search that was killed ends like one that was not.
    """
    space, trials = space_of(config), list[Trial]()
    while len(trials) < config.trials:
        trials.append(_tried(job, config, space, trials))
        found = Tuning(trials=tuple(trials), best=best_of(trials))
        job.workspace.registry.update_run(job.run.id, result=found.model_dump(mode="json"))
        job.progress(len(trials))
    best = best_of(trials, _change(job, trials))
    if best is None:
        raise Refusal(f"all {len(trials)} trials failed; the first: {trials[DEFAULTS].error}")
    shares, said = importance(space, trials)
    found = Tuning(trials=tuple(trials), best=best, importance=shares, importance_said=said)
    return found.model_dump(mode="json")


def _tried(job: Job, config: TuneConfig, space: Space, trials: list[Trial]) -> Trial:
    """Returns the next trial: the defaults, then what is proposed; settings that were tried before keep their run."""
    number = len(trials)
    settings = propose(space, trials, config.seed) if trials else _defaults(config, space)
    same = next((trial for trial in trials if trial.settings == settings), None)
    if same is not None:
        return same.model_copy(update={"number": number})
    trial = partial(Trial, number=number, settings=settings)
    try:
        run = _trained(job, config, number, settings)
    except _Impossible as impossible:
        return trial(state="failed", error=str(impossible))
    if run.state is RunState.FAILED or run.best_score is None:
        return trial(state="failed", run_id=run.id, error=run.error or "it has no score")
    return trial(state="completed", run_id=run.id, score=run.best_score)


class _Impossible(Exception):
    """The method takes each of the settings, and not all of them together."""


def _defaults(config: TuneConfig, space: Space) -> dict[str, Value]:
    """Returns what the settings that are searched are without a search."""
    from mtf_engine.learning.training import make_config

    defaults = make_config(config.algo, config.preset, config.settings, config.seed)
    return {name: span.written(getattr(defaults, name)) for name, span in space.items()}


def _trained(job: Job, config: TuneConfig, number: int, settings: Mapping[str, Value]) -> RunRow:
    """Returns the finished training of a trial: completed, or failed, which is not tried again."""
    from mtf_engine.learning.training import make_config

    name = f"{job.run.name} trial {number}"
    try:
        given = {} if number == DEFAULTS else {one: text_of(value) for one, value in settings.items()}
        made = make_config(config.algo, config.preset, {**config.settings, **given}, config.seed)
    except Refusal as refusal:
        raise _Impossible(str(refusal)) from None
    training = partial(
        submit,
        kind=TRAINING,
        config=made.model_dump(mode="json"),
        dataset_id=job.run.dataset_id,
        algo=config.algo,
        seed=config.seed,
        n_steps=made.n_steps or 0,
    )
    if failed := _failed(job, name):
        return failed
    try:
        return parts.done(job, "train", name, training)
    except Refusal:
        if failed := _failed(job, name):
            return failed
        raise


def _failed(job: Job, name: str) -> RunRow | None:
    begun = job.workspace.registry.runs(RunState.FAILED, kind="train", parent_id=job.run.id)
    return next((run for run in begun if run.name == name), None)


def _change(job: Job, trials: list[Trial]) -> Change | None:
    """Returns the best trial against the defaults over users; None where it is they, or they failed."""
    best, defaults = best_of(trials), trials[DEFAULTS]
    if best is None or defaults.run_id is None or defaults.score is None or best.run_id == defaults.run_id:
        return None
    pair = best.run_id + BEST, defaults.run_id + BEST
    scoring = partial(submit_evaluate, policies=pair, dataset=str(job.run.dataset_id))
    run = parts.done(job, "evaluate", f"{job.run.name} best against defaults", scoring)
    result = run.result or {}
    found = next(
        one for one in result["differences"] if (one["run_id"], one["base"], one["group"]) == (*pair, "user")
    )
    interval = {name: found[name] for name in ("value", "ci_low", "ci_high")}
    return Change(**interval, split=result["split"], run_id=run.id)


KIND = RunKind("tune", TuneConfig, tune)
