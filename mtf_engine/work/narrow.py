"""Narrowed logs: a uniform log with the bounds of a narrower plan, to train on."""

from typing import Any

from pydantic import Field

from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset, store
from mtf_engine.runs.worker import Job
from mtf_engine.spec import BoundsPlan, Spec, Threads
from mtf_engine.workspace import Workspace


class NarrowConfig(Spec):
    """Keep of a uniform log what lies inside a narrower plan."""

    source: str = Field(description="id of the log")
    plan: BoundsPlan
    name: str = Field(min_length=1)
    n_threads: Threads = 1


def submit_narrow(workspace: Workspace, dataset: str, plan: BoundsPlan, name: str) -> str:
    """Returns the id of the run that writes what of a uniform log lies inside `plan` as a log of its own."""
    from mtf_engine.logs.narrowing import narrowed_meta

    row = workspace.dataset(dataset)
    held = narrowed_meta(DatasetMeta.model_validate(row.meta), row.id, name, plan).plan
    config = NarrowConfig.asked("the narrowed log", {"source": row.id, "plan": held, "name": name})
    return submit(workspace, KIND, config.model_dump(mode="json"), name=name)


def narrow(job: Job, config: NarrowConfig) -> dict[str, Any]:
    """Writes the narrowed log."""
    from mtf_engine.logs.narrowing import narrowed, narrowed_meta

    log = open_dataset(job.workspace, config.source)
    meta = narrowed_meta(log.meta, config.source, config.name, config.plan)
    return store(job.workspace, job.run, meta, narrowed(log, config.plan), log.prediction_model())


KIND = RunKind("narrow", NarrowConfig, narrow, writes_dataset=True)
