"""What an import may be told beside where the log is: how it is kept, which log it is like, and how it is split."""

from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.logs.importing import STEPS
from mtf_engine.logs.splits import HOLD_OUT, TEST_DAYS, VALIDATION_DAYS
from pages.shared import kept, loaders
from pages.shared.firsts import first

SPLITS = {
    "log": "as its column split says, else by day, or by user where it has actions",
    "day": "the last days are for test",
    "user": "some of the users are for test",
    "column": "another column says it",
}


class Choices(NamedTuple):
    """What `submit_import` is told, by name, and the same as options of the command line."""

    told: dict[str, Any]
    options: dict[str, Any]


def choices(log_format: str) -> Choices | None:
    """Draws the form and returns what was chosen; nothing where all is as it stands, or where the format has no such.

    None where a column or a place that is needed has no name yet, which is then said.
    """
    to = kept.choose()
    told = _asked_of_shown(log_format)
    if told is None or to is None:
        return None
    told |= {"to": to} if to else {}
    names = {"by": "--split-by", "like": "--like"}
    options = {names.get(name, f"--{name.replace('_', '-')}"): value for name, value in told.items()}
    return Choices(told, options)


def _asked_of_shown(log_format: str) -> dict[str, Any] | None:
    """Returns which log it is to be like and how it is split, as they are typed, or None."""
    if log_format in STEPS:  # nothing is shown, so it is like no other and not split
        return {}
    with st.expander("Another log that it is like, and how it is split"):
        logs = {row.id: f"{row.name} ({row.id})" for row in loaders.workspace().registry.datasets()}
        like = st.selectbox(
            "Give it the features, predictions and fusion of (optional)",
            logs,
            index=None,
            format_func=logs.__getitem__,
            key="import_like",
            placeholder="none: its own",
            help="So that policies which learned from that log, or from one collected from it, can act on this one.",
        )
        split = st.selectbox(
            "What is for test", SPLITS, format_func=SPLITS.__getitem__, key=first("import_split", "log")
        )
        told = _asked(split)
        if told is None:
            st.error(
                "Name the column that says what is for train, validation and test, or choose another split."
            )
            return None
    return told | ({"like": like} if like else {})


def _asked(split: str) -> dict[str, Any] | None:
    """Returns fields of `Splitting` as they are typed for this kind of split; None where its column has no name."""
    left, right = st.columns(2)
    match split:
        case "day":
            test = left.number_input("Days for test", 1, step=1, key=first("import_test_days", TEST_DAYS))
            key = first("import_validation_days", VALIDATION_DAYS)
            before = right.number_input("Days before them for validation", 0, step=1, key=key)
            return {"by": "day", "test_days": int(test), "validation_days": int(before)}
        case "user":
            key = first("import_hold_out", round(100 * HOLD_OUT))
            share = left.number_input("Users for test, %", 1, 99, step=1, key=key)
            return {"by": "user", "hold_out": share / 100}
        case "column":
            key = first("import_split_column", "")
            label = "Column with train, validation and test"
            column = left.text_input(label, key=key, help="As the file calls it.").strip()
            return {"by": column} if column else None
    return {}
