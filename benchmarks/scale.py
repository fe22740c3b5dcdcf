"""Collection, import, evaluation, training and signal as logs grow, by one process and by several: seconds, memory.

    python benchmarks/scale.py [--sessions 10000 40000] [--longest 160000] [--workers 1 2] [--repeats 1] [--write]

Each is the run that the command line starts, in a workspace of its own; its seconds are the registry's, or those of the
command where that works itself, as for the signal. Runs by 1 and
by several processes alternate, and the fastest of the repeats counts. On a machine that others use too, what tells more
than seconds is the processor time of all its processes, and of the busiest: an idle machine with a core for each needs
little more than the latter. Peak memory is what all processes of a run hold at once that the machine cannot take back
(Linux's RssAnon); pages of mapped files, which it can, are told apart (RssFile). With `--write` the table goes into
docs/scale.md.

Imports and trainings are done by one process. A training is 500 steps of IntegratedRL-MTF's `laptop` preset, 24
critics, on a log that explores uniformly; its rows, and those of the signal of that log, are requests, those of the
others impressions. The last
paragraph is arithmetic on the table: what the paper's 6.8 million sessions and 300,000 steps would take.

The signal of a log of less than a million requests is told by one process, whatever it is asked for.

Exits with 1 where a log or a result by several processes is not, bit for bit, that of one.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.logs.aggregates import signal_path
from mtf_engine.logs.exporting import export_log
from mtf_engine.registry import DatasetRow, RunRow
from mtf_engine.runs import executor, files
from mtf_engine.runs.storage import open_dataset
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

PAGE = Path(__file__).parent.parent / "docs/scale.md"
START, END = "<!-- scale: written by benchmarks/scale.py --write -->", "<!-- end of scale -->"
HEAD = "| work | sessions | rows | processes | seconds | rows a second | CPU s | busiest CPU s | peak MiB | of files |"
POLICIES = ("baseline", "head:click", "head:like", "random:1")
SECONDS_BETWEEN_LOOKS = 0.05
STEPS = 500
PAPER_SESSIONS, PAPER_STEPS, NODES = 6_800_000, 300_000, 10


@dataclass(frozen=True)
class Cost:
    """What a run took; `result` is a hash of what came out."""

    seconds: float
    cpu: float
    busiest: float
    peak_mb: float
    files_mb: float
    n_rows: int
    result: str


@dataclass(frozen=True)
class AtWork:
    """What was started: its process for as long as it works, and what tells of it once it has ended."""

    pids: Iterator[int | None]
    ended: Callable[[], tuple[float, int, str]]
    """Returns the seconds that it took, how many rows it had, and a hash of its result."""


Told = Callable[[RunRow], tuple[int, str]]
"""Returns how many rows a completed run had, and a hash of its result."""
Work = Callable[[Workspace, int, int], AtWork]
"""Starts what is measured, for so many sessions by so many processes."""


def of_run(workspace: Workspace, run_id: str, told: Told) -> AtWork:
    """Returns a run that was started."""

    def ended() -> tuple[float, int, str]:
        run = executor.completed(workspace, workspace.registry.run(run_id))
        return run.seconds or 0.0, *told(run)

    pids = (run.pid for (run,) in executor.watch(workspace, run_id, poll_seconds=0.0))
    return AtWork(pids, ended)


def collection(workspace: Workspace, n_sessions: int, n_workers: int) -> AtWork:
    """Collects a baseline log of `n_sessions`, which is test rows alone; rows are its impressions."""
    run_id = submit_collect(
        workspace, env="session:feed", explore="baseline", n_sessions=n_sessions, seed=1, n_workers=n_workers,
        name=f"{n_sessions} by {n_workers}",
    )  # fmt: skip

    def told(run: RunRow) -> tuple[int, str]:
        row = workspace.dataset(str(run.dataset_id))
        return row.n_impressions, row.content_hash

    return of_run(workspace, run_id, told)


def _newest(workspace: Workspace, name: str) -> DatasetRow:
    """Returns the newest log whose name begins so."""
    logs = (row for row in workspace.registry.datasets() if row.name.startswith(name))
    return max(logs, key=lambda row: row.created_at)


def evaluation(workspace: Workspace, n_sessions: int, n_workers: int) -> AtWork:
    """Evaluates POLICIES on the newest log of `n_sessions`."""
    log = _newest(workspace, f"{n_sessions} by")
    run_id = submit_evaluate(workspace, POLICIES, log.id, floors=False, n_workers=n_workers)

    def told(run: RunRow) -> tuple[int, str]:
        content = (workspace.run_dir(run.id) / files.EVALUATION).read_bytes()
        return log.n_impressions, hashlib.sha256(content.replace(log.id.encode(), b"")).hexdigest()

    return of_run(workspace, run_id, told)


def importing(workspace: Workspace, n_sessions: int, n_workers: int) -> AtWork:
    """Imports the newest log of `n_sessions`, written to Parquet before."""
    log = _newest(workspace, f"{n_sessions} by")
    folder = workspace.path / log.id
    export_log(open_dataset(workspace, log.id), "parquet", folder)
    run_id = submit_import(workspace, folder, mapping=folder / "mapping.yaml", name=f"imported {n_sessions}")

    def told(run: RunRow) -> tuple[int, str]:
        row = workspace.dataset(str(run.dataset_id))
        return row.n_impressions, row.content_hash

    return of_run(workspace, run_id, told)


def training(workspace: Workspace, n_sessions: int, n_workers: int) -> AtWork:
    """Trains on a log of `n_sessions` that is collected for it."""
    explored = submit_collect(
        workspace, env="session:feed", explore="uniform", n_sessions=n_sessions, seed=2, name=f"{n_sessions} explored"
    )  # fmt: skip
    log = executor.completed(workspace, executor.wait(workspace, explored)).dataset_id
    run_id = submit_train(
        workspace, str(log), algo="integrated_rl", preset="laptop", settings={"n_steps": str(STEPS)}, seed=0
    )

    def told(run: RunRow) -> tuple[int, str]:
        return workspace.dataset(str(log)).n_requests, str((run.result or {})["transitions"])

    return of_run(workspace, run_id, told)


def signal(workspace: Workspace, n_sessions: int, n_workers: int) -> AtWork:
    """Tells the signal of the log that a training of `n_sessions` was on."""
    log = _newest(workspace, f"{n_sessions} explored")
    signal_path(workspace.dataset_path(log.id)).unlink(missing_ok=True)  # that of the processes before
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "mtf_engine",
        "--workspace",
        str(workspace.path),
        "dataset",
        "signal",
        log.id,
    ]
    process = psutil.Popen([*command, "--workers", str(n_workers), "--json"], stdout=subprocess.PIPE)

    def pids() -> Iterator[int | None]:
        while process.poll() is None:
            yield process.pid

    def ended() -> tuple[float, int, str]:
        seconds = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return seconds, log.n_requests, hashlib.sha256(process.stdout.read()).hexdigest()

    return AtWork(pids(), ended)


WORKS: dict[str, Work] = {
    "collect": collection, "import": importing, "evaluate": evaluation, "train": training, "signal": signal
}  # fmt: skip
FLAT = ("collect", "import", "evaluate")
"""What is done with the longest log, too: a training's rows are a map that the machine takes back."""
BY_ONE = ("import", "train")
"""What several processes do not do faster."""


def measured(start: Callable[[], AtWork]) -> Cost:
    """Returns what was started took, all its processes together."""
    work = start()
    cpu: dict[int, float] = {}
    peak = files_peak = 0.0
    for pid in work.pids:
        held = mapped = 0.0
        for process in _processes(pid):
            with suppress(psutil.Error, OSError):
                spent = process.cpu_times()
                cpu[process.pid] = spent.user + spent.system
                anonymous, of_files = _held_mb(process.pid)
                held, mapped = held + anonymous, mapped + of_files
        peak, files_peak = max(peak, held), max(files_peak, mapped)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    seconds, n_rows, result = work.ended()
    spent = list(cpu.values())
    return Cost(seconds, sum(spent), max(spent, default=0.0), peak, files_peak, n_rows, result)


def _processes(pid: int | None) -> Iterator[psutil.Process]:
    with suppress(psutil.Error):
        worker = psutil.Process(pid)
        yield from (worker, *worker.children(recursive=True))


def _held_mb(pid: int) -> tuple[float, float]:
    """Returns the MiB of a process that are its own, and those that are pages of files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    held = {
        name: int(rest.split()[0]) / 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if name.startswith("Rss")
    }
    return held.get("RssAnon", 0.0), held.get("RssFile", 0.0)  # one that ends has neither


def main(folder: Path, options: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    workspace, lines, same = Workspace(folder), [HEAD, f"|---{'|--:' * 9}|"], True
    found: dict[tuple[str, int, int], Cost] = {}
    print("\n".join(lines))
    asked = [(n, name) for n in options.sessions for name in WORKS]
    asked += [(options.longest, name) for name in FLAT if options.longest]
    for n_sessions, name in asked:
        work = WORKS[name]
        workers = [1] if name in BY_ONE or n_sessions == options.longest else sorted({1, *options.workers})
        for n_workers in workers * options.repeats:
            cost = measured(partial(work, workspace, n_sessions, n_workers))
            found.setdefault((name, n_sessions, n_workers), cost)
            best = min(found[name, n_sessions, n_workers], cost, key=lambda cost: cost.seconds)
            found[name, n_sessions, n_workers] = best
        costs = {n: found[name, n_sessions, n] for n in workers}
        same &= len({cost.result for cost in costs.values()}) == 1
        for n, cost in costs.items():
            lines.append(_line(name, n_sessions, n, cost))
            print(lines[-1], flush=True)
    lines += ["", *_slopes(found), "", *_paper(found)]
    print("\n".join(lines[-4:]))
    if options.write:
        table = "\n".join(lines)
        before, _, rest = PAGE.read_text().partition(START)
        PAGE.write_text(f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}")
    return not same


def _line(name: str, n_sessions: int, n_workers: int, cost: Cost) -> str:
    cells = (
        name, f"{n_sessions:,}", f"{cost.n_rows:,}", n_workers, f"{cost.seconds:.1f}",
        f"{cost.n_rows / cost.seconds:,.0f}", f"{cost.cpu:.1f}", f"{cost.busiest:.1f}", f"{cost.peak_mb:,.0f}",
        f"{cost.files_mb:,.0f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _slopes(found: dict[tuple[str, int, int], Cost]) -> Iterator[str]:
    """Yields by how much memory and processor time of each work grow with the rows, between the two largest sizes."""
    told = []
    for name, n_workers in dict.fromkeys((name, n_workers) for name, _, n_workers in found):
        costs = [cost for (of, _, n), cost in found.items() if (of, n) == (name, n_workers)]
        *_, low, high = sorted([costs[0], *costs], key=lambda cost: cost.n_rows)
        if high.n_rows > low.n_rows:
            millions = (high.n_rows - low.n_rows) / 1e6
            cpu, memory = (high.cpu - low.cpu) / millions, (high.peak_mb - low.peak_mb) / millions
            told.append(f"{name} by {n_workers}: {cpu:.1f} CPU seconds and {memory:.0f} MiB")
    yield (
        f"Beyond the second largest size, a million rows more take {'; '.join(told)}."
        if told
        else "One size alone tells no slope."
    )


def _memory_by(found: dict[tuple[str, int, int], Cost], name: str, n_sessions: int) -> float:
    """Returns the MiB of a work by one process if memory grew with the sessions as it did, 0 of one size alone."""
    costs = {n: cost.peak_mb for (of, n, n_workers), cost in found.items() if (of, n_workers) == (name, 1)}
    *_, low, high = sorted([min(costs), *costs])
    if low == high:
        return 0.0
    return costs[high] + max(costs[high] - costs[low], 0) / (high - low) * (n_sessions - high)


def _paper(found: dict[tuple[str, int, int], Cost]) -> Iterator[str]:
    """Yields what the paper's sessions and steps would take by the figures of each work's largest size, on paper."""
    largest = {name: n_sessions for name, n_sessions, _ in sorted(found)}
    hours = {
        name: found[name, most, 1].seconds * PAPER_SESSIONS / most / 3600
        for name, most in largest.items()
        if name in FLAT
    }
    step = min(cost.seconds for (name, _, _), cost in found.items() if name == "train") / STEPS
    parts = ", ".join(f"{name} {value:.1f}" for name, value in hours.items())
    held = {name: _memory_by(found, name, PAPER_SESSIONS) for name in hours}
    memory = ", ".join(f"{name} {value / 1024:.0f}" for name, value in held.items() if value)
    yield (
        f"On paper, by the rates of each work's largest size: {PAPER_SESSIONS:,} sessions take one process {parts} "
        f"hours, and {PAPER_STEPS:,} steps {PAPER_STEPS * step / 3600:.1f} hours at {1000 * step:.0f} ms, those of "
        f"the shortest training with its start. {NODES} such machines with 2 cores collect and evaluate in a "
        "twentieth of these hours at best, "
        f"where nobody waits for the one that writes, and train {2 * NODES} seeds or methods in the time of one; one "
        "training is not divided. A GPU was not measured: it shortens the steps alone. If memory went on growing as "
        f"between its two largest sizes, one process would hold {memory} GiB."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--longest", type=int, help="sessions collected, imported and evaluated by one process, too"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md, too")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(folder), parser.parse_args()))
