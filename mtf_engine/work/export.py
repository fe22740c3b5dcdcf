"""Exports: the policy of a training as a bundle, once it is shown to compute the same."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mtf_engine import sealed
from mtf_engine.disk import write_atomically
from mtf_engine.policies.fixed import fixed_action
from mtf_engine.policies.monotony import NegativePow, sentences
from mtf_engine.registry import BASELINE, REGRESSION, RunState, is_fixed, run_of
from mtf_engine.release import review
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import (
    has_examples,
    has_training_rows,
    load_policy,
    open_dataset,
    open_policy,
    training_rows,
)
from mtf_engine.runs.worker import Job
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal, Spec, Threads
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.logs.datasets import Dataset
    from mtf_engine.policies.graphs import Clip
    from mtf_engine.policies.policy import Policy

Purpose = Literal["test", "live"]
SCORES = ("split", "weighted_gauc", "ci_low", "ci_high", "users_used", "users_left_out")


class ExportConfig(Spec):
    """Write the policy of a training as a bundle."""

    run_id: str
    on: str | None = Field(default=None, description="id of the dataset whose rows it is checked with")
    clip: BoundsPlan | None = Field(
        default=None, description="bounds around its baseline that served actions are held in"
    )
    purpose: Purpose = Field(default="test", description="what the bundle is for; its manifest says so")
    n_threads: Threads = 1


def submit_export(
    workspace: Workspace,
    run_id: str,
    on: str | None = None,
    clip: BoundsPlan | None = None,
    purpose: Purpose = "test",
    unapproved: bool = False,
) -> str:
    """Returns the id of the run that exports the policy of a training, `RUN` or `RUN@best`.

    It is checked with rows of the dataset `on`, else with the examples that the training kept, else, where an
    earlier version kept none, with rows of the log it learned from. With `clip` what is served is another policy,
    so `on` must name the log that it is scored on, and nobody has approved it. For the `purpose` "live" a policy
    that nobody has approved is refused, unless `unapproved` says that this is meant.
    """
    if clip is not None and on is None:
        raise Refusal(
            "held in bounds it is another policy, which must be scored anew; name the log to score it on: --on DATASET"
        )
    run_id = workspace.policy(run_id)
    if is_fixed(run_id):
        return _submit_fixed(workspace, run_id, on, clip, purpose, unapproved)
    trained = workspace.trained(run_id)
    _refuse_unapproved(workspace, run_id, clip, purpose, unapproved)
    own = None if has_examples(workspace, trained.id) else trained.dataset_id
    if on is None and own is not None and own not in {row.id for row in workspace.registry.datasets()}:
        raise Refusal(
            f"the log that {trained.id} learned from is deleted, and with it the rows that its bundle is checked "
            "with; name a dataset with the same features: --on DATASET"
        )
    on = workspace.dataset(on).id if on else own
    config = ExportConfig(run_id=run_id, on=on, clip=clip, purpose=purpose).model_dump(mode="json")
    return submit(
        workspace, KIND, config, name=trained.name, dataset_id=on or trained.dataset_id, algo=trained.algo
    )


def _submit_fixed(
    workspace: Workspace,
    policy: str,
    on: str | None,
    clip: BoundsPlan | None,
    purpose: Purpose,
    unapproved: bool,
) -> str:
    """Returns the id of the run that exports a policy that is no run, for logs like `on`."""
    if policy.startswith("random:"):
        raise Refusal(
            f"{policy} is drawn blindly, as something to compare with, and is not for serving; name another"
        )
    if on is None:
        raise Refusal(
            f"{policy} is no run with a log of its own; name the log whose features and fusion it is for: --on DATASET"
        )
    row = workspace.dataset(on)
    if policy != REGRESSION:
        fixed_action(policy, FusionSpec.model_validate(row.meta["fusion"]))
    elif not has_training_rows(open_dataset(workspace, row.id)):
        raise Refusal(
            f"regression weights are fitted to training rows, and {row.name} has none with impressions; name another "
            "log: --on DATASET"
        )
    _refuse_unapproved(workspace, policy, clip, purpose, unapproved)
    config = ExportConfig(run_id=policy, on=row.id, clip=clip, purpose=purpose).model_dump(mode="json")
    return submit(workspace, KIND, config, name=policy, dataset_id=row.id)


def _refuse_unapproved(
    workspace: Workspace, policy: str, clip: BoundsPlan | None, purpose: Purpose, unapproved: bool
) -> None:
    approved = clip is None and review.approval(workspace, policy) is not None
    if purpose == "live" and not unapproved and not approved:
        raise Refusal(
            f"{policy} is not approved for live use: nobody has made it live (`review decide`); export it for a test, "
            "or say that this is meant: --unapproved"
        )


def read_bundle(workspace: Workspace, export_id: str) -> bytes:
    """Returns the bundle of a completed export; a Refusal where its file is damaged."""
    run = workspace.registry.run(export_id)
    if run.kind != "export" or run.state is not RunState.COMPLETED:
        raise Refusal(f"{export_id} is not a completed export; `runs show {export_id}` says what it is")
    return sealed.read(workspace.run_dir(export_id) / files.BUNDLE, "export the policy again")


def fetch_bundle(workspace: Workspace, export_id: str, to: Path) -> None:
    """Copies the bundle of a completed export to `to`, where it appears at once or not at all."""
    write_atomically(to, read_bundle(workspace, export_id))


def write_readme(manifest: Mapping[str, Any], bundle: Path) -> list[str]:
    """Returns the names of what is written beside a `bundle`: what to know of it, and the reference scorer."""
    from mtf_engine.policies.bundle_readme import SCORER, bundle_readme

    readme = bundle.with_name(f"{bundle.stem}.md")
    write_atomically(readme, bundle_readme(manifest, bundle.name).encode())
    write_atomically(bundle.with_name(SCORER.name), SCORER.read_bytes())
    return [readme.name, SCORER.name]


def export(job: Job, config: ExportConfig) -> dict[str, Any]:
    """Writes a policy as a bundle, once it is shown to compute the same."""
    from mtf_engine.policies.bundle import export as write_bundle
    from mtf_engine.policies.bundle import verify
    from mtf_engine.policies.examples import USERS, Examples

    clip = None
    if config.on is not None:
        dataset = open_dataset(job.workspace, config.on)
        policy = _policy(job.workspace, config.run_id, config.on, dataset)
        rows = Examples.of(dataset.evaluation_rows(n_users=USERS))
        clip = _clip(job.workspace, policy, dataset, config.clip)
        scores = _scores_of_clipped(policy, clip, dataset, config) if clip else _scores(job, config.run_id)
    else:
        policy = load_policy(job.workspace, config.run_id)
        rows = Examples.load(job.workspace.run_dir(run_of(config.run_id)) / files.EXAMPLES)
        scores = _scores(job, config.run_id)
    path = job.folder / files.BUNDLE
    approved = None if clip else review.approval(job.workspace, config.run_id)
    manifest = write_bundle(
        policy,
        path,
        rows=rows,
        evaluation={"evaluations": scores},
        clip=clip,
        approval=approved,
        purpose=config.purpose,
        reward=_reward(job.workspace, config.on or policy.info.get("dataset_id")),
    )
    sealed.seal(path)
    warnings = sentences([NegativePow.model_validate(one) for one in manifest["negative_pows"]])
    return {"run_id": config.run_id, **verify(path), "warnings": warnings, "manifest": manifest}


def _reward(workspace: Workspace, dataset_id: str | None) -> dict[str, float] | None:
    """Returns the weights of the reward of a log; None where it is not there any more."""
    rows = {row.id: row for row in workspace.registry.datasets()}
    return rows[dataset_id].meta["reward"]["weights"] if dataset_id in rows else None


def _policy(workspace: Workspace, name: str, on: str, dataset: "Dataset") -> "Policy":
    """Returns the policy of a training, or the fixed one for logs like `dataset`, whose id is `on`."""
    if not is_fixed(name):
        return load_policy(workspace, name)
    rows = training_rows(workspace, on)[1] if name == REGRESSION else None
    policy = open_policy(workspace, name, dataset.meta, rows)
    return replace(policy, info=policy.info | {"dataset_id": on, "dataset_hash": dataset.content_hash})


def _clip(
    workspace: Workspace, policy: "Policy", dataset: "Dataset", plan: BoundsPlan | None
) -> "Clip | None":
    """Returns the bounds of `plan` around the policy that `policy` was explored around; None without a plan."""
    from mtf_engine.policies.graphs import Clip

    if plan is None:
        return None
    return Clip(open_policy(workspace, policy.info.get("baseline", BASELINE), dataset.meta), plan)


def _scores_of_clipped(
    policy: "Policy", clip: "Clip", dataset: "Dataset", config: ExportConfig
) -> list[dict[str, Any]]:
    """Returns the weighted GAUC on `dataset` of what is served, and what that is against the policy unbound."""
    from mtf_engine.evaluation import evaluate

    served = f"{config.run_id}, held in bounds"
    result = evaluate({served: clip.of(policy), config.run_id: policy}, dataset.evaluation_rows())
    row = result.policies[0].model_dump(mode="json")
    (against,) = (d for d in result.differences if (d.run_id, d.group) == (served, "user"))
    score = {"dataset_id": config.on, "policy": served, **{name: row[name] for name in SCORES}}
    return [
        score | {"minus_unbound": against.model_dump(mode="json", include={"value", "ci_low", "ci_high"})}
    ]


def _scores(job: Job, run_id: str) -> list[dict[str, Any]]:
    """Returns the latest weighted GAUC of a training on each dataset it was evaluated on."""
    latest: dict[str, dict[str, Any]] = {}
    for run in job.workspace.registry.runs(RunState.COMPLETED, kind="evaluate"):
        for row in (run.result or {})["policies"]:
            other_log = is_fixed(run_id) and run.dataset_id != job.config["on"]  # where the name is another's
            if row["run_id"] == run_id and not other_log:
                score = {"dataset_id": run.dataset_id, "evaluation": run.id, **{n: row[n] for n in SCORES}}
                latest.setdefault(str(run.dataset_id), score)
    return list(latest.values())


KIND = RunKind("export", ExportConfig, export)
