"""The small mutable rows (datasets, runs, plans, decisions), in a file of SQLite or on a server of PostgreSQL."""

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import Field

from mtf_engine.disk import REPAIR
from mtf_engine.registry_tables import (
    DATASETS,
    DECISIONS,
    DELETIONS,
    PLANS,
    RUNS,
    VIEWS,
    are_outdated,
    check_columns,
    upgrade,
)
from mtf_engine.registry_tables import RunState as RunState
from mtf_engine.spec import BoundsPlan, Refusal, Spec

T = TypeVar("T")
BASELINE = "baseline"
ANY: Literal["any"] = "any"
Seen = datetime | None | Literal["any"]
ASLEEP_SECONDS = 20.0
"""Until a server undoes a change that whoever makes it does not go on with."""
LIVE, CANDIDATE = "live", "candidate"
"""Aliases of policies: what the team last made live, and what waits for its decision."""
BEST = "@best"
LOCAL = "local"
"""The executor whose workers are processes of the machine that starts them."""
PRIVATE = {"pid", "cancel_requested_at", "queued_at", "told_end", "submission_id", "heartbeat_at"}
"""Of a run, what the command line does not show."""
EXAMPLE_URL = "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
POLICY_KINDS = ("train", "policy")
"""Kinds of runs that have a policy of their own: trainings, and policies imported from a bundle."""
ROUNDS = "progressive"
"""The kind of a run of rounds, and what its id begins with; as a policy it is the one it promoted last."""
DEFAULT, REGRESSION = "default", "regression"
_FIXED = re.compile(rf"{DEFAULT}|{REGRESSION}|(head|constant|random):.+")
_DATASET_ID, _POLICY = (
    re.compile(r"dataset-[0-9a-f]{8}"),
    re.compile(rf"({'|'.join(POLICY_KINDS)})-[0-9a-f]{{8}}({BEST})?"),
)


def run_of(policy: str) -> str:
    """Returns the run behind a policy: `RUN` is its last step, `RUN@best` its best by validation."""
    return policy.removesuffix(BEST)


def is_fixed(policy: str) -> bool:
    """Returns whether a policy is no run but one action for everybody, which its name says (`policies/fixed.py`)."""
    return bool(_FIXED.fullmatch(policy))


def is_trained(policy: str) -> bool:
    """Returns whether a policy is of a run, trained or imported: neither the baseline nor a fixed one."""
    return policy != BASELINE and not is_fixed(policy)


class DatasetRow(Spec):
    """One stored dataset: what its file must hold (`content_hash`, row counts) and where it came from."""

    id: str
    name: str
    source: str
    created_at: datetime
    n_requests: int
    n_impressions: int
    content_hash: str
    run_id: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """Returns what the command line shows of a dataset."""
        shown = self.model_dump(mode="json")
        names = {"dataset_id": "id", "requests": "n_requests", "impressions": "n_impressions"}
        return {name: shown.pop(column) for name, column in names.items()} | shown


class RunRow(Spec):
    """One run. `dataset_id` is the dataset that it reads, or the one that it `writes_dataset`.

    Trainings that differ in their seed alone, submitted together, share a `seed_group`. `best_score` is the
    highest weighted GAUC of validation users so far, reached at `best_step`. `provenance` says what computed
    it: code, versions, threads, peak memory, the dataset's hash. A run with a `parent_id` is a part of that run,
    done in the parent's process, or put to work by a parent that only `coordinates` its parts. `told_end` is when the
    end was that a notice was last sent of, and `person` who started it, where somebody was logged in.

    `executor` is who starts its worker, `host` the machine that this works on, and `attempt` the number of the
    worker that may write: a later one's predecessors may not. `submission_id` is what the executor calls that
    attempt, from when it was handed over, and `heartbeat_at` the last sign of life of a worker that is not local, by
    the registry's clock.
    """

    id: str
    kind: str
    name: str
    state: RunState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    config: dict[str, Any]
    dataset_id: str | None = None
    algo: str | None = None
    seed: int | None = None
    step: int = 0
    n_steps: int = 0
    pid: int | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    cancel_requested_at: datetime | None = None
    tags: list[str] = Field(default_factory=list)
    note: str = ""
    archived: bool = False
    seed_group: str = ""
    queued_at: datetime | None = None
    best_score: float | None = None
    best_step: int | None = None
    provenance: dict[str, Any] | None = None
    parent_id: str | None = None
    writes_dataset: bool = False
    coordinates: bool = False
    told_end: datetime | None = None
    person: str | None = None
    executor: str = LOCAL
    host: str | None = None
    attempt: int = 0
    submission_id: str | None = None
    heartbeat_at: datetime | None = None

    @property
    def is_local(self) -> bool:
        """Whether its worker is a process of the machine that starts it, or was."""
        return self.executor == LOCAL

    @property
    def seconds(self) -> float | None:
        """Working time so far, or until the end; None for a run that has not started."""
        if self.started_at is None:
            return None
        return ((self.finished_at or now()) - self.started_at).total_seconds()

    @property
    def reads_policies(self) -> tuple[str, ...]:
        """The policies of trainings that the run's config names."""
        return tuple(name for name in self._named if _POLICY.fullmatch(name))

    @property
    def reads_datasets(self) -> tuple[str, ...]:
        """The datasets that the run reads, by id; the one that it writes is not among them."""
        own = (self.dataset_id,) if self.dataset_id and not self.writes_dataset else ()
        return tuple(dict.fromkeys((*own, *(name for name in self._named if _DATASET_ID.fullmatch(name)))))

    @property
    def _named(self) -> Iterator[str]:
        """Yields the texts of the config, those in lists too, but its `name`, which people choose."""
        for field, value in self.config.items():
            several = value if isinstance(value, list | tuple) else (value,)
            yield from (one for one in several if isinstance(one, str) and field != "name")

    def public(self) -> dict[str, Any]:
        """Returns what the command line shows of a run: no process id, and no folder of this machine."""
        shown = self.model_dump(mode="json", exclude=PRIVATE)
        config = {name: _folder_free(value) for name, value in shown.pop("config").items()}
        return {"run_id": shown.pop("id"), **shown, "config": config, "seconds": self.seconds}


class PlanRow(Spec):
    """A bounds plan with a name and a note, and the `person` who stored it, where somebody was logged in."""

    name: str
    plan: BoundsPlan
    note: str = ""
    created_at: datetime
    person: str | None = None


class DeletionRow(Spec):
    """What was deleted for good: a run, dataset or plan, `deleted` by its id, and the `person` if one was logged in."""

    id: int
    created_at: datetime
    person: str | None
    kind: str
    deleted: str
    name: str


class ViewRow(Spec):
    """A view of the table of runs with a name: what the address of the page carries, each choice its values."""

    name: str
    query: dict[str, list[str]]
    created_at: datetime


class DecisionRow(Spec):
    """One entry of the ledger: who decided what of which policy, and what was live from then on.

    `case` is all that was known: figures, data, plan, configuration, the rule. A roll back has none. `follows` is the
    entry that was the last one when this was decided, 0 before the first; earlier versions did not tell.
    """

    id: int = 0
    created_at: datetime
    name: str
    decision: Literal["promote", "reject", "rollback"]
    candidate: str
    incumbent: str
    live: str
    recommendation: str = ""
    reason: str = ""
    run_id: str | None = None
    round: int | None = None
    case: dict[str, Any] | None = None
    follows: int | None = None


def now() -> datetime:
    """Returns the present, aware, in UTC."""
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    """Returns a fresh id such as `train-1f00ba77`; names given by users are labels, never ids."""
    return f"{kind}-{secrets.token_hex(4)}"


def _folder_free(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _not_held(run_id: str) -> NoReturn:
    raise AssertionError(f"this registry holds no attempt of {run_id}")


def _changed(table: str, name: str, at: datetime | None) -> Refusal:
    """Returns why nothing was stored under a name: somebody else was faster."""
    what = "was deleted" if at is None else f"was stored by somebody else at {at:%Y-%m-%d %H:%M:%S} UTC"
    return Refusal(f"{name} in {table} {what}, after you saw it; look at it, then store yours again")


def is_outdated(url: str) -> bool:
    """Returns whether the tables behind a database URL are of an older version."""
    with _engine(url, read_only=False).connect() as connection:
        return are_outdated(connection)


@lru_cache(maxsize=16)
def _engine(url: str, read_only: bool) -> sa.Engine:
    """Returns what connects to a database: to SQLite's file anew for each call, to a server by a pool of its own."""
    named = sa.make_url(url)
    if named.get_backend_name() == "sqlite":
        engine = sa.create_engine(named, poolclass=sa.NullPool)
        opened = ("do_connect", _open_read_only) if read_only else ("connect", _configure_sqlite)
        sa.event.listen(engine, *opened)
    else:
        engine = sa.create_engine(named, pool_pre_ping=True)
        if named.get_backend_name() == "postgresql":
            sa.event.listen(engine, "connect", _configure_postgresql)
        os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    sa.event.listen(engine, "handle_error", _tell)
    return engine


def _tell(context: sa.ExceptionContext) -> None:
    """Refuses where a server does not answer, or no longer."""
    url, error = context.engine and context.engine.url, context.sqlalchemy_exception
    if not url or url.get_backend_name() == "sqlite":
        return
    if context.is_disconnect or (context.connection is None and isinstance(error, sa.exc.OperationalError)):
        cause = str(context.original_exception).strip().splitlines()[0][:200]
        raise Refusal(
            f"the registry at {url.render_as_string()} does not answer: {cause}; see that its server runs"
        )


class Registry:
    """The rows behind a database URL. Every call has a connection of its own, so any thread may call.

    A Refusal where the URL names no database that there is a driver for, and where its server does not answer.
    """

    def __init__(
        self, url: str, read_only: bool = False, person: str | None = None, look_only: bool = False
    ) -> None:
        self.person, self.look_only = person, look_only
        self._attempts: Mapping[str, int] = {}
        self._lost: Callable[[str], NoReturn] = _not_held
        try:
            self._engine = _engine(url, read_only)
        except (sa.exc.ArgumentError, ValueError):
            raise Refusal(f"the registry's URL is none; write it as {EXAMPLE_URL}") from None
        except ImportError as error:
            raise Refusal(
                f"the registry's database needs {error.name}, which is not installed; for PostgreSQL "
                "pip install 'mtf_engine[postgres]'"
            ) from None
        with self._engine.begin() as connection:
            check_columns(connection) if read_only or look_only else upgrade(connection)

    def of_worker(self, attempts: Mapping[str, int], lost: Callable[[str], NoReturn]) -> "Registry":
        """Returns the registry as a worker writes it: only while its `attempts`, by run, are those that may.

        Each change holds their rows, so that nobody takes a run over within it. `lost` is told which run is no
        longer the worker's, and does not return.
        """
        own = copy(self)
        own._attempts, own._lost = attempts, lost
        return own

    def clock(self) -> datetime:
        """Returns the present by the clock that all machines share: a server's, or that of the file's machine."""
        if self._engine.dialect.name == "sqlite":
            return now()
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one().astimezone(UTC)

    def beat(self, run_id: str, attempt: int) -> bool:
        """Records a sign of life; returns whether the attempt is still the one that may write."""
        ours = (RUNS.c.id == run_id, RUNS.c.attempt == attempt, RUNS.c.state == RunState.RUNNING)
        return self._execute(sa.update(RUNS).where(*ours).values(heartbeat_at=self.clock())) == 1

    def claim(self, run: RunRow, attempt: int, submission_id: str) -> bool:
        """Returns whether it is for the caller to hand the next `attempt` of a queued `run` over, under that id."""
        ours = (RUNS.c.id == run.id, RUNS.c.attempt == run.attempt, RUNS.c.state == RunState.QUEUED)
        claimed = dict(attempt=attempt, submission_id=submission_id, heartbeat_at=self.clock())
        claimed |= dict(host=None, error=None)
        return self._execute(sa.update(RUNS).where(*ours).values(claimed)) == 1

    def add_dataset(self, row: DatasetRow) -> None:
        """Adds `row`, in place of one with the same id (an import that was resumed)."""
        with self._writing() as connection:
            connection.execute(sa.delete(DATASETS).where(DATASETS.c.id == row.id))
            connection.execute(sa.insert(DATASETS).values(row.model_dump()))

    def datasets(self) -> list[DatasetRow]:
        """Returns all datasets, newest first."""
        query = sa.select(DATASETS).order_by(DATASETS.c.created_at.desc(), DATASETS.c.id)
        return self._rows(query, DatasetRow)

    def add_runs(self, rows: Sequence[RunRow]) -> None:
        """Adds runs, each in place of one with the same id: those that a damaged registry has lost."""
        with self._writing() as connection:
            for row in rows:
                connection.execute(sa.delete(RUNS).where(RUNS.c.id == row.id))
                connection.execute(sa.insert(RUNS).values(row.model_dump()))

    def delete_dataset(self, dataset_id: str, noted: bool = False) -> None:
        """Deletes the row of a dataset; `noted`, it stands among the `deletions`, as what people delete does."""
        with self._writing() as connection:
            if noted:
                self._note_deletion(connection, "dataset", DATASETS, DATASETS.c.id == dataset_id)
            connection.execute(sa.delete(DATASETS).where(DATASETS.c.id == dataset_id))

    def add_run(self, row: RunRow) -> None:
        self._execute(sa.insert(RUNS).values(row.model_dump()))

    def runs(
        self,
        *states: RunState,
        kind: str | Sequence[str] | None = None,
        dataset_id: str | None = None,
        parent_id: str | None = None,
    ) -> list[RunRow]:
        """Returns the runs in any of `states` (default all) and of `kind`, one or several, newest first."""
        query = sa.select(RUNS).order_by(RUNS.c.created_at.desc(), RUNS.c.id)
        if states:
            query = query.where(RUNS.c.state.in_(states))
        if kind:
            query = query.where(RUNS.c.kind.in_([kind] if isinstance(kind, str) else kind))
        if dataset_id:
            query = query.where(RUNS.c.dataset_id == dataset_id)
        if parent_id:
            query = query.where(RUNS.c.parent_id == parent_id)
        return self._rows(query, RunRow)

    def part_ids(self) -> set[str]:
        """Returns the ids of the runs that are parts of others."""
        query = sa.select(RUNS.c.id).where(RUNS.c.parent_id.is_not(None))
        return {row["id"] for row in self._rows(query, dict[str, Any])}

    def queue(self) -> list[RunRow]:
        """Returns the queued runs, the next one first."""
        return sorted(self.runs(RunState.QUEUED), key=lambda run: run.queued_at or run.created_at)

    def run(self, run_id: str) -> RunRow:
        """Returns the run `run_id`; Refusal if there is none."""
        rows = self._rows(sa.select(RUNS).where(RUNS.c.id == run_id), RunRow)
        if not rows:
            raise Refusal(f"there is no run {run_id!r}; `runs list` shows those there are")
        return rows[0]

    def update_run(
        self, run_id: str, *expected: RunState, of_attempt: int | None = None, **values: Any
    ) -> bool:
        """Sets columns of a run, provided it is in one of the `expected` states; returns whether it was.

        With `of_attempt`, provided too that this is still the number of its attempt.
        """
        statement = sa.update(RUNS).where(RUNS.c.id == run_id).values(values)
        if of_attempt is not None:
            statement = statement.where(RUNS.c.attempt == of_attempt)
        if expected:
            statement = statement.where(RUNS.c.state.in_(expected))
        return self._execute(statement) == 1

    def ends(self, since: datetime, untold: bool = False) -> list[RunRow]:
        """Returns the runs that ended after `since`, the first to end first; ends of parts are their whole's affair.

        Where `untold`, those alone that no notice was sent of.
        """
        query = sa.select(RUNS).where(RUNS.c.finished_at > since, RUNS.c.parent_id.is_(None))
        if untold:
            query = query.where(RUNS.c.told_end.is_distinct_from(RUNS.c.finished_at))
        return self._rows(query.order_by(RUNS.c.finished_at, RUNS.c.id), RunRow)

    def claim_end(self, run: RunRow) -> bool:
        """Returns whether it is for the caller to tell of this end of `run`: of all who ask, for the first alone."""
        ended = RUNS.c.id == run.id, RUNS.c.finished_at == run.finished_at
        untold = RUNS.c.told_end.is_distinct_from(RUNS.c.finished_at)
        statement = sa.update(RUNS).where(*ended, untold).values(told_end=RUNS.c.finished_at)
        return self._execute(statement) == 1

    def delete_runs(
        self, *run_ids: str, of: Sequence[RunState] = tuple(RunState), noted: bool = False
    ) -> bool:
        """Deletes the rows of runs, provided all are in a state `of` these; returns whether they were.

        Their parts stay, as runs of their own whose ends are no news. `noted`, they stand among the `deletions`, as
        what people delete does.
        """
        own = {"parent_id": None, "told_end": RUNS.c.finished_at}
        named = RUNS.c.id.in_(run_ids)
        with self._writing() as connection:
            if noted:
                self._note_deletion(connection, "run", RUNS, named)
            these = sa.delete(RUNS).where(named, RUNS.c.state.in_(of))
            if connection.execute(these).rowcount != len(set(run_ids)):
                connection.rollback()
                return False
            connection.execute(sa.update(RUNS).where(RUNS.c.parent_id.in_(run_ids)).values(own))
        return True

    def save_plan(self, name: str, plan: BoundsPlan, note: str = "", seen: Seen = ANY) -> PlanRow | None:
        """Stores `plan` under `name`, and returns the one that it replaces; see `_replace`."""
        row = {"name": name, "plan": plan.model_dump(mode="json"), "note": note, "person": self.person}
        found = self._replace(PLANS, row, seen)
        return None if found is None else PlanRow(**found)

    def plans(self) -> list[PlanRow]:
        """Returns all bounds plans by name."""
        return self._rows(sa.select(PLANS).order_by(PLANS.c.name), PlanRow)

    def delete_plan(self, name: str) -> None:
        with self._writing() as connection:
            self._note_deletion(connection, "plan", PLANS, PLANS.c.name == name)
            connection.execute(sa.delete(PLANS).where(PLANS.c.name == name))

    def deletions(self) -> list[DeletionRow]:
        """Returns what was deleted for good, newest first."""
        return self._rows(sa.select(DELETIONS).order_by(DELETIONS.c.id.desc()), DeletionRow)

    def _note_deletion(
        self, connection: sa.Connection, kind: str, table: sa.Table, which: sa.ColumnElement[bool]
    ) -> None:
        key = table.c.get("id", table.c.name)
        for deleted, name in connection.execute(sa.select(key, table.c.name).where(which)).all():
            row = dict(created_at=now(), person=self.person, kind=kind, deleted=deleted, name=name)
            connection.execute(sa.insert(DELETIONS).values(row))

    def save_view(self, name: str, query: Mapping[str, Sequence[str]], seen: Seen = ANY) -> None:
        """Stores a view of the table of runs under `name`, in place of an earlier one of that name; see `_replace`."""
        self._replace(
            VIEWS, {"name": name, "query": {key: list(values) for key, values in query.items()}}, seen
        )

    def _replace(self, table: sa.Table, row: Mapping[str, Any], seen: Seen) -> Mapping[str, Any] | None:
        """Stores a row by its name, and returns the one that it replaces.

        `seen` is when that was stored, as whoever replaces it was told, None where it was told of none: a Refusal
        where it is another by now, and nothing is stored. `ANY`, whatever is there is replaced.
        """
        of_name = table.c.name == row["name"]
        try:
            with self._writing() as connection:
                gone = connection.execute(sa.delete(table).where(of_name).returning(table)).mappings().first()
                # on a server one that another replaced while this waited is gone, and the new one is seen only now
                now_there = sa.select(table.c.created_at).where(of_name)
                there = gone["created_at"] if gone else connection.execute(now_there).scalar()
                if seen not in (ANY, there):
                    raise _changed(table.name, row["name"], there)
                connection.execute(sa.insert(table).values({**row, "created_at": now()}))
        except sa.exc.IntegrityError:
            raise _changed(table.name, row["name"], now()) from None
        return None if gone is None else dict(gone)

    def views(self) -> list[ViewRow]:
        """Returns all views of the table of runs by name."""
        return self._rows(sa.select(VIEWS).order_by(VIEWS.c.name), ViewRow)

    def delete_view(self, name: str) -> None:
        self._execute(sa.delete(VIEWS).where(VIEWS.c.name == name))

    def add_decision(self, row: DecisionRow) -> DecisionRow | None:
        """Returns `row` as it was appended to the ledger, which nothing changes.

        None if its round is decided, or another entry already follows the one that it follows.
        """
        number = sa.select(
            sa.func.coalesce(sa.func.max(DECISIONS.c.id), 0) + 1
        ).scalar_subquery()  # without gaps
        values = {**row.model_dump(exclude={"id"}), "id": number}
        insert = sa.insert(DECISIONS).values(values).returning(DECISIONS.c.id)
        try:
            with self._writing() as connection:
                return row.model_copy(update={"id": connection.execute(insert).scalar_one()})
        except sa.exc.IntegrityError:
            return None

    def decisions(self) -> list[DecisionRow]:
        """Returns the ledger, oldest first."""
        return self._rows(sa.select(DECISIONS).order_by(DECISIONS.c.id), DecisionRow)

    def problems(self) -> list[str]:
        """Returns what SQLite finds wrong with its file; nothing is asked of another database, which looks itself."""
        if self._engine.dialect.name != "sqlite":
            return []
        with self._engine.connect() as connection:
            found = connection.execute(sa.text("PRAGMA integrity_check")).scalars()
            return [problem for problem in found if problem != "ok"]

    def _rows(self, query: sa.Select[Any], of: Callable[..., T]) -> list[T]:
        with self._engine.connect() as connection:
            try:
                return [of(**row) for row in connection.execute(query).mappings()]
            except (ValueError, LookupError, sa.exc.StatementError) as error:
                if isinstance(error, sa.exc.StatementError) and not _is_unreadable(error):
                    raise
                raise Refusal(f"the registry is damaged: a row of it cannot be read; {REPAIR}") from None

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Yields a connection whose changes are kept if nothing is raised; a Refusal for who may only look."""
        if self.look_only:
            raise Refusal("you may look here, and change nothing; ask whoever runs this for the role editor")
        with self._engine.begin() as connection:
            for run_id, attempt in self._attempts.items():
                ours = (RUNS.c.id == run_id, RUNS.c.attempt == attempt, RUNS.c.state == RunState.RUNNING)
                if not connection.execute(sa.update(RUNS).where(*ours).values(attempt=attempt)).rowcount:
                    self._lost(run_id)
            yield connection

    def _execute(self, statement: sa.Executable) -> int:
        with self._writing() as connection:
            return connection.execute(statement).rowcount


def _is_unreadable(error: sa.exc.StatementError) -> bool:
    """Returns whether what the database holds is no text, or no JSON."""
    return isinstance(error.orig, ValueError) or "Could not decode" in str(error.orig)


def _configure_sqlite(connection: Any, _record: object) -> None:
    """Readers never wait for a writer (WAL); a second writer waits up to a minute for the first.

    What was committed is on the disk (FULL): a decision that somebody was told of outlives a loss of power.
    """
    connection.execute("PRAGMA busy_timeout = 60000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _configure_postgresql(connection: Any, _record: object) -> None:
    """Ends a connection that does nothing amid a change: a process that is stopped there would hold up all others."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{ASLEEP_SECONDS:g}s'")
    connection.commit()


def _open_read_only(
    _dialect: object, _record: object, arguments: Sequence[Any], _options: object
) -> sqlite3.Connection:
    """Opens a file as it is: one that nobody writes to needs no files beside it, which could not be made."""
    file = Path(arguments[0])
    log = file.with_name(f"{file.name}-wal")
    idle = not log.exists() or not log.stat().st_size
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro{'&immutable=1' * idle}", uri=True)
