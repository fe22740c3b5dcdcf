"""What is no defect of a log and yet likely to be meant otherwise, told when it is imported."""

import duckdb
import numpy as np
from numpy.typing import NDArray

from mtf_engine.logs.columns import Columns, Feedback, each_prediction, shares
from mtf_engine.logs.validation import Check, prediction_above_zero

LONG_SECONDS = 3600.0
"""A median watch time above this is likely to be in another unit."""


def suspicions(con: duckdb.DuckDBPyConnection, columns: Columns, feedback: Feedback) -> list[str]:
    """Returns a sentence for each suspicion about the table `impressions`, which has no defect."""
    predictions = each_prediction(con, columns)
    found_shares = shares(con, [f"{value} {rule}" for rule in ("<= 0", "> 1") for _, value in predictions])
    none, above = found_shares[: len(predictions)], found_shares[len(predictions) :]
    checks = [
        *(prediction_above_zero(*p) for p, share in zip(predictions, none, strict=True) if share),
        *(_probability(*p) for p, share in zip(predictions, above, strict=True) if share > 0.5),
    ]
    found = map(str, columns.broken(con, "impressions", checks))
    return [*found, *_long_watch_times(con, columns), *_one_label(con, columns, feedback)]


def _probability(column: str, value: str) -> Check:
    """Returns the check that a prediction is at most 1."""
    return Check(
        "wrong_type",
        column,
        f"{value} > 1",
        "is {value}, above 1, as most of this prediction: no probability",
        "if these are logits or percentages, write probabilities; any number above 0 can be fused",
        value,
    )


def _long_watch_times(con: duckdb.DuckDBPyConnection, columns: Columns) -> list[str]:
    """Returns a sentence where half of the watch times above 0 are longer than an hour."""
    if "watch_time" not in columns.names:
        return []
    watched = "FROM impressions WHERE watch_time > 0"
    (share,) = con.execute(f"SELECT avg((watch_time > {LONG_SECONDS})::INTEGER) {watched}").fetchall()[0]
    if not share or share < 0.5:
        return []
    median = con.execute(f"SELECT quantile_disc(watch_time, 0.5) {watched}").fetchall()[0][0]
    if median <= LONG_SECONDS:
        return []
    return [
        f"{columns.raw.file}, column {columns.source('watch_time')}: half of the watch times are above "
        f"{median / 3600:,.1f} hours; if they are in another unit than seconds, state it as watch_time_unit "
        "in the mapping (ms or min)"
    ]


def _one_label(con: duckdb.DuckDBPyConnection, columns: Columns, feedback: Feedback) -> list[str]:
    labels = con.execute(
        f"SELECT DISTINCT {feedback.label_sql(columns)} AS label FROM impressions"
    ).fetchall()
    return one_label(columns.raw.file, np.array(labels, bool))


def one_label(file: str, label: NDArray[np.bool_]) -> list[str]:
    """Returns a sentence where the labels of a log all agree."""
    if label.any() and not label.all():
        return []
    said = "true" if label.any() else "false"
    return [
        f"{file}: all labels are {said}, so no weighted GAUC can be told; a label is true where an item was "
        "watched longer than valid_seconds: check the label, or the watch time and its unit"
    ]
