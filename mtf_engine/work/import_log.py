"""Imports: a log that came about elsewhere is checked and stored, or refused with every defect named."""

from pathlib import Path
from typing import Any, Literal

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import files
from mtf_engine.runs.executor import completed, submit, tell_ends
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import store
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads
from mtf_engine.workspace import Workspace


class ImportConfig(Spec):
    """Read a log that lies at `source`, an absolute path."""

    source: str
    format: Literal[
        "auto", "csv", "json", "parquet", "impressions", "kuairand", "transitions", "minari", "d3rlpy"
    ] = "auto"
    user_features: str | None = None
    mapping: str | None = None
    bad_rows: Literal["refuse", "drop"] = "refuse"
    name: str
    n_threads: Threads = 1


def submit_import(
    workspace: Workspace,
    source: Path,
    *,
    format: str = "auto",
    user_features: Path | None = None,
    mapping: Path | None = None,
    name: str | None = None,
    bad_rows: str = "refuse",
) -> str:
    """Returns the id of the run that imports the log at `source`."""
    for path in filter(None, (source, user_features, mapping)):
        if not path.exists():
            raise Refusal(f"there is no file or folder {path}; check the path")
    config = ImportConfig.model_validate(
        {
            "source": str(source.absolute()),
            "format": format,
            "user_features": user_features and str(user_features.absolute()),
            "mapping": mapping and str(mapping.absolute()),
            "name": name or source.stem,
            "bad_rows": bad_rows,
        }
    )
    return submit(workspace, KIND, config.model_dump(mode="json"), name=config.name)


def imported(workspace: Workspace, run: RunRow) -> RunRow:
    """Returns the finished import if it was completed, see `executor.completed`.

    A refused one is forgotten, row and folder: it leaves the workspace as it was.
    """
    try:
        return completed(workspace, run)
    except Refusal:
        if run.state is RunState.FAILED and (workspace.run_dir(run.id) / files.REPORT).exists():
            tell_ends(workspace)  # while there is a row to tell of
            workspace.delete_runs(run.id)
        raise


def import_log(job: Job, config: ImportConfig) -> dict[str, Any]:
    """Checks and stores a log that came about elsewhere."""
    from mtf_engine.logs.importing import read_log

    log = read_log(
        Path(config.source),
        config.format,
        user_features=Path(config.user_features) if config.user_features else None,
        mapping=Path(config.mapping) if config.mapping else None,
        name=config.name,
        bad_rows=config.bad_rows,
        progress=job.progress,
    )
    return store(job.workspace, job.run, log.meta, log.batches) | {"warnings": log.warnings}


KIND = RunKind("import", ImportConfig, import_log, writes_dataset=True)
