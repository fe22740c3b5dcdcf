"""Where a run works, the number of its attempt, and the last sign of life of one that works elsewhere."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

COLUMNS = (
    sa.Column("executor", sa.String, nullable=False, server_default="local"),
    sa.Column("host", sa.String),
    sa.Column("attempt", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("submission_id", sa.String),
    sa.Column("heartbeat_at", sa.DateTime),
)


def upgrade() -> None:
    """Adds the columns; what was stopped halfway goes on."""
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("runs")}
    for column in (one for one in COLUMNS if one.name not in there):
        op.add_column("runs", column)
