"""Alembic's revisions of the registry's tables, run by `registry_tables.upgrade`."""
