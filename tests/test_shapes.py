"""Logs of other shapes: slates, files without a header, counts and propensities are imported by a mapping alone."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from docs.mapping_schema import mapping_schema
from mtf_engine.algos import ALGOS
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment
from mtf_engine.exploration.coverage import certify_coverage
from mtf_engine.exploration.coverage_counts import count_coverage, read_logged_actions
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.joining import joined
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.preview import preview
from mtf_engine.policies.bundle import export, verify
from mtf_engine.policies.policy import Policy
from mtf_engine.runs.storage import live_policy
from mtf_engine.spec import BoundsPlan, Refusal
from tests.fixtures import logs
from tests.fixtures.shapes import SHAPES, SHOWN

DOCS = Path(__file__).parent.parent / "docs"


def imported(source: Path, mapping: Path, **options) -> Dataset:
    log = read_log(source, mapping=mapping, **options)
    write_dataset(source.parent, "log", log.meta, log.batches)
    return Dataset.open(source.parent / "log.duckdb")


@pytest.fixture(scope="module")
def of_shape(tmp_path_factory):
    """Each log of another shape, imported when it is first asked for."""
    found: dict[str, Dataset] = {}

    def open_shape(shape: str) -> Dataset:
        if shape not in found:
            folder = tmp_path_factory.mktemp(shape)
            found[shape] = imported(SHAPES[shape](folder), DOCS / f"mappings/{shape}.yaml")
        return found[shape]

    return open_shape


def trained(dataset: Dataset, to: Path) -> Policy:
    """Returns the policy of 50 steps of training on what exploration by replay of the log brings."""
    env = ReplayEnvironment(dataset, ReplayConfig.named("replay:2/1/3"))
    plan = BoundsPlan.symmetric(0.15, env.fusion.n_actions)
    collection = Collection(plan=plan, explore="uniform", n_requests=30, seed=1)
    meta = collection.meta(env, "explored", "replay")
    write_dataset(to, "explored", meta, collect(env, live_policy(env), collection))
    transitions = Dataset.open(to / "explored.duckdb").transitions()
    small = {"n_steps": "50", "n_critics": "2", "batch_size": "8"}
    algo = ALGOS["integrated_rl"](make_config("integrated_rl", "demo", small, seed=1), transitions)
    last = list(fit(algo, transitions))[-1]
    assert last["step"] == 50 and all(math.isfinite(value) for value in last.values())
    return algo.policy


EXPORTED = ("open_bandit", "mind")
"""A bundle takes seconds, and depends on nothing of a log but the number of its features and predictions."""


@pytest.mark.parametrize("shape", SHAPES)
def test_a_log_of_another_shape_is_imported_by_its_mapping_trained_on_and_exported(shape, of_shape, tmp_path):
    dataset = of_shape(shape)
    assert set(dataset.splits) == {"train", "validation", "test"}
    policy = trained(dataset, tmp_path)
    if shape in EXPORTED:
        export(policy, tmp_path / "policy.zip", rows=dataset.evaluation_rows())
        assert verify(tmp_path / "policy.zip")["ok"]


def test_slates_in_lists_become_an_impression_an_item(of_shape):
    dataset = of_shape("ebnerd")
    shown = dataset.query("SELECT * FROM impressions ORDER BY request_id, position")
    assert len(shown) == SHOWN * dataset.n_requests and shown["position"].tolist()[:4] == [0, 1, 2, 0]
    assert shown["click"].groupby(shown["request_id"]).sum().isin([0, 1]).all()
    source = pd.read_parquet(dataset.path.parent / "behaviors.parquet").set_index("impression_time")
    first = dataset.query("SELECT timestamp FROM requests WHERE request_id = 0")["timestamp"][0]
    assert shown["item_id"].tolist()[:SHOWN] == source.loc[first]["article_ids_inview"].tolist()
    scores = np.stack(shown["predictions"][:SHOWN])[:, 0]
    np.testing.assert_allclose(scores, source.loc[first]["prediction_click"], rtol=1e-6)
    assert shown["click"].sum() == source["article_ids_clicked"].map(len).sum()
    assert "device_type=tablet" in dataset.meta.feature_names
    assert any("not used: article_id, read_time" in told for told in dataset.meta.details["warnings"])


def test_marks_behind_items_are_feedback(of_shape):
    dataset = of_shape("mind")
    lines = (dataset.path.parent / "behaviors.tsv").read_text().splitlines()
    slates = [line.split("\t")[4].split() for line in lines]
    shown = dataset.query("SELECT item_id, click FROM impressions ORDER BY ALL")
    expected = sorted((mark.rpartition("-")[0], float(mark[-1])) for slate in slates for mark in slate)
    assert [*shown.itertuples(index=False, name=None)] == expected
    first = dataset.query("SELECT min(timestamp) AS it FROM requests")["it"][0]
    assert first == pd.Timestamp("2026-03-01 09:05:58")


@pytest.mark.parametrize(("shape", "of_rating", "of_like"), [("movielens", 5, 5), ("recbole", 5, 3)])
def test_ratings_and_counts_become_signals_and_blanks_are_filled(shape, of_rating, of_like, of_shape):
    shown = of_shape(shape).query("SELECT * FROM impressions")
    assert (shown["label"] == (shown["valid"] == 1)).all() and shown["valid"].isin([0, 1]).all()
    expected = np.arange(1, 6) / 5 if shape == "movielens" else [0, 1 / 3, 2 / 3, 1]
    assert np.unique(shown["like"]) == pytest.approx(expected)


def test_positions_and_propensities_are_kept_and_what_is_not_learned_is_said(of_shape, tmp_path):
    dataset = of_shape("open_bandit")
    source = pd.read_csv(dataset.path.parent / "men.csv")
    told = dataset.query(
        "SELECT position, propensity_score, user_id FROM impressions ORDER BY propensity_score"
    )
    expected = source.sort_values("propensity_score")
    assert told["position"].tolist() == (expected["position"] - 1).tolist()
    assert told["propensity_score"].tolist() == pytest.approx(expected["propensity_score"].tolist())
    assert (
        told["user_id"].tolist() == (expected["user_feature_0"] + "/" + expected["user_feature_1"]).tolist()
    )
    (sentence,) = [told for told in dataset.meta.details["warnings"] if "propensity_score" in told]
    assert "a policy over items" in sentence and "out of scope" in sentence
    source["propensity_score"] *= -1
    source.to_csv(tmp_path / "men.csv")
    with pytest.raises(Refusal, match=r"row 1, column propensity_score: is -0.* not a probability"):
        read_log(tmp_path / "men.csv", mapping=DOCS / "mappings/open_bandit.yaml")


def test_what_only_one_of_two_logs_tells_is_left_out_where_they_are_joined(of_shape):
    columns = [set(tables.impressions) for tables in joined([of_shape("recbole"), of_shape("open_bandit")])]
    assert all("propensity_score" not in found and "position" in found for found in columns)


SLATES = "slate: {items: shown, chosen: {click: clicked}, each: [prediction_click, watch_time]}\n"


def slates(folder: Path, **changes: tuple[int, str]) -> tuple[Path, Path]:
    """Writes four slates, with changed values by column: at a row counted from 1, what stands there."""
    frame = pd.DataFrame(
        {
            "user_id": ["ada", "bob", "ada", "bob"],
            "timestamp": [f"2026-05-0{i} 10:00:00" for i in range(1, 5)],
            "shown": ["[11, 12]", "[13 14 15]", "11 15", "['11', '16']"],
            "clicked": ["11", None, "[15]", "['16', '11']"],
            "prediction_click": ["[0.1, 0.2]", "0.3 0.4 0.5", "[0.6 0.7]", "0.8 0.9"],
            "watch_time": ["1 2", "3 4 5", "6 7", "8 9"],
        },
        dtype=object,
    )
    for column, (row, value) in changes.items():
        frame.loc[row - 1, column] = value
    frame.to_csv(folder / "slates.csv", index=False)
    (folder / "mapping.yaml").write_text(SLATES)
    return folder / "slates.csv", folder / "mapping.yaml"


def test_lists_may_be_written_in_any_usual_way(tmp_path):
    shown = imported(*slates(tmp_path)).query("SELECT * FROM impressions ORDER BY watch_time")
    assert shown["item_id"].tolist() == [11, 12, 13, 14, 15, 11, 15, 11, 16]
    assert shown["click"].tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1]
    assert shown["watch_time"].tolist() == list(range(1, 10))


@pytest.mark.parametrize(
    ("column", "row", "value", "code", "said"),
    [
        ("shown", 3, None, "wrong_type", "not a list of items"),
        ("clicked", 2, "[13, 19]", "unknown_item", "names 19, which shown does not show"),
        ("watch_time", 2, "3 4", "wrong_length", "has 2 entries, not as many as shown"),
        ("watch_time", 3, "6 -7", "negative_watch_time", "entry 2 is -7"),
        ("prediction_click", 2, "0.3 0.4 nan", "nan_or_inf", "entry 3 is nan"),
        ("user_id", 4, None, "null_key", "is blank"),
    ],
)
def test_a_defect_of_a_slate_is_told_by_the_row_of_the_file(column, row, value, code, said, tmp_path):
    source, mapping = slates(tmp_path, **{column: (row, value)})
    with pytest.raises(Refusal, match=said) as caught:
        read_log(source, mapping=mapping)
    assert (caught.value.defects[0].code, caught.value.defects[0].row) == (code, row)


def test_a_bad_slate_is_left_out_whole_and_a_bad_value_of_an_item_with_its_item(tmp_path):
    source, mapping = slates(tmp_path, clicked=(2, "[13, 19]"), watch_time=(3, "6 -7"))
    left = imported(source, mapping, bad_rows="drop")
    assert left.meta.details["left_out"] == {"slates.csv": {"unknown_item": 1, "negative_watch_time": 1}}
    items = left.query("SELECT item_id FROM impressions ORDER BY watch_time")["item_id"]
    assert items.tolist() == [11, 12, 11, 11, 16]
    pd.read_csv(source).assign(clicked=["1", "1", "1", None]).to_csv(source, index=False)
    with pytest.raises(Refusal, match=r"slates.csv: 3 of 4 rows have a defect \(3 unknown_item\), too many"):
        read_log(source, mapping=mapping, bad_rows="drop")


def test_slates_that_repeat_exactly_are_dropped_and_others_of_one_time_are_requests_of_their_own(tmp_path):
    source, mapping = slates(tmp_path, timestamp=(3, "2026-05-01 10:00:00"))
    mapping.write_text(f"{SLATES}exploration: uniform\n")
    frame = pd.read_csv(source)
    pd.concat([frame, frame[1:2]]).to_csv(source, index=False)
    dataset = imported(source, mapping)
    assert (dataset.n_requests, dataset.n_impressions) == (4, 9)
    warnings = dataset.meta.details["warnings"]
    assert any("1 exact duplicates were dropped" in told for told in warnings)
    assert any("exploration: uniform, which is not used" in told for told in warnings)


def test_slates_of_one_moment_that_share_items_lose_none(tmp_path):
    same = {"user_id": "ada", "timestamp": "2026-05-01", "clicked": "11", "watch_time": "1 2"}
    rows = [same | {"shown": f"[11, {i}]", "prediction_click": f"0.1 0.{i}"} for i in range(2, 5)]
    pd.DataFrame(rows).to_csv(tmp_path / "slates.csv", index=False)
    (tmp_path / "mapping.yaml").write_text(SLATES)
    dataset = imported(tmp_path / "slates.csv", tmp_path / "mapping.yaml")
    assert (dataset.n_requests, dataset.n_impressions) == (3, 6)
    assert not any("duplicates" in told for told in dataset.meta.details["warnings"])


def test_a_list_of_what_was_chosen_that_is_cut_off_is_no_empty_one(tmp_path):
    source, mapping = slates(tmp_path, clicked=(3, "[11, 15"))
    with pytest.raises(Refusal, match=r"row 3, column clicked: is .* not a list of items"):
        imported(source, mapping)
    bare = slates(tmp_path, shown=(3, "11, 15"))
    items = imported(*bare).query("SELECT item_id FROM impressions WHERE request_id = 1 ORDER BY position")
    assert items["item_id"].tolist() == [11, 15]


def test_slates_that_are_left_out_are_judged_among_slates(tmp_path):
    source, mapping = slates(tmp_path, clicked=(2, "[99]"))
    dataset = imported(source, mapping, bad_rows="drop")
    frame = pd.read_csv(source)
    frame["shown"], frame["prediction_click"], frame["watch_time"], frame["clicked"] = "11", "0.1", "1", "11"
    frame.loc[:1, "clicked"] = "99"
    frame.to_csv(source, index=False)
    assert dataset.n_requests == 3 and imported(source, mapping, bad_rows="drop").n_requests == 2


@pytest.mark.parametrize("rule", ["counts: {age: 3}", "thresholds: {age: 3}"])
def test_a_blank_stays_blank_whatever_becomes_of_numbers(rule, tmp_path):
    source, mapping = slates(tmp_path)
    frame = pd.read_csv(source)
    frame.assign(age=[1.0, None, 6.0, None]).to_csv(source, index=False)
    mapping.write_text(f"{SLATES}profile: {{numeric: [age]}}\n{rule}\n")
    dataset = imported(source, mapping)
    names = list(dataset.meta.feature_names)
    observations = dataset.arrays("SELECT observation FROM requests ORDER BY timestamp")["observation"]
    assert observations[:, names.index("age_missing")].tolist() == [0, 1, 0, 1]


def test_a_fill_that_its_column_would_round_is_refused(tmp_path):
    source, mapping = slates(tmp_path)
    frame = pd.read_csv(source).assign(n=pd.array([1, None, 2, None], dtype="Int64"))
    frame.to_parquet(tmp_path / "slates.parquet")
    mapping.write_text(f"{SLATES}profile: {{numeric: [n]}}\nfill: {{n: 0.7}}\n")
    with pytest.raises(Refusal, match=r"fill: 0\.7 would be 1 in n, a column of BIGINT"):
        imported(tmp_path / "slates.parquet", mapping)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("slate: {items: inview}", "column inview: is missing; name the file's column under slate:"),
        ("slate: {items: shown, chosen: {user_id: clicked}}", "makes user_id, and the file has a column"),
        (f"{SLATES}fill: {{city: x}}", "fill: names city, which the log lacks; it has"),
        (
            f"{SLATES}impressions: {{label: watch_time}}\nfill: {{watch_time: 0}}",
            "read from one column; fill both",
        ),
        ("slate: {items: shown, marks: click}", r"shown: is \[11, 12\], not a list of marked items"),
        (f"{SLATES}counts: {{user_id: 3}}", "counts: names user_id, which is a text"),
        (f"{SLATES}counts: {{click: 0}}", "greater than 0"),
        (f"{SLATES}counts: {{click: 3}}\nthresholds: {{click: 1}}", "click has a count and a threshold"),
        (f"{SLATES}categories: {{click: [1]}}", "categories: names click, which is a number"),
        (f"{SLATES}time_format: '%Q'", "time_format: .*%Q.*strptime"),
        (
            f"{SLATES}time_format: '%d.%m.%Y'",
            "column timestamp: is 2026-05-01 10:00:00, not a time written as",
        ),
        (f"{SLATES}impressions: {{position: [user_id, shown]}}", "position is one integer and named as 2"),
        (f"{SLATES}columns: [a, b]", "has 6 columns, and the mapping names 2"),
    ],
)
def test_a_rule_that_does_not_fit_the_log_is_refused(mapping, said, tmp_path):
    source, path = slates(tmp_path)
    path.write_text(mapping)
    with pytest.raises(Refusal, match=said):
        read_log(source, mapping=path)


def test_rows_of_a_file_without_a_header_are_counted_from_its_first_line(tmp_path):
    path = SHAPES["movielens"](tmp_path)
    lines = path.read_text().splitlines()
    lines[6] = lines[6].replace("::", ":", 1)
    path.write_text("\n".join(lines))
    mapping = DOCS / "mappings/movielens.yaml"
    with pytest.raises(Refusal, match=r"ratings.dat, row 7: missing columns"):
        read_log(path, mapping=mapping)
    log = read_log(path, mapping=mapping, bad_rows="drop")
    assert log.meta.details["left_out"] == {"ratings.dat": {"unreadable_file": 1}}
    assert sum(len(tables.impressions["item_id"]) for tables in log.batches) == len(lines) - 1
    told = preview(path.name, io.BytesIO(path.read_bytes()), Mapping.read(mapping).columns)
    assert told.rows[0] == tuple(lines[0].split("::")) and told.columns[2] == "rating"
    parquet = SHAPES["ebnerd"](tmp_path)
    with pytest.raises(Refusal, match="has names of its own"):
        read_log(parquet, mapping=mapping)


def test_a_log_without_predictions_is_refused_with_what_to_do(tmp_path):
    path = SHAPES["recbole"](tmp_path)
    frame = pd.read_csv(path, sep="\t").drop(columns="predictions:float_seq")
    frame.to_csv(path, sep="\t", index=False)
    with pytest.raises(
        Refusal, match=r"predictions: is missing; add what a ranking model predicts .* or name"
    ):
        read_log(path, mapping=DOCS / "mappings/recbole.yaml")


def test_a_mapping_beside_kuairand_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user_id,video_id,time_ms,play_time_ms\n1,2,3,4\n")
    (tmp_path / "mapping.yaml").write_text("signals: [click]\n")
    for name in ("auto", "kuairand"):
        with pytest.raises(Refusal, match=r"a mapping does not go with KuaiRand.*leave the mapping out"):
            read_log(path, name, mapping=tmp_path / "mapping.yaml")


def certified(folder: Path):
    dataset = imported(folder, folder / "mapping.yaml")
    counts = count_coverage(read_logged_actions(dataset.parts), dataset.meta.plan)
    return certify_coverage(counts, dataset.meta.fusion.names), dataset


def test_a_log_that_is_declared_uniform_is_believed_by_the_certificate(tmp_path):
    bare = logs.clean()._replace(requests=logs.clean().requests.drop(columns="pscore"))
    with pytest.raises(
        Refusal, match=r"no row of this dataset was explored.*exploration: uniform in the mapping"
    ):
        certified(logs.write(bare, tmp_path / "undeclared"))
    log = logs.clean(n_users=100, n_sessions=3, n_steps=4)
    actions = log.requests["action"].where(log.requests.index >= 96, log.requests["baseline_action"])
    requests = log.requests.drop(columns="pscore").assign(action=actions)
    folder = logs.write(log._replace(requests=requests), tmp_path / "log")
    (folder / "mapping.yaml").write_text(f"{logs.MAPPING}exploration: uniform\n")
    certificate, dataset = certified(folder)
    assert certificate.passed and (certificate.n_control, certificate.n_requests) == (96, 1200)
    pscore = dataset.query("SELECT DISTINCT round(pscore, 3) AS it FROM requests ORDER BY it")["it"]
    assert pscore.tolist()[0] == pytest.approx(0.3**-3, abs=1e-3) and len(pscore) == 2
    assert any("1,104 of 1,200 rows count as explored" in told for told in dataset.meta.details["warnings"])


def test_the_schema_of_the_mapping_file_is_what_the_code_says():
    assert (DOCS / "mapping.schema.json").read_text() == mapping_schema(), "run `make docs`"
    schema = json.loads(mapping_schema())
    assert all(field.get("description") for field in schema["properties"].values())
    assert set(schema["properties"]) == set(Mapping.model_fields)


def test_the_mappings_in_the_documentation_are_taken():
    (listing,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "log-format.md").read_text(), re.DOTALL)
    assert set(yaml.safe_load(listing)) | {"time_format", "mixture"} == set(Mapping.model_fields)
    page = (DOCS / "log-format.md").read_text()
    for path in (DOCS / "mappings").iterdir():
        assert f"(mappings/{path.name})" in page and path.stem in SHAPES and Mapping.read(path) != Mapping()


def test_lists_with_commas_part_no_columns_where_the_mapping_counts_them(tmp_path):
    source, path = slates(tmp_path, shown=(1, "[11, 12, 21, 22, 23, 24]"))
    frame = pd.read_csv(source)
    frame[["user_id", "timestamp", "shown", "clicked"]].to_csv(source, index=False, header=False, sep="\t")
    columns = "columns: [user_id, timestamp, shown, clicked]\n"
    path.write_text(columns + "slate: {items: shown, chosen: {click: clicked}}\n")
    with pytest.raises(Refusal) as caught:
        read_log(source, mapping=path)
    assert [defect.column for defect in caught.value.defects] == ["predictions", "watch_time"]


def test_a_defect_of_a_slate_in_a_part_is_told_by_the_row_of_that_part(tmp_path):
    source, mapping = slates(tmp_path, watch_time=(4, "8 -9"))
    frame = pd.read_csv(source)
    (tmp_path / "parts").mkdir()
    for i, part in enumerate((frame[:3], frame[3:])):
        part.to_csv(tmp_path / "parts" / f"part-{i}.csv", index=False)
    with pytest.raises(Refusal, match=r"part-1.csv, row 1, column watch_time: entry 2 is -9"):
        read_log(tmp_path / "parts", mapping=mapping)


def test_what_does_not_go_into_a_blank_of_its_column_is_refused(tmp_path):
    source, mapping = SHAPES["ebnerd"](tmp_path), tmp_path / "mapping.yaml"
    mapping.write_text((DOCS / "mappings/ebnerd.yaml").read_text() + "fill: {age: many}\n")
    with pytest.raises(Refusal, match="fill: many does not go into age, a column of TINYINT"):
        read_log(source, mapping=mapping)
    mapping.write_text((DOCS / "mappings/ebnerd.yaml").read_text() + "fill: {age: 41}\n")
    encoder = read_log(source, mapping=mapping).meta.encoder
    assert encoder.fill == pytest.approx([(30 + 31 + 32 + 41) / 4])
