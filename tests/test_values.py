"""Values promise: what can be meant in two ways is told or refused, and each rule holds in every importer."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mtf_engine.evaluation import evaluate
from mtf_engine.logs.columns import whole_or_text
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.files import RawTable, connect
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.kuairand_files import Published, read_files
from mtf_engine.logs.typed import Column, type_columns
from mtf_engine.logs.units import TIME_UNITS, judge, time_sql
from mtf_engine.logs.validation import TOLERANCE
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Refusal
from tests.fixtures import kuairand, logs
from tests.searching import examples

EPOCH = pd.Timestamp("1970-01-01")
NUMBERS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "s": lambda t: (t - EPOCH) // pd.Timedelta(seconds=1),
    "ms": lambda t: (t - EPOCH) // pd.Timedelta(milliseconds=1),
    "us": lambda t: (t - EPOCH) // pd.Timedelta(microseconds=1),
    "ns": lambda t: (t - EPOCH) // pd.Timedelta(microseconds=1) * 1000,
    "date": lambda t: t.dt.strftime("%Y%m%d%H%M%S").astype(int),
}
SAID = ("table of csv", "table of parquet", "impressions")
"""Importers with a mapping."""


def changed(
    importer: str, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], more: str = ""
) -> Path:
    """Returns the log, written for the importer, with `change` made to each table that it has."""
    log = logs.Log(*map(change, logs.clean()))
    if importer == "impressions":
        when = logs.clean().requests[["request_id", "session_id", "user_id", "timestamp"]]
        frame = logs.clean().impressions.drop(columns=["predictions", "reward"]).merge(when, on="request_id")
        frame = change(frame.assign(prediction_click=np.linspace(0.1, 0.9, len(frame)), prediction_like=0.2))
        folder.mkdir(exist_ok=True)
        frame.to_csv(folder / "impressions.csv", index=False)
        (folder / "mapping.yaml").write_text("signals: [click, like, watch_time]\n" + more)
        return folder
    logs.write(log, folder, importer.removeprefix("table of "))
    (folder / "mapping.yaml").write_text(logs.MAPPING + more)
    return folder


def read(folder: Path, **how: Any):
    return read_log(folder, mapping=folder / "mapping.yaml", **how)


def stored(folder: Path) -> Dataset:
    log = read(folder)
    write_dataset(folder, "log", log.meta, log.batches)
    return Dataset.open(folder / "log.duckdb")


def told(dataset: Dataset) -> list[str]:
    return dataset.meta.details["warnings"]


def refusal(folder: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(folder)
    return caught.value


def on(column: str, new: Callable[[pd.Series], pd.Series]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what changes a column of a table that has it."""
    return lambda frame: frame.assign(**{column: new(frame[column])}) if column in frame else frame


def at(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what changes one value, at a data row counted from 1, of a table that has the column."""

    def put(values: pd.Series) -> pd.Series:
        values = values.astype(object)
        values.iloc[row - 1] = value
        return values if isinstance(value, list | str) else values.infer_objects()

    return on(column, put)


as_it_is = on("nothing", lambda values: values)


@pytest.mark.parametrize("importer", SAID)
def test_times_as_numbers_are_read_in_their_unit_and_the_import_says_so(importer, tmp_path):
    written = stored(changed(importer, tmp_path / "written", as_it_is)).content_hash
    for unit, numbers in NUMBERS.items():
        folder = changed(importer, tmp_path / unit, on("timestamp", numbers))
        dataset = stored(folder)
        assert any(f": timestamp is read as {TIME_UNITS[unit]}" in w for w in told(dataset))
        assert dataset.content_hash == written, unit


def test_days_as_numbers_are_days(tmp_path):
    days = on("timestamp", lambda t: t.dt.strftime("%Y%m%d").astype(int))
    found = stored(changed("impressions", tmp_path, days)).query(
        "SELECT DISTINCT timestamp AS t FROM requests"
    )
    assert found["t"].tolist() == [pd.Timestamp("2026-03-01")]


@pytest.mark.parametrize("importer", SAID)
def test_times_in_no_plausible_unit_are_refused_until_it_is_stated(importer, tmp_path):
    early = on("timestamp", lambda t: NUMBERS["s"](t) - NUMBERS["s"](t).min())
    (defect,) = refusal(changed(importer, tmp_path / "judged", early)).defects
    assert (defect.code, defect.row, defect.column) == ("wrong_type", 1, "timestamp")
    assert "time_unit in the mapping (s, ms, us, ns, date)" in defect.remedy
    folder = changed(importer, tmp_path / "stated", early, "time_unit: s\n")
    dataset = stored(folder)
    assert not any("is read as" in w for w in told(dataset))
    assert dataset.query("SELECT min(timestamp) AS t FROM requests")["t"][0] == EPOCH


@pytest.mark.parametrize("importer", SAID)
def test_a_time_in_another_unit_than_the_others_is_a_defect(importer, tmp_path):
    mixed = on("timestamp", lambda t: NUMBERS["ms"](t).where(t.index != 2, 1_772_323_320))
    (defect,) = refusal(changed(importer, tmp_path, mixed)).defects
    assert (defect.code, defect.row, defect.count) == ("wrong_type", 3, 1)
    assert "milliseconds since 1970, as most of the column, from 1990 to a year from now" in defect.message


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-infinity", "1e300", "20261340", "2026", "1_772_323_320_000_000_0", "58309-03-01"],
)
def test_numbers_that_are_no_time_are_refused(value, tmp_path):
    folder = changed("table of csv", tmp_path, at("timestamp", 5, value))
    (defect,) = refusal(folder).defects
    assert (defect.code, defect.row, defect.column) == ("wrong_type", 5, "timestamp")


PLAUSIBLE = st.datetimes(datetime(1990, 1, 1), datetime.now(UTC).replace(tzinfo=None) + timedelta(days=364))


@examples(20)
@given(st.sampled_from(sorted(TIME_UNITS)), st.lists(PLAUSIBLE, min_size=1, max_size=5), st.booleans())
def test_plausible_times_come_back_from_numbers_of_any_unit(unit, times, as_floats):
    exact = {"us": 1, "ns": 1, "ms": 1_000}.get(unit, 1_000_000)
    times = [t.replace(microsecond=t.microsecond // exact * exact if exact < 1_000_000 else 0) for t in times]
    numbers = NUMBERS[unit](pd.Series(times, dtype="datetime64[us]"))
    if as_floats:
        assume((numbers < 2**53).all())
        numbers = numbers.astype(float)
    with connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest(?) AS x", [[str(n) for n in numbers]])
        assert judge(con, "t", "x") == unit
        assert con.execute(f"SELECT {time_sql('x', None, unit)} FROM t").fetchall() == [(t,) for t in times]


@pytest.mark.parametrize("importer", SAID)
def test_watch_times_are_in_the_unit_that_the_mapping_states(importer, tmp_path):
    seconds = stored(changed(importer, tmp_path / "s", without_reward(on("watch_time", np.round))))
    for unit, factor in (("ms", 1000), ("min", 1 / 60)):
        other = on("watch_time", lambda t, by=factor: t.round() * by)
        folder = changed(importer, tmp_path / unit, without_reward(other), f"watch_time_unit: {unit}\n")
        assert stored(folder).query("SELECT sum(watch_time) AS t FROM impressions")["t"][0] == pytest.approx(
            seconds.query("SELECT sum(watch_time) AS t FROM impressions")["t"][0]
        )


def without_reward(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: change(frame).drop(columns="reward", errors="ignore")


@pytest.mark.parametrize("importer", SAID)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (on("watch_time", lambda t: t * 1000), "column watch_time: half of the watch times are above"),
        (on("watch_time", lambda t: t / 1000), "all labels are false, so no weighted GAUC"),
        (on("watch_time", lambda t: t + 11), "all labels are true, so no weighted GAUC"),
    ],
)  # fmt: skip
def test_what_is_likely_meant_otherwise_is_told(importer, change, said, tmp_path):
    folder = changed(importer, tmp_path, without_reward(change))
    (warning,) = [w for w in read(folder).warnings if pd.Series([w]).str.contains(said)[0]]
    assert "impressions." in warning


@pytest.mark.parametrize("importer", SAID)
def test_a_clean_log_raises_no_suspicion(importer, tmp_path):
    quiet = read(changed(importer, tmp_path, as_it_is)).warnings
    assert not any(word in w for w in quiet for word in ("labels", "half of", "outside", "above", "read as"))


def predictions(new: Callable[[float, int], float]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what changes the prediction of click in either form, by its value and row counted from 1."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        if "predictions" in frame:
            lists = [[new(p, row), q] for row, (p, q) in enumerate(frame["predictions"], start=1)]
            return frame.assign(predictions=lists)
        if "prediction_click" in frame:
            clicks = frame["prediction_click"]
            return frame.assign(prediction_click=[new(p, row) for row, p in enumerate(clicks, start=1)])
        return frame

    return change


@pytest.mark.parametrize("importer", SAID)
def test_logits_are_refused(importer, tmp_path):
    logits = predictions(lambda p, row: float(np.log(p / (1 - p))) - 2)
    (defect,) = refusal(changed(importer, tmp_path, logits)).defects
    assert (
        defect.code == "prediction_below_zero" and defect.row == 1 and defect.column.startswith("prediction")
    )
    assert "sigmoid" in defect.remedy


@pytest.mark.parametrize("importer", SAID)
def test_some_predictions_that_are_none_are_counted(importer, tmp_path):
    few = predictions(lambda p, row: 0.0 if row in (2, 5) else p)
    (warning,) = [w for w in read(changed(importer, tmp_path / "few", few)).warnings if "not above 0" in w]
    assert "row 2, column prediction" in warning and "(and 1 more rows)" in warning
    percent = predictions(lambda p, row: 100 * p + 1)
    assert any(
        "above 1, as most" in w for w in read(changed(importer, tmp_path / "percent", percent)).warnings
    )


@pytest.mark.parametrize("importer", SAID)
@pytest.mark.parametrize("value", [3, -1, 1.5])
def test_a_signal_outside_0_and_1_is_refused_with_its_row_or_left_out(importer, value, tmp_path):
    reward = "reward: {weights: {watch_time: 0.001, like: 0.3}}\n"
    folder = changed(importer, tmp_path, without_reward(at("like", 6, value)))
    (folder / "mapping.yaml").write_text("signals: [watch_time, like]\n" + reward)
    (defect,) = refusal(folder).defects
    assert (defect.code, defect.row, defect.column) == ("signal_out_of_range", 6, "like")
    assert "counts: {like: 3}" in defect.remedy
    assert any("signal_out_of_range" in w for w in read(folder, bad_rows="drop").warnings)
    (folder / "mapping.yaml").write_text("signals: [watch_time, like]\ncounts: {like: 3}\n" + reward)
    assert value < 0 or read(folder)


IDS = st.sampled_from(
    ["7", "07", "-0", "0", "+1", "1", "-1", " 1", "1 ", "1_0", "0x1", "1e1", "1.0", "x", "٣", str(2**63)]
)


@examples(20)
@given(st.lists(IDS | st.integers(-(2**63), 2**63 - 1).map(str), min_size=1, max_size=4))
def test_ids_are_integers_only_where_every_one_comes_back(ids):
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS id", [ids])
        found = [row for (row,) in con.execute(f"SELECT {whole_or_text(con, 't', 'id')} FROM t").fetchall()]
    canonical = all(
        text.removeprefix("-").isdecimal() and text.isascii() and str(int(text)) == text for text in ids
    )
    fits = canonical and all(-(2**63) <= int(text) < 2**63 for text in ids)
    assert found == ([int(text) for text in ids] if fits else ids)


@pytest.mark.parametrize("column", ["request_id", "session_id", "item_id"])
def test_what_things_are_called_changes_no_figure(column, tmp_path):
    """The third and the fourth of them are called 70000 and 070000."""
    order = list(
        dict.fromkeys(
            logs.clean().impressions[column] if column == "item_id" else logs.clean().requests[column]
        )
    )
    names = {order[2]: "70000", order[3]: "070000"}
    renamed = on(column, lambda ids: ids.map(lambda i: names.get(i, f"{i}")))
    plain, other = (
        stored(changed("table of parquet", tmp_path / name, change))
        for name, change in (("plain", as_it_is), ("other", renamed))
    )
    for table, count in (("requests", "request_id"), ("requests", "session_id"), ("impressions", "item_id")):
        n, expected = (
            d.query(f"SELECT count(DISTINCT {count}) AS n FROM {table}")["n"][0] for d in (other, plain)
        )
        assert n == expected
    first, second = (score(d) for d in (plain, other))
    assert first == second


@pytest.mark.parametrize("role", ["profile", "signals"])
def test_what_columns_are_called_changes_no_figure(role, tmp_path):
    """An import has columns of these names for what it finds of requests."""
    known = ("number", "request_time", "first_time", "last_time", "opening")

    def hash_of(called: str) -> str:
        names = [called + name for name in known]

        def change(frame: pd.DataFrame) -> pd.DataFrame:
            values = np.random.default_rng(3).integers(0, 2, (len(frame), len(names)))
            return frame.assign(segment="s", **dict(zip(names, values.T, strict=True)))

        folder, listed = changed("impressions", tmp_path / f"log{called}", change), ", ".join(names)
        roles = {"profile": f"profile: {{numeric: [{listed}]}}", "signals": f"signals: [click, {listed}]"}
        (folder / "mapping.yaml").write_text(f"{roles[role]}\nreward: {{weights: {{click: 1}}}}\n")
        columns = ", ".join(f'"{name}" AS x{i}' for i, name in enumerate(names))
        rows = "SELECT observation, reward FROM requests ORDER BY request_id"
        shown = f"SELECT {columns}, label FROM impressions ORDER BY request_id, position"
        dataset = stored(folder)
        tables = [dataset.query(rows), *([dataset.query(shown)] if role == "signals" else [])]
        return "".join(table.to_json() for table in tables)

    assert hash_of("") == hash_of("my_")


def score(dataset: Dataset) -> float:
    meta = dataset.meta
    policy = Policy.baseline(meta.fusion, meta.feature_names, meta.numeric_mask)
    return (
        evaluate({"baseline": policy}, dataset.evaluation_rows("all"), n_bootstrap=10)
        .policies[0]
        .weighted_gauc
    )


WORDS = {
    True: ("1", "1.0", "true", "TRUE", "yes", "Yes", "t", "y"),
    False: ("0", "0.0", "false", "no", "No", "f"),
}


@pytest.mark.parametrize("importer", ["table of csv", "impressions"])
def test_booleans_are_the_same_words_for_flags_and_signals(importer, tmp_path):
    def spelt(words: dict[bool, tuple[str, ...]]) -> Callable[[pd.DataFrame], pd.DataFrame]:
        def change(frame: pd.DataFrame) -> pd.DataFrame:
            flags = {"terminal", "like", "click"} & set(frame)
            frame = frame.assign(label=frame["click"]) if "click" in frame else frame
            return frame.assign(
                **{
                    c: [words[bool(v)][i % len(words[bool(v)])] for i, v in enumerate(frame[c])]
                    for c in flags
                }
            )

        return change

    plain, other = (
        stored(changed(importer, tmp_path / name, spelt(words)))
        for name, words in (("plain", {True: ("1",), False: ("0",)}), ("other", WORDS))
    )
    assert plain.content_hash == other.content_hash


JUST, TOO_FAR = 0.8 * TOLERANCE, 1.5 * TOLERANCE


def vectors(action: float, baseline: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what sets the first dimension of each request's action and baseline action."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        if "action" not in frame:
            return frame
        set_to = {"action": action, "baseline_action": baseline}
        return frame.assign(**{c: [[value, *rest] for _, *rest in frame[c]] for c, value in set_to.items()})

    return change


@pytest.mark.parametrize("importer", SAID[:2])
@pytest.mark.parametrize(
    ("edge", "baseline", "sign"), [(1.0, 0.9, 1), (-1.0, -0.9, -1), (0.25, 0.1, 1), (-0.05, 0.1, -1)]
)
def test_an_action_just_beyond_its_range_or_box_is_cut_to_it(importer, edge, baseline, sign, tmp_path):
    dataset = stored(changed(importer, tmp_path / "just", vectors(edge + sign * JUST, baseline)))
    rows = dataset.arrays("SELECT action, baseline_action, lower, upper FROM requests")
    wall = (rows["baseline_action"] + rows["upper" if sign > 0 else "lower"])[:, 0]
    assert (rows["action"][:, 0] == (edge if abs(edge) == 1 else wall)).all()
    found = refusal(changed(importer, tmp_path / "far", vectors(edge + sign * TOO_FAR, baseline))).defects
    assert {(d.code, d.column) for d in found} == {("action_outside_bounds", "action")}


@pytest.mark.parametrize("importer", SAID)
def test_a_value_just_beyond_its_range_is_cut_to_it(importer, tmp_path):
    beyond = lambda frame: at("watch_time", 3, -JUST)(at("like", 2, 1 + JUST)(frame))  # noqa: E731
    folder = changed(importer, tmp_path, without_reward(beyond))
    dataset = stored(folder)
    assert not any("outside" in w for w in told(dataset))
    found = dataset.query('SELECT max("like") AS high, min(watch_time) AS low FROM impressions')
    assert found.values.tolist() == [[1, 0]]


@pytest.mark.parametrize("importer", SAID)
def test_exact_duplicates_are_dropped_and_counted(importer, tmp_path):
    plain = stored(changed(importer, tmp_path / "plain", as_it_is))
    doubled = changed(importer, tmp_path / "doubled", lambda frame: pd.concat([frame, frame.iloc[[4, 9, 4]]]))
    dataset = stored(doubled)
    said = [w.split(": ")[1] for w in told(dataset) if "exact duplicates" in w]
    assert said == ["3 exact duplicates were dropped"] * (1 if importer == "impressions" else 2)
    assert dataset.content_hash == plain.content_hash


@pytest.mark.parametrize("importer", SAID)
def test_a_repeat_that_differs_stays_a_defect(importer, tmp_path):
    def again(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([frame, frame.iloc[[4]].assign(click=0.5)]) if "position" in frame else frame

    found = refusal(changed(importer, tmp_path, without_reward(again))).defects
    assert [(d.code, d.column, d.row) for d in found] == [("duplicate_request", "position", 49)]


def test_sessions_that_interleave_are_built_alike_by_both_importers(tmp_path):
    """Each user is in two sessions at the same time, request by request in turn."""
    log = logs.clean()
    place = log.requests.groupby("session_id").cumcount() * 2 + log.requests["session_id"] % 2
    user = log.requests["user_id"].str[1:].astype(int)
    log.requests["timestamp"] = pd.Timestamp("2026-03-01") + pd.to_timedelta(user * 100 + place, unit="m")
    tables = stored(logs.write(log, tmp_path / "tables"))
    rows = tables.arrays("SELECT session_id, step, timestamp FROM requests ORDER BY request_id")
    assert (np.diff(rows["session_id"]) != 0).sum() > 20
    transitions = tables.transitions()
    lengths = np.diff(np.append(transitions.session_starts, len(transitions)))
    assert set(lengths) == {3} and transitions[:].terminals.reshape(-1, 3).tolist() == [
        [False, False, True]
    ] * len(lengths)
    when = log.requests[["request_id", "session_id", "user_id", "timestamp"]]
    (alone := tmp_path / "alone").mkdir()
    shown = log.impressions.drop(columns=["predictions", "reward"]).merge(when, on="request_id")
    shown.assign(prediction_click=0.5, prediction_like=0.2).to_csv(alone / "impressions.csv", index=False)
    (alone / "mapping.yaml").write_text("signals: [click, like, watch_time]\n")
    query = "SELECT *, terminal OR truncated AS ends FROM requests ORDER BY user_id, timestamp"
    one, two = (d.query(query) for d in (tables, stored(alone)))
    for column in ("user_id", "timestamp", "step", "ends"):
        assert one[column].tolist() == two[column].tolist()
    assert (pd.factorize(one["session_id"])[0] == pd.factorize(two["session_id"])[0]).all()


KUAIRAND_ROWS = kuairand.impressions().iloc[:200]


@pytest.mark.parametrize(
    ("change", "code", "column"),
    [
        (partial(pd.DataFrame.assign, is_click=3), "signal_out_of_range", "is_click"),
        (partial(pd.DataFrame.assign, label=-1), "signal_out_of_range", "label"),
    ],
)
def test_kuairand_keeps_the_same_ranges(change, code, column, tmp_path):
    path = kuairand.write(tmp_path, change(KUAIRAND_ROWS)) / "impressions.tsv"
    with pytest.raises(Refusal) as caught:
        read_files(Published((path,), None))
    assert [(d.code, d.column, d.row, d.count) for d in caught.value.defects] == [(code, column, 1, 200)]


def test_kuairand_keeps_the_same_words_ids_and_tolerance(tmp_path):
    words = KUAIRAND_ROWS["is_click"].map({0: "no", 1: "TRUE"})
    videos = KUAIRAND_ROWS["video_id"].astype(str).where(KUAIRAND_ROWS.index != 0, "007")
    change = KUAIRAND_ROWS.assign(is_click=words, video_id=videos, label=KUAIRAND_ROWS["label"] + JUST)
    path = kuairand.write(tmp_path, change) / "impressions.tsv"
    found = read_files(Published((path,), None)).impressions
    assert found["is_click"].sum() == KUAIRAND_ROWS["is_click"].sum()
    assert "007" in set(found["video_id"]) and found["label"].max() == 1


def test_user_features_that_contradict_each_other_are_refused(tmp_path):
    users = kuairand.users()
    folder = kuairand.write(
        tmp_path, KUAIRAND_ROWS, pd.concat([users, users.iloc[[3]], users.iloc[[5]].assign(register_days=1)])
    )
    with pytest.raises(Refusal) as caught:
        read_files(Published((folder / "impressions.tsv",), folder / "user_features.csv"))
    assert [(d.code, d.column, d.row) for d in caught.value.defects] == [("duplicate_request", "user_id", 41)]


@pytest.mark.parametrize(
    ("of", "kinds", "values"),
    [
        ("TINYINT", ("integer", "long", "real", "flag", "text"), "-128, -1, 0, 1, 2, NULL"),
        ("BIGINT", ("integer", "long", "real", "flag", "text"), "-9223372036854775808, 9007199254740993, 0, 1, NULL"),
        ("UINTEGER", ("integer", "long", "real", "flag"), "4294967295, 0, 1, NULL"),
        ("UBIGINT", ("integer", "long", "real", "flag"), "18446744073709551615, 1, NULL"),
        ("DOUBLE", ("integer", "real", "flag"), "0.1, 1e300, 'nan', 'inf', '-0.0', 1, NULL"),
        ("FLOAT", ("integer", "real", "flag"), "0.1, 16777217, 1, NULL"),
        ("BOOLEAN", ("integer", "real", "flag"), "true, false, NULL"),
        *(
            (of, ("time",), f"'2026-05-04 09:30:00{part}', '1901-02-03 00:00:00{part}', '1890-01-01', NULL")
            for of, part in {
                "TIMESTAMP_S": "", "TIMESTAMP_MS": ".123", "TIMESTAMP": ".123456", "TIMESTAMP_NS": ".123456789",
                "TIMESTAMPTZ": ".5+02",
            }.items()
        ),
    ],
)  # fmt: skip
def test_a_number_or_time_of_parquet_is_what_its_text_is(of, kinds, values):
    with connect() as con:
        con.execute(f"CREATE TABLE typed_file AS SELECT unnest([{values}])::{of} AS x")
        con.execute("CREATE TABLE text_file AS SELECT x::VARCHAR AS x FROM typed_file")
        for kind in kinds:
            found = []
            for table in ("typed_file", "text_file"):
                ((types,),) = con.execute(f"SELECT any_value(typeof(x)) FROM {table}").fetchall()
                raw = RawTable(table, table, {"x": types}, "parquet", 1)
                relation, checks = type_columns(con, raw, [Column("x", kind, ("x",))], f"{kind}_{table}")
                broken = [
                    con.execute(f"SELECT {c.broken} FROM {relation} ORDER BY row").fetchall() for c in checks
                ]
                rows = con.execute(
                    f"SELECT x::VARCHAR, typeof(x) FROM {kind}_{table} ORDER BY row"
                ).fetchall()
                found.append((rows, broken))
            assert found[0] == found[1], kind
