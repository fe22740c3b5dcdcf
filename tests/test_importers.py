"""Importing promises: the log as it is, whatever its columns are called, and observations of the past."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks.importing import write_log
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.joining import joined_meta
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan, Refusal
from tests.fixtures import logs


def imported(source: Path, to: Path, **options) -> Dataset:
    log = read_log(source, **options)
    to.mkdir(exist_ok=True)
    write_dataset(to, "log", log.meta, log.batches)
    return Dataset.open(to / "log.duckdb")


@pytest.fixture
def folder(tmp_path) -> Path:
    return logs.write(logs.clean(), tmp_path / "log")


def test_a_log_has_the_same_hash_under_every_duckdb_that_is_allowed(folder, tmp_path):
    """`make test-range` runs this under the oldest and the newest one."""
    dataset = imported(folder, tmp_path, mapping=folder / "mapping.yaml", name="mine")
    assert dataset.content_hash == "10590c86b98ea2771b796a2179a37494513cc4cc19a5523e37a5922e0f5b4478"


def impressions_alone(path: Path, has: tuple[str, ...], seed: int = 0) -> Path:
    """Returns a log of impressions in no order, with a device, a pause and a midnight within requests and sessions."""
    generator, n = np.random.default_rng(seed), 600
    request = generator.integers(0, 150, n)
    user = request % 7
    seconds = 864_000 * (request // 30) // 5 + 1_500 * (request % 30) + generator.integers(0, 900, n)
    frame = pd.DataFrame(
        {
            "user_id": [f"user {u}" for u in user],
            "timestamp": pd.Timestamp("2026-05-04 23:50:00") + pd.to_timedelta(seconds, unit="s"),
            "request_id": request,
            "session_id": [f"{r // 60}-{r % 2}" for r in request],
            "position": pd.Series(request).groupby(request).cumcount(),
            "item_id": generator.integers(0, 50, n),
            "prediction_click": generator.uniform(0.01, 0.9, n),
            "prediction_like": generator.uniform(0.01, 0.9, n),
            "watch_time": generator.uniform(0, 40, n).round(1),
            "click": generator.integers(0, 2, n),
            "like": generator.integers(0, 2, n).astype(bool),
            "age": np.where(generator.random(n) < 0.1, np.nan, generator.integers(18, 80, n)),
            "device": generator.choice(["phone", "tablet"], n),
        }
    )
    optional = ("request_id", "session_id", "position", "item_id", "age", "device")
    frame = frame.drop(columns=[c for c in optional if c not in has])
    frame.iloc[generator.permutation(n)].to_parquet(path / "shown.parquet", index=False)
    profile = "profile: {numeric: [age], categorical: [device]}\n" if "age" in has else ""
    (path / "mapping.yaml").write_text("signals: [click, like, watch_time]\n" + profile)
    return path / "shown.parquet"


@pytest.mark.parametrize(
    ("has", "digest"),
    [
        (
            ("request_id", "session_id", "position", "item_id"),
            "51aaa02b23708c7aa03164b0b5246d8e5246e9148507ed41cc9b4dfc519c8ed0",
        ),
        (
            ("request_id", "item_id", "age", "device"),
            "70752386961385872bbd1f8135e262382cd5c316ba82c264e03425bb6577e58a",
        ),
        (("position",), "2487ef4a0017559856926429da7910f3f467ff258b7a027052ae3677ee2aa906"),
    ],
    ids=["all ids", "no sessions, and profiles", "no ids"],
)
def test_impressions_alone_keep_their_hash(has, digest, tmp_path, monkeypatch):
    """In parts of few requests too: what a part knows of the log before it is all that it needs."""
    source = impressions_alone(tmp_path, has)
    options = {"mapping": tmp_path / "mapping.yaml", "name": "mine"}
    dataset = imported(source, tmp_path, **options)
    assert dataset.content_hash == digest
    monkeypatch.setattr("mtf_engine.logs.ordered.READ_ROWS", 16)
    monkeypatch.setattr("mtf_engine.logs.impressions.BATCH_REQUESTS", 5)
    assert imported(source, tmp_path / "parts", **options).content_hash == digest
    assert dataset.recompute_content_hash() == digest


def two_tables(kind: str) -> tuple[logs.Log, str]:
    """Returns a log of that kind, its rows in no order, and its mapping."""
    log, generator = logs.clean(n_users=9, n_sessions=3, n_steps=4), np.random.default_rng(1)
    requests, impressions, mapping = log.requests, log.impressions, logs.MAPPING
    if kind == "ids are texts":
        requests = requests.assign(session_id=[f"s{s % 20}-{s}" for s in requests.session_id])
        requests, impressions = (
            one.assign(request_id="r" + one.request_id.astype(str)) for one in (requests, impressions)
        )
    if kind == "sessions at one time":
        requests = requests.assign(
            timestamp=requests.timestamp.iloc[0] + pd.to_timedelta(requests.step, unit="h")
        )
    if kind == "observations are made":
        ages = np.where(
            generator.random(len(requests)) < 0.1, np.nan, generator.integers(18, 80, len(requests))
        )
        requests = requests.drop(
            columns=["observation", "baseline_action", "action", "lower", "upper", "pscore"]
        )
        requests = requests.assign(age=ages, device=generator.choice(["phone", "tablet"], len(requests)))
        mapping += "profile: {numeric: [age], categorical: [device]}\n"
    if kind == "densities are believed":
        baseline = generator.random(len(requests)) < 0.3
        action = [
            b if kept else a
            for a, b, kept in zip(requests.action, requests.baseline_action, baseline, strict=True)
        ]
        requests = requests.drop(columns="pscore").assign(action=action)
        mapping += "exploration: uniform\n"
    shuffled = (one.sample(frac=1, random_state=2) for one in (requests, impressions))
    return logs.Log(*shuffled), mapping


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("ids are numbers", "2bd0e1c4985d3563a64e8104ed50504ac17e2e6204e6bf0aa214497242e40e07"),
        ("ids are texts", "87809972638964cbae0a462ecd43da9eefe77f620f4a17c7c60ef431bc333eb4"),
        ("sessions at one time", "2187ebbce9ff0c87ab5d6f11684f1f63a66eed94778daa8bfcda58f15e4dcc4b"),
        ("observations are made", "05c92dbe4a4a66d537ba7501c7548c84dd18cec74ec718c999d4ce1270639592"),
        ("densities are believed", "b0eefd62ec924cbfed8c15e9764306378eabf22e907986ad2718b400ee6ea097"),
    ],
)
def test_two_tables_keep_their_hash(kind, digest, tmp_path, monkeypatch):
    """In parts of few requests too, as a large log is read."""
    log, mapping = two_tables(kind)
    source = logs.write(log, tmp_path / "log", "parquet")
    (source / "mapping.yaml").write_text(mapping)
    options = {"mapping": source / "mapping.yaml", "name": "mine"}
    dataset = imported(source, tmp_path, **options)
    assert dataset.content_hash == digest
    monkeypatch.setattr("mtf_engine.logs.tabular.READ_ROWS", 16)
    monkeypatch.setattr("mtf_engine.logs.tabular.BATCH_REQUESTS", 5)
    parts = imported(source, tmp_path / "parts", **options)
    assert parts.content_hash == digest and parts.meta == dataset.meta


@pytest.mark.parametrize("name", ["place", "is_last", "number", "r", "PLACE"])
def test_a_profile_may_be_called_as_what_is_counted_inside(name, tmp_path):
    log = logs.clean()
    requests = log.requests.drop(columns="observation")
    found = []
    for called in ("age", name):
        source = logs.write(log._replace(requests=requests.assign(**{called: 7.0})), tmp_path / f"a {called}")
        (source / "mapping.yaml").write_text(f"{logs.MAPPING}profile: {{numeric: [{called}]}}\n")
        found.append(
            imported(source, tmp_path / f"to {called}", mapping=source / "mapping.yaml", name="mine")
        )
    assert found[0].content_hash == found[1].content_hash


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ("profile: {numeric: [row]}", "no column of a log can be called row"),
        ("signals: [click, Row, watch_time]", "no column of a log can be called row"),
        ("signals: [click, position, watch_time]", "signals: position is a column of every log"),
        ("signals: [click, item_id, watch_time]", "signals: item_id is a column of every log"),
        ("thresholds: {session_id: 3}", "names session_id, which is an id and no number"),
    ],
)
def test_a_name_that_is_taken_is_refused(mapping, told, tmp_path):
    log = logs.clean()
    requests = log.requests.drop(columns="observation").assign(row=1.0)
    source = logs.write(log._replace(requests=requests), tmp_path / "log", "parquet")
    (source / "mapping.yaml").write_text(f"predictions: [click, like]\n{mapping}\n")
    with pytest.raises(Refusal, match=told):
        read_log(source, mapping=source / "mapping.yaml")


def test_a_time_is_no_number_too(tmp_path):
    source = impressions_alone(tmp_path, ())
    for rule in ("signals: [click, watch_time, timestamp]", "profile: {numeric: [timestamp]}"):
        (tmp_path / "mapping.yaml").write_text(f"{rule}\n")
        with pytest.raises(Refusal, match="timestamp is to be both a time and a number"):
            read_log(source, mapping=tmp_path / "mapping.yaml")


def test_a_log_comes_out_as_it_went_in(folder, tmp_path):
    log = logs.clean()
    dataset = imported(folder, tmp_path, mapping=folder / "mapping.yaml", name="mine")
    requests = dataset.arrays("SELECT * FROM requests ORDER BY request_id")
    for column in ("observation", "baseline_action", "action", "lower", "upper"):
        np.testing.assert_allclose(requests[column], np.stack(log.requests[column]), rtol=1e-6)
    for column in ("request_id", "session_id", "step", "pscore", "reward", "terminal"):
        np.testing.assert_allclose(requests[column], log.requests[column], rtol=1e-6)
    assert list(requests["user_id"]) == list(log.requests["user_id"])
    assert (requests["timestamp"] == log.requests["timestamp"].to_numpy()).all()
    impressions = dataset.arrays("SELECT * FROM impressions ORDER BY request_id, position")
    for column in ("request_id", "item_id", "position", "click", "like", "watch_time", "reward"):
        np.testing.assert_allclose(impressions[column], log.impressions[column], rtol=1e-6)
    np.testing.assert_array_equal(impressions["label"], log.impressions["watch_time"] > 10)
    np.testing.assert_allclose(
        impressions["predictions"], np.stack(log.impressions["predictions"]), rtol=1e-6
    )
    assert dataset.meta.name == "mine"
    assert dataset.meta.fusion.names == ("pow_click", "pow_like", "bias_like")
    assert dataset.meta.exploration == "uniform"
    assert len(dataset.transitions()) == len(requests["step"][requests["split"] == "train"])


@pytest.mark.parametrize("texts", ["requests", "impressions"])
def test_ids_may_be_numbers_in_one_table_and_texts_in_the_other(texts, tmp_path):
    """Also where rows are left out, whose ids are looked up in both."""
    plain = logs.clean()
    plain.impressions.loc[6, "like"] = 7
    frame = getattr(plain, texts)
    mixed = plain._replace(**{texts: frame.assign(request_id=frame.request_id.astype(str))})
    found = []
    for name, log in (("plain", plain), ("mixed", mixed)):
        source = logs.write(log, tmp_path / name, "parquet")
        options = {"mapping": source / "mapping.yaml", "name": "mine", "bad_rows": "drop"}
        found.append(imported(source, tmp_path / f"to {name}", **options))
    assert found[0].content_hash == found[1].content_hash
    assert {one.n_impressions for one in found} == {len(plain.impressions) - 1}


def test_logs_with_actions_and_without_are_not_joined(folder):
    """Nobody could say how far a policy is from baseline actions that half of the requests do not have."""
    meta = read_log(folder, mapping=folder / "mapping.yaml", name="mine").meta
    without = meta.model_copy(update={"name": "plain", "exploration": None})
    with pytest.raises(Refusal, match="mine has actions and plain has none"):
        joined_meta("both", ("a", "b"), (without, meta))
    assert joined_meta("both", ("a", "b"), (meta, meta)).exploration == "uniform"


def test_csv_parquet_and_numbered_columns_are_the_same_log(folder, tmp_path):
    parquet = logs.write(logs.clean(), tmp_path / "parquet", "parquet")
    numbered = logs.write(numbered_columns(logs.clean()), tmp_path / "numbered")
    hashes = {
        imported(source, tmp_path / f"to-{source.name}", mapping=folder / "mapping.yaml").content_hash
        for source in (folder, parquet, numbered)
    }
    assert len(hashes) == 1


def numbered_columns(log: logs.Log) -> logs.Log:
    """Returns the log with a column an entry instead of lists."""
    tables = {}
    for name, frame in log._asdict().items():
        lists = [c for c in frame if isinstance(frame[c].iloc[0], list)]
        entries = {f"{c}_{i}": v for c in lists for i, v in enumerate(np.stack(frame[c]).T)}
        tables[name] = frame.drop(columns=lists).assign(**entries)
    return logs.Log(**tables)


def test_a_mapping_renames_columns_and_names_what_they_hold(folder, tmp_path):
    log = numbered_columns(logs.clean())
    renamed = {"user_id": "uid", "action_0": "w click", "action_1": "w like", "action_2": "b like"}
    requests = log.requests.rename(columns=renamed)
    predictions = {"predictions_0": "p_click", "predictions_1": "p_like"}
    impressions = log.impressions.rename(columns={**predictions, "item_id": "video"})
    other = logs.write(logs.Log(requests, impressions), tmp_path / "other")
    mapping = other / "mapping.yaml"
    mapping.write_text(
        f"{logs.MAPPING}"
        "requests: {user_id: uid, action: [w click, w like, b like]}\n"
        "impressions: {predictions: [p_click, p_like], item_id: video}\n"
        "features: [age, mood, hour, taste]\n"
        "binary_features: [mood]\n"
        "fusion: {bias: [like]}\n"
    )
    dataset = imported(other, tmp_path / "to", mapping=mapping)
    plain = imported(folder, tmp_path / "plain", mapping=folder / "mapping.yaml")
    assert dataset.content_hash == plain.content_hash
    assert dataset.meta.feature_names == ("age", "mood", "hour", "taste")
    assert dataset.meta.numeric_mask == (True, False, True, True)


def test_columns_that_nothing_reads_are_told(folder):
    requests = pd.read_csv(folder / "requests.csv").assign(weather="fine")
    requests.to_csv(folder / "requests.csv", index=False)
    warnings = read_log(folder, mapping=folder / "mapping.yaml").warnings
    assert "requests.csv: columns that are not used: weather" in warnings


def test_a_column_that_the_mapping_names_and_the_file_lacks_is_missing(folder):
    (folder / "mapping.yaml").write_text(f"{logs.MAPPING}requests: {{user_id: uid}}\n")
    with pytest.raises(
        Refusal, match=r"requests.csv, column uid: is missing; .* holds user_id under requests:"
    ):
        read_log(folder, mapping=folder / "mapping.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fusion: {bias: [share]}", "share"),
        ("fusion: {bias: []}", "name the dimensions"),
        ("reward: {weights: {share: 1}}", "share"),
        ("reward: {weights: {like: -2}}", "-1"),
        ("signals: [", "YAML|flow"),
        ("profil: {}", "profil"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(text, problem, folder):
    (folder / "mapping.yaml").write_text(text)
    with pytest.raises(Refusal, match=problem) as caught:
        read_log(folder, mapping=folder / "mapping.yaml")
    assert caught.value.defects[0].code == "bad_mapping"


def test_file_names_are_no_patterns(tmp_path):
    odd = logs.write(logs.clean(), tmp_path / "a [1]*")
    logs.write(logs.clean(seed=1), tmp_path / "a 11")
    dataset = imported(odd, tmp_path / "to", mapping=odd / "mapping.yaml")
    assert dataset.n_requests == len(logs.clean().requests)


def test_ids_that_are_no_growing_integers_are_replaced(folder, tmp_path):
    for table in ("requests", "impressions"):
        frame = pd.read_csv(folder / f"{table}.csv")
        frame["request_id"] = frame["request_id"].map(lambda i: f"r{-i}")
        frame.to_csv(folder / f"{table}.csv", index=False)
    dataset = imported(folder, tmp_path, mapping=folder / "mapping.yaml")
    assert list(
        dataset.query("SELECT request_id FROM requests ORDER BY user_id, timestamp")["request_id"]
    ) == list(range(dataset.n_requests))
    assert any("numbered anew" in w for w in dataset.meta.details["warnings"])


def test_observations_are_made_of_the_past_alone(folder, tmp_path):
    """The mean of a signal over the history is that of the user's impressions in earlier requests."""
    requests = pd.read_csv(folder / "requests.csv").drop(columns="observation")
    requests.assign(age=[10.0 + i for i in range(len(requests))]).to_csv(folder / "requests.csv", index=False)
    mapping = folder / "mapping.yaml"
    mapping.write_text(f"{logs.MAPPING}profile: {{numeric: [age]}}\n")
    dataset = imported(folder, tmp_path, mapping=mapping)
    log = logs.clean()
    watched = log.impressions.merge(log.requests[["request_id", "user_id", "timestamp"]], on="request_id")
    rows = dataset.arrays(
        "SELECT request_id, user_id, timestamp, observation FROM requests ORDER BY request_id"
    )
    column = dataset.meta.feature_names.index("watch_time_mean_100")
    for user, time, observation in zip(rows["user_id"], rows["timestamp"], rows["observation"], strict=True):
        past = watched[(watched["user_id"] == user) & (watched["timestamp"] < time)]["watch_time"]
        assert observation[column] == pytest.approx(past.mean() if len(past) else 0, rel=1e-5)
    assert rows["observation"][:, dataset.meta.feature_names.index("age")].tolist() == [
        10.0 + i for i in range(len(requests))
    ]


def test_a_log_without_actions_is_split_by_day(folder, tmp_path):
    requests = pd.read_csv(folder / "requests.csv")
    requests = requests.drop(columns=["action", "baseline_action", "lower", "upper", "pscore"])
    step = pd.to_timedelta(np.arange(len(requests)) * 8, unit="h")
    requests.assign(timestamp=pd.Timestamp("2026-03-01") + step).to_csv(folder / "requests.csv", index=False)
    dataset = imported(folder, tmp_path, mapping=folder / "mapping.yaml")
    days = dataset.query(
        "SELECT split, list(DISTINCT day(timestamp) ORDER BY day(timestamp)) AS days FROM requests GROUP BY 1"
    )
    assert {r.split: list(r.days) for r in days.itertuples()} == {
        "train": [1, 2, 3],
        "validation": [4, 5],
        "test": [6, 7, 8],
    }
    with pytest.raises(Refusal, match="no actions"):
        dataset.transitions()


def test_a_collected_log_that_was_written_to_parquet_comes_back(tmp_path):
    env = SessionEnvironment()
    collection = Collection(plan=BoundsPlan.symmetric(0.15, env.fusion.n_actions), n_requests=200)
    meta = collection.meta(env, "collected", "session")
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    write_dataset(tmp_path, "collected", meta, collect(env, baseline, collection))
    collected = Dataset.open(tmp_path / "collected.duckdb")
    folder = tmp_path / "log"
    folder.mkdir()
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{tmp_path / 'collected.duckdb'}' AS d (READ_ONLY)")
        for table in ("requests", "impressions"):
            con.execute(f"COPY d.{table} TO '{folder / f'{table}.parquet'}'")
    mapping = folder / "mapping.yaml"
    described = {
        "predictions": meta.fusion.predictions,
        "signals": meta.signals,
        "features": meta.feature_names,
        "reward": meta.reward.model_dump(),
        "fusion": {"dimensions": [d.model_dump() for d in meta.fusion.dimensions]},
    }
    mapping.write_text(json.dumps(described))
    dataset = imported(folder, tmp_path / "to", mapping=mapping)
    for table, order in (
        ("requests", "user_id, timestamp"),
        ("impressions", "user_id, request_id, position"),
    ):
        rows, expected = (d.arrays(f"SELECT * FROM {table} ORDER BY {order}") for d in (dataset, collected))
        for column in expected.keys() - {
            "request_id",
            "session_id",
            "item_features",
        }:  # which no import reads
            if column == "reward" and table == "requests":  # sums of the same terms, in another order
                np.testing.assert_allclose(rows[column], expected[column], rtol=1e-13)
                continue
            np.testing.assert_array_equal(rows[column], expected[column], err_msg=column)
    assert dataset.meta.fusion == meta.fusion


@pytest.fixture
def impressions(tmp_path) -> Path:
    """Two users: u0 with three requests, the last after an hour; u1 with one, out of order in the file."""
    minutes = {"u0": [0, 0, 5, 5, 65], "u1": [3, 3]}
    rows = [
        {
            "user_id": user,
            "timestamp": pd.Timestamp("2026-03-01") + pd.Timedelta(minutes=m),
            "watch_time": 4.0 * i,
        }
        for user, times in minutes.items()
        for i, m in enumerate(times)
    ]
    frame = pd.DataFrame(rows).assign(prediction_click=0.3, prediction_like=0.1, item_id="v1", like=1)
    path = tmp_path / "shown.csv"
    frame.iloc[[5, 4, 0, 1, 2, 3, 6]].to_csv(path, index=False)
    return path


def test_impressions_alone_are_cut_into_requests_and_sessions(impressions, tmp_path):
    dataset = imported(impressions, tmp_path / "to")
    assert dataset.meta.source == "impressions"
    assert dataset.meta.fusion.predictions == ("click", "like")
    requests = dataset.query(
        "SELECT user_id, session_id, step, terminal, truncated FROM requests ORDER BY request_id"
    )
    assert requests.values.tolist() == [
        ["u0", 0, 0, False, False],
        ["u0", 0, 1, True, False],
        ["u0", 1, 0, False, True],
        ["u1", 2, 0, True, False],
    ]
    shown = dataset.query("SELECT user_id, watch_time, label FROM impressions ORDER BY request_id, position")
    assert shown["watch_time"].tolist() == [0, 4, 8, 12, 16, 0, 4]
    assert shown["label"].tolist() == [False, False, False, True, True, False, False]


def test_given_requests_and_sessions_are_kept(impressions, tmp_path):
    frame = pd.read_csv(impressions).sort_values(["user_id", "timestamp"])
    frame.assign(request_id=[0, 0, 0, 1, 1, 2, 2], session_id="all").to_csv(impressions, index=False)
    dataset = imported(impressions, tmp_path / "to", format="impressions")
    sizes = dataset.query("SELECT count(*) AS n FROM impressions GROUP BY request_id ORDER BY request_id")[
        "n"
    ]
    assert sizes.tolist() == [3, 2, 2]
    assert dataset.query("SELECT count(DISTINCT session_id) AS n FROM requests")["n"].tolist() == [2]


def test_sessions_of_two_devices_of_a_user_may_interleave(impressions, tmp_path):
    """u0 is seen at 0, 5 and 65 minutes in session a, and at 5 minutes in session x too."""
    frame = pd.read_csv(impressions)
    frame.assign(session_id=["b", "a", "a", "a", "x", "a", "b"]).to_csv(impressions, index=False)
    rows = imported(impressions, tmp_path / "to").query(
        "SELECT user_id, session_id, step, terminal OR truncated AS ends FROM requests ORDER BY request_id"
    )
    assert rows.values.tolist() == [
        ["u0", 0, 0, False], ["u0", 0, 1, False], ["u0", 1, 0, True], ["u0", 0, 2, True], ["u1", 2, 0, True],
    ]  # fmt: skip


def test_all_defects_of_impressions_are_found_at_once(impressions):
    frame = pd.read_csv(impressions)
    frame.loc[2, "watch_time"] = -1
    frame.loc[[1, 4], "prediction_like"] = np.nan
    frame.drop(columns="timestamp").to_csv(impressions, index=False)
    with pytest.raises(Refusal) as caught:
        read_log(impressions)
    found = {(d.code, d.row, d.column, d.count) for d in caught.value.defects}
    assert found == {
        ("missing_column", None, "timestamp", 1),
        ("negative_watch_time", 3, "watch_time", 1),
        ("nan_or_inf", 2, "prediction_like", 2),
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "excel"}, "csv"),
        ({"format": "parquet"}, "requests.parquet"),
        ({"format": "kuairand"}, "column video_id: is missing; import the file as it was published"),
        ({"user_features": Path(__file__)}, "leave them out"),
        ({"mapping": Path("nowhere.yaml")}, "nowhere.yaml"),
    ],
)
def test_a_log_that_is_not_there_is_refused(options, problem, folder):
    with pytest.raises(Refusal, match=problem):
        read_log(folder, **options)


def test_a_folder_with_both_kinds_of_file_needs_a_format(folder):
    logs.write(logs.clean(), folder, "parquet")
    with pytest.raises(Refusal, match="needs one file"):
        read_log(folder)
    assert read_log(folder, "csv", mapping=folder / "mapping.yaml").meta.source == "csv"


def test_meta_is_json(folder):
    meta = read_log(folder, mapping=folder / "mapping.yaml").meta
    assert json.loads(meta.model_dump_json())["signals"] == ["click", "like", "watch_time"]


@pytest.mark.slow
def test_memory_of_an_import_does_not_grow_with_the_log(tmp_path):
    """DuckDB has memory for a part of either log; what is beyond waits on disk."""
    peaks = []
    for n in (200_000, 800_000):
        write_log(tmp_path / f"{n}.parquet", n)
        run = (
            "import resource, sys; from pathlib import Path; import mtf_engine.logs.files as files\n"
            "import mtf_engine.logs.datasets as datasets\n"
            "files.LOAD_MB, datasets.STAGE_MB = 100, 100\n"
            "from mtf_engine.logs.importing import read_log\n"
            "log = read_log(Path(sys.argv[1]))\n"
            "datasets.write_dataset(Path(sys.argv[2]), sys.argv[3], log.meta, log.batches)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        command = [sys.executable, "-c", run, str(tmp_path / f"{n}.parquet"), str(tmp_path), str(n)]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.25 * peaks[0]
