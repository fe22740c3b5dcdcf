"""The work of each kind of run: a function from a job to its result, a JSON-able dict.

Each imports what it needs itself, so that a worker loads no more than its own kind's share of the engine.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtf_engine.jobs import files
from mtf_engine.jobs.configs import ABTestConfig, CollectConfig, ExportConfig, ImportConfig, JoinConfig
from mtf_engine.jobs.environments import open_environment
from mtf_engine.jobs.evaluate import evaluate
from mtf_engine.jobs.train import train
from mtf_engine.jobs.worker import Job
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.registry import RunState, run_of
from mtf_engine.spec import BoundsPlan


def import_log(job: Job) -> dict[str, Any]:
    """Checks and stores a log that came about elsewhere."""
    from mtf_engine.logs.importing import read_log

    config = ImportConfig.model_validate(job.config)
    log = read_log(
        Path(config.source),
        config.format,
        user_features=Path(config.user_features) if config.user_features else None,
        mapping=Path(config.mapping) if config.mapping else None,
        name=config.name,
        bad_rows=config.bad_rows,
        progress=job.progress,
    )
    return _stored(job, log.meta, log.batches) | {"warnings": log.warnings}


def collect(job: Job) -> dict[str, Any]:
    """Plays an environment around a baseline policy and stores what happens."""
    from mtf_engine.environments.collect import Collection
    from mtf_engine.environments.collect import collect as play
    from mtf_engine.jobs.storage import open_policy

    config = CollectConfig.model_validate(job.config)
    env = open_environment(
        job.workspace, config.env, source=config.source, seed=config.seed, n_threads=config.n_threads
    )
    collection = Collection(
        explore=config.explore,
        plan=config.plan or BoundsPlan.symmetric(config.half_width, env.fusion.n_actions),
        sigma=config.sigma,
        control_share=config.control_share,
        n_requests=config.n_requests,
        n_sessions=config.n_sessions,
        seed=config.seed,
    )
    meta = collection.meta(env, config.name, config.env.partition(":")[0], config.baseline)
    baseline = open_policy(job.workspace, config.baseline, meta)
    batches = _counted(job, play(env, baseline, collection))
    return _stored(job, meta, batches) | {"passes": meta.passes}


def _counted(job: Job, batches: Iterable[Tables]) -> Iterator[Tables]:
    """Yields `batches`, reporting how many requests, or sessions, have gone by."""
    by_session = job.config["n_requests"] is None
    done = 0
    for batch in batches:
        yield batch
        ids = batch.requests["session_id"]
        done += len(np.unique(ids)) if by_session else len(ids)
        job.progress(min(done, job.run.n_steps))


def join(job: Job) -> dict[str, Any]:
    """Puts several logs into one dataset."""
    from mtf_engine.jobs.storage import open_dataset
    from mtf_engine.logs.joining import joined, joined_meta

    config = JoinConfig.model_validate(job.config)
    logs = [open_dataset(job.workspace, name) for name in config.datasets]
    return _stored(job, joined_meta(config.name, config.datasets, [log.meta for log in logs]), joined(logs))


def _stored(job: Job, meta: DatasetMeta, batches: Iterable[Tables]) -> dict[str, Any]:
    """Writes and registers the run's dataset; returns its id and size."""
    from mtf_engine.jobs.storage import register_dataset
    from mtf_engine.logs.datasets import write_dataset

    ledger = write_dataset(job.workspace.datasets_dir, str(job.run.dataset_id), meta, batches)
    register_dataset(job.workspace, ledger, meta, job.run.id)
    counts = {"requests": ledger.n_requests, "impressions": ledger.n_impressions}
    return {"dataset_id": ledger.dataset_id, **counts}


def abtest(job: Job) -> dict[str, Any]:
    """Plays the same users under several policies, and tells what each does to them."""
    from mtf_engine.evaluation import ab_test
    from mtf_engine.evaluation.abtest import Flattened
    from mtf_engine.evaluation.personalisation import personalisation
    from mtf_engine.jobs.storage import open_policy

    config = ABTestConfig.model_validate(job.config)
    env = open_environment(job.workspace, config.env, n_threads=config.n_threads)
    policies = {name: open_policy(job.workspace, name, env) for name in config.policies}
    asked, of = (config.n_users, config.seeds), config.sessions
    result = ab_test(env, policies, config.base, *asked, partial(_further, job, 0, of))
    lost: list[Flattened] = []
    tested = [name for name in policies if name != config.base and config.personalisation]
    for before, name in enumerate(tested):
        played = (len(policies) + 3 * before) * len(config.seeds) * config.n_users
        lost += personalisation(env, name, policies[name], *asked, partial(_further, job, played, of))
    return result.model_copy(update={"personalisation": tuple(lost)}).model_dump(mode="json")


def _further(job: Job, before: int, of: int, done: int, _of: int) -> None:
    """Reports `done` of a share of the job's work, after what was done `before`."""
    job.progress(before + done, of)


def progressive(job: Job) -> dict[str, Any]:
    """Explores, trains and promotes, round after round."""
    from mtf_engine.jobs.progressive import play

    return play(job)


def paper_data(job: Job) -> dict[str, Any]:
    """Makes the paper's datasets."""
    from mtf_engine.jobs.paper_data import make

    return make(job)


def compare(job: Job) -> dict[str, Any]:
    """Trains every method on every dataset with every seed, and scores what comes of it."""
    from mtf_engine.jobs.compare import compare as carry_out

    return carry_out(job)


def export(job: Job) -> dict[str, Any]:
    """Writes a policy as a bundle, once it is shown to compute the same."""
    from mtf_engine.jobs.storage import load_policy, open_dataset
    from mtf_engine.policies.bundle import export as write_bundle
    from mtf_engine.policies.bundle import verify
    from mtf_engine.policies.examples import USERS, Examples
    from mtf_engine.release.review import approval

    config = ExportConfig.model_validate(job.config)
    policy = load_policy(job.workspace, config.run_id)
    if config.on is not None:
        rows = Examples.of(open_dataset(job.workspace, config.on).evaluation_rows(n_users=USERS))
    else:
        rows = Examples.load(job.workspace.run_dir(run_of(config.run_id)) / files.EXAMPLES)
    path = job.folder / files.BUNDLE
    scores = {"evaluations": _scores(job, config.run_id)}
    approved = approval(job.workspace, config.run_id)
    manifest = write_bundle(policy, path, rows=rows, evaluation=scores, approval=approved)
    return {"run_id": config.run_id, **verify(path), "manifest": manifest}


def _scores(job: Job, run_id: str) -> list[dict[str, Any]]:
    """Returns the latest weighted GAUC of a training on each dataset it was evaluated on."""
    wanted = ("split", "weighted_gauc", "ci_low", "ci_high", "users_used", "users_left_out")
    latest: dict[str, dict[str, Any]] = {}
    for run in job.workspace.registry.runs(RunState.COMPLETED, kind="evaluate"):
        for row in (run.result or {})["policies"]:
            if row["run_id"] == run_id:
                score = {"dataset_id": run.dataset_id, "evaluation": run.id, **{n: row[n] for n in wanted}}
                latest.setdefault(str(run.dataset_id), score)
    return list(latest.values())


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "import": import_log,
    "collect": collect,
    "join": join,
    "train": train,
    "evaluate": evaluate,
    "abtest": abtest,
    "export": export,
    "progressive": progressive,
    "paper-data": paper_data,
    "compare": compare,
}
