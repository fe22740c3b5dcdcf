"""Sharded logs: a dataset as a folder of Parquet files, by buckets of users, here or on a server."""

from typing import Any

from pydantic import Field

from mtf_engine.logs.buckets import HERE, check_place
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset, store_buckets
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Spec, Threads, Workers
from mtf_engine.workspace import Workspace


class ShardConfig(Spec):
    """Write a dataset as a folder of Parquet files."""

    source: str = Field(description="id of the log")
    name: str = Field(min_length=1)
    to: str = Field(
        default=HERE, description="where the files go: parquet, the workspace, or s3://BUCKET/PREFIX"
    )
    n_threads: Threads = 1
    n_workers: Workers = 1


def submit_shard(workspace: Workspace, dataset: str, *, name: str, to: str = HERE, n_workers: int = 1) -> str:
    """Returns the id of the run that writes a dataset as a folder of Parquet files, as a dataset of its own."""
    row = workspace.dataset(dataset)
    check_place(to)
    values = {"source": row.id, "name": name, "to": to, "n_workers": n_workers}
    config = ShardConfig.asked("the sharded log", values)
    return submit(workspace, KIND, config.model_dump(mode="json"), name=name)


def shard(job: Job, config: ShardConfig) -> dict[str, Any]:
    """Writes the files of a log, and the log as a dataset of its own."""
    source = open_dataset(job.workspace, config.source)
    meta = source.meta.model_copy(update={"name": config.name})
    return store_buckets(job.workspace, job.run, meta, source, config.to, config.n_workers, job.progress)


KIND = RunKind("shard", ShardConfig, shard, writes_dataset=True)
