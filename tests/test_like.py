"""A log imported like another: the same features, predictions and fusion, nothing of later days, all of it told."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.kuairand import read_kuairand
from mtf_engine.logs.like import Like
from mtf_engine.logs.prediction_model import PredictionModel
from mtf_engine.logs.predictions import PredictorConfig
from mtf_engine.logs.splits import UNASKED, Splitting
from mtf_engine.policies.policy import Policy
from mtf_engine.questions import dependents
from mtf_engine.questions.differences import differs
from mtf_engine.runs import executor
from mtf_engine.runs.storage import dataset_of, open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.work.import_log import submit_import
from mtf_engine.workspace import Workspace
from tests.fixtures import kuairand as sample
from tests.fixtures import logs
from tests.workspaces import copy_workspace

QUICK = PredictorConfig(n_steps=5, batch_size=64, hidden=(8, 8))
PREDICTIONS = (
    "SELECT user_id, item_id, predictions, strftime(timestamp + INTERVAL 8 HOUR, '%Y%m%d')::INT AS day "
    "FROM impressions JOIN requests USING (request_id, user_id) ORDER BY request_id, position"
)


def imported(source, to, like=None, splitting=UNASKED) -> Dataset:
    log = read_kuairand(source, None, source.name, lambda *_: None, QUICK, "refuse", splitting, like)
    to.mkdir(exist_ok=True)
    write_dataset(to, source.name, log.meta, log.batches, log.model)
    return Dataset.open(to / f"{source.name}.duckdb")


def like(dataset: Dataset) -> Like:
    return Like("dataset-0", dataset.meta, dataset.prediction_model())


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sample.impressions()


@pytest.fixture(scope="module")
def first(rows, tmp_path_factory) -> Dataset:
    """The log of three users in four; it has no users of the category that the others bring."""
    folder = tmp_path_factory.mktemp("first")
    return imported(
        sample.write(folder / "first", rows[rows["user_id"] < 130], sample.users()), folder / "data"
    )


def others(folder, rows, **changed):
    """Returns the folder of the other users' log, of whom one has a category of her own, and none a count of fans."""
    people = sample.users().drop(columns="fans_user_num")
    people.loc[people["user_id"] == 135, "user_active_degree"] = "30day_retention"
    return sample.write(folder, rows[rows["user_id"] >= 130].assign(**changed), people)


@pytest.fixture(scope="module")
def second(first, rows, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("second")
    return imported(others(folder / "second", rows), folder / "data", like(first))


def test_policies_of_the_first_log_act_on_the_second(first, second):
    policy = Policy.baseline(first.meta.fusion, first.meta.feature_names, first.meta.numeric_mask)
    policy.check(second.meta.fusion, second.meta.feature_names)
    assert second.meta.encoder == first.meta.encoder
    assert second.prediction_model() == first.prediction_model()
    assert second.meta.details["like"]["name"] == "first"


def test_what_the_second_log_lacks_or_the_first_does_not_know_is_told_and_missing(first, second):
    told = second.meta.details["warnings"]
    fill = dict(zip(first.meta.encoder.numeric, first.meta.encoder.fill, strict=True))["fans_user_num"]
    assert f"the log has no fans_user_num as first has: {fill:g}, its value where it is missing" in str(told)
    unknown = "user_active_degree: 1 of 9 users have what first does not know (30day_retention)"
    assert any(sentence.startswith(unknown) for sentence in told)
    assert second.meta.details["like"]["unseen"] == {"user_active_degree": 1}
    names = second.meta.feature_names
    seen = second.arrays("SELECT user_id, observation FROM requests")
    of = {name: seen["observation"][:, names.index(name)] for name in names[:12]}
    assert (of["fans_user_num_missing"] == 1).all()
    np.testing.assert_allclose(of["fans_user_num"], fill, rtol=1e-6)
    assert set(seen["user_id"][of["user_active_degree=missing"] == 1]) == {
        "135",
        "139",
    }  # and who has no features


def test_a_log_imported_like_itself_is_itself(first, rows, tmp_path):
    """Its history counts twice then, and every mean is as it was."""
    again = imported(
        sample.write(tmp_path / "first", rows[rows["user_id"] < 130], sample.users()), tmp_path, like(first)
    )
    assert again.content_hash == first.content_hash


def test_no_prediction_knows_its_own_day_or_a_later_one_of_either_log(first, second, rows, tmp_path):
    """All that users of both logs did from a day on is dealt out anew among them; earlier days keep their scores."""
    generator, today = np.random.default_rng(0), 20220414
    outcomes = ["is_click", "long_view", "is_comment", "is_profile_enter", "play_time_ms", "label"]
    later = rows.index[rows["date"] >= today]
    changed = rows.copy()
    changed.loc[later, outcomes] = rows.loc[generator.permutation(later), outcomes].to_numpy()
    model = PredictionModel.from_bytes(first.prediction_model() or b"")
    log = imported(
        sample.write(tmp_path / "first", changed[changed["user_id"] < 130], sample.users()), tmp_path / "a"
    )
    common = [head for head in log.meta.fusion.predictions if head in model.heads]
    assert common == list(model.heads)
    other = imported(others(tmp_path / "second", changed), tmp_path / "b", like(log))
    before, after = (dataset.query(PREDICTIONS) for dataset in (second, other))
    known = (before["day"] < today).to_numpy()
    assert known.any() and before["predictions"][known].map(tuple).equals(
        after["predictions"][known].map(tuple)
    )
    assert not before["predictions"][~known].map(tuple).equals(after["predictions"][~known].map(tuple))


def test_later_logs_need_no_warm_up_and_earlier_ones_are_refused(first, rows, tmp_path):
    later = imported(others(tmp_path / "later", rows, date=rows["date"] + 100), tmp_path, like(first))
    assert later.n_impressions == (rows["user_id"] >= 130).sum()
    with pytest.raises(Refusal, match=r"earlier covers 10 days and 16 are needed \(10 to warm up"):
        imported(others(tmp_path / "earlier", rows, date=rows["date"] - 100), tmp_path, like(first))


def test_a_damaged_prediction_model_is_refused(first, tmp_path):
    path = tmp_path / first.path.name
    path.write_bytes(first.path.read_bytes())
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE prediction_model SET content = content[:100]")
    with pytest.raises(Refusal, match=r"the prediction model of first is damaged, in first\.duckdb"):
        Dataset.open(path).prediction_model()
    with pytest.raises(Refusal, match="the prediction model cannot be read"):
        PredictionModel.from_bytes(b"\0" * 64)
    with pytest.raises(Refusal, match="first keeps no prediction model"):
        imported(first.path, tmp_path, Like("dataset-0", first.meta))


def test_a_column_says_the_split_and_users_may_be_held_out(first, rows, tmp_path):
    source = others(
        tmp_path / "column", rows.assign(part=np.where(rows["user_id"] % 2 == 0, "test", "train"))
    )
    split = "SELECT DISTINCT split, user_id::INT % 2 AS odd FROM requests ORDER BY 1"
    found = imported(source, tmp_path, like(first), Splitting(by="part")).query(split)
    assert found.to_dict("list") == {"split": ["test", "train"], "odd": [0, 1]}
    with pytest.raises(Refusal, match=r"impressions\.tsv has no column fold to split by"):
        imported(source, tmp_path, like(first), Splitting(by="fold"))
    by_user = imported(source, tmp_path, like(first), Splitting(hold_out=0.4))
    assert "40% of the users are for test" in str(by_user.meta.details["warnings"])
    of_user = by_user.query("SELECT count(DISTINCT split) AS n FROM requests GROUP BY user_id")["n"]
    assert set(of_user) == {1} and set(by_user.splits) >= {"test", "train"}


def test_a_table_with_other_columns_is_read_like_the_first(tmp_path):
    mine = logs.clean()
    cities = np.where(np.arange(len(mine.requests)) % 2, "Rome", "Paris")
    mine = mine._replace(requests=mine.requests.drop(columns="observation").assign(city=cities, age=30.0))
    folder = logs.write(mine, tmp_path / "mine")
    mapping = folder / "mapping.yaml"
    mapping.write_text(logs.MAPPING + "profile: {numeric: [age], categorical: [city]}\n")
    model = read_log(folder, mapping=mapping, name="mine")
    (theirs := tmp_path / "theirs").mkdir()
    clicks, likes = zip(*mine.impressions["predictions"], strict=True)
    mine.requests.drop(columns="age").assign(city="Oslo").to_csv(theirs / "requests.csv", index=False)
    renamed = mine.impressions.drop(columns="predictions").assign(
        prediction_like=likes, prediction_share=0.5, prediction_click=clicks
    )
    renamed.to_csv(theirs / "impressions.csv", index=False)
    log = read_log(theirs, name="theirs", like=Like("dataset-0", model.meta))
    for what in ("fusion", "reward", "signals", "feature_names", "encoder"):
        assert getattr(log.meta, what) == getattr(model.meta, what)
    told = " | ".join(log.warnings)
    assert "city: 24 of 24 requests have what mine does not know (Oslo)" in told
    assert "the log has no age as mine has: 30, its value where it is missing, stands for all" in told
    assert "predictions that mine has not are left out: share" in told
    a, b = (next(iter(one.batches)) for one in (model, log))
    np.testing.assert_allclose(a.impressions["predictions"], b.impressions["predictions"], rtol=1e-6)
    for change, problem in (
        (renamed.drop(columns="prediction_click"), "no prediction of click as mine has"),
        (renamed.drop(columns="watch_time"), "watch_time: is missing"),
    ):
        change.to_csv(theirs / "impressions.csv", index=False)
        with pytest.raises(Refusal, match=re.escape(problem)):
            read_log(theirs, name="theirs", like=Like("dataset-0", model.meta))


def test_a_log_keeps_what_it_took_from_one_that_is_deleted(tmp_path, in_process):
    workspace = Workspace(tmp_path / "workspace")

    def done(**how):
        return executor.completed(workspace, executor.wait(workspace, submit_import(workspace, **how))).result

    folder = logs.write(logs.clean(), tmp_path / "mine")
    mine = done(source=folder, mapping=folder / "mapping.yaml", name="mine")
    asked = {"source": folder, "name": "theirs", "like": "mine"}
    theirs = done(**asked, mapping=folder / "mapping.yaml", hold_out=0.3)
    assert theirs["resolvable"]["test_users"] == 2 and "resolvable" not in mine
    row = workspace.dataset("theirs")
    assert [one.id for one in dependents.of_dataset(workspace, workspace.dataset("mine"))] == []
    workspace.delete_dataset("mine")
    found = open_dataset(workspace, row.id)
    assert found.meta.details["like"] == {"dataset_id": mine["dataset_id"], "name": "mine"}
    assert len(found.evaluation_rows().request_id) == 12
    with pytest.raises(Refusal, match="there is no dataset 'mine'"):
        submit_import(workspace, **asked)
    with pytest.raises(
        Refusal, match="the import is not valid: splitting: days for test and validation go with"
    ):
        submit_import(workspace, folder, by="user", test_days=2)


def test_a_training_stands_for_the_log_that_it_learned_from(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    (training,) = workspace.registry.runs(kind="train")
    assert (
        dataset_of(workspace, f"{training.id}@best").name
        == dataset_of(workspace, "explored").name
        == "explored"
    )
    test = open_dataset(workspace, "test")
    days, users = differs(workspace, training.id, test, "all")
    assert days == "learned from explored, judged on test, of the same days"
    log = read_log(Path("docs/example_log"))
    write_dataset(tmp_path, "example", log.meta, log.batches)
    days, *_ = differs(workspace, training.id, Dataset.open(tmp_path / "example.duckdb"), "all")
    assert re.fullmatch(
        r"learned from explored, 20\S+ to 20\S+, judged on \S+, 2026-05-04 to 2026-05-\d+", days
    )
    assert users.startswith("0 of the ") and differs(workspace, "baseline", test, "all") == ()
    assert differs(workspace, training.id, open_dataset(workspace, "explored"), "validation") == ()
    workspace.delete_dataset("explored")
    (sentence,) = differs(workspace, training.id, test, "all")
    assert sentence.endswith("is deleted: its days and users are not known")
    with pytest.raises(Refusal, match=f"the log that {training.id} learned from is deleted"):
        dataset_of(workspace, training.id)


PREDICT = """
impressions: {user_id: uid}
signals: [watch_time, click, like]
profile: {categorical: [city]}
predict: {signals: [click, like], numeric: [request_time], categorical: [city, number]}
"""


def shown(users, seed: int) -> pd.DataFrame:
    """Returns impressions of nine days without predictions; who clicks hangs on item, device and price.

    Those two are called as an import calls what it finds of requests.
    """
    generator = np.random.default_rng(seed)
    n = 2_400
    item, quality = generator.integers(0, 40, n), np.linspace(-2, 2, 40)
    price, device = generator.normal(size=n), generator.choice(["phone", "desk"], n)
    wanted = 1 / (1 + np.exp(-quality[item] - 2 * (device == "phone") - price + 1))
    clicked = generator.random(n) < wanted
    return pd.DataFrame(
        {
            "uid": generator.choice(users, n),
            "timestamp": 1_700_006_400 + generator.integers(0, 9 * 86_400, n),
            "item_id": item,
            "city": generator.choice(["Rome", "Paris"], n),
            "number": device,
            "request_time": price,
            "click": clicked.astype(int),
            "like": (np.arange(n) == 0).astype(int),
            "watch_time": np.where(clicked, 20, 2),
        }
    )


def test_a_log_without_predictions_gets_them_and_another_is_predicted_like_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mtf_engine.logs.predicted.PredictorConfig", lambda: PredictorConfig(n_steps=60))
    (mapping := tmp_path / "mapping.yaml").write_text(PREDICT)
    for name, users in (("mine", range(30)), ("theirs", range(30, 50))):
        shown(users, seed=users[0]).to_parquet(tmp_path / f"{name}.parquet")
    mine = read_log(tmp_path / "mine.parquet", mapping=mapping)
    told = " | ".join(mine.warnings)
    assert "like is not predicted: " in told and "positives on the validation rows, fewer than 50" in told
    batches = [*mine.batches]
    splits = pd.concat(
        pd.DataFrame({name: one.requests[name] for name in ("request_id", "split")}) for one in batches
    )
    impressions = pd.concat(
        pd.DataFrame({name: one.impressions[name] for name in ("request_id", "click")}).assign(
            predicted=np.stack(one.impressions["predictions"])[:, 0]
        )
        for one in batches
    ).merge(splits)
    tested = impressions[impressions["split"] == "test"]
    expected = roc_auc_score(tested["click"], tested["predicted"])
    assert expected > 0.7 and f"click is predicted, AUC {expected:.3f} (" in told
    assert mine.meta.fusion.predictions == ("click",) and mine.meta.encoder.categorical == {
        "city": ("Paris", "Rome")
    }
    assert set(splits["split"]) == {"train", "validation", "test"}
    (bare := tmp_path / "bare.yaml").write_text("impressions: {user_id: uid}")
    theirs = read_log(
        tmp_path / "theirs.parquet", mapping=bare, like=Like("dataset-0", mine.meta, mine.model)
    )
    assert (theirs.meta.fusion, theirs.meta.feature_names) == (mine.meta.fusion, mine.meta.feature_names)
    assert theirs.model == mine.model and theirs.meta.details["predictor"]["click"]["auc"] > 0.7
    like = Like("dataset-0", mine.meta, mine.model)
    strange = shown(range(30, 50), 30).assign(number="fridge").drop(columns="request_time")
    strange.to_parquet(tmp_path / "strange.parquet")
    told = " | ".join(read_log(tmp_path / "strange.parquet", mapping=bare, like=like).warnings)
    assert (
        "the log has no request_time as mine has" in told
        and "impressions have what mine does not know (fridge)" in told
    )
    for said, part in (("profile: {numeric: [request_time]}", "profile"), ("signals: [like]", "signals")):
        bare.write_text(f"impressions: {{user_id: uid}}\n{said}\n")
        with pytest.raises(Refusal, match=f"the mapping says {part}, and mine has its own"):
            read_log(tmp_path / "theirs.parquet", mapping=bare, like=like)
    mapping.write_text(PREDICT.replace("[click, like], numeric", "[watch_time], numeric"))
    with pytest.raises(Refusal, match="predict: names what is no signal of 0 or 1 of the log: watch_time"):
        read_log(tmp_path / "mine.parquet", mapping=mapping)
    short = shown(range(9), 0)
    short[short["timestamp"] < 1_700_006_400 + 8 * 86_400].to_parquet(tmp_path / "short.parquet")
    mapping.write_text(PREDICT)
    with pytest.raises(Refusal, match="covers 8 days, of which 3 only warm up"):
        read_log(tmp_path / "short.parquet", mapping=mapping)
