"""The lock a worker holds for as long as it lives.

It is an flock on an open file description, which a child inherits: the parent takes it before the child
exists and hands it down, so at no moment does a started run look dead. A pid would not do: it outlives its
process as a zombie and is given to others.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import psutil


def take(path: Path) -> int | None:
    """Returns a descriptor that holds the lock until it is closed, or None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Returns whether a live process holds the lock. Asked by one process at a time, see `reconcile`."""
    if not path.exists():
        return False
    descriptor = take(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def is_open_in(path: Path, pid: int) -> bool:
    """Returns whether the process `pid` of this machine has the lock open, as its worker has.

    A number alone says nothing: it may be of a worker on another machine, and of any process on this one.
    """
    with suppress(psutil.Error):
        return str(path.resolve()) in {file.path for file in psutil.Process(pid).open_files()}
    return False
