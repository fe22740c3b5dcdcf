"""`serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mtf_engine.commands.datasets import Exploration
from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import Bounds, Seed
from mtf_engine.spec import BoundsPlan, Refusal

NEEDED = ("fastapi", "uvicorn", "prometheus_client")

app = typer.Typer()


@command(app, "serve policy.zip --explore uniform --log served --port 8502")
def serve(
    shell: Session,
    bundle: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle.")],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8502,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at.")] = "127.0.0.1",
    explore: Annotated[
        Exploration, typer.Option(help="How actions are drawn around the bundle's own; baseline: not at all.")
    ] = Exploration.BASELINE,
    bounds: Bounds = None,
    sigma: Annotated[float, typer.Option(help="Standard deviation of Gaussian exploration.")] = 0.2,
    control_share: Annotated[float, typer.Option(help="Share of users kept at the bundle's action.")] = 0.1,
    seed: Seed = 0,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Log what is served, and its feedback, as `dataset import` reads it; goes on with one.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of onnxruntime, 1 to 64.")] = 1,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen where others reach it, who then may ask and write the log."),
    ] = False,
) -> None:
    """Serve a bundle by HTTP, for tests and staging: scores, exploration with logged propensity, health, metrics.

    POST /score and /feedback, GET /health and /metrics: docs/serving.md. Without --bounds it explores in the bundle's
    own: those of the log that it learned from. A bundle that is held in bounds carries no baseline to hold them
    around, so it explores only in --bounds, around what it serves. It is no production server.
    """
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise Refusal(
            f"serving needs {', '.join(lacking)}, which is not installed; `pip install 'mtf_engine[serve]'`"
        )
    from mtf_engine.serving.log import ServedLog, mapping_of
    from mtf_engine.serving.scoring import Exploring, ServedBundle
    from mtf_engine.serving.server import refuse_place
    from mtf_engine.serving.server import serve as serve_until_stopped
    from mtf_engine.serving.service import Service

    if not 0 <= control_share <= 1:
        raise Refusal(f"--control-share is {control_share:g}; give 0 to 1")
    if bounds and explore is Exploration.BASELINE:
        raise Refusal(f"--bounds {bounds} says nothing of --explore baseline; leave it out, or explore")
    if sigma <= 0:
        raise Refusal(f"--sigma is {sigma:g}; give a number above 0")
    if not 1 <= threads <= 64:
        raise Refusal(f"--threads is {threads}; give 1 to 64")
    refuse_place(host, port, insecure)
    served = ServedBundle(bundle, threads)
    plan = _plan(shell, bounds) if bounds else None
    exploring = Exploring.of(served, explore.value, plan, sigma=sigma, control_share=control_share, seed=seed)
    mapping = mapping_of(served.fusion, served.features, served.manifest["standardised"], exploring.kind)
    service = Service(served, exploring, ServedLog(log, mapping) if log else None)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    shell.show({"url": url, **{k: service.health()[k] for k in ("bundle", "approved", "explore", "log")}})
    serve_until_stopped(service, host, port)


def _plan(shell: Session, name_or_file: str) -> BoundsPlan:
    """Returns the plan in a YAML file, for which no workspace is opened, or else the one stored under that name."""
    path = Path(name_or_file)
    return BoundsPlan.from_yaml(path.read_bytes()) if path.is_file() else shell.workspace.plan(name_or_file)
