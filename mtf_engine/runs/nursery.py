"""Workers that need not load: copies of a process that has loaded what they need.

A worker takes seconds of processor time to load torch and the engine, its copy none. So a process that starts workers
again and again, as a dashboard does, keeps a nursery: one process, loaded once, that is forked for each, also where
one of those workers is who asks. It opens nothing and computes nothing; it ends with whoever keeps it, or where the
code on the disk is no longer what it has loaded, and the workers live on.
"""

import fcntl
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from select import select
from tempfile import gettempdir, mkdtemp
from typing import NamedTuple

from mtf_engine.disk import remove_folder

ROOT = Path(__file__).parents[2]
NURSERY = "MTF_NURSERY"
"""Environment variable with the place of the nursery that this process was born by."""
READ_AT_LOAD = ("LD_", "MALLOC_", "MKL_", "MTF_WORKERS", "OMP_", "OPENBLAS_", "PYTHON", "TORCH_")
"""Beginnings of the variables that libraries read as they load: a copy has those of the process it is a copy of."""
DECLINED = 0
"""In place of a pid: the nursery has not loaded yet, or otherwise, or has ended."""
PREFIX = "mtf-nursery-"
"""Of the folders that nurseries have their sockets in."""
LONGEST_PLACE = 100
"""Bytes of a socket's path, by the kernel that takes least."""
PATIENCE = 5.0
"""Seconds that either side waits for a word of the other."""
LOADING = 60.0
"""Seconds that a nursery is given to load, where it is waited for."""


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

    def __init__(self, workspace: str, environment: Mapping[str, str]) -> None:
        """What the workers write is as private as the `workspace`; an OSError where there can be no nursery."""
        _remove_left()
        self._folder = Path(mkdtemp(prefix=PREFIX))  # of this user alone
        self._held = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)  # until this process ends
        self.place = str(self._folder / "nursery")
        if len(os.fsencode(self.place)) > LONGEST_PLACE:
            os.close(self._held)
            self._folder.rmdir()
            raise OSError(f"{self.place} is too long a path for a socket")
        ends, self._kept = os.pipe()
        self.process = Outliving(
            [sys.executable, "-m", "mtf_engine", "--workspace", workspace, "nursery", self.place],
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

    def wait(self) -> None:
        """Returns once it can be asked, or will never be, or is slow beyond patience."""
        deadline = time.monotonic() + LOADING
        while not self.has_ended and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as asking:
                if asking.connect_ex(self.place) == 0:
                    return
            time.sleep(0.05)

    def forget(self) -> None:
        """Removes what one that has ended left, where it was killed."""
        os.close(self._kept)
        os.close(self._held)
        _remove_left()


def _remove_left() -> None:
    """Removes the folders of this user's nurseries whose keepers are gone."""
    for left in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or no folder
            remove_folder(left)


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

    def expect_many(self, workspace: str, environment: Mapping[str, str]) -> None:
        """Has a nursery from now on, once it has loaded: else the first workers would all load beside it.

        A process that a nursery bore has that one.
        """
        if self._nursery is None and NURSERY not in os.environ:
            with suppress(OSError):
                self._nursery = Nursery(workspace, environment)
                self._nursery.wait()

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
            with suppress(OSError):  # it saves seconds, and the worker lives without
                ended, self._nursery = self._nursery, None
                if ended:
                    ended.forget()
                self._nursery = Nursery(worker.workspace, worker.environment)
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
        asking.settimeout(PATIENCE)
        try:
            socket.send_fds(asking, [asked[:1]], [output, held])
            asking.sendall(asked[1:])
            told = asking.makefile().readline()
        except OSError:
            return None
    return int(told) if told else None


def serve(
    place: str, load: Callable[[], None], is_as_loaded: Callable[[], bool], held_by: str
) -> Asked | None:
    """Loads, then forks whenever a worker is asked for at `place`; returns in each worker what it is to do.

    The number of its lock's descriptor is in its environment by the name `held_by`. Returns None in the nursery
    itself, once standard input ends with whoever keeps it, or the code is no longer `is_as_loaded`.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        load()
        gc.collect()
        gc.freeze()  # or each copy would go through all of it as it ends, a second of processor time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone
        listening.listen()
        serves = True
        while serves and listening in select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            serves = is_as_loaded()
            with asking, suppress(OSError):  # who asks and says no more, or waits no longer, is left alone
                asking.settimeout(PATIENCE)
                if worker := _answered(asking, serves, {NURSERY: place}, held_by):
                    return worker
    with suppress(OSError):
        Path(place).unlink()
        Path(place).parent.rmdir()
    return None


def _answered(asking: socket.socket, serves: bool, besides: dict[str, str], held_by: str) -> Asked | None:
    """Forks the worker that is asked for, unless it would have loaded otherwise, and returns it in the copy alone."""
    first, descriptors, _, _ = socket.recv_fds(asking, 1, 2)
    if not first:
        return None
    worker = Asked(*json.loads(first + asking.makefile("rb").readline()))
    pid = DECLINED
    with suppress(OSError):  # for want of memory or processes
        serves &= read_at_load(worker.environment) == read_at_load(os.environ)
        if serves and not (pid := os.fork()):
            output, held = descriptors
            return _become(worker, output, besides | {held_by: str(held)})
    for descriptor in descriptors:
        os.close(descriptor)
    asking.sendall(f"{pid}\n".encode())
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
