"""Every defect of a log is found, and nothing else: held against an oracle in plain Python."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtf_engine.logs.importing import read_log
from mtf_engine.logs.validation import DEFECT_CODES
from mtf_engine.spec import Refusal
from tests.defect_oracle import Found, defects
from tests.fixtures import logs
from tests.mutants import some

BY_NEGATIVE = """
predictions: [click, like]
signals: [watch_time, dislike]
reward: {weights: {watch_time: 0.001, dislike: -0.3}}
"""
BY_SLATE = "{slate: {items: shown, chosen: {click: clicked}, each: [prediction_click]}, signals: [click],"
BY_SLATE += " impressions: {label: click}}\n"
Generator = np.random.Generator


def sound(generator: Generator) -> tuple[logs.Log, str]:
    """Returns a log without a defect of one of three kinds, and its mapping."""
    asked, shown = logs.clean(3, 2, int(generator.integers(2, 5)), seed=int(generator.integers(1_000)))
    kind = generator.random()
    if kind < 0.6:
        return logs.Log(asked, shown), logs.MAPPING
    if kind < 0.85:
        shown = shown.drop(columns="reward").assign(dislike=0.0)
        return logs.Log(asked.drop(columns="reward"), shown), BY_NEGATIVE
    slates = pd.DataFrame({"request_id": asked["request_id"], "shown": "v1 v2 v3", "clicked": "v2"})
    return logs.Log(
        asked[["request_id", *logs.KEYS]], slates.assign(prediction_click="0.5 0.1 0.2")
    ), BY_SLATE


EVIL = {
    "step": ["", "x", "1.5", "7", "-1"], "user_id": ["", "u9"], "session_id": ["", "77"],
    "request_id": ["", "100", "999"], "timestamp": ["", "soon", "2026-02-01 10:00:00", "2027-13-01", "58309-03-01"],
    "split": ["", "training", "test"], "pscore": ["", "x", "inf", "nan"], "terminal": ["", "maybe", "True", "False"],
    "reward": ["", "nan", "inf", "99", "x"],
    "action": ["", "[0.1, 0.1]", "[0.1, x, 0.1]", "[0.1, nan, 0.1]", "[0.1, 0.1, 1.2]", "[0.1, 0.1, 0.7]"],
    "baseline_action": ["", "[0.1, 0.1, -1.5]", "[0.1]", "[0.1, 0.1, inf]", "[0.5, 0.1, 0.1]"],
    "lower": ["[0, 0, 0]", "", "[0, , 0]", "[0, 0, nan]"],
    "upper": ["[0.1]", "[0, nan, 0]"], "observation": ["", "[1, 2, 3]", "[1, 2, 3, nan]", "[1, 2, 3, z]"],
    "item_id": ["", "v"], "position": ["", "0", "9000000000", "one", "2.5"],
    "watch_time": ["", "-3.5", "nan", "long", "5000"],
    "click": ["", "nan", "yes, twice", "1"], "like": ["", "-inf", "often", "0"], "dislike": ["5", "", "3.4", "x", "1"],
    "predictions": ["", "[0.2]", "[0.2, nan]", "[0.2, x]", "[0.2, -1.0]", "[0.2, 0.3, 0.4]"],
    "shown": ["v1 v2"], "clicked": ["v2 v9", "", "v1 v3"], "prediction_click": ["0.5 0.1"],
}  # fmt: skip
"""By column: what may stand in a value's place, some of it sound."""


def a_value(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    column = some(generator, [name for name in frame if name in EVIL])
    for row in generator.integers(0, len(frame), int(generator.integers(1, 4))):
        frame.loc[row, column] = some(generator, EVIL[column])
    return frame


def a_row_twice(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    """Perhaps with a difference, without which it is dropped and no defect."""
    again = frame.iloc[[int(generator.integers(len(frame)))]].copy()
    if generator.random() < 0.7 and "segment" in frame:
        again["segment"] = "other"
    return pd.concat([frame, again], ignore_index=True)


def no_column(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    kept = (
        "action",
        "baseline_action",
        "lower",
        "upper",
        "observation",
        "shown",
        "clicked",
        "prediction_click",
    )
    names = [name for name in frame if name not in kept and (name != "request_id" or "shown" not in frame)]
    return frame.drop(columns=some(generator, names))


def logits(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    if "predictions" not in frame:
        return frame
    share = generator.uniform(0.3, 0.9)
    return frame.assign(
        predictions=["[-2.0, 0.5]" if generator.random() < share else "[0.0, 0.5]" for _ in range(len(frame))]
    )


def no_rows(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    return frame.iloc[:0]


PLANTS: tuple[tuple[Callable[[pd.DataFrame, Generator], pd.DataFrame], float], ...] = (
    (a_value, 0.75), (a_row_twice, 0.1), (no_column, 0.06), (logits, 0.07), (no_rows, 0.02),
)  # fmt: skip


def planted(folder: Path, generator: Generator) -> set[Found]:
    """Returns what the oracle finds in a log with a few things changed, which it writes."""
    log, mapping = sound(generator)
    tables = {name: frame.assign(segment="all").astype(object) for name, frame in log._asdict().items()}
    for _ in range(int(generator.integers(0, 6))):
        name = some(generator, list(tables))
        plant = PLANTS[int(generator.choice(len(PLANTS), p=[share for _, share in PLANTS]))][0]
        if len(tables[name]):
            tables[name] = plant(tables[name], generator)
    folder.mkdir()
    for name, frame in tables.items():
        text = frame.to_csv(index=False)
        if generator.random() < 0.03:
            lines = text.splitlines(keepends=True)
            lines[-1] = lines[-1].split(",")[0] + "\n"
            text = "".join(lines)
        if generator.random() < 0.03:
            text = text.replace(",segment", f",{frame.columns[0]}", 1)
        (folder / f"{name}.csv").write_text(text)
    (folder / "mapping.yaml").write_text(mapping)
    expected = defects(folder)
    if generator.random() < 0.03:
        (folder / "mapping.yaml").write_text("signal: [click]\n")
        return {Found("bad_mapping", "mapping.yaml")}
    if generator.random() < 0.03:
        table = folder / "impressions.parquet"
        tables["impressions"].astype(str).to_parquet(table)
        table.write_bytes(table.read_bytes()[:-50])
        (folder / "impressions.csv").unlink()
        asked = {
            one
            for one in expected
            if one.file == "requests.csv" and one.code != "reward_contradicts_components"
        }
        return {*asked, Found("truncated_parquet", table.name)}
    return expected


def reported(folder: Path) -> set[Found]:
    """Returns what the import finds."""
    try:
        read_log(folder, mapping=folder / "mapping.yaml")
    except Refusal as refusal:
        return {Found(d.code, d.file, d.column, d.row, d.count) for d in refusal.defects} or {
            Found(str(refusal), "")
        }
    return set()


def compared(tmp_path: Path, first: int, n: int) -> set[str]:
    """Returns the codes that were planted in `n` logs, in each of which what is found is what there is."""
    planted_codes = set()
    for seed in range(first, first + n):
        folder = tmp_path / str(seed)
        expected = planted(folder, np.random.default_rng(seed))
        found = reported(folder)
        assert found == expected, f"seed {seed}: untrue {found - expected}, not found {expected - found}"
        planted_codes |= {one.code for one in expected}
    return planted_codes


def test_the_import_finds_the_planted_defects_of_20_logs_and_no_others(tmp_path):
    assert len(compared(tmp_path, 0, 20)) >= 8


@pytest.mark.slow
def test_the_import_finds_the_planted_defects_of_500_logs_and_no_others(tmp_path):
    assert compared(tmp_path, 1_000, 500) == set(DEFECT_CODES)
