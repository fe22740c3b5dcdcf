"""Memory, descriptors and threads of one process that does the same again and again: they do not grow.

    python benchmarks/slopes.py epochs [--times 300] [--as-worker]
    python benchmarks/slopes.py imports [--times 50]

An epoch is ten steps of a training with a row of metrics, a checkpoint and a validation; an import is one of a log of
144 requests, with the deletion of its dataset and its run. What the first WARM of them load is no growth. Memory is
what malloc holds for the process, Python's objects too; what is resident beside it comes and goes by MiB, as the
allocators keep what was freed: `--as-worker` tells it as it is in a worker. A slope is that of a line through all that
was measured. Exits with 1 where it is more than 1 MiB a hundred, or where descriptors or threads were added.
`benchmarks/load.py --reruns` is about the dashboard.
"""

import argparse
import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.load import footprint
from mtf_engine.registry import RunRow
from mtf_engine.runs import executor, files, metrics, worker
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.work import kinds
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.train import validation_on
from mtf_engine.workspace import Workspace
from tests.fixtures.logs import clean, write

WARM = 20
STEPS = 10


def imports(folder: Path) -> Iterator[None]:
    """Imports a log and deletes it, again and again."""
    workspace, log = Workspace(folder / "workspace"), write(clean(n_users=24), folder / "log")
    while True:
        run_id = _imported(workspace, log)
        workspace.delete_dataset(str(workspace.registry.run(run_id).dataset_id))
        workspace.delete_runs(run_id)
        yield


def epochs(folder: Path) -> Iterator[None]:
    """Trains, ten steps at a time."""
    from mtf_engine.algos import ALGOS
    from mtf_engine.learning.training import fit, make_config

    workspace, log = Workspace(folder / "workspace"), write(clean(n_users=24), folder / "log")
    dataset = open_dataset(workspace, str(workspace.registry.run(_imported(workspace, log)).dataset_id))
    often = {f"{name}_every": str(STEPS) for name in ("log", "checkpoint", "validate")}
    config = make_config("integrated_rl", "laptop", {"n_steps": str(1 << 30), **often}, seed=0)
    baseline = open_policy(workspace, dataset.meta.baseline, dataset.meta)
    algo = ALGOS["integrated_rl"](config, dataset.transitions(), baseline)
    validation, _ = validation_on(dataset)
    assert validation is not None
    with closing(fit(algo, dataset.transitions(), folder / files.CHECKPOINT, validation)) as rows:
        for row in rows:
            metrics.append(folder, row)
            yield


def _imported(workspace: Workspace, log: Path) -> str:
    run_id = submit_import(workspace, log, mapping=log / "mapping.yaml")
    with redirect_stdout(sys.stderr):
        executor.completed(workspace, _worked_on(workspace, run_id))
    return run_id


def _worked_on(workspace: Workspace, run_id: str) -> RunRow:
    worker.run_job(workspace, run_id, kinds())
    return workspace.registry.run(run_id)


REPEATED: dict[str, Callable[[Path], Iterator[None]]] = {"epochs": epochs, "imports": imports}


class _Mallinfo(ctypes.Structure):
    """What glibc tells of its heap, as mallinfo2(3) has it."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "mapped",
            "usmblks",
            "fsmblks",
            "held",
            "free",
            "keepcost",
        )
    ]


def held() -> float:
    """Returns the MiB that malloc holds for this process."""
    gc.collect()
    ask = ctypes.CDLL("libc.so.6").mallinfo2
    ask.restype = _Mallinfo
    told = ask()
    return (told.held + told.mapped) / (1 << 20)


def measured(what: str, times: int) -> np.ndarray:
    """Returns MiB held and resident, descriptors and threads after each [times + 1, 4], from the last warm one on."""
    executor.MAX_WORKING = 0  # this process is the worker
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, closing(REPEATED[what](Path(folder))) as repeated:
        for _ in range(WARM):
            next(repeated)
        told = [(held(), *footprint(process))]
        for _ in range(times):
            next(repeated)
            told.append((held(), *footprint(process)))
    return np.array(told, float)


def main() -> int:
    """Prints the slopes; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=REPEATED)
    parser.add_argument("--times", type=int)
    parser.add_argument(
        "--as-worker", action="store_true", help="with a worker's allocators, for what is resident"
    )
    asked = parser.parse_args()
    wanted = executor._environment(1) if asked.as_worker else {"PYTHONMALLOC": "malloc"}
    if not wanted.items() <= os.environ.items():  # which must stand before Python begins
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    found = measured(asked.what, asked.times or {"epochs": 300, "imports": 50}[asked.what])
    times = np.arange(len(found))
    slope, resident = (100 * np.polyfit(times, column, 1)[0] for column in found.T[:2])
    descriptors, threads = found[-1, 2:] - found[0, 2:]
    print(
        f"{len(found) - 1} {asked.what}: memory {slope:+.2f} MiB a hundred, resident {resident:+.2f} "
        f"({found[0, 1]:.0f} to {found[-1, 1]:.0f} MiB), descriptors {descriptors:+.0f}, threads {threads:+.0f}"
    )
    return int(slope > 1 or descriptors > 0 or threads > 0)


if __name__ == "__main__":
    sys.exit(main())
