"""A bounded sample: the same rows whoever brings which part, and enough of every group."""

import numpy as np
import pytest

from mtf_engine.evaluation.sample import Sample


def sample(rows, most=50, least=5):
    """Returns the sample of some of 1,000 rows, by their numbers; a row in a hundred is of group 1."""
    rank = np.random.default_rng(0).integers(0, 2**64, 1_000, np.uint64)
    group = (np.arange(1_000) % 100 == 0).astype(np.int64)
    return Sample(rank[rows], group[rows], {"number": np.asarray(rows)}, most, least).kept()


@pytest.mark.parametrize("size", [1, 7, 100, 999])
def test_the_same_rows_are_kept_however_the_rows_are_cut(size):
    rows = np.arange(1_000)
    whole = sample(rows)
    joined = sample(rows[:size])
    for start in range(size, 1_000, size):
        joined = Sample.of([joined, sample(rows[start : start + size])])
    np.testing.assert_array_equal(joined.columns["number"], whole.columns["number"])
    assert (np.diff(whole.columns["number"]) > 0).all()


def test_those_of_the_lowest_ranks_are_kept_and_of_each_group_some():
    whole, every = sample(np.arange(1_000)), sample(np.arange(1_000), most=2_000)
    assert len(every.rank) == 1_000
    numbers = every.columns["number"]
    lowest = np.sort(np.argsort(every.rank)[:50])
    np.testing.assert_array_equal(whole.everyone.columns["number"], numbers[lowest])
    members = np.flatnonzero(every.group == 1)
    of_group = whole.columns["number"][whole.group == 1]
    np.testing.assert_array_equal(of_group, np.sort(members[np.argsort(every.rank[members])[:5]]))
    assert len(whole.rank) < 50 + 5 + 5
