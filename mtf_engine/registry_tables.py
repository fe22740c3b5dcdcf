"""The registry's tables, the states of a run, and bringing the tables of an older workspace up to date."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mtf_engine.spec import Refusal

VERSION = "0002"
"""The newest revision in `registry_versions`; tables that are at it need no Alembic."""
ONE_AT_A_TIME = 0x6D7466
"""Number of PostgreSQL's advisory lock of whoever changes the tables."""


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
"""As they are now; a change of them is a revision in `registry_versions` too, which older workspaces get at open."""

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
    sa.Column("executor", sa.String, nullable=False, server_default="local"),
    sa.Column("host", sa.String),
    sa.Column("attempt", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("submission_id", sa.String),
    sa.Column("heartbeat_at", _UTC),
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
sa.Index("one_decision_a_round", DECISIONS.c.run_id, DECISIONS.c.round, unique=True)
"""Whoever decides a round second is refused by the database itself. Entries of no round do not count."""


def upgrade(connection: sa.Connection) -> None:
    """Brings the tables to `VERSION` by Alembic's revisions, each of `registry_versions`, creating what is missing.

    Of several who open an older or an empty database at once one does it, and the others wait. A Refusal where
    a newer version has been there.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ONE_AT_A_TIME)))
    version = _version(connection)
    if version == VERSION:
        return
    if version is not None and version > VERSION:
        raise Refusal(
            f"the registry is of a newer version ({version}) than this one ({VERSION}); install that"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).with_name("registry_versions")).replace("%", "%%")
    )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def are_outdated(connection: sa.Connection) -> bool:
    """Returns whether the tables are of an older version."""
    return _version(connection) != VERSION


def _version(connection: sa.Connection) -> str | None:
    """Returns the revision that the tables are at; None of those from before there were any."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def check_columns(connection: sa.Connection) -> None:
    """Refuses the tables of an older version, where they cannot be brought up to date."""
    for table in METADATA.sorted_tables:
        for column in _missing(connection, table):
            raise Refusal(
                f"the registry is of an older version, without {column}, and cannot be written to; "
                "open a copy of the workspace that can"
            )


def _missing(connection: sa.Connection, table: sa.Table) -> list[sa.Column[Any]]:
    found = sa.inspect(connection)
    known = found.get_columns(table.name) if found.has_table(table.name) else []
    return [column for column in table.columns if column.name not in {one["name"] for one in known}]
