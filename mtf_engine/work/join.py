"""Joins: the logs of several datasets are put into one."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset, store
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Spec, Threads
from mtf_engine.workspace import Workspace


class JoinConfig(Spec):
    """Put the logs of several datasets into one."""

    datasets: tuple[str, ...] = Field(min_length=2, description="ids, oldest first")
    name: str
    n_threads: Threads = 1


def submit_join(
    workspace: Workspace, datasets: Sequence[str], *, name: str, parent_id: str | None = None
) -> str:
    """Returns the id of the run that puts the logs of several datasets into one, oldest first."""
    from mtf_engine.logs.joining import joined_meta

    rows = [workspace.dataset(dataset) for dataset in dict.fromkeys(datasets)]
    values = {"datasets": tuple(row.id for row in rows), "name": name}
    config = JoinConfig.asked("the join", values)
    joined_meta(name, config.datasets, [DatasetMeta.model_validate(row.meta) for row in rows])
    return submit(workspace, KIND, config.model_dump(mode="json"), name=name, parent_id=parent_id)


def join(job: Job, config: JoinConfig) -> dict[str, Any]:
    """Puts several logs into one dataset."""
    from mtf_engine.logs.joining import joined, joined_meta

    logs = [open_dataset(job.workspace, name) for name in config.datasets]
    return store(
        job.workspace,
        job.run,
        joined_meta(config.name, config.datasets, [log.meta for log in logs]),
        joined(logs),
        logs[-1].prediction_model(),
    )


KIND = RunKind("join", JoinConfig, join, writes_dataset=True)
