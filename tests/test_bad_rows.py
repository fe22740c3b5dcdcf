"""One bad row does not spoil a log: left out, the rest is the log that a hand would have cleaned."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.kuairand_files import find_files, read_files
from mtf_engine.spec import Refusal
from tests.fixtures import kuairand as published
from tests.fixtures import logs
from tests.searching import examples

N_STEPS = 3


def imported(folder: Path, bad_rows: str) -> Dataset:
    log = read_log(folder, mapping=folder / "mapping.yaml", name="log", bad_rows=bad_rows)
    write_dataset(folder, bad_rows, log.meta, log.batches)
    return Dataset.open(folder / f"{bad_rows}.duckdb")


def spoiled(
    log: logs.Log, generator: np.random.Generator
) -> tuple[logs.Log, logs.Log, dict[str, dict[str, int]]]:
    """Returns the log with a defect in some rows, what a hand would make of it, and how many rows are left out."""
    requests, impressions = log.requests.astype(object), log.impressions.astype(object)
    bad = set(generator.choice(len(requests), 2, replace=False).tolist())
    for row, (column, value) in zip(
        sorted(bad), (("timestamp", "soon"), ("action", [0.1, 0.1])), strict=True
    ):
        requests.at[row, column] = value
    shown = int(generator.integers(len(impressions)))
    impressions.at[shown, "watch_time"] = -1.0
    session, step = requests["session_id"], requests["step"]
    cut = {s: min(step[row] for row in bad if session[row] == s) for s in session[sorted(bad)]}
    kept = np.array([step[i] < cut.get(session[i], N_STEPS) for i in range(len(requests))])
    clean, left = requests[kept].copy(), impressions.drop(index=shown)
    clean["truncated"] = [
        s in cut and t == cut[s] - 1 for s, t in zip(clean["session_id"], clean["step"], strict=True)
    ]
    left = left[left["request_id"].isin(clean["request_id"])]
    clean["reward"] = (
        clean["request_id"]
        .map(left.astype({"reward": float}).groupby("request_id")["reward"].sum())
        .fillna(0)
    )
    asked = {"action_outside_bounds": 0, "session_order_broken": int((~kept).sum()) - 2}
    codes = {"wrong_type": 1, "wrong_length": 1} | {k: n for k, n in asked.items() if n}
    n_strays = len(impressions) - 1 - len(left)
    strays = {"unknown_request": n_strays, "negative_watch_time": 1}
    return (
        logs.Log(requests, impressions),
        logs.Log(clean, left),
        {"requests.csv": codes, "impressions.csv": strays},
    )


@examples(3)
@given(seed=st.integers(0, 10_000))
def test_what_remains_is_the_log_without_these_rows(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("rows")
    log = logs.clean(n_users=6, n_steps=N_STEPS, seed=seed)
    bad, clean, left_out = spoiled(log, np.random.default_rng(seed))
    found = imported(logs.write(bad, tmp_path / "bad"), "drop")
    assert found.content_hash == imported(logs.write(clean, tmp_path / "clean"), "refuse").content_hash
    assert found.meta.details["left_out"] == left_out
    with pytest.raises(Refusal):
        imported(tmp_path / "bad", "refuse")


def alone(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [f"u{i // 3}" for i in range(n)],
            "timestamp": [f"2026-05-04 10:{i:02d}:00" for i in range(n)],
            "prediction_click": np.linspace(0.1, 0.7, n).round(3),
            "watch_time": np.linspace(2, 40, n).round(1),
        }
    ).astype(object)


SPOILS: dict[str, tuple[str, Callable[[str], str]]] = {
    "null_key": ("user_id", lambda value: ""),
    "wrong_type": ("prediction_click", lambda value: "high"),
    "nan_or_inf": ("watch_time", lambda value: "inf"),
    "negative_watch_time": ("watch_time", lambda value: "-3"),
    "unreadable_file": ("watch_time", lambda value: f"{value},1,1"),
}


@pytest.mark.parametrize("code", SPOILS)
def test_an_impression_is_left_out_by_itself(code: str, tmp_path: Path) -> None:
    column, spoil = SPOILS[code]
    frame = alone()
    frame.drop(index=4).to_csv(tmp_path / "clean.csv", index=False)
    lines = frame.astype(str)
    lines.at[4, column] = spoil(lines.at[4, column])
    text = "\n".join([",".join(frame.columns), *(",".join(row) for row in lines.to_numpy())])
    (tmp_path / "bad.csv").write_text(text + "\n")
    hashes = set()
    for name, bad_rows in (("clean.csv", "refuse"), ("bad.csv", "drop")):
        log = read_log(tmp_path / name, name="log", bad_rows=bad_rows)
        ledger = write_dataset(tmp_path, name.removesuffix(".csv"), log.meta, log.batches)
        hashes.add(ledger.content_hash)
    assert len(hashes) == 1
    assert log.meta.details["left_out"] == {"bad.csv": {code: 1}}
    assert f"bad.csv: rows left out: 1 {code}" in log.warnings


def test_a_log_of_bad_rows_is_refused_with_their_number(tmp_path: Path) -> None:
    alone().assign(watch_time=-1).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(Refusal, match=r"bad\.csv: 12 of 12 rows have a defect \(12 negative_watch_time\)"):
        read_log(tmp_path / "bad.csv", bad_rows="drop")


def test_what_is_wrong_with_the_whole_file_is_refused_all_the_same(tmp_path: Path) -> None:
    alone().drop(columns="watch_time").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(Refusal, match="watch_time: is missing"):
        read_log(tmp_path / "bad.csv", bad_rows="drop")


@pytest.mark.parametrize("closed", [True, False], ids=["closed by a later one", "to the end"])
def test_a_quote_that_does_not_close_takes_no_row_along_unseen(closed: bool, tmp_path: Path) -> None:
    lines = alone(40).astype(str)
    lines.at[9, "user_id"] = '"u3'
    if closed:
        lines.at[20, "user_id"] = '"u6"'
    text = [",".join(lines.columns), *(",".join(row) for row in lines.to_numpy())]
    (tmp_path / "bad.csv").write_text("\n".join(text))
    with pytest.raises(Refusal, match=r"bad\.csv, row 10"):
        read_log(tmp_path / "bad.csv", bad_rows="drop")


def test_a_sound_row_is_kept_behind_one_that_is_not(tmp_path: Path) -> None:
    log = logs.clean()
    requests = log.requests.astype({"action": object})
    requests.at[4, "action"] = [0.1, 0.1]
    both = log._replace(requests=pd.concat([requests, log.requests.iloc[[4]]]))
    found = imported(logs.write(both, tmp_path / "both"), "drop")
    assert found.meta.details["left_out"] == {"requests.csv": {"wrong_length": 1}}
    assert found.content_hash == imported(logs.write(log, tmp_path / "log"), "refuse").content_hash


def test_a_request_with_the_id_of_another_is_left_out_and_its_session_cut(tmp_path: Path) -> None:
    log = logs.clean()
    shown = log.impressions[log.impressions["request_id"] != 104]
    log.requests.loc[4, "request_id"] = 100
    found = imported(logs.write(log._replace(impressions=shown), tmp_path / "log"), "drop")
    assert found.meta.details["left_out"]["requests.csv"] == {
        "duplicate_request": 1,
        "session_order_broken": 1,
    }


def test_rows_are_counted_as_the_file_counts_them_behind_lines_that_are_none(tmp_path: Path) -> None:
    log = logs.clean()
    log.requests.loc[10, "timestamp"] -= pd.Timedelta(hours=2)
    folder = logs.write(log, tmp_path / "log")
    lines = (folder / "requests.csv").read_text().splitlines()
    for line in (3, 9):
        lines[line] = lines[line].partition(",")[0]
    (folder / "requests.csv").write_text("\n".join(lines))
    with pytest.raises(Refusal, match=r"requests\.csv, row 11, column timestamp: goes back"):
        imported(folder, "drop")


def test_parquet_rows_are_left_out_as_those_of_csv(tmp_path: Path) -> None:
    log = logs.clean()
    log.impressions.loc[5, "watch_time"] = -1
    hashes = {
        kind: imported(logs.write(log, tmp_path / kind, kind), "drop").content_hash
        for kind in ("csv", "parquet")
    }
    assert hashes["csv"] == hashes["parquet"]


def test_kuairand_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = published.impressions().astype({"play_time_ms": float})
    bad = rows.copy()
    bad.loc[7, "play_time_ms"] = -1
    found = read_files(find_files(published.write(tmp_path / "bad", bad), None), "drop")
    clean = read_files(find_files(published.write(tmp_path / "clean", rows.drop(index=7)), None))
    columns = [name for name in found.impressions if name != "row"]
    pd.testing.assert_frame_equal(found.impressions[columns], clean.impressions[columns])
    assert found.left_out == {"left_out": {"impressions.tsv": {"negative_watch_time": 1}}}
