"""The predictor promises: earlier days only, no trace of how often a video was shown, the same for a seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mtf_engine.evaluation.weighted_gauc import weighted_gauc
from mtf_engine.logs import predictions
from mtf_engine.logs.prediction_model import Predictable, PredictionModel, above_chance
from mtf_engine.logs.predictions import (
    WARM_UP_DAYS,
    Behaviours,
    Judged,
    PredictorConfig,
    bootstrap_auc,
    choose_heads,
    fit_by_day,
    history_features,
    means_before,
)
from mtf_engine.spec import Refusal
from tests.searching import examples

ALL_ROWS = Judged(np.full(1_000, True), "validation rows")
QUICK = PredictorConfig(n_steps=30, batch_size=64, hidden=(8, 8))


def log(n=400, n_days=6, n_behaviours=2, seed=0):
    generator = np.random.default_rng(seed)
    user, video, day = (generator.integers(0, k, n) for k in (15, 40, n_days))
    return user, video, day, generator.integers(0, 2, (n, n_behaviours)).astype(float)


def predict_by_day(features, values, day, config):
    """Yields the rows of each day of the log after the warm-up, and what its network says of them."""
    for today, network in fit_by_day(features, values, day, config):
        if (rows := np.flatnonzero(day == today)).size:
            yield rows, network.predict(features[rows])


@examples(30)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 1.0, np.nan])),
        min_size=1,
        max_size=30,
    )
)
def test_means_are_over_earlier_days_of_the_group(rows):
    group, day, value = (np.array(column) for column in zip(*rows, strict=True))
    means, counts = means_before(group, day, value[:, None])
    for i in range(len(rows)):
        past = value[(group == group[i]) & (day < day[i]) & ~np.isnan(value)]
        assert counts[i, 0] == len(past)
        np.testing.assert_allclose(means[i, 0], past.mean() if len(past) else np.nan)


def test_features_of_a_day_do_not_know_that_day_nor_later_ones():
    user, video, day, values = log()
    generator = np.random.default_rng(1)
    today = 3
    later = np.flatnonzero(day >= today)
    changed = values.copy()
    changed[later] = generator.integers(0, 2, (len(later), 2))
    rows = day <= today
    np.testing.assert_array_equal(
        history_features(user, video, day, values, 0)[rows],
        history_features(user, video, day, changed, 0)[rows],
    )


def test_predictions_of_a_day_do_not_change_when_that_day_and_later_ones_are_permuted():
    user, video, day, values = log()
    features = history_features(user, video, day, values, 0)
    today = WARM_UP_DAYS + 1
    later = np.flatnonzero(day >= today)
    changed = values.copy()
    changed[later] = values[np.random.default_rng(1).permutation(later)]
    original, other = (
        {int(day[rows[0]]): p for rows, p in predict_by_day(features, v, day, QUICK)}
        for v in (values, changed)
    )
    for earlier in range(WARM_UP_DAYS, today + 1):
        np.testing.assert_array_equal(original[earlier], other[earlier])
    assert not np.array_equal(original[today + 1], other[today + 1])


def test_every_row_after_the_warm_up_is_predicted_once():
    user, video, day, values = log()
    found = list(predict_by_day(history_features(user, video, day, values, 0), values, day, QUICK))
    rows = np.concatenate([r for r, _ in found])
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(day >= WARM_UP_DAYS))
    assert all(((p > 0) & (p < 1)).all() for _, p in found)


def test_the_same_seed_gives_the_same_predictions():
    user, video, day, values = log()
    features = history_features(user, video, day, values, 0)
    first, again = ([p for _, p in predict_by_day(features, values, day, QUICK)] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    other = [p for _, p in predict_by_day(features, values, day, QUICK.model_copy(update={"seed": 1}))]
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_showing_a_video_more_often_does_not_change_its_features():
    """Every row of some videos is repeated, by users of their own: no feature of the other rows moves."""
    user, video, day, values = log()
    popular = np.flatnonzero(video < 10)
    repeated = np.concatenate([np.arange(len(day)), popular, popular])
    ghosts = np.concatenate([user, np.full(2 * len(popular), 99)])
    of_video = slice(values.shape[1], None)
    once = np.flatnonzero(means_before(video, day, np.ones((len(day), 1)))[1][:, 0] > 0)
    plain = history_features(user, video, day, values, 0)[once, of_video]
    often = history_features(ghosts, video[repeated], day[repeated], values[repeated], 0)[once, of_video]
    np.testing.assert_allclose(often, plain, rtol=1e-6)


def test_whether_a_video_was_shown_before_cannot_be_learned():
    """Videos are liked if they come again, and only then: a count or a mark for new ones would predict it."""
    generator = np.random.default_rng(0)
    n, n_days = 6_000, 7
    comes_again = generator.random(n) < 0.5
    video = np.where(comes_again, generator.integers(0, 40, n), 1_000 + np.arange(n))
    day, user = generator.integers(0, n_days, n), generator.integers(0, 50, n)
    values = np.stack([comes_again, generator.random(n) < 0.5], axis=1).astype(float)
    features = history_features(user, video, day, values, 0)
    config = PredictorConfig(n_steps=200, batch_size=256, hidden=(32, 16))
    rows, predictions = zip(*predict_by_day(features, values, day, config), strict=True)
    auc = roc_auc_score(comes_again[np.concatenate(rows)], np.concatenate(predictions)[:, 0])
    assert auc == pytest.approx(0.5, abs=0.04)


def test_what_can_be_learned_is_learned():
    generator = np.random.default_rng(0)
    n, n_users = 4_000, 40
    user, day = generator.integers(0, n_users, n), generator.integers(0, 6, n)
    rate = generator.uniform(0.05, 0.95, n_users)
    values = (generator.random(n) < rate[user])[:, None].astype(float)
    features = history_features(user, np.arange(n), day, values, 0)
    config = PredictorConfig(n_steps=200, batch_size=256, hidden=(16, 16))
    rows, predictions = zip(*predict_by_day(features, values, day, config), strict=True)
    labels = values[np.concatenate(rows), 0]
    best = roc_auc_score(labels, rate[user[np.concatenate(rows)]])
    assert roc_auc_score(labels, np.concatenate(predictions)[:, 0]) > best - 0.04


def test_unknown_outcomes_do_not_train():
    """The outcome is 1 where it is known and would be 0 where it is not."""
    user, video, day, values = log(n=600)
    values[:, 0] = 1.0
    values[::2, 0] = np.nan
    features = history_features(user, video, day, values, 0)
    config = QUICK.model_copy(update={"n_steps": 100, "learning_rate": 0.02})
    *_, (_, predictions) = predict_by_day(features, values, day, config)
    assert predictions[:, 0].min() > 0.9


def test_rare_and_repeated_behaviours_get_no_head():
    generator = np.random.default_rng(0)
    like, click = (generator.integers(0, 2, 1_000) for _ in range(2))
    rare = np.zeros(1_000)
    rare[:49] = 1
    values = np.stack([like, 1 - like, click, rare, like], axis=1).astype(float)
    kept, dropped = choose_heads(Behaviours(("like", "hate", "click", "follow", "heart"), values), ALL_ROWS)
    assert kept == ("like", "click")
    assert dropped == {
        "hate": "equals 1 - like on every one of the validation rows",
        "follow": "49 positives on the validation rows, fewer than 50",
        "heart": "equals like on every one of the validation rows",
    }


def test_predictions_that_are_told_to_be_worse_than_chance_are_left_out():
    generator = np.random.default_rng(0)
    user, item, _, values = log(n=1_000, n_days=6)
    rows = Predictable(
        user, item, generator.integers(1, 7, 1_000), Behaviours(("like", "click"), values), None
    )
    inputs = generator.normal(size=(1_000, 2)).astype(np.float32)
    model, found = PredictionModel.fit(
        replace(rows, inputs=inputs), ("like", "click"), QUICK, lambda *_: None
    )
    bad = np.where(values == 1, 0.4, 0.6).astype(np.float32) + generator.uniform(0, 0.3, values.shape)
    bad[:, 1] = found[:, 1] + values[:, 1]
    kept, left, dropped = above_chance(model, bad, rows, Judged(rows.date == 6, "validation rows"))
    assert kept.heads == ("click",) and left.shape == (1_000, 1)
    assert dropped["like"].startswith("worse than chance on the validation rows: AUC 0.")
    again = PredictionModel.from_bytes(kept.to_bytes())
    some = inputs[:9, :1].repeat(6, axis=1)
    for date, network in kept.networks.items():
        whole = model.networks[date].predict(some)[:, 1]
        np.testing.assert_allclose(network.predict(some)[:, 0], whole, rtol=1e-6)
        np.testing.assert_array_equal(network.predict(some), again.networks[date].predict(some))
    with pytest.raises(Refusal, match="nothing is predicted better than by chance"):
        above_chance(kept, bad[:, :1] * 0 + np.where(values[:, 1:] == 1, 0.1, 0.2), rows, ALL_ROWS)


def test_a_log_where_nothing_can_be_predicted_is_refused():
    with pytest.raises(Refusal, match="50 positives"):
        choose_heads(Behaviours(("like",), np.zeros((1_000, 1))), ALL_ROWS)


@examples(20)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_counts_ties_as_one_half(rows):
    scores, labels = np.array([s for s, _ in rows], float), np.array([y for _, y in rows])
    if labels.all() or not labels.any():
        return
    found = bootstrap_auc(scores, labels, np.arange(len(rows)), np.random.default_rng(0), n_bootstrap=20)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores))
    assert found.positives == labels.sum()


def test_an_interval_over_users_is_wider_than_one_over_rows():
    """All rows of a user are alike, so 30 users are 30 observations, however many rows they have."""
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=30), generator.random(30) < 0.5
    users = np.repeat(np.arange(30), 20)
    by_user = bootstrap_auc(scores[users], labels[users], users, generator)
    by_row = bootstrap_auc(scores[users], labels[users], np.arange(600), generator)
    assert by_user.ci_low < by_user.auc < by_user.ci_high
    assert by_user.ci_high - by_user.ci_low > 3 * (by_row.ci_high - by_row.ci_low)


@examples(15)
@given(st.integers(0, 2**32 - 1))
def test_the_auc_of_a_head_is_the_weighted_gauc_of_one_group(seed):
    """Two functions, one truth: this one serves many weightings of one sort, which a bootstrap asks for."""
    generator = np.random.default_rng(seed)
    scores, labels = generator.integers(0, 9, 60) / 8, generator.random(60) < 0.5
    weights = generator.uniform(0.5, 2, (3, 60))
    together = np.zeros(60, int)
    expected = [weighted_gauc(scores, labels, weight, together).value for weight in weights]
    np.testing.assert_allclose(predictions._weighted_auc(scores, labels, weights), expected, rtol=1e-12)
