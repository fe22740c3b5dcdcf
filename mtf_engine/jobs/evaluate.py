"""The work of an evaluation: scores for the registry, and what is drawn in a file of its own."""

from typing import TYPE_CHECKING, Any

from mtf_engine.jobs import files
from mtf_engine.jobs.configs import EvaluateConfig
from mtf_engine.jobs.worker import Job
from mtf_engine.registry import Workspace

if TYPE_CHECKING:
    from mtf_engine.evaluation.calibration import Calibration
    from mtf_engine.policies.networks import CriticEnsemble
    from mtf_engine.policies.policy import Policy


def evaluate(job: Job) -> dict[str, Any]:
    """Scores policies on a dataset, and asks their critics what they make of the log they never saw."""
    from mtf_engine.disk import write_atomically
    from mtf_engine.evaluation import evaluate as score
    from mtf_engine.jobs.storage import open_critics, open_dataset, open_policy

    config = EvaluateConfig.model_validate(job.config)
    dataset = open_dataset(job.workspace, config.dataset_id)
    policies = {name: open_policy(job.workspace, name, dataset.meta) for name in config.policies}
    critics = {name: found for name in config.policies if (found := open_critics(job.workspace, name))}
    result = score(policies, dataset.evaluation_rows(), seed=config.seed, critics=critics)
    calibrations = {
        name: calibrated
        for name, asked in critics.items()
        if (calibrated := _calibration(job.workspace, name, asked, policies[name], config.seed))
    }
    result = result.model_copy(update={"calibrations": calibrations})
    write_atomically(job.folder / files.EVALUATION, result.model_dump_json().encode())
    return result.summary()


def _calibration(
    workspace: Workspace, run_id: str, critics: "CriticEnsemble", policy: "Policy", seed: int
) -> "Calibration | None":
    """Returns how the critics of a training answer to the part of its log that they never saw.

    None where that log is deleted, or has no such part.
    """
    from mtf_engine.evaluation.calibration import calibration
    from mtf_engine.jobs.storage import open_dataset

    run = workspace.trained(run_id)
    if run.dataset_id not in {row.id for row in workspace.registry.datasets()}:
        return None
    dataset = open_dataset(workspace, str(run.dataset_id))
    split = next((split for split in ("validation", "test") if split in dataset.splits), None)
    if split is None:
        return None
    steps = dataset.known_steps(split)
    if not len(steps):
        return None
    return calibration(
        critics,
        steps,
        dataset_id=str(run.dataset_id),
        split=split,
        gamma=run.config["gamma"],
        reward_scale=policy.info["reward_scale"],
        seed=seed,
    )
