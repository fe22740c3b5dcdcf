"""Choices for a log of another shape: no header, a list of items a row, and rules for values."""

from typing import Any

import streamlit as st

from mtf_engine.logs import matching
from mtf_engine.logs.preview import Preview
from pages.shared import words
from pages.shared.firsts import first

KEPT = "import_"
"""How the keys of the import's choices begin, which are kept while an import works."""
COLUMNS = f"{KEPT}columns"
USERS = "users"
"""What the form returns beside a mapping's parts: the columns that are a user together."""
RULES = {
    "fill": ("Where it is blank", "share: 0, city: unknown"),
    "counts": ("Signals that are counts, and their caps", "like: 3"),
    "thresholds": ("Signals that are numbers, 1 above", "valid: 3"),
    "categories": ("Values told apart, others are `other`", "city: {b: Berlin, p: Paris}"),
}
EXPLORED = {
    "": "evenly, unless pscore is missing",
    "uniform": "evenly",
    "gaussian": "Gaussian",
    "baseline": "not",
}


def given_columns() -> tuple[str, ...]:
    """Returns the names that were given to the columns of a file without a header."""
    names = str(st.session_state.get(COLUMNS, "")).split(",")
    return tuple(name.strip() for name in names if name.strip())


def shape_form(one: Preview, explored: bool) -> dict[str, Any]:
    """Draws what the shape of the impressions' file `one` is; returns the parts of a mapping that say so, and `USERS`.

    A Refusal where a rule is none. `explored`: the log has a table of requests, whose actions were drawn somehow.
    """
    with st.expander(words.plain(f"{one.file} has another shape, or values that mean something else")):
        label = "Names of its columns, in order, where it has no header"
        st.text_input(label, key=first(COLUMNS, ""), placeholder="user_id, item_id, rating, timestamp")
        rules: dict[str, Any] = {"columns": given_columns(), "slate": _slate(one)}
        left, right = st.columns(2)
        for i, (rule, (label, example)) in enumerate(RULES.items()):
            rules[rule] = _table(label, rule, example, (left, right)[i % 2])
        numeric, categorical = (
            place.multiselect(f"{kind} features of users", one.columns, key=_key(one, kind, []))
            for place, kind in ((left, "Numeric"), (right, "Categorical"))
        )
        rules["profile"] = {"numeric": numeric, "categorical": categorical}
        label = "Columns that tell users together, without an id"
        rules[USERS] = tuple(left.multiselect(label, one.columns, key=_key(one, USERS, [])))
        key = first(f"{KEPT}time_format", "")
        rules["time_format"] = (
            left.text_input("Times are written as", key=key, placeholder="%d.%m.%Y %H:%M") or None
        )
        if explored:
            key = first(f"{KEPT}exploration", "")
            how = right.selectbox(
                "How actions were drawn", EXPLORED, format_func=EXPLORED.__getitem__, key=key
            )
            rules["exploration"] = how or None
    return rules


def _slate(one: Preview) -> dict[str, Any] | None:
    """Draws which column is a list of all items of a request, and what tells of each."""
    left, right = st.columns(2)
    label = "Its row is a request, and a list of items is in"
    options = ["", *one.columns]
    items = left.selectbox(label, options, format_func=lambda c: c or "none", key=_key(one, "items", ""))
    if not items:
        return None
    each = right.multiselect("Lists of a value for each item", one.columns, key=_key(one, "each", []))
    chosen = _table("Signals, and the lists of items where they happened", "chosen", "click: clicked", left)
    key = first(f"{KEPT}marks", "")
    marks = right.text_input("Signal behind the hyphen of an item (N11-1)", key=key, placeholder="click")
    return {"items": items, "each": each, "chosen": chosen, "marks": marks or None}


def _table(label: str, rule: str, example: str, place: st.delta_generator.DeltaGenerator) -> dict[str, Any]:
    text = place.text_input(label, key=first(f"{KEPT}{rule}", ""), placeholder=example)
    return matching.table_of(text, label)


def _key(one: Preview, name: str, value: object) -> str:
    """Returns the key of a choice among the columns of a file, which is another file's no more."""
    return first(f"{KEPT}{name} {one.file} {hash(one.columns)}", value)
