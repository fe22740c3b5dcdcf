"""Evaluations: scores of policies for the registry, and what is drawn of them in a file of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mtf_engine import sealed
from mtf_engine.evaluation.off_policy import OffPolicyEstimate, OffPolicyRows, OffPolicySettings
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.held_out import held_out_sessions
from mtf_engine.logs.narrowing import refuse_narrowed
from mtf_engine.logs.schema import DatasetMeta, UserShare
from mtf_engine.logs.splits import TEST, VALIDATION
from mtf_engine.policies.fixed import fixed_action
from mtf_engine.questions.differences import differs
from mtf_engine.registry import REGRESSION, is_fixed, is_trained
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.spread import spread
from mtf_engine.runs.storage import load_policy, open_critics, open_dataset, open_policy, training_rows
from mtf_engine.runs.worker import Job
from mtf_engine.spec import FusionSpec, Seed, Spec, Threads, Workers
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.evaluation.calibration import Calibration
    from mtf_engine.evaluation.scored import Scored, Scoring
    from mtf_engine.policies.networks import CriticEnsemble
    from mtf_engine.policies.policy import Policy

SHARE_ROWS = 1_000_000
"""Impressions that are read at once, so that a larger log asks for no more memory."""
WORTH_SPREADING = 4_000_000
"""Impressions: of fewer, other processes are not ready before one has scored them."""


class EvaluateConfig(Spec):
    """Score policies on a dataset."""

    policies: tuple[str, ...] = Field(min_length=1)
    dataset_id: str
    floors: bool = Field(default=False, description="the best single head and regression weights, too")
    off_policy: OffPolicySettings | None = Field(default=None, description="also by off-policy evaluation")
    seed: Seed = 0
    n_threads: Threads = 1
    n_workers: Workers = 1


def submit_evaluate(
    workspace: Workspace,
    policies: Sequence[str],
    dataset: str,
    *,
    seed: int = 0,
    floors: bool = True,
    off_policy: OffPolicySettings | None = None,
    n_workers: int = 1,
    name: str | None = None,
    parent_id: str | None = None,
) -> str:
    """Returns the id of the run that scores `policies` (`RUN`, `RUN@best`, `baseline`, a fixed one) on a dataset.

    With `floors` the best single head and the regression weights stand beside them, see `training_rows`. With
    `off_policy` the policies asked for, and no floors, are evaluated off-policy, too.
    """
    row = workspace.dataset(dataset)
    policies = [workspace.policy(policy) for policy in policies]
    for policy in policies:
        workspace.check_policy(policy, on_log=True)
        if is_fixed(policy) and policy != REGRESSION:
            fixed_action(policy, FusionSpec.model_validate(row.meta["fusion"]))
    if off_policy:
        refuse_narrowed(DatasetMeta.model_validate(row.meta), "evaluate off-policy on")
    config = EvaluateConfig.asked(
        "the evaluation",
        {
            "policies": tuple(dict.fromkeys(policies)),
            "dataset_id": row.id,
            "seed": seed,
            "floors": floors,
            "off_policy": off_policy,
            "n_workers": n_workers,
        },
    )
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=name or f"on {row.name}",
        dataset_id=row.id,
        seed=seed,
        parent_id=parent_id,
    )


def evaluate(job: Job, config: EvaluateConfig) -> dict[str, Any]:
    """Scores policies on a dataset, and asks their critics what they make of the log they never saw."""
    from mtf_engine.evaluation.evaluate import evaluation
    from mtf_engine.evaluation.floors import floors
    from mtf_engine.evaluation.scored import Scoring

    dataset = open_dataset(job.workspace, config.dataset_id)
    learned, rows = None, None
    if config.floors or REGRESSION in config.policies:
        learned, rows = training_rows(job.workspace, config.dataset_id, config.policies)
    beside = floors(rows) if config.floors and rows is not None else ()
    policies = {
        name: load_policy(job.workspace, name)
        if is_trained(name)
        else open_policy(job.workspace, name, dataset.meta, rows)
        for name in dict.fromkeys((*config.policies, *beside))
    }
    held_out, estimates = _off_policy(dataset, {name: policies[name] for name in config.policies}, config)
    critics = {name: found for name in config.policies if (found := open_critics(job.workspace, name))}
    how = Scoring.of(dataset.evaluation_whole(), config.seed)
    parts = _scored(job, dataset, policies, tuple(critics), how, config.n_workers)
    result = evaluation(policies, parts, how, critics=critics)
    calibrations = {
        name: calibrated
        for name, asked in critics.items()
        if (calibrated := _calibration(job.workspace, name, asked, policies[name], config.seed))
    }
    told = [
        one.model_copy(
            update={
                "differs": (*differs(job.workspace, one.run_id, dataset, result.split), *one.differs),
                "off_policy": estimates.get(one.run_id, ()),
            }
        )
        for one in result.policies
    ]
    more = {
        "floors": beside,
        "floors_from": learned if beside else None,
        "calibrations": calibrations,
        "off_policy": held_out,
    }
    result = result.model_copy(update={**more, "policies": tuple(told)})
    sealed.write(job.folder / files.EVALUATION, result.model_dump_json().encode())
    return result.summary()


def _scored(
    job: Job,
    dataset: Dataset,
    policies: "Mapping[str, Policy]",
    critics: tuple[str, ...],
    how: "Scoring",
    n_workers: int,
) -> "Iterator[Scored]":
    """Yields what the policies do on the rows of the dataset, read share by share."""
    size, of = how.whole.n_impressions, how.n_parts
    n_shares = min(of, max(-(-size // SHARE_ROWS), n_workers if size > WORTH_SPREADING else 1))
    shares = dataset.evaluation_shares(n_shares, of, size) if n_shares > 1 else [UserShare()]
    work = partial(_scored_share, dataset, policies, critics, how)
    spreads = n_workers > 1 and len(shares) > 1 and size > WORTH_SPREADING
    with closing(
        spread(work, shares, n_workers) if spreads else (work(share) for share in shares)
    ) as results:
        for i, result in enumerate(results, 1):
            yield from result
            if len(shares) > 1:
                job.progress(i, len(shares))


def _scored_share(
    dataset: Dataset,
    policies: "Mapping[str, Policy]",
    critics: tuple[str, ...],
    how: "Scoring",
    share: UserShare,
) -> "list[Scored]":
    from mtf_engine.evaluation.scored import scored

    return list(scored(policies, dataset.evaluation_rows(share=share), how, critics, share.before))


def _off_policy(
    dataset: Dataset, policies: Mapping[str, "Policy"], config: EvaluateConfig
) -> tuple[OffPolicyRows, dict[str, tuple[OffPolicyEstimate, ...]]] | tuple[None, dict[str, Any]]:
    """Returns what was held out of the log and the estimates of each policy; None and nothing where none is asked.

    Q is fitted on the log's training rows, and all is told of users that those do not know.
    """
    if config.off_policy is None:
        return None, {}
    from mtf_engine.evaluation.off_policy import off_policy
    from mtf_engine.learning.fqe import FQEConfig, fitted_q

    sessions, transitions = held_out_sessions(dataset), dataset.transitions()
    how = FQEConfig(
        n_steps=config.off_policy.fit_steps,
        gamma=config.off_policy.gamma,
        smoothing=config.off_policy.tau,
        seed=config.seed,
    )
    estimates = {}
    for name, policy in policies.items():
        fitted = fitted_q(transitions, policy, how)
        estimates[name] = off_policy(
            policy,
            sessions,
            fitted.critics,
            config.off_policy,
            reward_scale=fitted.reward_scale,
            seed=config.seed,
        )
    return OffPolicyRows.of(config.off_policy, sessions), estimates


def _calibration(
    workspace: Workspace, run_id: str, critics: "CriticEnsemble", policy: "Policy", seed: int
) -> "Calibration | None":
    """Returns how the critics of a training answer to the part of its log that they never saw.

    None where that log is deleted, or has no such part.
    """
    from mtf_engine.evaluation.calibration import calibration

    run = workspace.trained(run_id)
    if run.dataset_id not in {row.id for row in workspace.registry.datasets()}:
        return None
    dataset = open_dataset(workspace, str(run.dataset_id))
    split = next((split for split in (VALIDATION, TEST) if split in dataset.splits), None)
    if split is None:
        return None
    steps = dataset.known_steps(split, by_item=policy.action_level == "item")
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


KIND = RunKind("evaluate", EvaluateConfig, evaluate)
