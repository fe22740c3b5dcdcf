"""Exports: the policy of a training as a bundle, once it is shown to compute the same."""

from pathlib import Path
from typing import Any

from pydantic import Field

from mtf_engine.disk import write_atomically
from mtf_engine.registry import RunState, Workspace, run_of
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import has_examples, load_policy, open_dataset
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads


class ExportConfig(Spec):
    """Write the policy of a training as a bundle."""

    run_id: str
    on: str | None = Field(default=None, description="id of the dataset whose rows it is checked with")
    n_threads: Threads = 1


def submit_export(workspace: Workspace, run_id: str, on: str | None = None) -> str:
    """Returns the id of the run that exports the policy of a training, `RUN` or `RUN@best`.

    It is checked with rows of the dataset `on`, else with the examples that the training kept, else, where an
    earlier version kept none, with rows of the log it learned from.
    """
    run_id = workspace.policy(run_id)
    trained = workspace.trained(run_id)
    own = None if has_examples(workspace, trained.id) else trained.dataset_id
    if on is None and own is not None and own not in {row.id for row in workspace.registry.datasets()}:
        raise Refusal(
            f"the log that {trained.id} learned from is deleted, and with it the rows that its bundle is checked "
            "with; name a dataset with the same features: --on DATASET"
        )
    on = workspace.dataset(on).id if on else own
    config = ExportConfig(run_id=run_id, on=on).model_dump(mode="json")
    return submit(
        workspace, KIND, config, name=trained.name, dataset_id=on or trained.dataset_id, algo=trained.algo
    )


def bundle_path(workspace: Workspace, export_id: str) -> Path:
    """Returns where the bundle of a completed export lies."""
    run = workspace.registry.run(export_id)
    if run.kind != "export" or run.state is not RunState.COMPLETED:
        raise Refusal(f"{export_id} is not a completed export; `runs show {export_id}` says what it is")
    return workspace.run_dir(export_id) / files.BUNDLE


def fetch_bundle(workspace: Workspace, export_id: str, to: Path) -> None:
    """Copies the bundle of a completed export to `to`, where it appears at once or not at all."""
    write_atomically(to, bundle_path(workspace, export_id).read_bytes())


def export(job: Job, config: ExportConfig) -> dict[str, Any]:
    """Writes a policy as a bundle, once it is shown to compute the same."""
    from mtf_engine.policies.bundle import export as write_bundle
    from mtf_engine.policies.bundle import verify
    from mtf_engine.policies.examples import USERS, Examples
    from mtf_engine.release.review import approval

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


KIND = RunKind("export", ExportConfig, export)
