"""What the registry names, opened: datasets and policies."""

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import Ledger, Transitions
from mtf_engine.policy import Policy
from mtf_engine.registry import BASELINE, DatasetRow, Workspace


def ledger(row: DatasetRow) -> Ledger:
    """Returns what the file of a registered dataset must hold."""
    counted = {"n_requests": row.n_requests, "n_impressions": row.n_impressions}
    return Ledger(dataset_id=row.id, content_hash=row.content_hash, **counted)


def open_dataset(workspace: Workspace, name: str) -> Dataset:
    """Returns the dataset with that id or unique name; a Refusal if its file is not the one registered."""
    row = workspace.dataset(name)
    return Dataset.open(workspace.dataset_path(row.id), ledger(row))
