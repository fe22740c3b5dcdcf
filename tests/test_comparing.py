"""Runs side by side: what differs, which are seeds of one, and their curves."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtf_engine.learning.curves import mean_and_interval, smoothed
from mtf_engine.registry import RunRow, RunState, new_id, now
from mtf_engine.runs.differences import compared, seed_groups


def run(dataset="dataset-0", algo="integrated_rl", commit="aa", group="", **config) -> RunRow:
    return RunRow(
        id=new_id("train"),
        kind="train",
        name="n",
        state=RunState.COMPLETED,
        created_at=now(),
        config={"eta": 1.2, "hidden": [64, 64], **config},
        dataset_id=dataset,
        algo=algo,
        seed=config.get("seed"),
        seed_group=group,
        provenance={"code": {"commit": commit}, "dataset_hash": "00"},
    )


def test_what_differs_comes_apart_from_what_is_the_same():
    differing, same = compared([run(seed=1), run(seed=1, eta=2.0), run(dataset="dataset-1", seed=1, tau=0.1)])
    assert differing == {
        "dataset": ("dataset-0", "dataset-0", "dataset-1"),
        "eta": (1.2, 2.0, 1.2),
        "tau": (None, None, 0.1),
    }
    assert same == {
        "method": "integrated_rl",
        "hidden": [64, 64],
        "seed": 1,
        "code": "aa",
        "dataset hash": "00",
    }


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    seeds = [run(seed=seed, group="five") for seed in range(3)]
    alone = [run(seed=0, eta=2.0), run(seed=0, commit="bb"), run(seed=0, dataset="dataset-1")]
    groups = seed_groups([*seeds, *alone])
    assert [len(group) for group in groups.values()] == [3, 1, 1, 1]
    assert next(iter(groups)) == f"five · 3 seeds · {seeds[0].id}"
    assert groups[f"n · {alone[0].id}"] == [alone[0]]


def test_seeds_submitted_together_stay_so_when_the_code_changes_meanwhile():
    assert len(seed_groups([run(seed=0, group="g"), run(seed=1, group="g", commit="bb")])) == 1
    assert len(seed_groups([run(seed=0), run(seed=1, commit="bb")])) == 2


def test_two_groups_of_one_name_stay_two():
    groups = seed_groups([run(seed=s, eta=eta, group="g") for eta in (1.0, 2.0) for s in (0, 1)])
    assert [len(group) for group in groups.values()] == [2, 2]


def test_smoothing_weighs_the_past_by_powers():
    values = pd.Series([1.0, 4.0, 2.0])
    np.testing.assert_allclose(smoothed(values, 0.0), values)
    expected = [1, (0.5 * 1 + 4) / 1.5, (0.25 * 1 + 0.5 * 4 + 2) / 1.75]
    np.testing.assert_allclose(smoothed(values, 0.5), expected)


def test_seeds_are_a_mean_with_its_t_interval_where_they_have_values():
    curves = [pd.Series({10: 1.0, 20: 2.0}), pd.Series({10: 2.0, 20: 4.0}), pd.Series({10: 6.0})]
    found = mean_and_interval(curves)
    assert found["n"].tolist() == [3, 2]
    assert found["mean"].tolist() == [3.0, 3.0]
    error = np.std([1, 2, 6], ddof=1) / np.sqrt(3) * stats.t.ppf(0.975, 2)
    assert found["high"][10] == pytest.approx(3 + error)
    assert found["low"][10] == pytest.approx(3 - error)


def test_one_seed_has_no_interval():
    found = mean_and_interval([pd.Series({10: 1.0})])
    assert found["mean"].tolist() == [1.0]
    assert found[["low", "high"]].isna().all(axis=None)
