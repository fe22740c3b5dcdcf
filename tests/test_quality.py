"""What a log holds and how far it drifted: as pandas counts it, once a dataset, and moved only if it moved."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.gymnasium import GymnasiumEnvironment
from mtf_engine.logs import aggregates
from mtf_engine.logs import quality as quality_module
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.distributions import (
    Distribution,
    describe,
    population_stability_index,
    standardised_difference,
)
from mtf_engine.logs.quality import PARTS, Quality, measure
from mtf_engine.logs.shift import drift
from mtf_engine.policies.policy import Policy
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan


@pytest.fixture(scope="module")
def explored(small_workspace) -> Dataset:
    return open_dataset(small_workspace, "explored")


@pytest.fixture(scope="module")
def found(explored) -> Quality:
    return measure(explored)


def test_counts_are_those_of_pandas(explored, found):
    requests = explored.query("SELECT * FROM requests")
    impressions = explored.query("SELECT * FROM impressions")
    assert found.n_sessions == requests["session_id"].nunique()
    assert found.splits == requests["split"].value_counts().to_dict()
    lengths = requests.groupby("session_id").size().clip(upper=50).value_counts().to_dict()
    assert found.session_lengths == lengths
    by_day = requests.groupby(requests["timestamp"].dt.strftime("%Y-%m-%d"))
    assert {d.day: (d.requests, d.users) for d in found.days} == {
        day: (len(rows), rows["user_id"].nunique()) for day, rows in by_day
    }
    for signal in found.signals:
        assert signal.mean == pytest.approx(impressions[signal.name].mean())
        assert signal.missing == 0
    assert (found.without_action, found.sampled_users) == (0, found.n_users)


def test_distributions_are_those_of_pandas(explored, found):
    rows = explored.arrays("SELECT observation FROM requests")["observation"]
    features = {d.name: d for d in found.distributions if d.kind == "feature"}
    assert list(features) == list(explored.meta.feature_names)
    for name, values in zip(explored.meta.feature_names, rows.T.astype(float), strict=True):
        assert features[name].mean == pytest.approx(values.mean(), abs=1e-6)
        assert features[name].std == pytest.approx(values.std(), abs=1e-5)
        assert (features[name].points[0], features[name].points[-1]) == (values.min(), values.max())


def test_a_log_without_actions_or_split_says_so(small_workspace):
    found = measure(open_dataset(small_workspace, "test"))
    assert found.splits == {} and found.unlabelled_split == found.n_requests


def test_a_log_of_rewards_without_impressions_has_features_alone(tmp_path):
    env = GymnasiumEnvironment.named("gym:Pendulum-v1")
    collection = Collection(plan=BoundsPlan.symmetric(0.15, env.fusion.n_actions), n_requests=300)
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    write_dataset(tmp_path, "p", collection.meta(env, "p", "gym"), collect(env, baseline, collection))
    found = measure(Dataset.open(tmp_path / "p.duckdb"))
    assert found.signals == () and found.n_impressions == 0
    assert [d.name for d in found.distributions] == list(env.feature_names)
    assert {d.kind for d in found.distributions} == {"feature"}


def test_a_large_log_is_sampled_by_user(explored, monkeypatch):
    monkeypatch.setattr(quality_module, "SAMPLE_REQUESTS", 200)
    found = measure(explored)
    assert 0 < found.sampled_users < found.n_users
    assert found.sampled_requests < 2 * 200 and found.n_requests == explored.n_requests
    assert measure(explored) == found


def test_quality_is_measured_once_and_read_afterwards(explored, tmp_path):
    copy = tmp_path / explored.path.name
    copy.write_bytes(explored.path.read_bytes())
    dataset, told = Dataset.open(copy), []
    first = aggregates.quality(dataset, lambda done, of: told.append((done, of)))
    assert told == [(done, PARTS) for done in range(PARTS + 1)]
    assert aggregates.quality(dataset, lambda done, of: pytest.fail("measured again")) == first
    assert aggregates.stored_quality(copy, dataset.content_hash) == first
    assert aggregates.stored_quality(copy, "other rows") is None
    assert {p.name for p in tmp_path.iterdir()} == {copy.name, aggregates.quality_path(copy).name}


ROWS = np.random.default_rng(0).normal(size=4_000)
ALONE = np.arange(4_000)


def column(values, first=ALONE) -> Distribution:
    described = describe("x", "feature", np.asarray(values, float), np.asarray(first))
    assert described is not None
    return described


def slow_psi(new: pd.Series, reference: pd.Series) -> float:
    edges = [-np.inf, *reference.quantile(np.arange(1, 10) / 10), np.inf]
    shares = [pd.cut(x, edges).value_counts(normalize=True, sort=False) for x in (new, reference)]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_psi_and_difference_are_those_of_the_raw_rows(shift):
    other = np.random.default_rng(1).normal(shift, 1, 4_000)
    psi, luck = population_stability_index(column(other), column(ROWS))
    assert psi == pytest.approx(slow_psi(pd.Series(other), pd.Series(ROWS)), abs=0.01, rel=0.05)
    assert (psi > luck) == (shift > 0)
    difference = standardised_difference(column(other), column(ROWS))
    assert difference.low < shift < difference.high
    assert difference.high - difference.value == pytest.approx(1.96 * np.sqrt(2 / 4_000), rel=0.01)


def test_rows_of_a_user_that_are_alike_count_once():
    values = np.repeat(ROWS[:400], 10)
    alike = column(values, np.arange(0, 4_000, 10))
    assert alike.n_effective == pytest.approx(400, rel=0.01)
    assert column(values).n_effective == pytest.approx(4_000, rel=0.01)


def test_a_flag_that_only_one_user_has_is_no_drift():
    first = np.arange(0, 600, 15)
    few, many = np.zeros(600), np.repeat(np.random.default_rng(2).random(1_000) < 0.06, 15)
    few[0] = 1
    psi, luck = population_stability_index(column(few, first), column(many, np.arange(0, 15_000, 15)))
    assert psi < luck


def test_what_is_constant_in_both_logs_has_no_difference_but_may_move():
    assert standardised_difference(column(np.ones(50), ALONE[:50]), column(np.ones(50), ALONE[:50])) is None
    psi, luck = population_stability_index(column(np.zeros(50), ALONE[:50]), column(np.ones(50), ALONE[:50]))
    assert psi > luck


def test_missing_values_are_counted_and_left_out():
    described = column([1.0, np.nan, 3.0, np.nan], [0, 2])
    assert (described.n, described.missing, described.mean) == (2, 2, 2.0)
    assert describe("x", "feature", np.full(3, np.nan), np.array([0])) is None


@pytest.mark.parametrize("values", [ROWS, ROWS.round(), (ROWS > 1).astype(float), np.exp(ROWS)])
def test_shares_below_are_those_of_the_rows(values):
    described = column(values)
    at = np.concatenate([values[:200], values[:50] + 0.01, [values.min() - 1, values.max() + 1]])
    for inclusive in (True, False):
        exact = [(values <= x).mean() if inclusive else (values < x).mean() for x in at]
        shares = described.share_below(at, np.full(len(at), inclusive))
        assert np.abs(shares - exact).max() < 0.011


samples = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=2, max_size=60)


@given(samples, samples)
def test_psi_is_never_negative_and_differences_turn_round(a, b):
    one, two = (column(x, ALONE[: len(x)]) for x in (a, b))
    psi, luck = population_stability_index(one, two)
    assert psi >= 0 and luck > 0 and np.isfinite([psi, luck]).all()
    assert population_stability_index(one, one)[0] == pytest.approx(0, abs=1e-12)
    there, back = standardised_difference(one, two), standardised_difference(two, one)
    assert (there is None) == (back is None)
    if there and back:
        assert there.low <= there.value <= there.high
        assert there == pytest.approx((-back.value, -back.high, -back.low))


def moved(found: Quality, name: str, by: float) -> Quality:
    """Returns `found` as it were if the prediction `name` had come out `by` standard deviations higher."""
    changed = [
        d.model_copy(update={"mean": d.mean + by * d.std, "points": tuple(p + by * d.std for p in d.points)})
        if d.name == name and d.kind == "prediction"
        else d
        for d in found.distributions
    ]
    return found.model_copy(update={"distributions": tuple(changed)})


def test_drift_names_what_moved_and_nothing_else(found):
    still = drift(found, found)
    assert {s.verdict for s in still.shifts} == {"as before"}
    assert still.sentence.startswith("No column moved; ")
    planted = drift(moved(found, "click", 1.0), found)
    first = planted.shifts[0]
    assert (first.name, first.kind, first.verdict) == ("click", "prediction", "moved")
    assert first.difference == pytest.approx(1.0, abs=0.01)
    assert [s.name for s in planted.shifts if s.verdict != "as before"] == ["click"]
    assert "1 moved: click (prediction)" in planted.sentence


def test_two_logs_of_the_same_users_did_not_move(small_workspace):
    """Two draws of the same synthetic users; the second is unexplored, so a feature may move slightly."""
    here, there = (measure(open_dataset(small_workspace, name)) for name in ("explored", "test"))
    assert [s.name for s in drift(here, there).shifts if s.verdict == "moved"] == []


def test_columns_that_one_log_lacks_are_named(found):
    fewer = found.model_copy(update={"distributions": found.distributions[1:]})
    assert drift(fewer, found).only_there == (found.distributions[0].name,)
    assert drift(found, fewer).only_here == (found.distributions[0].name,)
    nothing = found.model_copy(update={"distributions": ()})
    assert drift(found, nothing).sentence == "The two logs have no column in common."
