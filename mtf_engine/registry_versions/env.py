"""What Alembic runs to upgrade a registry: its revisions, in the connection and the transaction that it is given."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
