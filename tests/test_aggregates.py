"""Coverage is counted once a dataset, kept beside it, and gone with it."""

import numpy as np
import pytest

from mtf_engine.exploration.coverage_counts import count_coverage, read_logged_actions
from mtf_engine.logs.aggregates import (
    BASELINE_ROWS,
    coverage,
    coverage_path,
    population,
    population_path,
    signal,
    signal_path,
    stored_coverage,
    stored_signal,
)
from mtf_engine.logs.datasets import Dataset
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal


@pytest.fixture
def dataset(small_workspace, tmp_path) -> Dataset:
    """A copy of the explored dataset, in a folder of its own."""
    original = open_dataset(small_workspace, "explored")
    copy = tmp_path / original.path.name
    copy.write_bytes(original.path.read_bytes())
    return Dataset.open(copy)


class Interrupted(Exception):
    """What a page raises when its visitor leaves."""


def never(done: int, of: int) -> None:
    raise AssertionError("counted again")


def test_coverage_is_counted_once_and_read_afterwards(dataset):
    assert stored_coverage(dataset.path, dataset.content_hash) is None
    told: list[tuple[int, int]] = []
    counts = coverage(dataset, lambda done, of: told.append((done, of)))
    assert counts == count_coverage(read_logged_actions(dataset.parts), dataset.meta.plan)
    assert told[0] == (0, dataset.n_requests)
    assert told[-1] == (dataset.n_requests, dataset.n_requests)
    assert coverage(dataset, never) == counts == stored_coverage(dataset.path, dataset.content_hash)
    assert sorted(p.name for p in dataset.path.parent.iterdir()) == [
        coverage_path(dataset.path).name,
        dataset.path.name,
    ]


@pytest.mark.parametrize(
    "spoil", [lambda t: t.replace('"content_hash":"', '"content_hash":"0'), lambda t: "{}"]
)
def test_counts_of_other_rows_or_of_another_version_do_not_count(dataset, spoil):
    counts = coverage(dataset)
    path = coverage_path(dataset.path)
    path.write_text(spoil(path.read_text()))
    assert stored_coverage(dataset.path, dataset.content_hash) is None
    assert coverage(dataset) == counts == stored_coverage(dataset.path, dataset.content_hash)


def test_an_interrupted_count_leaves_nothing_behind(dataset):
    def leave(done: int, of: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        coverage(dataset, leave)
    assert list(dataset.path.parent.iterdir()) == [dataset.path]


def test_a_log_without_exploration_is_refused(small_workspace):
    with pytest.raises(Refusal, match="no row of this dataset was explored"):
        coverage(open_dataset(small_workspace, "test"))


def test_the_population_is_that_of_the_log(dataset):
    found = population(dataset)
    assert sum(found.shares.values()) == pytest.approx(1)
    sessions = dataset.query("SELECT segment, session_id FROM requests").drop_duplicates()["segment"]
    assert found.shares == pytest.approx(sessions.value_counts(normalize=True).to_dict())
    assert found.requests_per_session == pytest.approx(dataset.n_requests / len(sessions))
    some = "SELECT baseline_action FROM requests ORDER BY user_id, request_id LIMIT ?"
    first = dataset.arrays(some, [BASELINE_ROWS])["baseline_action"]
    np.testing.assert_allclose(found.baseline_action, first.mean(axis=0, dtype=float), atol=1e-6)
    assert population_path(dataset.path).is_file() and population(dataset) == found


def test_the_signal_is_measured_once_for_the_discount_of_trainings(dataset):
    other = signal(dataset, gamma=0.5)
    assert other.everybody.gamma == 0.5 and not signal_path(dataset.path).exists()
    found = signal(dataset)
    assert found.everybody.gamma == 0.9 and found.everybody.sessions > other.everybody.df
    assert signal(dataset, never) == found == stored_signal(dataset.path, dataset.content_hash)
    assert signal(dataset, gamma=0.5) == other
