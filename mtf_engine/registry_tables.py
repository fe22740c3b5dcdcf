"""The registry's tables, the states of a run, and bringing the tables of an older workspace up to date."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from mtf_engine.spec import Refusal


class RunState(StrEnum):
    """Where a run stands.

    `interrupted` means that its worker died, and `waiting` that people are to decide: then it goes on.
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    WAITING = "waiting"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def is_finished(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)

    @property
    def can_resume(self) -> bool:
        return self.is_finished and self is not RunState.COMPLETED


class _UTC(sa.TypeDecorator[datetime]):
    """Aware datetimes, stored as naive UTC so that every database returns what was written."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


_STATE = sa.Enum(RunState, native_enum=False, values_callable=list)
METADATA = sa.MetaData()
"""A column added to a table must be nullable or have a `server_default`: older workspaces get it at open."""

DATASETS = sa.Table(
    "datasets",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("created_at", _UTC, nullable=False),
    sa.Column("n_requests", sa.BigInteger, nullable=False),
    sa.Column("n_impressions", sa.BigInteger, nullable=False),
    sa.Column("content_hash", sa.String, nullable=False),
    sa.Column("run_id", sa.String),
    sa.Column("meta", sa.JSON, nullable=False),
)
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("state", _STATE, nullable=False, index=True),
    sa.Column("created_at", _UTC, nullable=False),
    sa.Column("started_at", _UTC),
    sa.Column("finished_at", _UTC),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("dataset_id", sa.String, index=True),
    sa.Column("algo", sa.String),
    sa.Column("seed", sa.BigInteger),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("n_steps", sa.BigInteger, nullable=False),
    sa.Column("pid", sa.BigInteger),
    sa.Column("error", sa.Text),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("cancel_requested_at", _UTC),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("seed_group", sa.String, nullable=False, server_default=""),
    sa.Column("queued_at", _UTC),
    sa.Column("best_score", sa.Float),
    sa.Column("best_step", sa.BigInteger),
    sa.Column("provenance", sa.JSON(none_as_null=True)),
    sa.Column("parent_id", sa.String, index=True),
    sa.Column("writes_dataset", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("coordinates", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("told_end", _UTC),
    sa.Column("person", sa.String),
)
PLANS = sa.Table(
    "plans",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at", _UTC, nullable=False),
    sa.Column("person", sa.String),
)
VIEWS = sa.Table(
    "views",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("query", sa.JSON, nullable=False),
    sa.Column("created_at", _UTC, nullable=False),
)
DECISIONS = sa.Table(
    "decisions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("created_at", _UTC, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("decision", sa.String, nullable=False),
    sa.Column("candidate", sa.String, nullable=False),
    sa.Column("incumbent", sa.String, nullable=False),
    sa.Column("live", sa.String, nullable=False),
    sa.Column("recommendation", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String),
    sa.Column("round", sa.Integer),
    sa.Column("case", sa.JSON(none_as_null=True)),
    sa.Column("follows", sa.Integer),
)
sa.Index("one_entry_after_another", DECISIONS.c.follows, unique=True)
"""Whoever adds an entry without having read the last one is refused by the database itself."""
DELETIONS = sa.Table(
    "deletions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("created_at", _UTC, nullable=False),
    sa.Column("person", sa.String),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("deleted", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
)
ONE_DECISION = sa.Index("one_decision_a_round", DECISIONS.c.run_id, DECISIONS.c.round, unique=True)
"""Whoever decides a round second is refused by the database itself. Entries of no round do not count."""
OF_OLDER_ROWS = {
    "writes_dataset": RUNS.c.kind.in_(("import", "collect", "join")),
    "coordinates": RUNS.c.kind == "compare",
}
"""What a column that an older workspace lacks is for the runs in it, where that is not its default."""
APPEND_ONLY = (DECISIONS, DELETIONS)
"""Tables whose rows no statement changes or deletes, held by the database itself where it is SQLite."""


def create_or_upgrade(connection: sa.Connection) -> None:
    """Creates the tables that are missing, and in those there are the columns that are missing."""
    for table in METADATA.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        for column in _missing(connection, table):
            definition = sa.schema.CreateColumn(column).compile(connection)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
            if (known := OF_OLDER_ROWS.get(column.name)) is not None:
                connection.execute(sa.update(table).values({column.name: known}))
        for index in table.indexes:
            if index is not ONE_DECISION or not _decided_twice(connection):
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
    if connection.dialect.name == "sqlite":
        for table in APPEND_ONLY:
            for change in ("UPDATE", "DELETE"):
                connection.execute(sa.text(_guard(table.name, change)))


def are_outdated(connection: sa.Connection) -> bool:
    """Returns whether the tables lack what this version has."""
    return any(_missing(connection, table) for table in METADATA.sorted_tables)


def check_columns(connection: sa.Connection) -> None:
    """Refuses the tables of an older version, where they cannot be brought up to date."""
    for table in METADATA.sorted_tables:
        for column in _missing(connection, table):
            raise Refusal(
                f"the registry is of an older version, without {column}, and cannot be written to; "
                "open a copy of the workspace that can"
            )


def _decided_twice(connection: sa.Connection) -> bool:
    """Returns whether a version without the index let two people decide one round: such a ledger stays as it is."""
    rounds = sa.select(DECISIONS.c.run_id, DECISIONS.c.round).where(DECISIONS.c.run_id.is_not(None))
    twice = rounds.group_by(DECISIONS.c.run_id, DECISIONS.c.round).having(sa.func.count() > 1)
    return connection.execute(twice).first() is not None


def _missing(connection: sa.Connection, table: sa.Table) -> list[sa.Column[Any]]:
    found = sa.inspect(connection)
    known = found.get_columns(table.name) if found.has_table(table.name) else []
    return [column for column in table.columns if column.name not in {one["name"] for one in known}]


def _guard(table: str, change: str) -> str:
    return (
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the rows of {table} are never changed'); END"
    )
