"""Observations promise: the pooled past and the profile, missing values told, by name and order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.observation import (
    HISTORY,
    ObservationEncoder,
    log_history,
    log_totals,
    pooled_history,
    push,
)
from tests.searching import examples

SIGNALS = ("click", "watch_time")
PROFILES = pd.DataFrame({"age": [20.0, np.nan, 40.0], "city": ["Bern", None, "Aarau"]})


@pytest.fixture
def encoder() -> ObservationEncoder:
    return ObservationEncoder.fit(PROFILES, SIGNALS, ["age"], ["city"], requests_left=True)


def observe(encoder, past, profiles=PROFILES.iloc[[0]], seconds=60.0, step=1, left=3):
    """Returns the observation, by feature name, of a user with impressions `past` [n, signals] in order."""
    past = np.reshape(past, (1, -1, len(SIGNALS))).astype(np.float32)
    history, counts = push(np.zeros((1, HISTORY, len(SIGNALS)), np.float32), np.zeros(1, int), past)
    values = encoder.observe(
        encoder.profile(profiles),
        history,
        counts,
        np.array([seconds]),
        np.array([step]),
        None if left is None else np.array([left]),
    )
    assert values.shape == (1, encoder.n_features)
    assert values.dtype == np.float32
    return dict(zip(encoder.feature_names, values[0].tolist(), strict=True))


def test_a_hand_worked_observation(encoder):
    found = observe(encoder, [[1, 10], [0, 20], [0, 30]])
    assert found["age"] == 20
    assert found["age_missing"] == 0
    assert [found[f"city={c}"] for c in ("Aarau", "Bern", "missing")] == [0, 1, 0]
    assert found["watch_time_mean_5"] == found["watch_time_mean_100"] == 20
    assert found["click_mean_20"] == pytest.approx(1 / 3)
    assert found["history_count"] == 3
    assert found["log_seconds_since_last"] == pytest.approx(np.log(61))
    assert [found[n] for n in ("no_history", "request_index", "requests_left")] == [0, 1, 3]


def test_a_blank_profile_is_told_and_filled(encoder):
    found = observe(encoder, [], profiles=PROFILES.iloc[[1]], seconds=np.nan)
    assert found["age"] == 30  # the mean of the fitted profiles
    assert found["age_missing"] == 1
    assert [found[f"city={c}"] for c in ("Aarau", "Bern", "missing")] == [0, 0, 1]
    assert found["no_history"] == 1
    assert found["history_count"] == found["watch_time_mean_5"] == 0


def test_a_category_that_was_never_seen_is_missing(encoder):
    found = observe(encoder, [], profiles=pd.DataFrame({"age": [1.0], "city": ["Chur"]}))
    assert found["city=missing"] == 1


def test_only_numbers_are_standardised(encoder):
    mask = dict(zip(encoder.feature_names, encoder.numeric_mask, strict=True))
    assert [n for n, numeric in mask.items() if not numeric] == [
        "age_missing", "city=Aarau", "city=Bern", "city=missing", "no_history",
    ]  # fmt: skip


def test_an_encoder_without_profile_has_the_history_alone():
    encoder = ObservationEncoder.fit(pd.DataFrame(index=range(3)), SIGNALS)
    assert encoder.profile(pd.DataFrame(index=range(2))).shape == (2, 0)
    assert encoder.n_features == 3 * len(SIGNALS) + 4


def test_what_is_left_of_a_session_is_a_feature_only_where_a_server_knows_it(encoder):
    told = {n for n in encoder.feature_names if n == "requests_left"}
    of_a_log = ObservationEncoder.fit(PROFILES, SIGNALS, ["age"], ["city"])
    assert told == {"requests_left"} == set(encoder.feature_names) - set(of_a_log.feature_names)
    assert observe(of_a_log, [[1, 10]]).items() < observe(encoder, [[1, 10]]).items()
    with pytest.raises(ValueError, match="needs the requests that are left"):
        observe(encoder, [[1, 10]], left=None)


def test_an_encoder_of_an_older_log_still_has_what_is_left(encoder):
    stored = {k: v for k, v in encoder.model_dump(mode="json").items() if k != "requests_left"}
    assert ObservationEncoder.model_validate(stored) == encoder


def test_an_encoder_survives_json(encoder):
    assert ObservationEncoder.model_validate_json(encoder.model_dump_json()) == encoder


@examples(50)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 100, width=16)), max_size=230))
def test_means_are_over_the_last_impressions_of_each_window(past):
    encoder = ObservationEncoder(signals=SIGNALS)
    found = observe(encoder, past, profiles=pd.DataFrame(index=range(1)))
    for window in encoder.windows:
        for i, signal in enumerate(SIGNALS):
            last = [row[i] for row in past[-window:]]
            assert found[f"{signal}_mean_{window}"] == pytest.approx(np.mean(last) if last else 0, rel=1e-4)
    assert found["history_count"] == min(len(past), HISTORY)


@examples(30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_a_log_rebuilds_the_history_that_pushing_makes(sizes, seed):
    """Requests of `sizes` impressions by one user, who comes second in the log."""
    generator = np.random.default_rng(seed)
    before = 7
    values = generator.normal(size=(before + sum(sizes), len(SIGNALS))).astype(np.float32)
    stop = before + np.cumsum([0, *sizes[:-1]])
    history, counts = log_history(values, np.full(len(sizes), before), stop)
    pushed, n = np.zeros((1, HISTORY, len(SIGNALS)), np.float32), np.zeros(1, int)
    for i, size in enumerate(sizes):
        np.testing.assert_array_equal(history[i], pushed[0])
        assert counts[i] == n[0]
        pushed, n = push(pushed, n, values[None, stop[i] : stop[i] + size])


@pytest.mark.parametrize("n_signals", [1, 2, 7])
def test_sums_over_a_log_are_those_of_its_histories_to_the_bit(n_signals):
    """Signals of 0 and 1 beside one of seconds, whose sum depends on the order."""
    generator, windows = np.random.default_rng(n_signals), (5, 20, HISTORY)
    values = (generator.random((3_000, n_signals)) < 0.3).astype(np.float32)
    values[:, 0] = generator.random(3_000) * 40
    stop = np.sort(generator.integers(0, 3_000, 500))
    first = np.maximum(stop - generator.integers(0, 250, 500), 0)
    history, counts = log_history(values, first, stop)
    totals, n = log_totals(values, first, stop, windows)
    assert (n == counts).all() and (totals[0] != totals[2]).any()
    for found, expected in zip(totals, pooled_history(history, windows), strict=True):
        assert found.tobytes() == expected.tobytes()
