"""The scoreboard: every policy beside the live one, by both metrics, in words; and what waits for people."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any

from mtf_engine.evaluation.agreement import GROUP, METRIC
from mtf_engine.logs.splits import ALL
from mtf_engine.registry import BASELINE, POLICY_KINDS, RunRow, RunState, run_of
from mtf_engine.spec import Spec
from mtf_engine.workspace import Workspace

MOST = 20
"""Policies on a scoreboard; the live one is always among them."""
RETURN = "return"
"""What stands for the session reward in an environment that shows nothing."""


class Verdict(StrEnum):
    """What both metrics say of a policy beside the live one."""

    LIVE = "live"
    BETTER = "better"
    WORSE = "worse"
    ALIKE = "not told apart"
    DISAGREE = "metrics disagree"
    UNKNOWN = "not measured"


class Change(Spec):
    """A policy minus the live one by one metric, with its 95 % interval, and the run that measured it."""

    value: float
    low: float
    high: float
    run_id: str

    @property
    def told(self) -> int:
        """1 where the whole interval lies above 0, -1 below it, else 0."""
        return (self.low > 0) - (self.high < 0)


def verdict(*changes: Change | None) -> Verdict:
    """Returns what several metrics say; those that are not measured, or do not tell the two apart, say nothing."""
    told = [change.told for change in changes if change]
    if not told:
        return Verdict.UNKNOWN
    if {1, -1} <= set(told):
        return Verdict.DISAGREE
    return {1: Verdict.BETTER, 0: Verdict.ALIKE, -1: Verdict.WORSE}[max(told, key=abs)]


class Standing(Spec):
    """A policy beside the live one: change of weighted GAUC, and of session reward relative to the live one's."""

    policy: str
    name: str
    algo: str | None = None
    trained_at: datetime | None = None
    gauc: Change | None = None
    reward: Change | None = None
    is_live: bool = False
    waits_in: str | None = None
    """The run of rounds in which it waits for a decision."""

    @property
    def verdict(self) -> Verdict:
        """What both metrics say."""
        return Verdict.LIVE if self.is_live else verdict(self.gauc, self.reward)


class Waiting(Spec):
    """Something that waits for people: what, why, and its id."""

    kind: str
    id: str
    name: str
    reason: str


def scoreboard(workspace: Workspace, most: int = MOST) -> list[Standing]:
    """Returns the live policy and those beside it, the surest gain first, at most `most`.

    Trainings that are parts of comparisons or rounds are left out, but what is live or waits for a decision. Figures
    are those of the newest evaluation and A/B test that hold the policy and the live one; an evaluation on rows that
    the policy learned from tells nothing.
    """
    runs = workspace.registry.runs()
    by_id = {run.id: run for run in runs}
    live, waits = workspace.live, {candidate: run.id for run, candidate in _candidates(workspace, runs)}
    reward = dict(_reward_changes(runs, live))
    gauc = {
        policy: change
        for policy, change, evaluation in _gauc_changes(runs, live)
        if not learned_from_it(workspace, by_id.get(run_of(policy)), evaluation)
    }
    trained = [run for run in runs if run.kind in POLICY_KINDS and run.state is RunState.COMPLETED]
    own = [run.id for run in trained if run.parent_id is None and not run.archived]
    measured = [policy for policy in (*gauc, *reward) if run_of(policy) in own]
    policies = [live, *dict.fromkeys(p for p in (*waits, *measured, *own) if p != live)]
    standings = [
        Standing(
            policy=policy,
            name=run.name or str(run.algo) if (run := by_id.get(run_of(policy))) else policy,
            algo=run.algo if run else None,
            trained_at=run.finished_at if run else None,
            gauc=gauc.get(policy),
            reward=reward.get(policy),
            is_live=policy == live,
            waits_in=waits.get(policy),
        )
        for policy in policies
        if policy == BASELINE or run_of(policy) in by_id
    ]
    return sorted(standings, key=_rank)[:most]


def _rank(standing: Standing) -> tuple[Any, ...]:
    """The live one first, then what waits, then by verdict and gain; what is not measured last."""
    order = (Verdict.LIVE, Verdict.BETTER, Verdict.DISAGREE, Verdict.ALIKE, Verdict.WORSE, Verdict.UNKNOWN)
    gain = [change.value for change in (standing.reward, standing.gauc) if change]
    return (
        not standing.is_live,
        standing.waits_in is None,
        order.index(standing.verdict),
        *(-g for g in gain[:1]),
    )


def logs_behind(workspace: Workspace, run: RunRow) -> set[str]:
    """Returns the ids of the logs that a training learned from, those that were joined too."""
    rows = {row.id: row for row in workspace.registry.datasets()}
    log = rows.get(str(run.dataset_id))
    return {str(run.dataset_id), *(log.meta["details"].get("joins", ()) if log else ())}


def learned_from_it(workspace: Workspace, run: RunRow | None, evaluation: RunRow) -> bool:
    """Returns whether an evaluation scored a training's policy on all rows of a log that it learned from."""
    whole = (evaluation.result or {}).get("split") == ALL
    return run is not None and whole and evaluation.dataset_id in logs_behind(workspace, run)


def _gauc_changes(runs: Sequence[RunRow], live: str) -> Iterator[tuple[str, Change, RunRow]]:
    """Yields the change of weighted GAUC of each policy against the live one, and its evaluation, the oldest first."""
    for run in reversed(runs):
        if run.kind == "evaluate" and run.state is RunState.COMPLETED:
            for row in (run.result or {}).get("differences", ()):
                if (row["base"], row["group"]) == (live, GROUP) and row["ci_low"] is not None:
                    yield row["run_id"], _change(row["value"], row, run), run


def _reward_changes(runs: Sequence[RunRow], live: str) -> Iterator[tuple[str, Change]]:
    """Yields the relative change of session reward of each policy against the live one, the oldest first."""
    for run in reversed(runs):
        if run.kind == "abtest" and run.state is RunState.COMPLETED and run.config["base"] == live:
            for row in (run.result or {}).get("effects", ()):
                if row["metric"] in (METRIC, RETURN) and row["ci_low"] is not None:
                    yield row["policy"], _change(row["relative"], row, run)


def _change(value: float, row: dict[str, Any], run: RunRow) -> Change:
    return Change(value=value, low=row["ci_low"], high=row["ci_high"], run_id=run.id)


def _candidates(workspace: Workspace, runs: Sequence[RunRow]) -> Iterator[tuple[RunRow, str]]:
    """Yields the runs that wait for a decision, and the policy of the last round, with which each waits.

    An earlier version had no state of its own for them.
    """
    for _, rounds in groupby(workspace.undecided(runs), key=lambda one: one[0].id):
        run, _, candidate = next(rounds)
        earlier = run.state is RunState.INTERRUPTED and run.config["promote"] == "by-hand"
        if run.state is RunState.WAITING or earlier:
            yield run, candidate


def waiting(workspace: Workspace, failed_certificates: dict[str, str]) -> list[Waiting]:
    """Returns what waits for people, the newest first: rounds to decide, runs that failed, logs that should not teach.

    `failed_certificates` are the reasons why datasets failed theirs, by id. A run that failed waits until it is
    archived, deleted or resumed; a part waits with its whole.
    """
    runs = [run for run in workspace.registry.runs() if not run.archived]
    decide = [
        Waiting(
            kind="round",
            id=run.id,
            name=run.name or run.id,
            reason=f"round {len((run.result or {})['rounds'])} waits for a decision",
        )
        for run, _ in _candidates(workspace, runs)
    ]
    failed = [
        Waiting(kind="run", id=run.id, name=run.name or run.id, reason=run.error or "failed, see its log")
        for run in runs
        if run.state is RunState.FAILED and run.parent_id is None
    ]
    spoiled = [
        Waiting(kind="dataset", id=row.id, name=row.name, reason=failed_certificates[row.id])
        for row in workspace.registry.datasets()
        if row.id in failed_certificates
    ]
    return [*decide, *failed, *spoiled]
