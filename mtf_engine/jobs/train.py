"""The work of a training: from its log to the policies of its last step and of its best."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf_engine.jobs import files
from mtf_engine.jobs.worker import Job

if TYPE_CHECKING:
    from mtf_engine.learning.best_step import Validation
    from mtf_engine.logs.datasets import Dataset

VALIDATION = "validation"


def train(job: Job) -> dict[str, Any]:
    """Trains a policy, going on from its checkpoint where there is one."""
    from mtf_engine.algos import ALGOS
    from mtf_engine.jobs.fitness import consumed, open_fitness
    from mtf_engine.jobs.storage import open_dataset, open_policy
    from mtf_engine.learning.training import fit, save_critics
    from mtf_engine.policies.examples import USERS, Examples

    dataset = open_dataset(job.workspace, str(job.run.dataset_id))
    transitions = dataset.transitions()
    algorithm = ALGOS[str(job.run.algo)]
    baseline = open_policy(job.workspace, dataset.meta.baseline, dataset.meta)
    algo = algorithm(algorithm.Config.model_validate(job.config), transitions, baseline)
    validation = _validation(dataset)
    fitness = open_fitness(job.workspace, str(job.run.dataset_id), job.config)
    n_steps = algo.config.steps(len(transitions))
    rows = fit(algo, fitness or transitions, job.folder / files.CHECKPOINT, validation)
    for row in _scored(job, validation, job.logged(rows)):
        job.progress(row["step"], n_steps)
    if algo.critics is not None:
        save_critics(algo.critics, job.folder / files.CRITICS)
    origin = _origin(job, dataset)
    if validation is not None and validation.best_step is not None:
        validation.save_best(job.folder / files.BEST_POLICY)
        _add_origin(job.folder / files.BEST_POLICY, origin)
        job.record_best(validation.best_score, validation.best_step)
    Examples.of(dataset.evaluation_rows(n_users=USERS)).save(job.folder / files.EXAMPLES)
    algo.policy.save(job.folder / files.POLICY)
    _add_origin(job.folder / files.POLICY, origin | {"step": algo.step})
    return {
        "transitions": len(transitions),
        "left_out": transitions.n_left_out,
        "validation": validation and validation.summary(),
        "search": fitness and consumed(fitness, algo.policy.info["evaluations"]),
    }


def _origin(job: Job, dataset: "Dataset") -> dict[str, Any]:
    """Returns what a policy's file says about where it comes from."""
    return {
        "run_id": job.run.id,
        "dataset_id": job.run.dataset_id,
        "dataset_hash": dataset.content_hash,
        "baseline": dataset.meta.baseline,
        "env": dataset.meta.details.get("env"),
        "plan": dataset.meta.plan and dataset.meta.plan.model_dump(mode="json"),
    }


def _add_origin(path: Path, origin: dict[str, Any]) -> None:
    from mtf_engine.policies.policy import Policy

    policy = Policy.load(path)
    replace(policy, info=policy.info | origin).save(path)


def _validation(dataset: "Dataset") -> "Validation | None":
    """Returns the validation on the log's validation users; None where it has none to tell policies apart."""
    from mtf_engine.learning.best_step import USERS, Validation

    if VALIDATION not in dataset.splits:
        return None
    return Validation.of(dataset.evaluation_rows(VALIDATION, n_users=USERS))


def _scored(
    job: Job, validation: "Validation | None", rows: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yields the rows, the best score among them told to the registry."""
    known = None
    for row in rows:
        if validation is not None and validation.best_step != known:
            job.record_best(validation.best_score, known := validation.best_step)
        yield row
