"""Trainings: from a log to the policies of its last step and of its best."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf_engine import sealed
from mtf_engine.logs.splits import VALIDATION
from mtf_engine.registry import DatasetRow
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.learning.best_step import Validation
    from mtf_engine.logs.datasets import Dataset

NO_VALIDATION = (
    "Not validated by weighted GAUC: {why}. So no best step is kept, and the policy is the last step's."
)


def submit_train(
    workspace: Workspace,
    dataset: str,
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    seed: int = 0,
    seed_group: str = "",
    name: str | None = None,
) -> str:
    """Returns the id of the run that trains `algo` on a dataset, with `settings` over those of `preset`."""
    from mtf_engine.learning.training import make_config

    row = workspace.dataset(dataset)
    check_learns(row)
    config = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    return submit(
        workspace,
        KIND,
        config,
        name=name or f"{algo} on {row.name}",
        dataset_id=row.id,
        algo=algo,
        seed=seed,
        seed_group=seed_group,
        n_steps=config["n_steps"] or 0,
    )


def check_learns(row: DatasetRow) -> None:
    """Refuses a log without actions."""
    if row.meta.get("exploration") is None and row.meta.get("source") in ("kuairand", "impressions"):
        raise Refusal(
            f"the dataset {row.name} has no actions to learn from; explore on it first: "
            f"dataset collect --env replay --from {row.id}"
        )


def submit_seeds(
    workspace: Workspace,
    dataset: str,
    seeds: Sequence[int],
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    name: str | None = None,
) -> list[str]:
    """Returns the ids of one training a seed, see `submit_train`; several share a group of a new name."""
    label = name or f"{algo} on {workspace.dataset(dataset).name}"
    group = _free_name(workspace, label) if len(seeds) > 1 else ""
    start = partial(
        submit_train,
        workspace,
        dataset,
        algo=algo,
        preset=preset,
        settings=settings,
        name=name,
        seed_group=group,
    )
    return [start(seed=seed) for seed in seeds]


def _free_name(workspace: Workspace, label: str) -> str:
    """Returns `label`, numbered where trainings are grouped under that name already."""
    taken = {run.seed_group for run in workspace.registry.runs(kind="train")}
    names = (f"{label} ({i})" if i > 1 else label for i in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def train(job: Job, config: dict[str, Any]) -> dict[str, Any]:
    """Trains a policy, going on from its checkpoint where there is one."""
    from mtf_engine.algos import ALGOS
    from mtf_engine.learning.training import check_device, fit, save_critics
    from mtf_engine.policies.examples import USERS, Examples
    from mtf_engine.work.fitness import consumed, open_fitness

    check_device(config["device"])
    dataset = open_dataset(job.workspace, str(job.run.dataset_id))
    transitions = dataset.transitions(by_item=config.get("action_level") == "item")
    algorithm = ALGOS[str(job.run.algo)]
    baseline = open_policy(job.workspace, dataset.meta.baseline, dataset.meta)
    algo = algorithm(algorithm.Config.model_validate(config), transitions, baseline)
    validation, why_none = validation_on(dataset)
    fitness = open_fitness(job.workspace, str(job.run.dataset_id), config)
    n_steps = algo.config.steps(len(transitions))
    with closing(fit(algo, fitness or transitions, job.folder / files.CHECKPOINT, validation)) as rows:
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
    told = algo.policy.info | origin | {"step": algo.step}
    sealed.write(job.folder / files.POLICY, replace(algo.policy, info=told).to_bytes())
    return {
        "transitions": len(transitions),
        "left_out": transitions.n_left_out,
        "validation": validation and validation.summary(),
        "no_validation": why_none and NO_VALIDATION.format(why=why_none),
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
    """Says in the file of the best policy, which a checkpoint may have held as it was then, where it comes from."""
    from mtf_engine.policies.policy import Policy

    policy = Policy.load(path)
    sealed.write(path, replace(policy, info=policy.info | origin).to_bytes())


def validation_on(dataset: "Dataset") -> "tuple[Validation | None, str | None]":
    """Returns the validation on the log's validation users; or None, and why there is none."""
    from mtf_engine.evaluation.ranking import undefined
    from mtf_engine.learning.best_step import USERS, Validation

    if VALIDATION not in dataset.splits:
        return None, "the log has no validation users"
    rows = dataset.evaluation_rows(VALIDATION, n_users=USERS)
    return Validation.of(rows), undefined(rows)


def _scored(
    job: Job, validation: "Validation | None", rows: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yields the rows, the best score among them told to the registry."""
    known = None
    for row in rows:
        if validation is not None and validation.best_step != known:
            job.record_best(validation.best_score, known := validation.best_step)
        yield row


KIND = RunKind("train", None, train, checkpoints=True)
