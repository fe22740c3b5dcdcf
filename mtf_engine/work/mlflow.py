"""Exports in MLflow (https://mlflow.org): a policy's settings, metrics, memo, bundle and model on a tracking server.

The model is registered with its signature and, where it has one here, under its alias: `live` or `candidate`. MLflow's
own usage telemetry is off; nothing is sent to anybody but the server that is named.
"""

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from pydantic import AfterValidator, Field, HttpUrl

from mtf_engine import __version__
from mtf_engine.registry import CANDIDATE, LIVE, RunRow, is_trained, now, run_of
from mtf_engine.release import memo, review
from mtf_engine.release.card import card
from mtf_engine.runs import metrics
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.worker import Job
from mtf_engine.spec import Refusal, Spec, Threads
from mtf_engine.work.export import read_bundle
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

TRACKING_URI = "MLFLOW_TRACKING_URI"
MODEL = "multi-task-fusion"
SECONDS = 5.0
"""In which the server must answer at all, before anything is sent."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Of MLflow, by the environment: nothing is told to its makers, and a server that is gone is not asked for minutes."""
A_BATCH, A_VALUE, A_DESCRIPTION = 1_000, 6_000, 5_000
"""What MLflow takes: metrics of one request, characters of a setting and of a description."""


def _public(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError(
            "has a name or a password, which a run would keep; set MLFLOW_TRACKING_USERNAME and _PASSWORD"
        )
    return url


class MlflowConfig(Spec):
    """Log an export to an MLflow tracking server, and register its model there."""

    export_id: str
    policy: str
    tracking_uri: Annotated[HttpUrl, AfterValidator(_public)]
    model: str = Field(
        default=MODEL,
        pattern=r"^\w[\w .-]*$",
        max_length=200,
        description="name of the experiment and of the registered model",
    )
    n_threads: Threads = 1

    @property
    def server(self) -> str:
        return str(self.tracking_uri).rstrip("/")


def reached(
    tracking_uri: str | None, model: str = MODEL, export_id: str = "", policy: str = ""
) -> MlflowConfig:
    """Returns where an export is to be logged; a Refusal where MLflow is not installed or nobody answers there."""
    if not tracking_uri:
        raise Refusal(f"no MLflow server is named; give --tracking-uri URL, or set {TRACKING_URI}")
    asked = {"export_id": export_id, "policy": policy, "tracking_uri": tracking_uri, "model": model}
    config = MlflowConfig.asked("the MLflow target", asked)
    if find_spec("mlflow") is None:
        raise Refusal("this needs the package mlflow-skinny: pip install mlflow-skinny")
    try:
        urlopen(config.server, timeout=SECONDS).close()
    except HTTPError as error:
        error.close()  # somebody is there
    except (OSError, HTTPException, UnicodeError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise Refusal(
            f"{config.server} was not reached ({getattr(why, 'strerror', None) or why}); start the MLflow server, or "
            "name another: --tracking-uri URL"
        ) from None
    return config


def submit_mlflow(workspace: Workspace, export_id: str, tracking_uri: str | None, model: str = MODEL) -> str:
    """Returns the id of the run that logs a completed export to the MLflow server of that URL."""
    read_bundle(workspace, export_id)
    exported = workspace.registry.run(export_id)
    config = reached(tracking_uri, model, export_id, exported.config["run_id"])
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=exported.name,
        dataset_id=exported.dataset_id,
        algo=exported.algo,
    )


def alias(workspace: Workspace, policy: str, manifest: Mapping[str, Any]) -> str | None:
    """Returns the alias of an exported policy: `live`, `candidate`, or None; held in bounds it is another policy."""
    if manifest["clipped_to_bounds"]:
        return None
    if policy == workspace.live:
        return LIVE
    waiting = workspace.undecided(workspace.registry.runs(kind="progressive"))
    return CANDIDATE if policy == next((of for _, _, of in waiting), None) else None


def log_to_mlflow(job: Job, config: MlflowConfig) -> dict[str, Any]:
    """Logs an export as a run of MLflow and registers its model; one that was not logged whole is marked as failed."""
    workspace, exported = job.workspace, job.workspace.registry.run(config.export_id)
    bundle = read_bundle(workspace, config.export_id)
    manifest = (exported.result or {})["manifest"]
    trained = workspace.registry.run(run_of(config.policy)) if is_trained(config.policy) else None
    told, named = card(workspace, config.policy, manifest), alias(workspace, config.policy, manifest)
    with _client(config) as client:
        experiment_id, run_id = _begun(client, config, exported, trained, manifest, told)
        ended = "FAILED"
        try:
            settings = trained.config if trained else exported.config
            params = [_param(name, value) for name, value in settings.items()]
            client.log_batch(run_id, params=params)
            points = list(_points(workspace, trained, manifest))
            for first in range(0, len(points), A_BATCH):
                client.log_batch(run_id, metrics=points[first : first + A_BATCH])
            with TemporaryDirectory() as folder:
                for name, content in _files(workspace, config.policy, told, bundle).items():
                    (Path(folder) / name).write_bytes(content)
                client.log_artifacts(run_id, folder)
            version = _register(client, run_id, config.model, bundle, manifest)
            client.update_model_version(config.model, version, _cut(told))
            for tag, value in (("mtf.policy", config.policy), ("mtf.approved", manifest["approved"])):
                client.set_model_version_tag(config.model, version, tag, value)
            if named:
                client.set_registered_model_alias(config.model, named, version)
            ended = "FINISHED"
        finally:
            client.set_terminated(run_id, ended)
    url = f"{config.server}/#/experiments/{experiment_id}/runs/{run_id}"
    return {"mlflow_run": run_id, "url": url, "model": config.model, "version": version, "alias": named}


@contextmanager
def _client(config: MlflowConfig) -> Iterator["MlflowClient"]:
    """Yields a client of the server; what it cannot do is a Refusal that says why."""
    os.environ.update(SETTINGS)
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    mlflow.set_tracking_uri(config.server)  # what registers a model takes no other way
    mlflow.set_registry_uri(config.server)
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, RequestException) as error:
        raise Refusal(
            f"the MLflow server {config.server} did not take it: {str(error).splitlines()[0]}; look whether that is "
            "the address of a tracking server, and at its log"
        ) from error


def _begun(
    client: "MlflowClient",
    config: MlflowConfig,
    exported: RunRow,
    trained: RunRow | None,
    manifest: Mapping[str, Any],
    told: str,
) -> tuple[str, str]:
    """Returns the ids of the experiment and of the new run in it, with its tags and the card as its description."""
    experiment = client.get_experiment_by_name(config.model)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(config.model)
    origin, one = manifest["origin"], trained or exported
    tags = {
        "mtf.version": __version__,
        "mtf.policy": config.policy,
        "mtf.export": exported.id,
        "mtf.dataset": str(origin.get("dataset_id", "")),
        "mtf.dataset_hash": str(origin.get("dataset_hash", "")),
        "mlflow.note.content": _cut(told),
    }
    began = _milliseconds(one.started_at or one.created_at)
    name = " ".join(part for part in (exported.name, config.policy) if part)
    return experiment_id, client.create_run(experiment_id, began, tags, name).info.run_id


def _param(name: str, value: Any) -> Any:
    from mlflow.entities import Param

    return Param(name, str(value)[:A_VALUE])


def _points(workspace: Workspace, trained: RunRow | None, manifest: Mapping[str, Any]) -> Iterator[Any]:
    """Yields every logged number of the training at its step, and the scores that the bundle tells, as metrics."""
    from mlflow.entities import Metric

    for row in metrics.read(workspace.run_dir(trained.id)) if trained else ():
        start = _milliseconds(trained.started_at or trained.created_at) if trained else 0
        at = start + round(1_000 * row.get("seconds", 0))
        for name in row.keys() - {"step", "seconds"}:
            if row[name] is not None:
                yield Metric(name, float(row[name]), at, int(row["step"]))
    for score in (manifest["evaluation"] or {"evaluations": ()})["evaluations"]:
        for name in ("weighted_gauc", "ci_low", "ci_high"):
            if score[name] is not None:
                yield Metric(f"{score['dataset_id']}/{name}", float(score[name]), _milliseconds(now()), 0)


def _files(workspace: Workspace, policy: str, told: str, bundle: bytes) -> dict[str, bytes]:
    """Returns what lies beside the model, by name: bundle, card, and the memo of the round it is the candidate of."""
    found = {"policy.zip": bundle, "card.md": told.encode()}
    for run in workspace.registry.runs(kind="progressive"):
        for one in (run.result or {}).get("rounds", ()):
            if one["candidate"] == policy:
                case, row = review.decided_case(workspace, run.id, one["number"])
                return {
                    **found,
                    "memo.md": memo.markdown(case, row).encode(),
                    "memo.html": memo.html(case, row).encode(),
                }
    return found


def _register(
    client: "MlflowClient", run_id: str, model: str, bundle: bytes, manifest: Mapping[str, Any]
) -> str:
    """Returns the version under which the bundle's graph is registered: scores.onnx, or policy.onnx alone."""
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import Model

    with zipfile.ZipFile(io.BytesIO(bundle)) as file:
        graph = "scores" if "scores.onnx" in file.namelist() else "policy"
        content = file.read(f"{graph}.onnx")
    info = Model.log(
        None,
        mlflow.onnx,
        registered_model_name=model,
        run_id=run_id,
        name=graph,
        onnx_model=onnx.load_from_string(content),
        signature=_signature(graph, manifest),
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],
        pip_requirements=[f"{package.__name__}=={package.__version__}" for package in (onnx, onnxruntime)],
    )
    return str(info.registered_model_version)


def _signature(graph: str, manifest: Mapping[str, Any]) -> "ModelSignature":
    """Returns names, types and shapes of what a graph takes and gives; -1 is any number of requests or candidates."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32, fusion = np.dtype("float32"), manifest["fusion"]
    inputs = [TensorSpec(float32, (-1, len(manifest["features"])), "observations")]
    by_item = "item_features" in manifest["inputs"]
    if graph == "policy":
        each = (-1, -1) if by_item else (-1,)
        outputs = [TensorSpec(float32, (*each, len(fusion["dimensions"])), "actions")]
    else:
        inputs.append(TensorSpec(float32, (-1, -1, len(fusion["predictions"])), "predictions"))
        outputs = [TensorSpec(float32, (-1, -1), "log_final_scores")]
    if by_item:
        inputs.append(TensorSpec(float32, (-1, -1, len(manifest["item_features"])), "item_features"))
    return ModelSignature(Schema(inputs), Schema(outputs))


def _cut(text: str) -> str:
    """Returns `text` as long as MLflow takes a description."""
    more = "\n\nThe rest is in card.md."
    return text if len(text) <= A_DESCRIPTION else text[: A_DESCRIPTION - len(more)] + more


def _milliseconds(at: datetime) -> int:
    return round(1_000 * at.timestamp())


KIND = RunKind("mlflow", MlflowConfig, log_to_mlflow)
