"""In what the log that a policy is judged on is not the one that it learned from: days, users and predictions."""

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.splits import TRAIN
from mtf_engine.registry import is_trained
from mtf_engine.runs.storage import open_dataset
from mtf_engine.workspace import Workspace

ROWS = "FROM requests WHERE split IS NULL OR split = ? OR ? = 'all'"
DAYS = f"SELECT min(timestamp)::DATE::VARCHAR AS first, max(timestamp)::DATE::VARCHAR AS last {ROWS}"
USERS = f"SELECT DISTINCT user_id {ROWS}"


def differs(workspace: Workspace, policy: str, dataset: Dataset, split: str) -> tuple[str, ...]:
    """Returns sentences on rows of `split` of `dataset` beside the training rows of a policy's own log.

    None of a policy that is no training's, or that learned from this very log.
    """
    if not is_trained(policy):
        return ()
    run = workspace.trained(policy)
    if run.kind != "train":
        return (
            "imported: the log that it learned from is not in this workspace, nor are its days and users",
        )
    dataset_id = str(run.dataset_id)
    if dataset_id == dataset.path.stem:
        return ()
    if dataset_id not in {row.id for row in workspace.registry.datasets()}:
        return (f"the log that it learned from, {dataset_id}, is deleted: its days and users are not known",)
    own = open_dataset(workspace, dataset_id)
    learned, judged = (
        set(one.query(USERS, [part, part])["user_id"]) for one, part in ((own, TRAIN), (dataset, split))
    )
    told = [
        _days(workspace, own, dataset, split),
        f"{len(learned & judged):,} of the {len(judged):,} users that it is judged by are among the "
        f"{len(learned):,} that it learned from",
    ]
    if own.meta.prediction_model != dataset.meta.prediction_model:
        told.append("the predictions are of another model than those that it learned with")
    return tuple(told)


def _days(workspace: Workspace, own: Dataset, dataset: Dataset, split: str) -> str:
    """Returns which log a policy learned from and which it is judged on, and their days where they are not the same.

    Those of a replay are of what it replayed.
    """
    while source := _replayed(workspace, own):
        own = source
    first, then = (one.query(DAYS, [part, part]).iloc[0] for one, part in ((own, TRAIN), (dataset, split)))
    if first.equals(then):
        return f"learned from {own.meta.name}, judged on {dataset.meta.name}, of the same days"
    learned = f"learned from {own.meta.name}, {first['first']} to {first['last']}"
    return f"{learned}, judged on {dataset.meta.name}, {then['first']} to {then['last']}"


def _replayed(workspace: Workspace, log: Dataset) -> Dataset | None:
    """Returns the log that `log` replays; None where it replays none that is still there."""
    if log.meta.source != "replay":
        return None
    rows = {row.id: row for row in workspace.registry.datasets()}
    runs = {run.id: run for run in workspace.registry.runs(kind="collect")}
    run = runs.get(rows[log.path.stem].run_id or "")
    source = run and run.config["source"]
    return open_dataset(workspace, source) if source in rows else None
