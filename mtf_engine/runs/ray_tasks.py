"""Shards as tasks of a Ray cluster (https://docs.ray.io), asked for by a run that is one of its jobs.

Tasks have the job's environment and end with it. A task whose machine or process was killed Ray does again elsewhere,
so its shard may for a moment be worked on twice.
"""

import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mtf_engine.spec import Refusal

S = TypeVar("S")
R = TypeVar("R")

KILLED = (
    "a process that worked on a part of this was killed, perhaps for want of memory; ask for fewer workers"
)
RETRIES = 3
"""How often Ray does a task again whose process was killed, before the run is told."""


@contextmanager
def tasks(work: Callable[[S], R], n_tasks: int) -> Iterator[Callable[[S], Callable[[], R]]]:
    """Yields what asks for a task on a shard, and returns what waits for its result; so many work at once.

    Ray spreads them over its machines, and counts no core for them: runs that held all cores would wait for ever for
    tasks that get none. What travels is pickled as between processes: Ray itself would hand out arrays that cannot be
    written to, and hold its memory for them.
    """
    import ray
    from ray.exceptions import (
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        RayTaskError,
        WorkerCrashedError,
    )

    if not ray.is_initialized():
        told_to_end = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address="auto", log_to_driver=False, logging_level="WARNING")
        except (ConnectionError, RuntimeError) as error:
            why = " ".join(str(error).split())[:300]
            raise Refusal(
                f"the Ray cluster takes no tasks of this run; see that its head is well: {why}"
            ) from None
        signal.signal(signal.SIGTERM, told_to_end)  # in whose place Ray aborts the process
    task = ray.remote(_done).options(
        num_returns=2, num_cpus=0, max_retries=RETRIES, scheduling_strategy="SPREAD"
    )
    sent = ray.put(pickle.dumps(work))
    turns, asked = deque[Any]([None] * n_tasks), set[Any]()

    def ask(shard: S) -> Callable[[], R]:
        result, turn = task.remote(sent, shard, turns.popleft())  # once the task `n_tasks` before it is done
        turns.append(turn)
        asked.add(result)
        return lambda: taken(result)

    def taken(result: Any) -> R:
        content = result.future().result()  # which a signal interrupts, as it does not `ray.get`
        asked.remove(result)
        found: R = pickle.loads(content)
        return found

    try:
        yield ask
    except RayTaskError as error:
        raise error.cause from error
    except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError):
        raise Refusal(KILLED) from None
    finally:
        for result in asked:
            ray.cancel(result, force=True)


def _done(work: bytes, shard: S, _turn: None) -> tuple[bytes, None]:
    """Returns what the work makes of a shard, pickled, and that it is done."""
    return pickle.dumps(pickle.loads(work)(shard), protocol=pickle.HIGHEST_PROTOCOL), None
