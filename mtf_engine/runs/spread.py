"""Work on shards: one function over many parts of a whole, by several processes, its results in order.

A shard's result depends on the shard alone, so that whoever puts them together has the same bits however many worked.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from mtf_engine.spec import Refusal

S = TypeVar("S")
R = TypeVar("R")

AHEAD = 1
"""Shards that wait for a free process, for each that works; more would only lie in memory."""


def spread(work: Callable[[S], R], shards: Iterable[S], n_workers: int) -> Generator[R, None, None]:
    """Yields what `work` returns of each of `shards`, in their order, done by `n_workers` processes.

    `work`, its arguments and its results travel: `work` is a function of a module, or a `partial` of one. Where the
    iterator is closed, or what asks is killed, the processes end; none of them writes anything that stays.
    """
    pool = ProcessPoolExecutor(n_workers, get_context("spawn"), _end_with_parent)
    left = iter(shards)
    try:
        asked: deque[Future[R]] = deque(
            pool.submit(work, shard) for shard in islice(left, n_workers * (1 + AHEAD))
        )
        while asked:
            result = asked.popleft().result()
            asked.extend(pool.submit(work, shard) for shard in islice(left, 1))
            yield result
    except BrokenProcessPool:
        raise Refusal(
            "a process that worked on a part of this was killed, perhaps for want of memory; ask for fewer workers"
        ) from None
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
