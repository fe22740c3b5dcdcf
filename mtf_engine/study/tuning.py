"""A search over a method's settings: its trials, which comes next, which is best, and which settings mattered.

The next trial is proposed by the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; Watanabe, arXiv
2304.11127), `TPESampler` of Optuna. A sampler carries random state that it cannot save, so each trial gets a new one,
seeded by (seed, number), and a study of the trials before it: a search that was killed goes on as it would have.

Several at once: of the trials that may still be at work when one is proposed, it is told the settings alone, also of
those that happen to have ended. TPE counts such trials among the bad ones (a constant liar: Ginsbourger et al., 2010),
so that the next is not the same again. Trials depend on the seed and on how many are at once, not on which ends first.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mtf_engine.logs.splits import TEST
from mtf_engine.spec import Spec
from mtf_engine.study.space import Space, Value

if TYPE_CHECKING:
    from optuna import Study

DEFAULTS = 0
"""The trial of the settings that the search starts from."""
FEWEST = 8
"""Completed trials from which the importance of settings is told."""
N_RANDOM = 10
"""Trials that are drawn at random before the first is proposed (Optuna: 10)."""


class Trial(Spec):
    """One training of a search: the settings searched, and its best score on validation users."""

    number: int
    settings: dict[str, Value]
    state: Literal["completed", "failed"]
    score: float | None = None
    run_id: str | None = None
    error: str | None = None


class Change(Spec):
    """Weighted GAUC of the best trial's best step minus that of the defaults', with its 95 % interval over users."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    split: str
    run_id: str

    @property
    def found(self) -> str:
        """The change with its interval, in words."""
        if self.value is None or self.ci_low is None or self.ci_high is None:
            return "not known: too few users have impressions of both classes"
        chance = "" if self.ci_low > 0 else ", which may be chance"
        return f"{self.value:+.4f} ({self.ci_low:+.4f} to {self.ci_high:+.4f}, 95 % over users){chance}"


class Best(Spec):
    """The completed trial of the highest score, and what it has over the defaults."""

    number: int
    settings: dict[str, Value]
    score: float
    run_id: str
    gain: float | None = None
    change: Change | None = None
    said: str


class Tuning(Spec):
    """What a search found so far; `importance` is a share of the variance of scores by setting."""

    trials: tuple[Trial, ...] = ()
    best: Best | None = None
    importance: dict[str, float] | None = None
    importance_said: str = ""

    @property
    def defaults(self) -> Trial | None:
        """The trial of the default settings, once it has ended."""
        return defaults_of(self.trials)


def propose(
    space: Space, trials: Sequence[Trial], seed: int, pending: Sequence[Mapping[str, Value]] = ()
) -> dict[str, Value]:
    """Returns the settings to try after `trials` and beside the `pending` ones, of which no score is known."""
    study = _study(space, trials, _seed(seed, len(trials) + len(pending)), pending)
    drawn = study.ask(_distributions(space)).params
    return {name: span.proposed(drawn[name]) for name, span in space.items()}


def defaults_of(trials: Sequence[Trial]) -> Trial | None:
    """Returns the trial of the default settings; None where it has not ended."""
    return next((trial for trial in trials if trial.number == DEFAULTS), None)


def best_of(trials: Sequence[Trial], change: Change | None = None) -> Best | None:
    """Returns the completed trial of the highest score, the first among equals; None where none is completed."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None]
    if not scored:
        return None
    score, top = max(scored, key=lambda one: one[0])
    start = defaults_of(trials)
    defaults = start.score if start else None
    return Best(
        number=top.number,
        settings=top.settings,
        score=score,
        run_id=str(top.run_id),
        gain=None if defaults is None else score - defaults,
        change=change,
        said=_said(top.number, score, start, len(scored), change),
    )


def _said(number: int, score: float, start: Trial | None, n: int, change: Change | None) -> str:
    if start is None or start.score is None:
        how = "have no score yet" if start is None else "failed"
        return f"Trial {number} scores highest, {score:.4f} on validation users; the default settings {how}."
    if number == DEFAULTS:
        others = f"none of {n - 1} other trials scores higher" if n > 1 else "no other trial is completed"
        return f"The default settings score {score:.4f} on validation users; {others}."
    gain = f"{score - start.score:+.4f} against the default settings"
    first = f"Trial {number} scores {score:.4f} on validation users, {gain}."
    flattered = f"It is the best of {n} trials by the same users, so this is optimistic"
    if change is None:
        return f"{first} {flattered}."
    if change.split == TEST:
        return (
            f"{first} {flattered}. On test users, by whom no trial was chosen, the change is {change.found}."
        )
    return (
        f"{first} Over all of them the change is {change.found}. {flattered}: score both on another log before you "
        "rely on it."
    )


def importance(space: Space, trials: Sequence[Trial]) -> tuple[dict[str, float] | None, str]:
    """Returns each setting's share of the variance of scores (fANOVA), and a sentence; no shares of too few trials.

    Hutter et al., ICML 2014: a forest is fitted to the scores, and its variance is taken apart. The seed is fixed.
    """
    known = [trial for trial in trials if trial.score is not None and _inside(space, trial.settings)]
    if len(known) < FEWEST:
        return (
            None,
            f"Importance needs {FEWEST} completed trials inside the ranges, and there are {len(known)}.",
        )
    if len({trial.score for trial in known}) == 1:
        return None, "All trials score the same, so no setting is more important than another."
    if len(space) == 1:
        return None, "One setting alone was searched, so there is nothing to compare its importance with."
    from optuna.importance import FanovaImportanceEvaluator

    found = FanovaImportanceEvaluator(seed=0).evaluate(_study(space, known, 0))
    shares = {name: float(found[name]) for name in space}
    total = sum(shares.values())
    if not total > 0:
        return None, "No setting alone explains the scores."
    said = f"By a forest fitted to {len(known)} trials (fANOVA): a hint of where to look, not a measurement."
    return {name: share / total for name, share in shares.items()}, said


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _distributions(space: Space) -> dict:
    return {name: span.distribution for name, span in space.items()}


def _study(
    space: Space, trials: Sequence[Trial], seed: int, pending: Sequence[Mapping[str, Value]] = ()
) -> "Study":
    """Returns a study of Optuna that knows the trials inside the space: scores, which failed, which are `pending`."""
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_RANDOM, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    known = [
        (one.settings, one.score, TrialState.FAIL if one.score is None else TrialState.COMPLETE)
        for one in trials
    ]
    for settings, score, state in [*known, *((one, None, TrialState.RUNNING) for one in pending)]:
        if _inside(space, settings):
            made = optuna.create_trial(
                params=dict(settings), distributions=_distributions(space), value=score, state=state
            )
            study.add_trial(made)
    return study


def _inside(space: Space, settings: Mapping[str, Value]) -> bool:
    """Returns whether the settings of a trial lie in the space; the defaults need not."""
    return all(span.holds(settings[name]) for name, span in space.items())
