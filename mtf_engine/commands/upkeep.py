"""`density`, `doctor`, `dashboard`, `demo`, and the hidden `run-job` and `nursery`."""

from pathlib import Path
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import DEFAULT_WORLD, World

app = typer.Typer()


@command(app, "density --half-width 0.15 --sigma 0.2")
def density(
    shell: Session,
    half_width: Annotated[float, typer.Option(help="Half width of the uniform box.")] = 0.15,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian noise.")] = 0.2,
    dims: Annotated[int, typer.Option(help="Dimensions of the action.")] = 10,
    random_share: Annotated[
        float, typer.Option(help="Share of requests drawn at random: above 0, mixed exploration.")
    ] = 0.0,
    random_sigma: Annotated[float, typer.Option(help="Standard deviation of those draws.")] = 0.5,
) -> None:
    """Tell how many samples Gaussian noise, or a mixture, needs for one of uniform exploration, by definition."""
    from mtf_engine.exploration import density_efficiency
    from mtf_engine.exploration.mixture import Mixture

    parts = {"sigma": sigma, "random_share": random_share, "random_sigma": random_sigma}
    mixture = Mixture.asked("the mixture", parts) if random_share else None
    shell.show(density_efficiency(half_width, sigma, dims, mixture=mixture))


@command(app, "doctor")
def doctor(
    shell: Session,
    mend: Annotated[
        bool, typer.Option("--repair", help="Make a damaged registry anew; what was is kept.")
    ] = False,
) -> None:
    """Read every file and name what is damaged or lost, files without a row, and the versions at work.

    It ends with 1 where the registry, a run or a dataset is damaged. A registry is made anew from its newest whole
    backup, of which there is one a day, and from the folders of runs and logs.
    """
    from mtf_engine.runs.doctor import examine
    from mtf_engine.runs.repair import repair

    if mend:
        shell.show(repair(shell.path))
        return
    found = examine(shell.workspace)
    shell.show(found)
    if found["damaged"] or found["ledger_mismatches"]:
        raise typer.Exit(1)


@command(app, "dashboard --port 8501")
def dashboard(
    shell: Session,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8501,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
    host_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer requests to this host too: a proxy's. Several times."),
    ] = None,
    login: Annotated[
        Path | None,
        typer.Option(
            envvar="MTF_LOGIN", metavar="FILE", help="Who may come in, and as what: docs/deploy.md."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let whoever reaches it start, delete and decide in any name."),
    ] = False,
) -> None:
    """Serve the dashboard of the workspace.

    Requests to a host other than localhost and --host-name get 400. Where others than this machine reach it
    (STREAMLIT_SERVER_ADDRESS), it asks who they are by --login, or is refused.
    """
    from mtf_engine.dashboard import main

    main(shell.workspace.path, port, headless, host_name or (), login, insecure)


@command(app, "--workspace data/demo demo")
def demo(shell: Session, world: World = None) -> None:
    """Fill the workspace with a demonstration: logs, two trained policies and their comparison."""
    from mtf_engine.commands.demo import fill

    shell.show(fill(shell.workspace, world or DEFAULT_WORLD))


@command(app, "run-job train-1f00ba77", hidden=True)
def run_job(shell: Session, run_id: str) -> None:
    """Be the worker of a run."""
    from mtf_engine.runs import worker
    from mtf_engine.work import kinds
    from mtf_engine.workspace import Workspace

    worker.run_job(Workspace(shell.path), run_id, kinds())


@command(app, "nursery /tmp/mtf-1f00ba77/nursery", hidden=True)
def nursery(shell: Session, place: str) -> None:
    """Be the process that workers are copies of, each asked for at a socket, until standard input ends."""
    from mtf_engine.disk import keep_private
    from mtf_engine.runs import worker
    from mtf_engine.runs.executor import LOCK_DESCRIPTOR
    from mtf_engine.runs.nursery import serve
    from mtf_engine.runs.provenance import is_as_loaded
    from mtf_engine.work import kinds, load
    from mtf_engine.workspace import Workspace

    if asked := serve(place, load, is_as_loaded, LOCK_DESCRIPTOR):
        keep_private(Path(asked.workspace))
        worker.run_job(Workspace(asked.workspace), asked.run_id, kinds())
