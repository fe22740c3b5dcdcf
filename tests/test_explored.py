"""Explored requests in parts: the same bits whoever reads which part and wherever it lies, memory of one."""

import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context

import numpy as np
import psutil
import pytest

from mtf_engine.exploration.explored_returns import ExploredReturns
from mtf_engine.exploration.explored_sums import added, sums
from mtf_engine.exploration.pilot import Arms, pilot
from mtf_engine.exploration.signal import signals
from mtf_engine.exploration.sub_box import sub_box
from mtf_engine.logs import explored
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.explored import ExploredRequests, Spread
from mtf_engine.runs.spread import by
from mtf_engine.spec import BoundsPlan
from tests.test_datasets import META, tables, written
from tests.test_sharding import sharded
from tests.waiting import PATIENCE

NAMES = META.fusion.names


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Dataset:
    """Returns a log of 400 sessions, three of each user or so, of two segments, some of them test."""
    batch = tables([1 + i % 5 for i in range(400)], truncated=(1, 4, 300), seed=3)
    requests, generator = batch.requests, np.random.default_rng(0)
    requests["user_id"] = np.array([f"user {s // 3}" for s in requests["session_id"]], object)
    requests["segment"] = np.array(["new", "loyal"], object)[requests["session_id"] // 3 % 2]
    requests["split"][requests["session_id"] % 20 < 3] = "test"
    offsets = generator.uniform(-0.15, 0.15, requests["action"].shape).astype(np.float32)
    requests["action"] = requests["baseline_action"] + offsets
    requests["lower"], requests["upper"] = np.full((2, *offsets.shape), np.float32(-0.15))
    requests["upper"] = -requests["upper"]
    batch.impressions["user_id"] = np.repeat(requests["user_id"], 2)
    return written(tmp_path_factory.mktemp("log"), batch)


@pytest.fixture
def in_parts(monkeypatch):
    monkeypatch.setattr(explored, "PART_REQUESTS", 150)
    monkeypatch.setattr(explored, "WORTH_SPREADING", 0)


def itself(part: ExploredReturns) -> ExploredReturns:
    return part


def test_parts_are_of_whole_users_and_hold_all_training_rows(log, in_parts):
    parts = list(ExploredRequests(log, 0.9).each(itself))
    assert len(parts) > 3 and max(map(len, parts)) < 200
    ids = [set(part.sessions.tolist()) for part in parts]
    users = [{session // 3 for session in some} for some in ids]
    assert not any(one & other for i, one in enumerate(users) for other in users[:i])
    told = log.query(
        "SELECT count(*) AS n, sum(session_id) AS sessions FROM requests WHERE split = 'train' AND pscore IS NOT NULL"
    )
    assert sum(map(len, parts)) == told["n"][0]
    assert sum(part.sessions.sum() for part in parts) == told["sessions"][0]


def test_whoever_reads_which_part_and_wherever_it_lies_the_bits_are_the_same(log, in_parts, tmp_path):
    """Also where several processes read the parts, the same ones for all that is asked."""
    folder = sharded(log, tmp_path)
    nobody = Arms(np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(0))
    plan = BoundsPlan.symmetric(0.12, len(NAMES))

    def told(dataset: Dataset, spread: Spread | None = None) -> Iterator:
        requests = ExploredRequests(dataset, 0.9, spread)
        found = signals(requests, NAMES)
        yield found
        yield pilot(requests, nobody, np.ones(len(NAMES)), NAMES, (0.0,) * len(NAMES), 400)
        yield sub_box(requests, found.everybody, NAMES, plan)

    def to_both(work: Callable, parts: Iterable) -> Generator:
        yield from pool.map(work, parts)

    alone = list(told(log))
    assert len(alone[0].segments) == 2 and alone[2].inside is not None
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert list(told(log, to_both)) == alone
    assert list(told(folder)) == alone


def test_progress_is_told_of_all_passes_and_ends_what_it_raises_in(log, in_parts):
    told: list[int] = []
    signals(ExploredRequests(log, 0.9, progress=lambda done, of: told.append(done)), NAMES)
    assert told == sorted(told) and told[0] == 0 and told[-1] == log.n_requests and len(set(told)) > 10

    def leave(done: int, of: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        signals(ExploredRequests(log, 0.9, progress=leave), NAMES)


def test_processes_tell_the_same_and_who_stops_after_a_part_ends_them(log, in_parts):
    assert signals(ExploredRequests(log, 0.9, by(2)), NAMES) == signals(ExploredRequests(log, 0.9), NAMES)
    before = set(psutil.Process().children())
    with closing(ExploredRequests(log, 0.9, by(2)).each(len)) as parts:
        assert next(parts) > 100
        begun = set(psutil.Process().children()) - before
    assert begun and not psutil.wait_procs(begun, PATIENCE)[1]


def test_memory_is_that_of_a_part_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(explored, "PART_REQUESTS", 1_000)
    peaks = []
    for i, n in enumerate((1_000, 8_000)):
        dataset = written(tmp_path, tables([3] * n), dataset_id=f"d{i}")
        tracemalloc.start()
        assert added(ExploredRequests(dataset, 0.9).each(sums))[None].sessions == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
