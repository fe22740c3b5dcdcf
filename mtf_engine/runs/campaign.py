"""Many runs as the parts of one, each a process of its own; what is stored is not done again.

On one machine as many work at a time as runs do; on a cluster as many as it has room for. Which parts there are may be
known at the start (a comparison), or be decided by those that ended (a search, whose failures are results too).
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from mtf_engine.registry import BASELINE, RunRow, RunState
from mtf_engine.runs import executor, provenance
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.worker import Job
from mtf_engine.workspace import Workspace

POLL_SECONDS = 0.3
GUESS = 30.0
"""Seconds of a part of a kind that was never done here."""
PLACES = ("name", "dataset_id")
"""Of a config, what says where an input lies or what it is called, and not what is done."""
WHO = ("n_workers",)
"""Of a config, what says who works; the result is the same."""

Reuse = Literal["same-code", "any"]
"""Which completed runs stand for a part that asks for the same: those of the code at work here, or all."""
Done = Mapping[str, RunRow]
"""The runs of parts that came to their result, by name: completed, or failed where a part `may_fail`."""


@dataclass(frozen=True)
class Order:
    """What a run is asked for, as `executor.submit` takes it."""

    config: dict[str, Any]
    dataset_id: str | None = None
    seed: int | None = None
    n_steps: int = 0


@dataclass(frozen=True)
class Part:
    """One run of many: the parts it waits for, by name, and its order once they are done."""

    name: str
    kind: RunKind
    order: Callable[[Done], Order]
    needs: tuple[str, ...] = ()
    algo: str | None = None
    may_fail: bool = False
    """Whether a failure is its result like any other, so that it is not tried again."""


def always(order: Order, _: Done) -> Order:
    """Returns an order that no other part decides."""
    return order


@dataclass
class Campaign:
    """The parts of a job that coordinates them: those `done`, and those that are lost, `failed`, with their reasons.

    `how_far` tells the job's step and steps, where it counts other things than parts.
    """

    job: Job
    reuse: Reuse = "same-code"
    how_far: Callable[[], tuple[int, int]] | None = None
    done: dict[str, RunRow] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _at_work: dict[str, tuple[Part, str]] = field(default_factory=dict)
    _waiting: list[Part] = field(default_factory=list)

    def carry_out(self, parts: Iterable[Part]) -> Generator[Done, None, None]:
        """Yields what is done whenever more is, until all of `parts` are: those first in the list that can begin.

        Whoever is told may `add` parts that are decided by what is done.

        A part is taken from what is stored, whoever asked for it, where a completed run did the same to a
        dataset of the same content, by the same code unless any may be reused. One that fails leaves out those
        that need it, and the others go on. When this job is to stop, so are the parts at work; a resumed one
        goes on with them.
        """
        self.add(parts)
        try:
            while self._waiting or self._at_work:
                known = len(self.done)
                self._waiting = [part for part in self._waiting if not self._begins(part)]
                self._gather()
                if more := len(self.done) > known:
                    yield self.done
                self.job.progress(*(self.how_far() if self.how_far else self._parts_ended()))
                if not more:
                    time.sleep(POLL_SECONDS)
                    executor.reconcile(self.job.workspace)
        finally:
            self._stop()

    def add(self, parts: Iterable[Part]) -> None:
        """Has `parts` carried out behind those that wait."""
        self._waiting += parts

    def seconds_left(self) -> float:
        """Returns how long the parts that are missing will take, by the pace of like runs in the workspace."""
        left = [*self._waiting, *(part for part, _ in self._at_work.values())]
        completed = self.job.workspace.registry.runs(RunState.COMPLETED)
        return sum(_pace(completed, part.kind.name, part.algo) for part in left) / executor.MAX_WORKING

    def _parts_ended(self) -> tuple[int, int]:
        ended = len(self.done) + len(self.failed)
        return ended, ended + len(self._waiting) + len(self._at_work)

    def _begins(self, part: Part) -> bool:
        """Returns whether `part` waits no more: it is stored, is put to work, or cannot be done."""
        if lost := next((need for need in part.needs if need in self.failed), None):
            self.failed[part.name] = f"needs {lost}"
            return True
        if not all(need in self.done for need in part.needs):
            return False
        if self.job.run.is_local and len(self._at_work) == executor.MAX_WORKING:
            return False  # a cluster has a queue, and as many machines as it has
        order = part.order(self.done)
        known = stored(self.job.workspace, part, order, self.reuse)
        if known is not None:
            self.done[part.name] = known
        else:
            self._at_work[part.name] = part, self._put_to_work(part, order)
        return True

    def _put_to_work(self, part: Part, order: Order) -> str:
        """Returns the id of the part's run, begun earlier or new, which a process of its own works on."""
        workspace, run = self.job.workspace, self.job.run
        begun = workspace.registry.runs(kind=part.kind.name, parent_id=run.id)
        asked = (part.name, order.dataset_id)
        same = (
            one.id
            for one in begun
            if (one.name, None if one.writes_dataset else one.dataset_id) == asked
            and same_result(part.kind, one.config, order.config)
            and goes_on(one, self.reuse)
        )
        run_id = next(same, None)
        if run_id:
            if part.may_fail and workspace.registry.run(run_id).state is RunState.FAILED:
                return run_id
            as_asked_now(workspace, run_id, order.config)
        else:
            run_id = executor.submit(
                workspace, part.kind, name=part.name, algo=part.algo, parent_id=run.id, **vars(order)
            )
        if workspace.registry.run(run_id).cancel_requested_at is not None:
            executor.wait(workspace, run_id)  # an earlier attempt may have ended before this part of it
        if run.is_local:
            executor.expect_many(workspace, order.config.get("n_threads", 1))
        executor.enqueue(workspace, run_id)
        print(f"{part.kind.name} of {part.name}: {run_id}", flush=True)
        return run_id

    def _gather(self) -> None:
        for name, (part, run_id) in list(self._at_work.items()):
            run = self.job.workspace.registry.run(run_id)
            if run.state is RunState.COMPLETED or (part.may_fail and run.state is RunState.FAILED):
                self.done[name] = run
            elif run.state.is_finished:
                self.failed[name] = f"{run_id} {run.state}: {run.error or 'it was stopped'}"
            if run.state.is_finished:
                del self._at_work[name]

    def _stop(self) -> None:
        """Asks the parts that are still at work to stop, and waits until they have."""
        for _, run_id in self._at_work.values():
            executor.ask_to_stop(self.job.workspace, run_id)
        for _, run_id in self._at_work.values():
            executor.wait(self.job.workspace, run_id)


def stored(workspace: Workspace, part: Part, order: Order, reuse: Reuse = "same-code") -> RunRow | None:
    """Returns a completed run that did what `part` asks for, by code that counts, and whose result is still there."""
    hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
    there = hashes.keys() | {run.id for run in workspace.registry.runs()} | {BASELINE}
    writes = part.kind.writes_dataset
    wanted = _key(part.kind, part.algo, order.config, None if writes else hashes.get(str(order.dataset_id)))
    for run in workspace.registry.runs(RunState.COMPLETED, kind=part.kind.name):
        read = None if writes else (run.provenance or {}).get("dataset_hash")
        found = _key(part.kind, run.algo, run.config, read)
        if counts(run, reuse) and found == wanted and _left_behind(run) <= there:
            return run
    return None


def goes_on(begun: RunRow, reuse: Reuse) -> bool:
    """Returns whether a part of an earlier attempt can: what is done and yet not `stored` is of other code, or lost."""
    return begun.state is not RunState.COMPLETED and (begun.provenance is None or counts(begun, reuse))


def counts(run: RunRow, reuse: Reuse) -> bool:
    """Returns whether the code that computed a run is one whose results may be reused."""
    return reuse == "any" or provenance.is_of_this_code(run)


def same_result(kind: RunKind, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether two configs of a kind ask for the same, whoever works."""
    return _what(kind, one) == _what(kind, other)


def as_asked_now(workspace: Workspace, run_id: str, config: Mapping[str, Any]) -> None:
    """Has a run that was asked for before, and is to go on, be worked on by as many as `config` says now."""
    run = workspace.registry.run(run_id)
    asked = {name: config[name] for name in WHO if name in config}
    if run.config | asked != run.config:
        left = (state for state in RunState if state is RunState.QUEUED or state.can_resume)
        workspace.registry.update_run(run_id, *left, config=run.config | asked)


def _left_behind(run: RunRow) -> set[str]:
    """Returns the datasets and runs that others read from a run's result."""
    if run.writes_dataset:
        return {str(run.dataset_id)}
    if run.kind != "progressive":
        return set()
    result = run.result or {}
    return {result["promoted"], *(one["dataset_id"] for one in result["rounds"])}


def _key(kind: RunKind, algo: str | None, config: Mapping[str, Any], dataset_hash: str | None) -> str:
    """Returns what decides a run's outcome, as text."""
    settings = {name: value for name, value in _what(kind, config).items() if name not in PLACES}
    return json.dumps([algo, settings, dataset_hash], sort_keys=True)


def _what(kind: RunKind, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a config says of what is done, and what it leaves out, as those of earlier versions do."""
    fields = kind.Config.model_fields if kind.Config else {}
    left_out = {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in fields.items()
        if not field.is_required()
    }
    return {name: value for name, value in (left_out | dict(config)).items() if name not in WHO}


def _pace(completed: Sequence[RunRow], kind: str, algo: str | None) -> float:
    """Returns the mean seconds of a run of that kind and method, else of that kind."""
    like = [run for run in completed if run.kind == kind]
    same = [run for run in like if run.algo == algo] or like
    return mean(run.seconds or 0.0 for run in same) if same else GUESS
