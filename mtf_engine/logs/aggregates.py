"""What is counted once a dataset and kept beside it: coverage, quality, signal, pilot, the next day, its users."""

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from mtf_engine.exploration.cost import read_candidate_lists
from mtf_engine.exploration.coverage_counts import (
    CHUNK,
    CoverageCounts,
    count_coverage,
    read_logged_actions,
)
from mtf_engine.exploration.pilot import CHURN_REQUESTS, Pilot, dimension_churn, read_arms
from mtf_engine.exploration.pilot import pilot as measure_pilot
from mtf_engine.exploration.signal import Signals, signals
from mtf_engine.exploration.sub_box import SubBox
from mtf_engine.exploration.sub_box import sub_box as replay
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.explored import ExploredRequests, Progress, Spread
from mtf_engine.logs.narrowing import narrowed_meta, refuse_narrowed
from mtf_engine.logs.next_day import NextDay
from mtf_engine.logs.next_day import next_day as correlate
from mtf_engine.logs.quality import Quality, measure
from mtf_engine.reward import GAMMA
from mtf_engine.spec import BoundsPlan, Spec

BASELINE_ROWS = 10_000
"""Requests of which the mean baseline action is taken."""

Counts = TypeVar("Counts", bound=Spec)
Part = TypeVar("Part")


class Population(Spec):
    """Whom a log reaches: what a bounds plan for them starts from."""

    shares: dict[str, float] = Field(description="of the sessions, by segment")
    requests_per_session: float
    baseline_action: tuple[float, ...] = Field(description="mean over the first rows; 0 where none is logged")


class Stored(Spec, Generic[Counts]):
    """A file beside a dataset; its counts hold for the rows with that hash alone."""

    content_hash: str
    counts: Counts


def coverage_path(dataset_path: Path) -> Path:
    """Returns where the coverage counts of the dataset at that path lie; they are deleted with it."""
    return dataset_path.with_suffix(".coverage.json")


def quality_path(dataset_path: Path) -> Path:
    """Returns where the quality of the dataset at that path lies; it is deleted with it."""
    return dataset_path.with_suffix(".quality.json")


def next_day_path(dataset_path: Path) -> Path:
    """Returns where the next-day correlations of the dataset at that path lie; they are deleted with it."""
    return dataset_path.with_suffix(".next_day.json")


def signal_path(dataset_path: Path) -> Path:
    """Returns where the signal of the dataset at that path lies; it is deleted with it."""
    return dataset_path.with_suffix(".signal.json")


def pilot_path(dataset_path: Path) -> Path:
    """Returns where what the dataset at that path tells of exploring lies; it is deleted with it."""
    return dataset_path.with_suffix(".pilot.json")


def population_path(dataset_path: Path) -> Path:
    """Returns where the population of the dataset at that path lies; it is deleted with it."""
    return dataset_path.with_suffix(".population.json")


def stored_coverage(dataset_path: Path, content_hash: str) -> CoverageCounts | None:
    """Returns the coverage counts beside a dataset, None where it was not counted."""
    return _stored(coverage_path(dataset_path), content_hash, CoverageCounts)


def stored_quality(dataset_path: Path, content_hash: str) -> Quality | None:
    """Returns the quality beside a dataset, None where it was not measured."""
    return _stored(quality_path(dataset_path), content_hash, Quality)


def stored_next_day(dataset_path: Path, content_hash: str) -> NextDay | None:
    """Returns the next-day correlations beside a dataset, None where they were not computed."""
    return _stored(next_day_path(dataset_path), content_hash, NextDay)


def stored_signal(dataset_path: Path, content_hash: str) -> Signals | None:
    """Returns the signal beside a dataset, None where it was not measured."""
    return _stored(signal_path(dataset_path), content_hash, Signals)


def stored_pilot(dataset_path: Path, content_hash: str) -> Pilot | None:
    """Returns what a dataset tells of exploring, None where it was not measured."""
    return _stored(pilot_path(dataset_path), content_hash, Pilot)


def coverage(dataset: Dataset, progress: Progress = lambda done, of: None) -> CoverageCounts:
    """Returns the coverage counts of `dataset`: those stored beside it, else counted in one pass and stored.

    A caller that raises in `progress` ends the pass and leaves nothing behind. A log without explored rows
    is refused.
    """
    if (stored := stored_coverage(dataset.path, dataset.content_hash)) is not None:
        return stored
    meta = dataset.meta
    rows = _told(read_logged_actions(dataset.parts), dataset.n_requests, progress)
    return _store(dataset, coverage_path(dataset.path), count_coverage(rows, meta.plan, meta.mixture))


def quality(dataset: Dataset, progress: Progress = lambda done, of: None) -> Quality:
    """Returns the quality of `dataset`: the one stored beside it, else measured and stored.

    `progress` is told parts of the work; a caller that raises in it leaves nothing behind.
    """
    if (stored := stored_quality(dataset.path, dataset.content_hash)) is not None:
        return stored
    return _store(dataset, quality_path(dataset.path), measure(dataset, progress))


def signal(
    dataset: Dataset,
    progress: Progress = lambda done, of: None,
    gamma: float = GAMMA,
    spread: Spread | None = None,
) -> Signals:
    """Returns what the explored training rows of `dataset` tell of the return discounted by `gamma`.

    That of GAMMA is stored beside it, and read there once it is. The log is read twice, part by part, which `spread`
    may have several processes do: to the same bits. A caller that raises in `progress` leaves nothing behind. A log
    that cannot tell, such as one without exploration, is refused.
    """
    if gamma == GAMMA and (stored := stored_signal(dataset.path, dataset.content_hash)) is not None:
        return stored
    found = signals(ExploredRequests(dataset, gamma, spread, progress), dataset.meta.fusion.names)
    return _store(dataset, signal_path(dataset.path), found) if gamma == GAMMA else found


def pilot(
    dataset: Dataset, progress: Progress = lambda done, of: None, spread: Spread | None = None
) -> Pilot:
    """Returns what an explored log tells of exploring: what is stored beside it, else measured and stored.

    A log that cannot tell, such as one without exploration, is refused. A caller that raises in `progress` leaves
    nothing behind.
    """
    if (stored := stored_pilot(dataset.path, dataset.content_hash)) is not None:
        return stored
    refuse_narrowed(dataset.meta, "plan by")
    log = ExploredRequests(dataset, GAMMA, spread, progress, passes=3)
    fusion, users = dataset.meta.fusion, population(dataset)
    found = measure_pilot(
        log,
        read_arms(dataset.arrays, GAMMA),
        _churn(dataset),
        fusion.names,
        users.baseline_action,
        round(dataset.n_requests / users.requests_per_session),
    )
    return _store(dataset, pilot_path(dataset.path), found)


def _churn(dataset: Dataset) -> NDArray[np.float64]:
    """Returns the churn of each dimension [d] among as many places as requests show; 0 where nothing is shown.

    Of a log that keeps no candidates the shown ones are ranked anew, and the upper half of them counts.
    """
    lists = read_candidate_lists(dataset.arrays, CHURN_REQUESTS)
    shown = dataset.n_impressions / dataset.n_requests
    k = max(1, round(shown if lists.source == "candidates" else shown / 2))
    return dimension_churn(dataset.meta.fusion, lists, k)


def sub_box(dataset: Dataset, plan: BoundsPlan, spread: Spread | None = None) -> SubBox:
    """Returns what the rows of a uniform log inside a narrower `plan` tell of the return; that of all rows is kept."""
    held = narrowed_meta(dataset.meta, "", "", plan).plan
    assert held is not None
    whole = signal(dataset, spread=spread).everybody
    return replay(ExploredRequests(dataset, GAMMA, spread), whole, dataset.meta.fusion.names, held)


def next_day(dataset: Dataset, progress: Progress = lambda done, of: None) -> NextDay:
    """Returns what a day's signals of `dataset` tell of the next: what is stored beside it, else computed."""
    if (stored := stored_next_day(dataset.path, dataset.content_hash)) is not None:
        return stored
    progress(0, 1)
    return _store(dataset, next_day_path(dataset.path), correlate(dataset))


def population(dataset: Dataset) -> Population:
    """Returns the segments, the length of sessions and the mean baseline action of `dataset`, counted once."""
    path = population_path(dataset.path)
    stored = _stored(path, dataset.content_hash, Population)
    return stored or _store(dataset, path, _population(dataset))


def _population(dataset: Dataset) -> Population:
    counted = dataset.query(
        "SELECT segment, count(*) AS requests, count(DISTINCT session_id) AS sessions "
        "FROM requests GROUP BY segment ORDER BY segment"
    )
    some = "SELECT baseline_action FROM requests ORDER BY user_id, request_id LIMIT ?"
    actions = dataset.arrays(some, [BASELINE_ROWS])
    sessions = counted["sessions"].sum()
    return Population(
        shares={str(s): n / sessions for s, n in zip(counted["segment"], counted["sessions"], strict=True)},
        requests_per_session=counted["requests"].sum() / sessions,
        baseline_action=tuple(np.nan_to_num(actions["baseline_action"]).mean(axis=0, dtype=float).tolist()),
    )


def _stored(path: Path, content_hash: str, of: type[Counts]) -> Counts | None:
    """Returns what is stored at `path`; None where there is nothing of these rows and this version.

    The dataset itself, whatever its size, is not opened.
    """
    if not path.is_file():
        return None
    try:
        stored = Stored[of].model_validate_json(path.read_text())  # type: ignore[valid-type]
    except ValidationError:  # of a version that counted otherwise
        return None
    return stored.counts if stored.content_hash == content_hash else None


def _store(dataset: Dataset, path: Path, counts: Counts) -> Counts:
    """Returns `counts`, kept at `path` beside the dataset."""
    dataset.keep(path, Stored(content_hash=dataset.content_hash, counts=counts).model_dump_json().encode())
    return counts


def _told(rows: Iterator[Part], n_requests: int, progress: Progress) -> Iterator[Part]:
    for i, part in enumerate(rows):
        progress(min(i * CHUNK, n_requests), n_requests)
        yield part
    progress(n_requests, n_requests)
