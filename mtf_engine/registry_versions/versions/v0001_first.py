"""The tables as they were when revisions began, whatever an older workspace has of them.

Frozen: what changes them is a revision of its own. What was stopped halfway goes on, since each step is taken only
where it is missing.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

TABLES = sa.MetaData()


def _needed(name: str, kind: type[sa.types.TypeEngine] = sa.String) -> sa.Column:
    return sa.Column(name, kind, nullable=False)


def _id() -> sa.Column:
    return sa.Column("id", sa.String, primary_key=True)


def _of_older_rows(
    name: str, kind: type[sa.types.TypeEngine], default: str | sa.ColumnElement[bool]
) -> sa.Column:
    return sa.Column(name, kind, nullable=False, server_default=default)


sa.Table(
    "datasets",
    TABLES,
    _id(),
    _needed("name"),
    _needed("source"),
    _needed("created_at", sa.DateTime),
    _needed("n_requests", sa.BigInteger),
    _needed("n_impressions", sa.BigInteger),
    _needed("content_hash"),
    sa.Column("run_id", sa.String),
    _needed("meta", sa.JSON),
)
RUNS = sa.Table(
    "runs",
    TABLES,
    _id(),
    _needed("kind"),
    _needed("name"),
    sa.Column("state", sa.String(11), nullable=False, index=True),
    _needed("created_at", sa.DateTime),
    sa.Column("started_at", sa.DateTime),
    sa.Column("finished_at", sa.DateTime),
    _needed("config", sa.JSON),
    sa.Column("dataset_id", sa.String, index=True),
    sa.Column("algo", sa.String),
    sa.Column("seed", sa.BigInteger),
    _needed("step", sa.BigInteger),
    _needed("n_steps", sa.BigInteger),
    sa.Column("pid", sa.BigInteger),
    sa.Column("error", sa.Text),
    sa.Column("result", sa.JSON),
    sa.Column("cancel_requested_at", sa.DateTime),
    _needed("tags", sa.JSON),
    _needed("note", sa.Text),
    _needed("archived", sa.Boolean),
    _of_older_rows("seed_group", sa.String, ""),
    sa.Column("queued_at", sa.DateTime),
    sa.Column("best_score", sa.Float),
    sa.Column("best_step", sa.BigInteger),
    sa.Column("provenance", sa.JSON),
    sa.Column("parent_id", sa.String, index=True),
    _of_older_rows("writes_dataset", sa.Boolean, sa.false()),
    _of_older_rows("coordinates", sa.Boolean, sa.false()),
    sa.Column("told_end", sa.DateTime),
    sa.Column("person", sa.String),
)
sa.Table(
    "plans",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    _needed("plan", sa.JSON),
    _needed("note", sa.Text),
    _needed("created_at", sa.DateTime),
    sa.Column("person", sa.String),
)
sa.Table(
    "views",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    _needed("query", sa.JSON),
    _needed("created_at", sa.DateTime),
)
DECISIONS = sa.Table(
    "decisions",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _needed("created_at", sa.DateTime),
    _needed("name"),
    _needed("decision"),
    _needed("candidate"),
    _needed("incumbent"),
    _needed("live"),
    _needed("recommendation"),
    _needed("reason", sa.Text),
    sa.Column("run_id", sa.String),
    sa.Column("round", sa.Integer),
    sa.Column("case", sa.JSON),
    sa.Column("follows", sa.Integer),
)
DELETIONS = sa.Table(
    "deletions",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    _needed("created_at", sa.DateTime),
    sa.Column("person", sa.String),
    _needed("kind"),
    _needed("deleted"),
    _needed("name"),
)
ONE_DECISION = sa.Index("one_decision_a_round", DECISIONS.c.run_id, DECISIONS.c.round, unique=True)
sa.Index("one_entry_after_another", DECISIONS.c.follows, unique=True)

KNOWN = {
    "writes_dataset": RUNS.c.kind.in_(("import", "collect", "join")),
    "coordinates": RUNS.c.kind == "compare",
}
"""What a column that an older workspace lacks is for the runs in it, where that is not its default."""
APPEND_ONLY = (DECISIONS, DELETIONS)
"""Tables whose rows no statement changes or deletes: the database itself refuses it."""


def upgrade() -> None:
    """Creates the tables that are missing, and in those there are the columns, indexes and guards that are."""
    connection = op.get_bind()
    for table in TABLES.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in (one for one in table.columns if one.name not in there):
            definition = sa.schema.CreateColumn(column).compile(connection)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
            if (known := KNOWN.get(column.name)) is not None:
                connection.execute(sa.update(table).values({column.name: known}))
        for index in table.indexes:
            if index is not ONE_DECISION or not _decided_twice(connection):
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
    for table in APPEND_ONLY:
        guard = _guard_of_postgresql if connection.dialect.name == "postgresql" else _guard_of_sqlite
        for statement in guard(table.name):
            connection.execute(sa.text(statement))


def _decided_twice(connection: sa.Connection) -> bool:
    """Returns whether a version without the index let two people decide one round: such a ledger stays as it is."""
    rounds = sa.select(DECISIONS.c.run_id, DECISIONS.c.round).where(DECISIONS.c.run_id.is_not(None))
    twice = rounds.group_by(DECISIONS.c.run_id, DECISIONS.c.round).having(sa.func.count() > 1)
    return connection.execute(twice).first() is not None


def _guard_of_sqlite(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the rows of {table} are never changed'); END"
        for change in ("UPDATE", "DELETE")
    ]


def _guard_of_postgresql(table: str) -> list[str]:
    return [
        f"CREATE OR REPLACE FUNCTION {table}_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'the rows of {table} are never changed' USING ERRCODE = "
        "'integrity_constraint_violation'; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_are_kept()",
    ]
