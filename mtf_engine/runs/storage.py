"""What the registry and configs name, opened: datasets, policies and environments."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mtf_engine.disk import guarded
from mtf_engine.environments.names import GYM, world_of
from mtf_engine.logs.buckets import N_BUCKETS, S3, check_writable, remove
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, EvaluationRows, Ledger, Tables
from mtf_engine.logs.splits import TRAIN
from mtf_engine.registry import BASELINE, BEST, DatasetRow, RunRow, is_fixed, is_trained, now, run_of
from mtf_engine.runs import files
from mtf_engine.runs.fencing import Fence
from mtf_engine.runs.spread import spread
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

TRAINING_USERS = 5_000
"""Users whose training rows floors are chosen on, at most: as many as a search looks at."""
SHARE_ROWS = 4_000_000
"""Impressions that are sorted at once for Parquet files, so that a larger log asks for no more memory."""

if TYPE_CHECKING:  # a worker that imports a log needs no torch
    from mtf_engine.environments import Environment
    from mtf_engine.logs.buckets import Shard
    from mtf_engine.policies.networks import CriticEnsemble
    from mtf_engine.policies.policy import Policy


def open_dataset(workspace: Workspace, name: str) -> Dataset:
    """Returns the dataset with that id or unique name; a Refusal if its file is not the one registered."""
    row = workspace.dataset(name)
    counted = {"n_requests": row.n_requests, "n_impressions": row.n_impressions}
    ledger = Ledger(dataset_id=row.id, content_hash=row.content_hash, **counted)
    return Dataset.open(workspace.dataset_path(row.id), ledger)


def delete_dataset(workspace: Workspace, name: str) -> DatasetRow:
    """Deletes a dataset, row and files, those on a server too, and returns its row; Refusal while something uses it.

    A Refusal, once it is deleted here, says of files on a server that stay there; or may, where the manifest that tells
    of them is missing or damaged.
    """
    path = workspace.dataset_path(workspace.dataset(name).id)
    place: str | None = None
    with suppress(Refusal):
        place = Dataset(path).place if path.exists() else ""
    row = workspace.delete_dataset(name)
    if place is None:
        raise Refusal(
            f"{row.id} is deleted here; its manifest is missing or damaged, so its files on a server, if any, are "
            "still there: look where `dataset shard --to` put them"
        )
    if place:
        try:
            remove(place)
        except Refusal as refusal:
            raise Refusal(
                f"{row.id} is deleted here, and its files are still in {place}: {refusal}"
            ) from None
    return row


def dataset_of(workspace: Workspace, name: str) -> DatasetRow:
    """Returns the dataset `name`, or the one that the training `name` (`RUN`, `RUN@best`) learned from."""
    run = next((run for run in workspace.registry.runs(kind="train") if run.id == run_of(name)), None)
    if run is None:
        return workspace.dataset(name)
    if run.dataset_id not in {row.id for row in workspace.registry.datasets()}:
        raise Refusal(
            f"the log that {run.id} learned from is deleted; name another dataset with its features"
        )
    return workspace.dataset(str(run.dataset_id))


def check_server(workspace: Workspace, run: RunRow, to: str) -> None:
    """Refuses a server that does not take the files of a run's dataset: before hours of work, not after."""
    from mtf_engine.logs.sharding import place_of

    if to.startswith(S3):
        check_writable(place_of(workspace.datasets_dir, str(run.dataset_id), to))


def store(
    workspace: Workspace,
    run: RunRow,
    meta: DatasetMeta,
    batches: Iterable[Tables],
    model: bytes | None = None,
    *,
    to: str = "",
    n_workers: int = 1,
) -> dict[str, Any]:
    """Writes and registers the dataset of a run that writes one, with its prediction model; returns id and size.

    It is one file; with `to`, Parquet files there, written by `n_workers` processes from such a file, which is removed.
    """
    dataset_id = str(run.dataset_id)
    if not to:
        ledger = write_dataset(workspace.datasets_dir, dataset_id, meta, batches, model)
        return _registered(workspace, run, meta, ledger)
    from mtf_engine.logs.sharding import abandon

    whole = workspace.datasets_dir / f".{dataset_id}.tmp.whole"
    whole.mkdir(exist_ok=True)
    try:
        write_dataset(whole, dataset_id, meta, batches, model)
        source = Dataset(whole / f"{dataset_id}.duckdb")
        return store_buckets(workspace, run, meta, source, to, n_workers)
    finally:
        abandon(str(whole))


def store_buckets(
    workspace: Workspace,
    run: RunRow,
    meta: DatasetMeta,
    source: Dataset,
    to: str,
    n_workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Writes the rows of `source` as Parquet files, some buckets at a time, and registers them as a run's dataset.

    The manifest comes last, and with it the dataset. Returns its id and size.
    """
    from mtf_engine.logs.sharding import abandon, finish, place_of, shares

    folder, dataset_id = workspace.datasets_dir, str(run.dataset_id)
    place = place_of(folder, dataset_id, to)
    todo = shares(min(max(n_workers, -(-source.n_impressions // SHARE_ROWS)), N_BUCKETS))
    work, found = partial(_written, workspace.run_dir(run.id), run.attempt, source, place), []
    try:
        spreads = spread(work, todo, n_workers) if n_workers > 1 else (work(one) for one in todo)
        with closing(spreads) as results:
            for i, result in enumerate(results, 1):
                found += result
                progress(i, len(todo))
        ledger = finish(folder, dataset_id, meta, source, found, place)
    except BaseException:
        abandon(place)
        raise
    there = {"place": place} if place.startswith(S3) else {}
    return _registered(workspace, run, meta, ledger) | {"files": len(found)} | there


def _written(
    folder: Path, attempt: int, source: Dataset, place: str, share: tuple[int, int]
) -> "list[Shard]":
    """Returns the shards of a share, written while the `attempt` at the run in `folder` is not given up on.

    No temp file of it is another's: on a cluster, one that is thought dead may be at the same share.
    """
    from mtf_engine.logs.sharding import write_buckets

    fence = Fence(folder, attempt)

    def check() -> None:
        if not fence.is_open:
            raise Refusal(f"attempt {attempt} of {folder.name} was given up on and may write no more")

    with guarded(check, f"{fence.mark}-{uuid4().hex}"):
        return write_buckets(source, place, share)


def _registered(workspace: Workspace, run: RunRow, meta: DatasetMeta, ledger: Ledger) -> dict[str, Any]:
    """Registers the dataset that a run has written, and returns its id and size."""
    register_dataset(workspace, ledger, meta, run.id)
    counts = {"requests": ledger.n_requests, "impressions": ledger.n_impressions}
    return {"dataset_id": ledger.dataset_id, **counts}


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


def open_policy(
    workspace: Workspace,
    name: str,
    like: "DatasetMeta | Environment",
    learned_from: EvaluationRows | None = None,
) -> "Policy":
    """Returns the policy of a training (`RUN`, `RUN@best`), a fixed one, or the `baseline` of `like`.

    `learned_from` are the training rows of a log, for regression weights alone. A Refusal where the training's policy
    takes other features, predictions or dimensions than `like`.
    """
    if name == BASELINE:
        return live_policy(like)
    if is_fixed(name):
        return _fixed_policy(name, like, learned_from)
    policy = load_policy(workspace, name)
    policy.check(like.fusion, like.feature_names)
    return policy


def _fixed_policy(
    name: str, like: "DatasetMeta | Environment", learned_from: EvaluationRows | None
) -> "Policy":
    from mtf_engine.policies.fixed import fixed_action
    from mtf_engine.policies.networks import ConstantAction
    from mtf_engine.policies.policy import Policy

    network = ConstantAction.of(len(like.feature_names), fixed_action(name, like.fusion, learned_from))
    info = {"algo": "fixed", "name": name}
    return Policy(network, like.fusion, tuple(like.feature_names), tuple(like.numeric_mask), info)


def live_policy(like: "DatasetMeta | Environment") -> "Policy":
    """Returns the live policy of a world of synthetic users, or the one action that a log of steps has for it.

    Elsewhere it is action 0, the middle of every range.
    """
    from mtf_engine.policies.policy import Policy

    takes = like.fusion, like.feature_names, like.numeric_mask
    if isinstance(like, DatasetMeta) and like.baseline_action:
        return Policy.baseline(*takes, like.baseline_action)
    env = like.details.get("env") if isinstance(like, DatasetMeta) else like.name
    if world := world_of(env or ""):
        from mtf_engine.environments.world import World

        if live := World.named(world).live:
            return Policy.linear(*takes, live.bias, live.weights)
    return Policy.baseline(*takes)


def training_rows(
    workspace: Workspace, dataset: str, policies: Sequence[str] = ()
) -> tuple[str, EvaluationRows] | tuple[None, None]:
    """Returns the id of a dataset and its training rows with their impressions, those of 5,000 users at most.

    Of `dataset`; where it has none, of the log that the first training among `policies` learned from, if that is there
    and has the same fusion and features. Two Nones where neither has any.
    """
    meta = open_dataset(workspace, dataset).meta
    learned = [str(workspace.trained(policy).dataset_id) for policy in policies if is_trained(policy)]
    there = {row.id for row in workspace.registry.datasets()}
    for name in (workspace.dataset(dataset).id, *(name for name in learned[:1] if name in there)):
        log = open_dataset(workspace, name)
        like = (log.meta.fusion, log.meta.feature_names) == (meta.fusion, meta.feature_names)
        if like and has_training_rows(log):
            return name, log.evaluation_rows(TRAIN, n_users=TRAINING_USERS)
    return None, None


def has_training_rows(log: Dataset) -> bool:
    """Returns whether a log has rows for training, and impressions."""
    return TRAIN in log.splits and log.n_impressions > 0


def load_policy(workspace: Workspace, name: str) -> "Policy":
    """Returns the policy of a training, last or `RUN@best`, whatever became of the log it learned from."""
    from mtf_engine.policies.policy import Policy

    file = files.BEST_POLICY if name.endswith(BEST) else files.POLICY
    return Policy.load(workspace.run_dir(workspace.trained(name).id) / file)


def open_critics(workspace: Workspace, name: str) -> "CriticEnsemble | None":
    """Returns the last critics of a training, for `RUN@best` too; None for a policy that has none."""
    from mtf_engine.learning.training import load_critics

    path = workspace.run_dir(run_of(name)) / files.CRITICS
    return load_critics(path) if is_trained(name) and path.exists() else None


def has_examples(workspace: Workspace, run_id: str) -> bool:
    """Returns whether a training kept the rows that an export needs; those of earlier versions kept none."""
    return (workspace.run_dir(run_id) / files.EXAMPLES).exists()


def check_environment(name: str) -> None:
    """Refuses a world or a Gymnasium environment that is not there, or whose actions cannot be explored."""
    if world := world_of(name):
        from mtf_engine.environments.world import World

        World.named(world)
    if name.startswith(GYM):
        from mtf_engine.environments.gymnasium import GymnasiumEnvironment

        GymnasiumEnvironment.named(name)


def open_environment(
    workspace: Workspace, name: str, *, source: str | None = None, seed: int = 0, n_threads: int = 1
) -> "Environment":
    """Returns the environment `name`; `source` is the dataset to replay, `seed` draws where its sessions start."""
    if world := world_of(name):
        from mtf_engine.environments.session import SessionConfig, SessionEnvironment

        return SessionEnvironment(SessionConfig(world=world), n_threads)
    if name.startswith(GYM):
        from mtf_engine.environments.gymnasium import GymnasiumEnvironment

        return GymnasiumEnvironment.named(name)
    from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment

    return ReplayEnvironment(open_dataset(workspace, str(source)), ReplayConfig.named(name), seed)
