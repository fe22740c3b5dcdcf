"""What the registry names, opened: datasets and policies."""

from typing import TYPE_CHECKING

from mtf_engine.jobs import files
from mtf_engine.jobs.configs import world_of
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import DatasetMeta, Ledger
from mtf_engine.registry import BASELINE, BEST, DatasetRow, Workspace, now, run_of

if TYPE_CHECKING:  # a worker that imports a log needs no torch
    from mtf_engine.environments import Environment
    from mtf_engine.policies.networks import CriticEnsemble
    from mtf_engine.policies.policy import Policy


def open_dataset(workspace: Workspace, name: str) -> Dataset:
    """Returns the dataset with that id or unique name; a Refusal if its file is not the one registered."""
    row = workspace.dataset(name)
    counted = {"n_requests": row.n_requests, "n_impressions": row.n_impressions}
    ledger = Ledger(dataset_id=row.id, content_hash=row.content_hash, **counted)
    return Dataset.open(workspace.dataset_path(row.id), ledger)


def register_dataset(workspace: Workspace, ledger: Ledger, meta: DatasetMeta, run_id: str) -> None:
    """Adds the dataset that a run has written to the registry."""
    workspace.registry.add_dataset(
        DatasetRow(
            id=ledger.dataset_id,
            name=meta.name,
            source=meta.source,
            created_at=now(),
            n_requests=ledger.n_requests,
            n_impressions=ledger.n_impressions,
            content_hash=ledger.content_hash,
            run_id=run_id,
            meta=meta.model_dump(mode="json"),
        )
    )


def open_policy(workspace: Workspace, name: str, like: "DatasetMeta | Environment") -> "Policy":
    """Returns the policy of a training, last or `RUN@best`, or the `baseline` of a log or environment `like`.

    A Refusal where the training's policy takes other features, predictions or dimensions than `like`.
    """
    if name == BASELINE:
        return live_policy(like)
    policy = load_policy(workspace, name)
    policy.check(like.fusion, like.feature_names)
    return policy


def live_policy(like: "DatasetMeta | Environment") -> "Policy":
    """Returns the live policy of a world of synthetic users; elsewhere action 0, the middle of every range."""
    from mtf_engine.policies.policy import Policy

    takes = like.fusion, like.feature_names, like.numeric_mask
    env = like.details.get("env") if isinstance(like, DatasetMeta) else like.name
    if world := world_of(env or ""):
        from mtf_engine.environments.world import World

        if live := World.named(world).live:
            return Policy.linear(*takes, live.bias, live.weights)
    return Policy.baseline(*takes)


def load_policy(workspace: Workspace, name: str) -> "Policy":
    """Returns the policy of a training, last or `RUN@best`, whatever became of the log it learned from."""
    from mtf_engine.policies.policy import Policy

    file = files.BEST_POLICY if name.endswith(BEST) else files.POLICY
    return Policy.load(workspace.run_dir(workspace.trained(name).id) / file)


def open_critics(workspace: Workspace, name: str) -> "CriticEnsemble | None":
    """Returns the last critics of a training, for `RUN@best` too; None for a policy that has none."""
    from mtf_engine.learning.training import load_critics

    path = workspace.run_dir(run_of(name)) / files.CRITICS
    return load_critics(path) if name != BASELINE and path.exists() else None
