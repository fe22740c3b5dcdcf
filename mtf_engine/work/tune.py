"""Searches over a method's settings: each trial is an ordinary training, scored on the log's validation users.

A trial is a run of its own, which the search only waits for. Trial k is proposed once trials 0 to k - `at_once` have
ended, and knows their results, and of those behind them the settings alone: which ends first decides nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import Field

from mtf_engine.registry import BEST, DatasetRow, RunRow, RunState
from mtf_engine.runs.campaign import Campaign, Order, Part, always
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Seed, Spec, Threads
from mtf_engine.study.space import Space, Value, read_space, text_of
from mtf_engine.study.tuning import DEFAULTS, Change, Trial, Tuning, best_of, importance, propose
from mtf_engine.work.evaluate import KIND as EVALUATION
from mtf_engine.work.evaluate import EvaluateConfig
from mtf_engine.work.train import KIND as TRAINING
from mtf_engine.work.train import check_learns, validation_on
from mtf_engine.workspace import Workspace

MOST_TRIALS, MOST_AT_ONCE = 1_000, 100


class TuneConfig(Spec):
    """Search over settings of `algo`: those of `preset` and `settings` are fixed, `space` says what is tried."""

    algo: str
    preset: str
    settings: dict[str, str] = Field(description="fixed, as --set takes them")
    space: dict[str, str] = Field(description="LOW..HIGH, LOW..HIGH log or A,B,C by setting")
    trials: int = Field(ge=2, le=MOST_TRIALS, description="the default settings are the first")
    at_once: int = Field(default=1, ge=1, le=MOST_AT_ONCE, description="trials that are trained at a time")
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
    at_once: int = 1,
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
        at_once=at_once,
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
    """Tries settings, some at once, and returns the best of them and what it has over the defaults.

    Trials that are done are not done again, so a search that was killed ends like one that was not.
    """
    job.workspace.dataset(str(job.run.dataset_id))  # deleted since, it would be a search of failed trials
    campaign = Campaign(job, how_far=lambda: (len(search.trials), config.trials))
    search = Search(job.run, config, space_of(config), campaign)
    with closing(campaign.carry_out(search.to_train())) as more:
        for _ in more:
            campaign.add(search.to_train())
            found = Tuning(trials=search.trials, best=best_of(search.trials))
            job.workspace.registry.update_run(job.run.id, result=found.model_dump(mode="json"))
    _refuse_lost(campaign)
    trials = search.trials
    best = best_of(trials, _change(job, campaign, trials))
    if best is None:
        raise Refusal(f"all {len(trials)} trials failed; the first: {trials[DEFAULTS].error}")
    shares, said = importance(search.space, trials)
    found = Tuning(trials=trials, best=best, importance=shares, importance_said=said)
    return found.model_dump(mode="json")


@dataclass
class Search:
    """The trials of a search: settings by number as they are proposed, and what came of them."""

    run: RunRow
    config: TuneConfig
    space: Space
    campaign: Campaign
    _settings: list[dict[str, Value]] = field(default_factory=list)
    _first: list[int] = field(default_factory=list)
    """The earliest trial of the same settings as each, whose run is that of all."""
    _impossible: dict[int, str] = field(default_factory=dict)
    """Why the method takes each of a trial's settings, and not all of them together."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those that have ended."""
        ended = map(self._ended, range(len(self._settings)))
        return tuple(trial for trial in ended if trial)

    def to_train(self) -> Iterator[Part]:
        """Yields the trainings of trials that can be proposed now: the defaults, then what Optuna proposes."""
        while (number := len(self._settings)) < self.config.trials:
            n_known = max(0, number - self.config.at_once + 1)
            known = [trial for trial in map(self._ended, range(n_known)) if trial]
            if len(known) < n_known:
                return
            self._settings.append(
                propose(self.space, known, self.config.seed, self._settings[n_known:])
                if number != DEFAULTS
                else _defaults(self.config, self.space)
            )
            self._first.append(self._settings.index(self._settings[number]))
            if self._first[number] == number:
                yield from self._training(number)

    def _ended(self, number: int) -> Trial | None:
        """Returns a proposed trial once it has ended."""
        first, told = self._first[number], partial(Trial, number=number, settings=self._settings[number])
        if first in self._impossible:
            return told(state="failed", error=self._impossible[first])
        run = self.campaign.done.get(self._name(first))
        if run is None:
            return None
        if run.state is RunState.FAILED or run.best_score is None:
            return told(state="failed", run_id=run.id, error=run.error or "it has no score")
        return told(state="completed", run_id=run.id, score=run.best_score)

    def _training(self, number: int) -> Iterator[Part]:
        """Yields the training of a trial, whose failure is a result; none where there is no such config."""
        from mtf_engine.learning.training import make_config

        config, settings = self.config, self._settings[number]
        given = {} if number == DEFAULTS else {one: text_of(value) for one, value in settings.items()}
        try:
            made = make_config(config.algo, config.preset, {**config.settings, **given}, config.seed)
        except Refusal as refusal:
            self._impossible[number] = str(refusal)
            return
        told, n_steps = made.model_dump(mode="json"), made.n_steps or 0
        order = Order(told, self.run.dataset_id, seed=config.seed, n_steps=n_steps)
        yield Part(self._name(number), TRAINING, partial(always, order), algo=config.algo, may_fail=True)

    def _name(self, number: int) -> str:
        return f"{self.run.name} trial {number}"


def _defaults(config: TuneConfig, space: Space) -> dict[str, Value]:
    """Returns what the settings that are searched are without a search."""
    from mtf_engine.learning.training import make_config

    defaults = make_config(config.algo, config.preset, config.settings, config.seed)
    return {name: span.written(getattr(defaults, name)) for name, span in space.items()}


def _refuse_lost(campaign: Campaign) -> None:
    """Refuses to tell of a search whose parts did not all come to a result, as where the worker of one was killed."""
    for name, why in campaign.failed.items():
        raise Refusal(f"{name} is missing: {why}; `runs resume {campaign.job.run.id}` goes on")


def _change(job: Job, campaign: Campaign, trials: Sequence[Trial]) -> Change | None:
    """Returns the best trial against the defaults over users; None where it is they, or they failed."""
    best, defaults = best_of(trials), trials[DEFAULTS]
    if best is None or defaults.run_id is None or defaults.score is None or best.run_id == defaults.run_id:
        return None
    pair, dataset_id = (best.run_id + BEST, defaults.run_id + BEST), str(job.run.dataset_id)
    asked = EvaluateConfig(policies=pair, dataset_id=dataset_id, floors=True)
    order = Order(asked.model_dump(mode="json"), dataset_id, seed=asked.seed)
    name = f"{job.run.name} best against defaults"
    for _ in campaign.carry_out([Part(name, EVALUATION, partial(always, order))]):
        pass
    _refuse_lost(campaign)
    result = campaign.done[name].result or {}
    found = next(
        one for one in result["differences"] if (one["run_id"], one["base"], one["group"]) == (*pair, "user")
    )
    interval = {name: found[name] for name in ("value", "ci_low", "ci_high")}
    return Change(**interval, split=result["split"], run_id=campaign.done[name].id)


KIND = RunKind("tune", TuneConfig, tune, coordinates=True)
