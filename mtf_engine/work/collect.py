"""Collections: an environment is played around a baseline policy, and what happens is logged."""

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from mtf_engine.environments.names import Played
from mtf_engine.exploration.policies import Kind
from mtf_engine.logs.schema import Tables
from mtf_engine.registry import BASELINE
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_environment, open_dataset, open_environment, open_policy, store
from mtf_engine.runs.worker import Job
from mtf_engine.spec import BoundsPlan, Count, HalfWidth, Seed, Threads
from mtf_engine.workspace import Workspace


class CollectConfig(Played):
    """Play an environment around a baseline policy and log what happens."""

    explore: Kind = "uniform"
    half_width: HalfWidth = Field(default=0.15, description="of the box, where no plan is given")
    plan: BoundsPlan | None = None
    sigma: float = Field(default=0.2, gt=0, description="standard deviation of Gaussian exploration")
    random_share: float = Field(
        default=0.5, gt=0, lt=1, description="share of requests that mixed exploration draws at random"
    )
    random_sigma: float = Field(default=0.5, gt=0, le=1e6, description="standard deviation of those draws")
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")
    baseline: str = BASELINE
    n_requests: Count | None = None
    n_sessions: Count | None = Field(default=None, description="so many sessions, instead of n_requests")
    seed: Seed = 0
    name: str
    n_threads: Threads = 1

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.n_requests is None) == (self.n_sessions is None):
            raise ValueError("give a number of requests or one of sessions")
        return self


def submit_collect(
    workspace: Workspace,
    *,
    source: str | None = None,
    name: str | None = None,
    parent_id: str | None = None,
    **settings: Any,
) -> str:
    """Returns the id of the run that collects a dataset; `settings` are fields of `CollectConfig`."""
    source_id = workspace.dataset(source).id if source else None
    settings["baseline"] = workspace.policy(settings.get("baseline", BASELINE))
    label = name or f"{settings['env']} {settings.get('explore', 'uniform')} {settings.get('seed', 0)}"
    config = CollectConfig.asked("the collection", {"source": source_id, "name": label, **settings})
    check_environment(config.env)
    workspace.check_policy(config.baseline)
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=config.name,
        seed=config.seed,
        n_steps=config.n_requests or config.n_sessions or 0,
        parent_id=parent_id,
    )


def collect(job: Job, config: CollectConfig) -> dict[str, Any]:
    """Plays an environment around a baseline policy and stores what happens."""
    from mtf_engine.environments.collect import Collection
    from mtf_engine.environments.collect import collect as play

    env = open_environment(
        job.workspace, config.env, source=config.source, seed=config.seed, n_threads=config.n_threads
    )
    collection = Collection(
        explore=config.explore,
        plan=config.plan or BoundsPlan.symmetric(config.half_width, env.fusion.n_actions),
        sigma=config.sigma,
        random_share=config.random_share,
        random_sigma=config.random_sigma,
        control_share=config.control_share,
        n_requests=config.n_requests,
        n_sessions=config.n_sessions,
        seed=config.seed,
    )
    meta = collection.meta(env, config.name, config.env.partition(":")[0], config.baseline)
    baseline = open_policy(job.workspace, config.baseline, meta)
    sessions: list[int] = []
    batches = _counted(job, play(env, baseline, collection), sessions)
    model = None
    if config.source:  # what is replayed keeps the model of its predictions, so that its log may be deleted
        replayed = open_dataset(job.workspace, config.source)
        model = replayed.prediction_model()
        meta = meta.model_copy(update={"prediction_model": replayed.meta.prediction_model})
    stored = store(job.workspace, job.run, meta, batches, model)
    return stored | {"sessions": sum(sessions), "passes": meta.passes}


def _counted(job: Job, batches: Iterable[Tables], sessions: list[int]) -> Iterator[Tables]:
    """Yields `batches`, reporting how many requests, or sessions, have gone by; adds each's to `sessions`."""
    by_session = job.config["n_requests"] is None
    done = 0
    for batch in batches:
        yield batch
        ids = batch.requests["session_id"]
        sessions.append(len(np.unique(ids)))  # those of a batch are whole
        done += sessions[-1] if by_session else len(ids)
        job.progress(min(done, job.run.n_steps))


KIND = RunKind("collect", CollectConfig, collect, writes_dataset=True)
