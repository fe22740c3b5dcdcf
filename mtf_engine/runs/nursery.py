"""Workers that need not load: copies of a process that has loaded what they need.

A worker takes seconds of processor time to load torch and the engine, its copy none. So a process that starts workers
again and again, as a dashboard does, keeps a nursery: one process, loaded once, that is forked for each. It has opened
nothing and started no thread; it ends with whoever keeps it, and the workers live on.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from select import select
from threading import Lock
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
READ_AT_LOAD = ("LD_", "MALLOC_", "MKL_", "MTF_WORKERS", "OMP_", "OPENBLAS_", "PYTHON", "TORCH_")
"""Beginnings of the variables that libraries read as they load: a copy has those of the process it is a copy of."""


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
    """A process that bears workers, and the way to ask it. It ends with this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = read_at_load(environment)
        self._socket, theirs = socket.socketpair()
        atexit.register(self._socket.close)
        self._asking, self._loaded = Lock(), False
        with theirs:
            self.process = Outliving(
                [sys.executable, "-m", "mtf_engine", "nursery"],
                cwd=ROOT,
                env=dict(environment),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Returns whether it has loaded, and as a worker with this environment would have."""
        if not self._loaded and select([self._socket], [], [], 0)[0]:
            self._loaded = bool(self._socket.recv(1))
        return self._loaded and not self.has_ended and read_at_load(environment) == self._environment

    def bear(self, worker: Asked, output: int, held: int) -> int | None:
        """Returns the pid of a new worker, which writes to the descriptor `output` and inherits the lock `held`.

        None where the nursery has ended, in which case a worker may live all the same: it has the lock then.
        """
        asked = json.dumps(worker).encode() + b"\n"
        with self._asking:
            try:
                socket.send_fds(self._socket, [asked[:1]], [output, held])
                self._socket.sendall(asked[1:])
                told = self._socket.makefile().readline()
            except OSError:
                return None
        return int(told) if told else None


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

        The nursery bears it. Before that has loaded, a worker loads by itself; the second one that does so is reason
        for a nursery. None where the nursery ended meanwhile: then a worker lives if the lock is held.
        """
        if self._nursery and self._nursery.serves(worker.environment):
            return self._nursery.bear(worker, output, held)
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


def serve(load: Callable[[], None], held_by: str) -> Asked | None:
    """Forks a worker whenever one is asked for on standard input; returns in each worker what it is to do.

    The number of its lock's descriptor is in its environment by the name `held_by`. Returns None in the nursery
    itself, once nobody is left who could ask.
    """
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone
    with socket.socket(fileno=0) as asking:
        asking.sendall(b"\n")
        while True:
            first, descriptors, _, _ = socket.recv_fds(asking, 1, 2)
            if not first:
                return None
            worker = Asked(*json.loads(first + asking.makefile("rb", buffering=0).readline()))
            pid = os.fork()
            if not pid:
                asking.detach()
                return become(worker, descriptors[0], descriptors[1], held_by)
            for descriptor in descriptors:
                os.close(descriptor)
            asking.sendall(f"{pid}\n".encode())


def become(worker: Asked, output: int, held: int, held_by: str) -> Asked:
    """Makes this copy what a process of its own would be: its session, its environment, its output."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(worker.environment | {held_by: str(held)})
    return worker
