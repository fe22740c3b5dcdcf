"""Workers that need not load: copies of a process that has loaded what they need.

A worker takes seconds of processor time to load torch and the engine, its copy none. So a process that starts workers
again and again, as a dashboard does, keeps a nursery: one process, loaded once, that is forked for each, also where
one of those workers is who asks. It opens nothing and starts no thread; it ends with whoever keeps it, and the workers
live on.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from select import select
from tempfile import mkdtemp
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NURSERY = "MTF_NURSERY"
"""Environment variable with the place of the nursery that this process was born by."""
READ_AT_LOAD = ("LD_", "MALLOC_", "MKL_", "MTF_WORKERS", "OMP_", "OPENBLAS_", "PYTHON", "TORCH_")
"""Beginnings of the variables that libraries read as they load: a copy has those of the process it is a copy of."""
DECLINED = 0
"""In place of a pid: the nursery has not loaded yet, or otherwise, or has ended."""


class Asked(NamedTuple):
    """The worker that is asked for."""

    workspace: str
    run_id: str
    environment: dict[str, str]


class Outliving(subprocess.Popen[bytes]):
    """A child that is meant to outlive this process: leaving it running is no mistake to warn of."""

    def __del__(self) -> None:
        pass


class Nursery:
    """A process that bears workers for whoever knows its `place`. It ends with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.place = str(Path(mkdtemp(prefix="mtf-")) / "nursery")  # of this user alone
        ends, self._kept = os.pipe()
        self.process = Outliving(
            [sys.executable, "-m", "mtf_engine", "nursery", self.place],
            cwd=ROOT,
            env={**environment, NURSERY: self.place},
            stdin=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ends)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


class Workers:
    """The workers that a process starts. The number of each one's lock is in its environment by the name `held_by`."""

    def __init__(self, held_by: str) -> None:
        self.children: list[Outliving] = []
        """Those that are not reaped yet, so that a dashboard leaves no zombies."""
        self._held_by = held_by
        self._nursery: Nursery | None = None
        self._loaded: dict[str, str] | None = None

    def reap(self) -> None:
        """Forgets the children that have ended."""
        self.children[:] = [child for child in self.children if child.poll() is None]

    def start(self, worker: Asked, output: int, held: int) -> int | None:
        """Returns the pid of a new worker, which writes to the descriptor `output` and holds the lock `held`.

        A nursery bears it, that of this process or the one that bore this process. Where there is none it loads by
        itself, and the second one that does so is reason for a nursery. None where the nursery ended meanwhile: then
        a worker lives if the lock is held.
        """
        place = self._nursery.place if self._nursery else os.environ.get(NURSERY)
        if place and (pid := ask(place, worker, output, held)) != DECLINED:
            return pid
        child = Outliving(
            [sys.executable, "-m", "mtf_engine", "--workspace", worker.workspace, "run-job", worker.run_id],
            cwd=ROOT,
            env=worker.environment | {self._held_by: str(held)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[held],
            start_new_session=True,
        )
        self.children.append(child)
        before, self._loaded = self._loaded, read_at_load(worker.environment)
        if before == self._loaded and (self._nursery is None or self._nursery.has_ended):
            self._nursery = Nursery(worker.environment)
        return child.pid


def read_at_load(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of an environment that count as libraries load."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_LOAD)}


def ask(place: str, worker: Asked, output: int, held: int) -> int | None:
    """Returns the pid of the worker that the nursery at `place` bore, or `DECLINED`; None where it ended meanwhile."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(place)
        except OSError:
            return DECLINED
        asked = json.dumps(worker).encode() + b"\n"
        try:
            socket.send_fds(asking, [asked[:1]], [output, held])
            asking.sendall(asked[1:])
            told = asking.makefile().readline()
        except OSError:
            return None
    return int(told) if told else None


def serve(place: str, load: Callable[[], None], held_by: str) -> Asked | None:
    """Loads, then forks whenever a worker is asked for at `place`; returns in each worker what it is to do.

    The number of its lock's descriptor is in its environment by the name `held_by`. Returns None in the nursery
    itself, once standard input ends with whoever keeps it.
    """
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone
    own = read_at_load(os.environ)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        while sys.stdin not in select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            with asking:
                first, descriptors, _, _ = socket.recv_fds(asking, 1, 2)
                if not first:
                    continue
                worker = Asked(*json.loads(first + asking.makefile("rb").readline()))
                pid = DECLINED
                if read_at_load(worker.environment) == own and not (pid := os.fork()):
                    listening.close()
                    output, held = descriptors
                    return _become(worker, output, {held_by: str(held), NURSERY: place})
                for descriptor in descriptors:
                    os.close(descriptor)
                asking.sendall(f"{pid}\n".encode())
    shutil.rmtree(Path(place).parent)
    return None


def _become(worker: Asked, output: int, besides: Mapping[str, str]) -> Asked:
    """Makes this copy what a process of its own would be: its session, output and environment, and `besides`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update({**worker.environment, **besides})
    return worker
