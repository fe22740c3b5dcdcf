"""Work on shards: one function over many parts of a whole, by several at once, its results in order.

Who works are processes of this machine or, where the run is a job of a Ray cluster, tasks on all its machines. A
shard's result depends on the shard alone, so that whoever puts them together has the same bits whoever worked.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from mtf_engine.runs.ray_jobs import is_on_cluster
from mtf_engine.runs.ray_tasks import KILLED, tasks
from mtf_engine.spec import Refusal

S = TypeVar("S")
R = TypeVar("R")

AHEAD = 1
"""Shards that wait for a free process, for each that works; more would only lie in memory."""


def by(n_workers: int) -> Callable[[Callable[[S], R], Iterable[S]], Generator[R, None, None]] | None:
    """Returns `spread` over so many workers; None where it is one, which is this process."""
    return partial(spread, n_workers=n_workers) if n_workers > 1 else None


def spread(work: Callable[[S], R], shards: Iterable[S], n_workers: int) -> Generator[R, None, None]:
    """Yields what `work` returns of each of `shards`, in their order, done by `n_workers` at once.

    `work`, its arguments and its results travel: `work` is a function of a module, or a `partial` of one. Where the
    iterator is closed, or what asks is killed, the others end. A shard may be worked on again, where who had it
    was killed: what `work` writes must bear that.
    """
    left = iter(shards)
    with (tasks if is_on_cluster() else _processes)(work, n_workers) as ask:
        asked = deque(ask(shard) for shard in islice(left, n_workers * (1 + AHEAD)))
        while asked:
            result = asked.popleft()()
            asked.extend(ask(shard) for shard in islice(left, 1))
            yield result


@contextmanager
def _processes(work: Callable[[S], R], n_processes: int) -> Iterator[Callable[[S], Callable[[], R]]]:
    """Yields what asks one of so many processes of this machine for a shard, and returns what waits for its result."""
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _end_with_parent)
    try:
        yield lambda shard: pool.submit(work, shard).result
    except BrokenProcessPool:
        raise Refusal(KILLED) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Makes this process end as soon as the one that started it has; Ctrl-C is for that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
