"""What bounds are judged by, read from the workspace: a policy's actions on a log, and plans side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtf_engine.exploration.cost import ExplorationCost, exploration_cost, read_candidate_lists
from mtf_engine.exploration.sensitivity import RankSensitivity, rank_sensitivity
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.samples import sample
from mtf_engine.runs.storage import load_policy, open_dataset, open_policy
from mtf_engine.spec import BoundsPlan, Refusal, Spec
from mtf_engine.workspace import Workspace

SAMPLE = 10_000
"""Requests of a log that a policy acts on here."""


@dataclass(frozen=True)
class PolicyActions:
    """What a policy does on a sample of a log's requests, beside what the log's baseline did."""

    new_actions: NDArray[np.float32]  # [n, d]
    baseline_actions: NDArray[np.float32]  # [n, d]
    segments: NDArray[Any]  # [n]
    users: NDArray[Any]  # [n]
    names: tuple[str, ...]  # [d]


def policy_actions(
    workspace: Workspace, run_id: str, dataset_name: str, n_requests: int = SAMPLE
) -> PolicyActions:
    """Returns the actions of a training's policy on a log, on a sample by hash of at most `n_requests`.

    A log without baseline actions counts as made by the baseline policy, action 0.
    """
    dataset = open_dataset(workspace, dataset_name)
    policy = open_policy(workspace, workspace.policy(run_id), dataset.meta)
    policy.check(dataset.meta.fusion, dataset.meta.feature_names)
    rows = sample(dataset, n_requests)
    return PolicyActions(
        new_actions=policy.act(rows["observation"]),
        baseline_actions=np.nan_to_num(rows["baseline_action"]),
        segments=rows["segment"],
        users=rows["user_id"],
        names=dataset.meta.fusion.names,
    )


def logged_plan(workspace: Workspace, run_id: str) -> BoundsPlan | None:
    """Returns the bounds of the log that a training learned from, which its policy keeps; None if it has none."""
    plan = load_policy(workspace, workspace.policy(run_id)).info.get("plan")
    return BoundsPlan.model_validate(plan) if plan else None


def collection_cost(
    workspace: Workspace,
    dataset_name: str,
    plan: BoundsPlan,
    *,
    sigma: float = 0.2,
    k: int = 3,
    n_requests: int = SAMPLE,
    seed: int = 0,
) -> ExplorationCost:
    """Returns what exploring with `plan`, and with Gaussian noise, do to a sample of a log's requests."""
    dataset = open_dataset(workspace, dataset_name)
    _refuse_other(dataset, plan)
    lists = read_candidate_lists(dataset.arrays, n_requests)
    return exploration_cost(dataset.meta.fusion, lists, plan, np.random.default_rng(seed), sigma=sigma, k=k)


def sensitivity(
    workspace: Workspace, dataset_name: str, plan: BoundsPlan, n_requests: int = 2_000
) -> RankSensitivity:
    """Returns which dimensions change a log's rankings inside `plan`, by a sample of its requests."""
    dataset = open_dataset(workspace, dataset_name)
    _refuse_other(dataset, plan)
    return rank_sensitivity(dataset.meta.fusion, read_candidate_lists(dataset.arrays, n_requests), plan)


def _refuse_other(dataset: Dataset, plan: BoundsPlan) -> None:
    """Refuses a plan of other dimensions than the log's."""
    if plan.n_actions != dataset.meta.fusion.n_actions:
        raise Refusal(
            f"the plan has {plan.n_actions} dimensions, the actions of {dataset.meta.name} "
            f"{dataset.meta.fusion.n_actions}; choose a plan drawn for this log"
        )


class PlanChange(Spec):
    """One dimension's bounds in two plans; where a plan has no box for a segment, its default stands."""

    segment: str | None
    dimension: str
    lower: float
    upper: float
    other_lower: float
    other_upper: float


def plan_changes(plan: BoundsPlan, other: BoundsPlan, names: tuple[str, ...] = ()) -> list[PlanChange]:
    """Returns the dimensions, default box first, in which `other` differs from `plan`."""
    if plan.n_actions != other.n_actions:
        raise Refusal(
            f"the plans have {plan.n_actions} and {other.n_actions} dimensions; compare plans of one log"
        )
    return list(_changes(plan, other, names or tuple(str(i) for i in range(plan.n_actions))))


def _changes(plan: BoundsPlan, other: BoundsPlan, names: tuple[str, ...]) -> Iterator[PlanChange]:
    for segment in (None, *sorted({*plan.segments, *other.segments})):
        box, its = (p.segments.get(segment, p) if segment else p for p in (plan, other))
        for name, *edges in zip(names, box.lower, box.upper, its.lower, its.upper, strict=True):
            if edges[:2] != edges[2:]:
                yield PlanChange(
                    segment=segment,
                    dimension=name,
                    lower=edges[0],
                    upper=edges[1],
                    other_lower=edges[2],
                    other_upper=edges[3],
                )
