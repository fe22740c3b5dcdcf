"""Imports: a log that came about elsewhere is checked and stored, or refused with every defect named."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mtf_engine.logs.buckets import check_place
from mtf_engine.logs.splits import UNASKED, Splitting
from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow
from mtf_engine.runs.executor import completed, report_of, submit, tell_ends
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_server, dataset_of, open_dataset, store
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads, Workers
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:  # an import that is queued needs no pandas
    from mtf_engine.logs.like import Like


class ImportConfig(Spec):
    """Read a log that lies at `source`, an absolute path."""

    source: str
    format: Literal[
        "auto", "csv", "json", "parquet", "impressions", "kuairand", "transitions", "minari", "d3rlpy"
    ] = "auto"
    user_features: str | None = None
    mapping: str | None = None
    bad_rows: Literal["refuse", "drop"] = "refuse"
    splitting: Splitting = UNASKED
    like: str | None = Field(default=None, description="the dataset whose features and predictions it gets")
    name: str
    to: str = Field(
        default="", description="parquet or s3://BUCKET/PREFIX: Parquet files there, not one file"
    )
    n_threads: Threads = 1
    n_workers: Workers = 1


def submit_import(
    workspace: Workspace,
    source: Path,
    *,
    format: str = "auto",
    user_features: Path | None = None,
    mapping: Path | None = None,
    name: str | None = None,
    bad_rows: str = "refuse",
    like: str | None = None,
    to: str = "",
    n_workers: int = 1,
    **splitting: Any,
) -> str:
    """Returns the id of the run that imports the log at `source`; `splitting` are fields of `Splitting`.

    With `to`, `parquet` or `s3://BUCKET/PREFIX`, it is kept as Parquet files there. `like` names a dataset, or a
    training, which stands for the log that it learned from.
    """
    for path in filter(None, (source, user_features, mapping)):
        if not path.exists():
            raise Refusal(f"there is no file or folder {path}; check the path")
    if to:
        check_place(to)
    config = ImportConfig.asked(
        "the import",
        {
            "source": str(source.absolute()),
            "format": format,
            "user_features": user_features and str(user_features.absolute()),
            "mapping": mapping and str(mapping.absolute()),
            "name": name or source.stem,
            "bad_rows": bad_rows,
            "splitting": splitting,
            "like": like and dataset_of(workspace, like).id,
            "to": to,
            "n_workers": n_workers,
        },
    )
    return submit(workspace, KIND, config.model_dump(mode="json"), name=config.name)


def imported(workspace: Workspace, run: RunRow) -> RunRow:
    """Returns the finished import if it was completed, see `executor.completed`.

    A refused one is forgotten, row and folder: it leaves the workspace as it was.
    """
    try:
        return completed(workspace, run)
    except Refusal:
        if report_of(workspace, run) is not None:
            tell_ends(workspace)  # while there is a row to tell of
            workspace.delete_runs(run.id, action=Action.IMPORT)
        raise


def import_log(job: Job, config: ImportConfig) -> dict[str, Any]:
    """Checks and stores a log that came about elsewhere."""
    from mtf_engine.evaluation.power import resolvable
    from mtf_engine.logs.importing import read_log

    check_server(job.workspace, job.run, config.to)
    log = read_log(
        Path(config.source),
        config.format,
        user_features=Path(config.user_features) if config.user_features else None,
        mapping=Path(config.mapping) if config.mapping else None,
        name=config.name,
        bad_rows=config.bad_rows,
        splitting=config.splitting,
        like=_like(job.workspace, config.like) if config.like else None,
        progress=job.progress,
    )
    stored = store(
        job.workspace, job.run, log.meta, log.batches, log.model, to=config.to, n_workers=config.n_workers
    )
    told = resolvable(open_dataset(job.workspace, stored["dataset_id"]))
    warnings = [*log.warnings, *(told.warnings if told else ())]
    return stored | ({"resolvable": told.model_dump()} if told else {}) | {"warnings": warnings}


def _like(workspace: Workspace, dataset_id: str) -> "Like":
    from mtf_engine.logs.like import Like

    dataset = open_dataset(workspace, dataset_id)
    return Like(dataset_id, dataset.meta, dataset.prediction_model())


KIND = RunKind("import", ImportConfig, import_log, writes_dataset=True)
