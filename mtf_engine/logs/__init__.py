"""Logs: their schema, importers, validation and the DuckDB files they are stored in."""
