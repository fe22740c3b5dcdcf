"""A run's metrics as TensorBoard event files, for those who read curves there."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from mtf_engine.registry import RunRow
from mtf_engine.runs import metrics
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

NOT_SCALARS = ("step", "seconds")
EVENTS = "events.out.tfevents.0.mtf_engine"
"""The one file of a run; a fixed name, so that exporting again replaces it."""


def export(workspace: Workspace, run_id: str, to: Path) -> tuple[Path, int]:
    """Returns the event file written to `to`/`run_id`, and how many points it holds; settings are its text.

    A row's wall time is the run's start and the seconds it had trained by then. A run without metrics is
    refused.
    """
    run = workspace.registry.run(run_id)
    rows = metrics.read(workspace.run_dir(run_id))
    if not rows:
        raise Refusal(
            f"{run_id} has no metrics; only a training that has begun can be exported to TensorBoard"
        )
    points = list(_points(rows))
    path = to / run_id / EVENTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _write(Path(folder), run, points)
        (written,) = Path(folder).iterdir()
        written.replace(path)
    return path, len(points)


def _points(rows: list[dict[str, float]]) -> Iterator[tuple[str, float, int, float]]:
    """Yields name, value, step and seconds of every logged number."""
    for row in rows:
        for name in row.keys() - NOT_SCALARS:
            yield name, row[name], int(row["step"]), row.get("seconds", 0.0)


def _write(folder: Path, run: RunRow, points: list[tuple[str, float, int, float]]) -> None:
    from tensorboardX import SummaryWriter

    start = (run.started_at or run.created_at).timestamp()
    settings = "\n".join(f"| {name} | {value} |" for name, value in run.config.items())
    with SummaryWriter(str(folder), write_to_disk=True) as writer:
        writer.add_text("settings", f"| setting | value |\n|---|---|\n{settings}", 0, start)
        for name, value, step, seconds in sorted(points, key=lambda point: (point[2], point[0])):
            writer.add_scalar(name, value, step, start + seconds)
