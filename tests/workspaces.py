"""Copies of a workspace that other test processes may be reading and writing at the same time."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from mtf_engine.registry import Workspace

REGISTRY = "registry.sqlite"


def copy_workspace(source: Workspace, path: Path) -> Workspace:
    """Returns a workspace at `path` with the rows, datasets and runs of `source`, and nothing half written.

    The registry is copied as SQLite copies a live database; temp files, locks and stored aggregates stay behind.
    """
    transient = shutil.ignore_patterns(".*", "*.lock", "dataset-*.json", "dataset-*.parquet", f"{REGISTRY}*")
    shutil.copytree(source.path, path, ignore=transient, dirs_exist_ok=True)
    with (
        closing(sqlite3.connect(source.path / REGISTRY)) as live,
        closing(sqlite3.connect(path / REGISTRY)) as copy,
    ):
        live.backup(copy)
    return Workspace(path)
