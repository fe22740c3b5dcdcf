"""docs/log-format.md holds: what it calls needed is needed, what it calls optional is done without as it says."""

from pathlib import Path

import pandas as pd
import pytest

from docs.log_format import log_format
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.schema import (
    ACTION_COLUMNS,
    IMPRESSION_COLUMNS,
    IMPRESSION_FILE,
    REQUEST_COLUMNS,
    REQUEST_FILE,
    FileColumn,
)
from mtf_engine.logs.sessions import ImportedLog
from mtf_engine.spec import Refusal

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs/example_log"
TABLES = {"requests": REQUEST_FILE, "impressions": IMPRESSION_FILE}
FILLED = {"clipped": 0, "segment": "all", "truncated": False}
"""What stands where a column is missing, of those for which that is one value."""
Log = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def example() -> Log:
    """The example log, with all columns that it does without."""
    tables = {name: pd.read_csv(EXAMPLE / f"{name}.csv", dtype=str) for name in TABLES}
    more = {"clipped": "0", "observation": "[31.0, 0.4]", "split": "train", "truncated": "false"}
    asked, shown = tables["requests"].assign(**more), tables["impressions"]
    asked["terminal"] = (asked.session_id != asked.session_id.shift(-1)).astype(str)
    watched = shown.watch_time.astype(float)
    shown["label"] = (watched > 10).astype(str)
    shown["propensity_score"] = "0.025"
    reward = 0.01 * watched + 0.5 * shown.like.astype(float)
    shown["reward"] = reward.astype(str)
    asked["reward"] = reward.groupby(shown.request_id).sum().loc[asked.request_id].astype(str).to_numpy()
    return {"requests": asked, "impressions": shown}


@pytest.fixture(scope="module")
def whole(example: Log, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return written(read(example, tmp_path_factory.mktemp("whole")))


def read(tables: Log, folder: Path) -> ImportedLog:
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return read_log(folder, name=str(folder))


def written(log: ImportedLog) -> Dataset:
    folder = Path(log.meta.name)
    write_dataset(folder, "log", log.meta, log.batches)
    return Dataset.open(folder / "log.duckdb")


def without(tables: Log, table: str, *columns: str) -> Log:
    several = {"predictions": ["prediction_click", "prediction_like"], "signals": ["click", "like"]}
    names = [name for column in columns for name in several.get(column, [column])]
    return tables | {table: tables[table].drop(columns=names)}


def test_the_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs/log-format.md").read_text() == log_format(), "run `make docs`"


def test_the_page_describes_every_column_that_a_dataset_keeps() -> None:
    shown = {column.name for column in IMPRESSION_FILE}
    assert {column.name for column in REQUEST_FILE} == set(REQUEST_COLUMNS)
    assert shown - {"signals", "watch_time"} == set(IMPRESSION_COLUMNS) - {"user_id"}


def test_readme_leads_to_the_page() -> None:
    assert "(docs/log-format.md)" in (ROOT / "README.md").read_text()


def test_the_example_log_is_imported_as_it_stands(tmp_path: Path) -> None:
    log = read_log(EXAMPLE, name=str(tmp_path))
    assert log.meta.fusion.predictions == ("click", "like") and log.meta.exploration == "uniform"
    assert log.warnings == ("one user in ten is for validation, by a hash of the id",)
    dataset = written(log)
    assert (dataset.n_requests, dataset.n_impressions, len(dataset.transitions("train"))) == (10, 20, 10)


def test_every_column_is_read(example: Log, tmp_path: Path) -> None:
    assert not [warning for warning in read(example, tmp_path).warnings if "not used" in warning]
    for table, columns in TABLES.items():
        for column in columns:
            assert len(without(example, table, column.name)[table].columns) < len(example[table].columns)


@pytest.mark.parametrize(
    ("table", "column"),
    [pytest.param(t, c, id=f"{t}-{c.name}") for t, columns in TABLES.items() for c in columns],
)
def test_a_column_is_as_needed_as_the_page_says(
    example: Log, whole: Dataset, tmp_path: Path, table: str, column: FileColumn
) -> None:
    less = without(example, table, column.name)
    if column.name in ("watch_time", "signals"):  # whose sum the rewards are
        less = without(without(less, "impressions", "reward"), "requests", "reward")
    if column.need == "optional":
        log = written(read(less, tmp_path))
        if column.name in FILLED:
            (found,) = log.query(f"SELECT DISTINCT {column.name} AS it FROM requests")["it"]
            assert found == FILLED[column.name]
        if column.name in ("reward", "label", "terminal", "position"):
            rows = f"SELECT {column.name} AS it FROM {table} ORDER BY ALL"
            assert log.query(rows)["it"].tolist() == pytest.approx(whole.query(rows)["it"].tolist())
        return
    with pytest.raises(Refusal) as refused:
        read(less, tmp_path)
    assert {d.column for d in refused.value.defects if d.code == "missing_column"} == {column.name}
    if column.need == "with action":
        others = set(ACTION_COLUMNS) - {column.name}
        assert read(without(less, "requests", *others), tmp_path).meta.exploration is None


def test_a_log_that_tells_neither_watch_time_nor_label_nor_valid_is_refused(
    example: Log, tmp_path: Path
) -> None:
    less = without(without(example, "impressions", "watch_time", "label", "reward"), "requests", "reward")
    with pytest.raises(Refusal, match="column watch_time: is missing"):
        read(less, tmp_path)


def test_the_examples_on_the_page_are_taken(example: Log, tmp_path: Path) -> None:
    tables = without(without(example, "impressions", "reward"), "requests", "reward")
    for table, columns in TABLES.items():
        for column in columns:
            keys = ("request_id", "session_id", "step", "predictions", "signals", "position", "reward")
            if column.name not in keys:
                tables[table] = tables[table].assign(**{column.name: column.example})
    row = written(read(tables, tmp_path)).query("SELECT * FROM requests JOIN impressions USING (request_id)")
    assert set(row["segment"]) == {"new"} and row["watch_time"].tolist() == [12.5] * 20
    assert row["action"][0].tolist() == pytest.approx([0.05, -0.1])
