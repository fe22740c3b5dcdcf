"""Weighted GAUC against a hand-worked example, a quadratic brute force and scikit-learn."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mtf_engine.evaluation import weighted_gauc
from mtf_engine.spec import Refusal
from tests.searching import examples


def brute_force(scores, labels, weights, users):
    """Returns value, and AUC and weight by user, comparing every positive of a user with every negative."""
    aucs, totals = {}, {}
    for user in dict.fromkeys(users):
        rows = [i for i in range(len(users)) if users[i] == user]
        pairs = [(i, j) for i in rows for j in rows if labels[i] and not labels[j]]
        totals[user] = sum(weights[i] for i in rows)
        won = sum(
            weights[i] * weights[j] * (2 * (scores[i] > scores[j]) + (scores[i] == scores[j])) / 2
            for i, j in pairs
        )
        if pairs:
            aucs[user] = won / sum(weights[i] * weights[j] for i, j in pairs)
    used = sum(totals[user] for user in aucs)
    return (sum(totals[u] * aucs[u] for u in aucs) / used if aucs else None), aucs, totals


def test_the_example_worked_by_hand():
    # Ann: the positive of weight 2 beats the negative of weight 1 and ties with the one of weight 3,
    #      so 2 (1 + 3/2) / (2 * 4) = 5/8, weight 6. Bob: 1 of 1, weight 2. Cid has one class, weight 5.
    result = weighted_gauc(
        scores=[0.9, 0.1, 0.9, 0.5, 0.2, 0.7],
        labels=[1, 0, 0, 1, 0, 1],
        weights=[2, 1, 3, 1, 1, 5],
        users=["ann", "ann", "ann", "bob", "bob", "cid"],
    )
    assert result.value == pytest.approx((6 * 5 / 8 + 2 * 1) / 8, abs=1e-15)
    assert (result.users_used, result.users_left_out) == (2, 1)
    assert (result.weight_used, result.weight_left_out) == (8, 5)
    assert dict(zip(result.keys, result.weights, strict=True)) == {"ann": 6, "bob": 2, "cid": 5}
    np.testing.assert_allclose(result.aucs, [5 / 8, 1, np.nan])


# 0, 1, 1 + 1e-12 and 1 + 2e-12: ties and scores 1e-12 apart; the last ones are far from the others.
close_scores = st.sampled_from([0.0, -0.0, 1.0, 1 + 1e-12, 1 + 2e-12, -1.0, -1 - 1e-12, 1e9, -1e300, 1e300])
row = st.tuples(
    st.one_of(close_scores, st.floats(-5, 5)),
    st.booleans(),
    st.floats(1e-3, 1e3),
    st.integers(-3, 4),
)


@examples(200)
@given(rows=st.lists(row, min_size=1, max_size=40))
@example(rows=[(1 + 1e-12, True, 1.0, 0), (1.0, False, 1.0, 0), (1e300, True, 2.0, 0), (1.0, True, 3.0, 1)])
@example(rows=[(2.0, True, 1.0, 7)])
def test_equals_a_quadratic_brute_force(rows):
    scores, labels, weights, users = map(list, zip(*rows, strict=True))
    value, aucs, totals = brute_force(scores, labels, weights, users)
    result = weighted_gauc(scores, labels, weights, users)
    assert result.value == (None if value is None else pytest.approx(value, abs=1e-12))
    for key, auc, weight in zip(result.keys, result.aucs, result.weights, strict=True):
        assert weight == pytest.approx(totals[key], rel=1e-12)
        assert np.isnan(auc) if key not in aucs else auc == pytest.approx(aucs[key], abs=1e-12)
    assert result.users_used == len(aucs)
    assert result.users_used + result.users_left_out == len(totals)


heavy_and_light = st.tuples(
    st.sampled_from([0.0, 1.0, 2.0, 3.0]),
    st.booleans(),
    st.one_of(st.sampled_from([1e-300, 1e-200, 1.0, 1e300]), st.floats(-200, 300).map(lambda x: 10**x)),
    st.integers(0, 2),
)


@examples(60)
@given(rows=st.lists(heavy_and_light, min_size=1, max_size=12))
@example(
    rows=[(0.0, False, 1e-200, 0), (1.0, True, 1e-200, 0), (1.0, True, 1e300, 1), (0.0, False, 1e300, 1)]
)
@example(rows=[(0.0, False, 1e300, 0), (1.0, True, 1e-200, 0), (0.0, True, 1e-200, 0), (1.0, False, 1.0, 0)])
def test_weights_of_any_size_give_the_exact_value(rows):
    scores, labels, weights, users = map(list, zip(*rows, strict=True))
    value, aucs, totals = brute_force(scores, labels, [Fraction(w) for w in weights], users)
    result = weighted_gauc(scores, labels, weights, users)
    assert result.value == (None if value is None else pytest.approx(float(value), abs=1e-12))
    for key, auc, weight in zip(result.keys, result.aucs, result.weights, strict=True):
        assert weight == pytest.approx(float(totals[key]), rel=1e-12)
        assert np.isnan(auc) if key not in aucs else auc == pytest.approx(float(aucs[key]), abs=1e-12)


def test_a_light_group_keeps_its_digits_beside_heavy_ones():
    rows = random_rows()
    rows["weights"] *= 10.0 ** np.random.default_rng(1).integers(-200, 290, 60)[rows["users"]]
    result = weighted_gauc(**rows)
    for key, auc in zip(result.keys, result.aucs, strict=True):
        alone = weighted_gauc(**{name: values[rows["users"] == key] for name, values in rows.items()})
        assert auc == pytest.approx(alone.value, abs=1e-12)


def random_rows(n=3000, n_users=60, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "scores": generator.normal(size=n).round(2),
        "labels": generator.random(n) < 0.4,
        "weights": 0.1 + generator.random(n),
        "users": generator.integers(0, n_users, n),
    }


def test_equals_scikit_learn_user_by_user():
    rows = random_rows()
    result = weighted_gauc(**rows)
    for key, auc in zip(result.keys, result.aucs, strict=True):
        mine = {name: values[rows["users"] == key] for name, values in rows.items()}
        expected = roc_auc_score(mine["labels"], mine["scores"], sample_weight=mine["weights"])
        assert auc == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda codes: codes - 30,
        lambda codes: codes.astype(np.int8),
        lambda codes: codes.astype(np.uint64) + np.uint64(2**63),
        lambda codes: codes * 10**17,
        lambda codes: codes / 7,
        lambda codes: codes.astype(str),
        lambda codes: np.array([f"user {c}" for c in codes], object),
        lambda codes: pd.Series(codes, index=codes + 5).map("user {}".format),
    ],
)
def test_any_type_of_user_gives_the_same_value(renamed):
    rows = random_rows()
    expected = weighted_gauc(**rows)
    result = weighted_gauc(**(rows | {"users": renamed(rows["users"])}))
    assert result.value == pytest.approx(expected.value, abs=1e-14)
    assert set(result.keys) == set(renamed(rows["users"]))


def test_threads_change_no_bit():
    rows = random_rows(n=200_000, n_users=5000)  # several parts
    one, three = weighted_gauc(**rows), weighted_gauc(**rows, n_threads=3)
    assert one.value == three.value and np.array_equal(one.aucs, three.aucs, equal_nan=True)


def test_a_light_user_among_heavy_ones_keeps_its_digits():
    rows = random_rows()
    alone = rows["users"] == 30
    heavy = rows | {"weights": np.where(alone, rows["weights"] * 1e-9, rows["weights"] * 1e9)}
    expected = weighted_gauc(**{name: values[alone] for name, values in rows.items()}).value
    result = weighted_gauc(**heavy)
    assert result.aucs[result.keys == 30] == pytest.approx(expected, abs=1e-12)


@examples(50)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_rows_and_a_rising_map_of_scores_do_not_matter(seed):
    rows = random_rows(n=200, n_users=9, seed=seed)
    rows["users"] = np.sort(rows["users"])
    shuffled = np.random.default_rng(seed).permutation(200)
    mapped = {name: values[shuffled] for name, values in rows.items()}
    mapped["scores"] = np.exp(50 * mapped["scores"])
    mapped["weights"] = 4 * mapped["weights"]
    assert weighted_gauc(**mapped).value == pytest.approx(weighted_gauc(**rows).value, abs=1e-12)


def test_no_valid_group_gives_no_value():
    result = weighted_gauc([0.1, 0.2, 0.3], [1, 1, 0], [1, 1, 1], [1, 1, 2])
    assert result.value is None
    assert (result.users_used, result.users_left_out, result.weight_left_out) == (0, 2, 3)
    assert weighted_gauc([], [], [], []).value is None


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("scores", np.nan, "the score of row 1 (counted from 0) is nan"),
        ("scores", np.inf, "the score of row 1 (counted from 0) is inf"),
        ("weights", np.nan, "the weight of row 1 (counted from 0) is nan"),
        ("weights", 0.0, "the weight of row 1 (counted from 0) is 0.0; give finite weights above 0"),
        ("weights", 5e-324, "the weight of row 1 (counted from 0) is 5e-324"),
        ("weights", 1.7e308, "the weight of row 1 (counted from 0) is 1.7e+308"),
        ("labels", 2.0, "the label of row 1 (counted from 0) is 2.0; give 0 or 1"),
        ("labels", np.nan, "the label of row 1 (counted from 0) is nan"),
        ("users", np.nan, "the user of row 1 (counted from 0) is missing"),
    ],
)
def test_bad_rows_are_refused_by_name(column, value, sentence):
    rows = {name: values.astype(float) for name, values in random_rows(n=4).items()}
    rows[column][1] = value
    with pytest.raises(Refusal) as refusal:
        weighted_gauc(**rows)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("column", ["scores", "labels", "weights", "users"])
@pytest.mark.parametrize("kind", ["Int64", "Float64", "int64[pyarrow]"])
def test_what_is_missing_in_a_nullable_column_is_refused_and_the_rest_counts(column, kind):
    rows = random_rows(n=400) | {"scores": np.arange(400) % 9, "weights": 1 + np.arange(400) % 3}
    nullable = pd.Series(rows[column]).astype("Int64").astype(kind)
    expected = weighted_gauc(**rows).value
    assert weighted_gauc(**(rows | {column: nullable})).value == pytest.approx(expected, abs=1e-14)
    nullable[1] = pd.NA
    with pytest.raises(Refusal, match=rf"the {column[:-1]} of row 1 \(counted from 0\) is"):
        weighted_gauc(**(rows | {column: nullable}))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(Refusal, match="2 scores, 1 labels, 2 weights, 2 users"):
        weighted_gauc([1.0, 2.0], [True], [1.0, 1.0], [0, 0])
