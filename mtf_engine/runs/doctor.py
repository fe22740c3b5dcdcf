"""Compares what the registry says with what lies in the workspace's folders."""

from typing import Any

import mtf_engine
from mtf_engine.registry import DatasetRow
from mtf_engine.runs.provenance import versions
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace


def examine(workspace: Workspace) -> dict[str, Any]:
    """Returns `orphans` (files without a row), `ledger_mismatches` (a sentence each) and `versions`.

    Every dataset is read whole, so that a change that keeps the number of rows is found too.
    """
    rows = workspace.registry.datasets()
    return {
        "orphans": _orphans(workspace, {row.id for row in rows}),
        "ledger_mismatches": [sentence for row in rows for sentence in _mismatches(workspace, row)],
        "versions": {"mtf_engine": mtf_engine.__version__, **versions()},
    }


def _orphans(workspace: Workspace, dataset_ids: set[str]) -> list[str]:
    run_ids = {run.id for run in workspace.registry.runs()}
    files = [p for p in workspace.datasets_dir.glob("[!.]*") if p.name.split(".")[0] not in dataset_ids]
    folders = [p for p in workspace.runs_dir.iterdir() if p.name not in run_ids]
    return sorted(str(p.relative_to(workspace.path)) for p in [*files, *folders])


def _mismatches(workspace: Workspace, row: DatasetRow) -> list[str]:
    try:
        found = open_dataset(workspace, row.id).recompute_content_hash()
    except Refusal as refusal:
        return [f"{row.id}: {refusal}"]
    if found != row.content_hash:
        return [f"{row.id}: the rows in {row.id}.duckdb are not those that were written; restore the file"]
    return []
