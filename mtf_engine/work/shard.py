"""Sharded logs: a dataset as a folder of Parquet files, by buckets of users, here or on a server."""

import re
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import Field

from mtf_engine.disk import guarded
from mtf_engine.logs.datasets import Dataset
from mtf_engine.runs.executor import submit
from mtf_engine.runs.fencing import Fence
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.spread import spread
from mtf_engine.runs.storage import open_dataset, register_dataset
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads, Workers
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.logs.buckets import Shard

SHARE_ROWS = 4_000_000
"""Impressions that are sorted at once, so that a larger log asks for no more memory."""
PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[\w.-]+)*/?", re.ASCII)
"""Nothing that DuckDB would take for a pattern of names."""


class ShardConfig(Spec):
    """Write a dataset as a folder of Parquet files."""

    source: str = Field(description="id of the log")
    name: str = Field(min_length=1)
    to: str = Field(default="", description="s3://BUCKET/PREFIX, where the files go; else the workspace")
    n_threads: Threads = 1
    n_workers: Workers = 1


def submit_shard(workspace: Workspace, dataset: str, *, name: str, to: str = "", n_workers: int = 1) -> str:
    """Returns the id of the run that writes a dataset as a folder of Parquet files, as a dataset of its own."""
    row = workspace.dataset(dataset)
    if to and not PLACE.fullmatch(to):
        raise Refusal(
            f"{to} is no place for the files of a dataset; write s3://BUCKET/PREFIX, or leave it out"
        )
    values = {"source": row.id, "name": name, "to": to, "n_workers": n_workers}
    config = ShardConfig.asked("the sharded log", values)
    return submit(workspace, KIND, config.model_dump(mode="json"), name=name)


def shard(job: Job, config: ShardConfig) -> dict[str, Any]:
    """Writes the buckets, some at a time, and then the manifest, with which the dataset is there."""
    from mtf_engine.logs.sharding import abandon, finish, place_of, shares

    source, dataset_id = open_dataset(job.workspace, config.source), str(job.run.dataset_id)
    folder, n = job.workspace.datasets_dir, max(config.n_workers, -(-source.n_impressions // SHARE_ROWS))
    place = place_of(folder, dataset_id, config.to)
    todo, found = shares(min(n, 64)), []
    work = partial(_written, job.folder, job.run.attempt, source, place)
    try:
        spreads = (
            spread(work, todo, config.n_workers) if config.n_workers > 1 else (work(one) for one in todo)
        )
        with closing(spreads) as results:
            for i, result in enumerate(results, 1):
                found += result
                job.progress(i, len(todo))
        meta = source.meta.model_copy(update={"name": config.name})
        ledger = finish(folder, dataset_id, meta, source, found, place)
    except BaseException:
        abandon(place)
        raise
    register_dataset(job.workspace, ledger, meta, job.run.id)
    return {
        "dataset_id": dataset_id,
        "requests": ledger.n_requests,
        "impressions": ledger.n_impressions,
        "files": len(found),
        "place": config.to and place,
    }


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


KIND = RunKind("shard", ShardConfig, shard, writes_dataset=True)
