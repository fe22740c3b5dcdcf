"""KuaiRand as published: cleaned and said so, dealt in time order, predicted from earlier days alone."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.files import quoted
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.kuairand import BEHAVIOURS, PER_REQUEST, PER_SESSION, SIGNALS, read_kuairand
from mtf_engine.logs.predictions import PredictorConfig
from mtf_engine.spec import Refusal
from tests.fixtures import kuairand as sample

QUICK = PredictorConfig(n_steps=20, batch_size=64, hidden=(8, 8))


def read(source, user_features=None, config=QUICK, steps=None):
    progress = (lambda done, total: None) if steps is None else lambda *step: steps.append(step)
    return read_kuairand(source, user_features, "kuairand", progress, config)


def imported(source, to, **options) -> Dataset:
    log = read(source, **options)
    to.mkdir(exist_ok=True)
    write_dataset(to, "k", log.meta, log.batches)
    return Dataset.open(to / "k.duckdb")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sample.impressions()


@pytest.fixture(scope="module")
def dataset(rows, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("kuairand")
    return imported(sample.write(folder / "log", rows, sample.users()), folder / "data")


def test_a_folder_with_user_features_works_by_itself(dataset):
    warnings = dataset.meta.details["warnings"]
    assert "user features are taken from user_features.csv in the same folder" in warnings
    assert "1 users have no features; they are treated as missing" in warnings
    assert "1 user features are blank; they are treated as missing" in warnings
    assert set(dataset.query("SELECT DISTINCT segment FROM requests")["segment"]) == {
        "full_active", "high_active", "unknown",
    }  # fmt: skip
    assert not any("onehot" in name for name in dataset.meta.feature_names)


def test_splits_are_local_days_and_the_first_three_are_left_out(dataset, rows):
    found = dataset.query(
        "SELECT split, strftime(i.at, '%Y%m%d')::INT AS day, count(*) AS n FROM "
        "(SELECT request_id, timestamp + INTERVAL 8 HOUR AS at FROM requests) i "
        "JOIN requests USING (request_id) "
        "JOIN impressions USING (request_id) GROUP BY ALL"
    )
    days = found.groupby("split")["day"].agg(["min", "max"])
    assert days.loc["train"].tolist() == [20220411, 20220412]
    assert days.loc["validation"].tolist() == [20220413, 20220414]
    assert days.loc["test"].tolist() == [20220415, 20220417]
    assert dataset.n_impressions == (rows["date"] >= 20220411).sum()


def test_requests_deal_out_a_users_impressions_in_time_order(dataset, rows):
    shown = dataset.query(
        "SELECT item_id, watch_time FROM impressions ORDER BY user_id, request_id, position"
    )
    logged = rows[rows["date"] >= 20220411].assign(user_id=rows["user_id"].astype(str))
    logged = logged.sort_values(["user_id", "time_ms", "video_id"])
    assert shown["item_id"].tolist() == logged["video_id"].tolist()
    np.testing.assert_allclose(shown["watch_time"], logged["play_time_ms"] / 1000, rtol=1e-6)
    sizes = dataset.query("SELECT request_id, count(*) AS n FROM impressions GROUP BY 1 ORDER BY 1")["n"]
    requests = dataset.query(
        "SELECT *, lead(session_id) OVER (ORDER BY request_id) AS next FROM requests ORDER BY request_id"
    )
    assert sizes.max() == PER_REQUEST
    short = requests[sizes.to_numpy() < PER_REQUEST]
    assert short["terminal"].all()
    assert requests["step"].max() == PER_SESSION - 1
    assert (requests["terminal"] == (requests["session_id"] != requests["next"])).all()


def test_the_warm_up_counts_as_history(dataset, rows):
    """The first observation of a user in the dataset pools what the warm-up days held."""
    first = dataset.arrays(
        "SELECT DISTINCT ON (user_id) user_id, epoch_ms(timestamp) AS ms, observation FROM requests "
        "ORDER BY user_id, request_id"
    )
    count = dataset.meta.feature_names.index("history_count")
    click = dataset.meta.feature_names.index("click_mean_100")
    for user, time, observation in zip(first["user_id"], first["ms"], first["observation"], strict=True):
        past = (
            rows[(rows["user_id"] == int(user)) & (rows["time_ms"] < time)].sort_values("time_ms").iloc[-100:]
        )
        assert observation[count] == len(past) > 0
        assert observation[click] == pytest.approx(past["is_click"].mean(), rel=1e-5)


def test_signals_are_what_users_did(dataset, rows):
    totals = dataset.query(f"SELECT {', '.join(map(quoted, SIGNALS))} FROM impressions").sum()
    kept = rows[rows["date"] >= 20220411]
    known = kept["duration_ms"] > 0
    assert totals["valid"] == (kept["play_time_ms"] > 10_000).sum()
    assert totals["finish"] == (known & (kept["play_time_ms"] >= kept["duration_ms"])).sum()
    assert totals["like"] == kept["label"].sum()
    assert totals["hate"] == (1 - kept["label"]).sum()
    assert totals["profile_enter"] == kept["is_profile_enter"].sum()


def test_rare_and_complementary_behaviours_are_dropped_with_their_reason(dataset):
    details = dataset.meta.details
    assert details["dropped"]["hate"] == "equals 1 - like on every one of the validation rows"
    assert "positives on the validation rows" in details["dropped"]["follow"]
    assert set(details["predictor"]) | set(details["dropped"]) == set(BEHAVIOURS)
    assert tuple(details["predictor"]) == dataset.meta.fusion.predictions
    for auc in details["predictor"].values():
        assert 0 < auc["ci_low"] < auc["auc"] < auc["ci_high"] < 1
        assert auc["positives"] >= 50


def test_every_impression_has_predictions(dataset):
    predictions = dataset.arrays("SELECT predictions FROM impressions")["predictions"]
    assert ((predictions > 0) & (predictions < 1)).all()


def test_the_order_of_the_files_rows_does_not_matter(dataset, rows, tmp_path):
    again = imported(
        sample.write(tmp_path / "log", rows.sample(frac=1, random_state=1), sample.users()), tmp_path
    )
    assert again.content_hash == dataset.content_hash


def test_progress_counts_the_predicted_days(rows, tmp_path):
    steps = []
    read(sample.write(tmp_path, rows), steps=steps)
    assert steps == [(i, 7) for i in range(1, 8)]


def test_the_full_logs_columns_are_taken_from_a_csv_file(rows, tmp_path):
    path = tmp_path / "log_standard_4_08_to_4_21_pure.csv"
    sample.full(rows).to_csv(path, index=False)
    log = read(path)
    assert "hate" in log.meta.details["dropped"]
    assert "1 - like" not in log.meta.details["dropped"]["hate"]
    assert "no user features: all users are of one segment" in log.warnings
    assert read(tmp_path).meta == log.meta


def test_user_features_may_lie_elsewhere(rows, tmp_path):
    features = tmp_path / "people.csv"
    sample.users().to_csv(features, index=False)
    log = read(sample.write(tmp_path / "log", rows) / "impressions.tsv", user_features=features)
    assert "user_active_degree=full_active" in log.meta.feature_names


def test_duplicates_and_unknown_durations_are_counted_and_no_reason_to_refuse(rows, tmp_path):
    doubled = pd.concat([rows, rows.iloc[:7]])
    doubled["duration_ms"] = doubled["duration_ms"].astype(object).where(doubled["duration_ms"] > 0, None)
    log = read(sample.write(tmp_path, doubled))
    assert "7 exact duplicates were dropped" in log.warnings
    unknown = int((rows["duration_ms"] == 0).sum())
    assert f"{unknown} rows have no duration; it is treated as missing" in log.warnings
    assert log.meta.details["rows"]["read"] == len(rows) + 7


def test_a_days_predictions_do_not_change_with_later_days(rows, tmp_path):
    """All that users did from a day on is dealt out anew among them; earlier days keep their scores."""
    generator = np.random.default_rng(0)
    outcomes = ["is_click", "long_view", "is_comment", "is_profile_enter", "play_time_ms", "label"]
    today = 20220414
    later = rows.index[rows["date"] >= today]
    changed = rows.copy()
    changed.loc[later, outcomes] = rows.loc[generator.permutation(later), outcomes].to_numpy()
    before, after = (
        imported(sample.write(tmp_path / name, frame), tmp_path / name).query(
            "SELECT request_id, position, predictions, "
            "strftime(timestamp + INTERVAL 8 HOUR, '%Y%m%d')::INT AS day "
            "FROM impressions JOIN requests USING (request_id) ORDER BY 1, 2"
        )
        for name, frame in (("a", rows), ("b", changed))
    )
    known = (before["day"] < today).to_numpy()
    assert before["predictions"][known].map(tuple).equals(after["predictions"][known].map(tuple))
    assert not before["predictions"][~known].map(tuple).equals(after["predictions"][~known].map(tuple))


def broken(rows, **changes) -> pd.DataFrame:
    frame = rows.astype(dict.fromkeys(changes, object))
    for column, value in changes.items():
        frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize(
    ("change", "code", "row", "column"),
    [
        (lambda rows: rows.drop(columns="is_click"), "missing_column", None, "is_click"),
        (lambda rows: rows.drop(columns="label"), "missing_column", None, "label"),
        (partial(broken, play_time_ms=-5), "negative_watch_time", 4, "play_time_ms"),
        (partial(broken, video_id=None), "null_key", 4, "video_id"),
        (partial(broken, time_ms="noon"), "wrong_type", 4, "time_ms"),
        (partial(broken, is_comment="inf"), "nan_or_inf", 4, "is_comment"),
        (lambda rows: rows.iloc[:0], "empty_file", None, None),
    ],
)
def test_a_defect_is_named_with_its_row_and_column(change, code, row, column, rows, tmp_path):
    with pytest.raises(Refusal) as caught:
        read(sample.write(tmp_path, change(rows)))
    (defect,) = caught.value.defects
    assert (defect.code, defect.file, defect.row, defect.column) == (code, "impressions.tsv", row, column)


def test_defects_of_user_features_are_told_too(rows, tmp_path):
    features = sample.users().astype({"fans_user_num": object})
    features.loc[2, "fans_user_num"] = "many"
    with pytest.raises(Refusal) as caught:
        read(sample.write(tmp_path, broken(rows, play_time_ms=-5), features))
    assert {(d.code, d.file) for d in caught.value.defects} == {
        ("negative_watch_time", "impressions.tsv"),
        ("wrong_type", "user_features.csv"),
    }


def test_a_log_of_too_few_days_is_refused(tmp_path):
    with pytest.raises(Refusal, match="covers 8 days and 9 are needed"):
        read(sample.write(tmp_path, sample.impressions(n_days=8)))


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"it needs impressions\.tsv"):
        read(tmp_path)


def test_the_format_is_told_by_its_columns(rows, tmp_path):
    sample.write(tmp_path, rows.iloc[:0])
    with pytest.raises(Refusal, match=r"impressions\.tsv: holds no rows"):
        read_log(tmp_path)


def test_the_real_log_is_read(kuairand, tmp_path):
    dataset = imported(kuairand, tmp_path)
    counts = dataset.meta.details["rows"]
    assert (counts["read"], counts["duplicates"], counts["users"]) == (27_481, 60, 441)
    tested = dataset.query(
        "SELECT count(*) AS n, sum(click) AS click, sum(comment) AS comment FROM impressions "
        "JOIN requests USING (request_id) WHERE split = 'test'"
    )
    assert tested.iloc[0].tolist() == [4177, 2694, 126]
    dropped = dataset.meta.details["dropped"]  # a network of few steps may be worse than chance
    assert {name for name, why in dropped.items() if "chance" not in why} == {"hate", "follow", "forward"}


@pytest.mark.slow
def test_the_real_logs_predictions_are_worth_having(kuairand):
    aucs = read(kuairand, config=PredictorConfig()).meta.details["predictor"]
    for behaviour in ("valid", "click", "long_view", "finish", "like"):
        assert aucs[behaviour]["ci_low"] > 0.65
    for behaviour in ("comment", "profile_enter"):
        assert aucs[behaviour]["ci_low"] > 0.5
