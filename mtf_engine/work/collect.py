"""Collections: an environment is played around a baseline policy, and what happens is logged."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from mtf_engine.environments.names import Played
from mtf_engine.exploration.policies import Kind
from mtf_engine.logs.buckets import check_place
from mtf_engine.logs.schema import Tables
from mtf_engine.registry import BASELINE
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.spread import spread
from mtf_engine.runs.storage import (
    check_environment,
    check_server,
    open_dataset,
    open_environment,
    open_policy,
    store,
)
from mtf_engine.runs.worker import Job
from mtf_engine.spec import BoundsPlan, Count, HalfWidth, Seed, Threads, Workers
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.environments import Environment
    from mtf_engine.environments.collect import Collection, Rows
    from mtf_engine.policies.policy import Policy


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
    to: str = Field(
        default="", description="parquet or s3://BUCKET/PREFIX: Parquet files there, not one file"
    )
    n_threads: Threads = 1
    n_workers: Workers = 1

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
    if config.to:
        check_place(config.to)
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
    from mtf_engine.environments.collect import collect as play

    check_server(job.workspace, job.run, config.to)
    env, baseline, collection = _open(job.workspace, config)
    meta = collection.meta(env, config.name, config.env.partition(":")[0], config.baseline)
    sessions: list[int] = []
    others = partial(
        spread, partial(_played, job.workspace.path, config.model_dump_json()), n_workers=config.n_workers
    )
    batches = play(env, baseline, collection, elsewhere=others if config.n_workers > 1 else None)
    model = None
    if config.source:  # what is replayed keeps the model of its predictions, so that its log may be deleted
        replayed = open_dataset(job.workspace, config.source)
        model = replayed.prediction_model()
        meta = meta.model_copy(update={"prediction_model": replayed.meta.prediction_model})
    with closing(batches):
        counted = _counted(job, batches, sessions)
        stored = store(job.workspace, job.run, meta, counted, model, to=config.to, n_workers=config.n_workers)
    return stored | {"sessions": sum(sessions), "passes": meta.passes}


def _open(workspace: Workspace, config: CollectConfig) -> "tuple[Environment, Policy, Collection]":
    """Returns what is played: the environment, the policy explored around, and how."""
    from mtf_engine.environments.collect import Collection

    env = open_environment(
        workspace, config.env, source=config.source, seed=config.seed, n_threads=config.n_threads
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
    return env, open_policy(workspace, config.baseline, meta), collection


@lru_cache(maxsize=1)
def _opened(folder: Path, config: str) -> "tuple[Environment, Policy, Collection]":
    """Returns what `_open` does of a workspace's folder and a config as JSON, once in a process."""
    return _open(Workspace(folder), CollectConfig.model_validate_json(config))


def _played(folder: Path, config: str, span: tuple[int, int]) -> "tuple[Rows, Rows, Rows]":
    """Returns what sessions first..first + n of the `span` (first, n) bring."""
    from mtf_engine.environments.collect import play_sessions

    return play_sessions(*_opened(folder, config), span)


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
