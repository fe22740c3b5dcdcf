"""Choices for a log of another shape: no header, a list of items a row, and rules for values."""

from typing import Any

import streamlit as st

from mtf_engine.logs import matching
from mtf_engine.logs.preview import Preview
from pages.shared import words
from pages.shared.firsts import first

KEPT = "import_"
"""How the keys of the import's choices begin, which are kept while an import works."""
USERS = "users"
"""What the form returns beside a mapping's parts: the columns that are a user together."""
RULES = {
    "fill": ("What a blank stands for", "share: 0, city: unknown"),
    "counts": ("Signals that are counts, and their caps", "like: 3"),
    "thresholds": ("Signals that are ratings, 1 above", "valid: 3"),
    "categories": ("Categories, and their names; others are `other`", "city: {b: Berlin, p: Paris}"),
}
EXPLORED = {
    "": "evenly, unless pscore is missing",
    "uniform": "evenly",
    "gaussian": "Gaussian",
    "baseline": "not",
    "unknown": "nobody knows",
}


def given_columns(file: str) -> tuple[str, ...]:
    """Returns the names that were given to the columns of a file without a header."""
    names = str(st.session_state.get(f"{KEPT}columns {file}", "")).split(",")
    return tuple(name.strip() for name in names if name.strip())


def shape_form(one: Preview, asked: Preview | None) -> dict[str, Any]:
    """Draws what the shape of the impressions' file `one` is; returns the parts of a mapping that say so, and `USERS`.

    A Refusal where a rule is none. `asked` is the log's table of requests, where it has one.
    """
    with st.expander(words.plain(f"{one.file} has another shape, or values that mean something else")):
        label = "Names of its columns, in order, where it has no header"
        _text(one, "columns", label, "user_id, item_id, rating, timestamp", st)
        rules: dict[str, Any] = {"columns": given_columns(one.file), "slate": _slate(one)}
        left, right = st.columns(2)
        for i, (rule, (label, example)) in enumerate(RULES.items()):
            rules[rule] = matching.table_of(_text(one, rule, label, example, (left, right)[i % 2]), label)
        users = asked or one
        numeric, categorical = (
            place.multiselect(f"{kind} features of users", users.columns, key=_key(users, kind, []))
            for place, kind in ((left, "Numeric"), (right, "Categorical"))
        )
        rules["profile"] = {"numeric": numeric, "categorical": categorical}
        rules["time_format"] = (
            _text(one, "time_format", "Times are written as", "%d.%m.%Y %H:%M", left) or None
        )
        if asked:
            key = first(f"{KEPT}exploration", "")
            said = EXPLORED.__getitem__
            rules["exploration"] = (
                right.selectbox("How actions were drawn", EXPLORED, format_func=said, key=key) or None
            )
        else:
            label = "Columns that tell users together, without an id"
            rules[USERS] = tuple(right.multiselect(label, one.columns, key=_key(one, USERS, [])))
            rules["predict"] = _predict(one, rules["slate"])
    return rules


def _predict(one: Preview, slate: dict[str, Any] | None) -> dict[str, Any] | None:
    """Draws what is to be predicted, from earlier days, of impressions that have no predictions, and by what."""
    signals, numeric, categorical = st.columns(3)
    columns = matching.exploded(one.columns, slate)
    label = "Signals to predict, where there are no predictions"
    wanted = signals.multiselect(label, columns, key=_key(one, "predict", []))
    if not wanted:
        return None
    found = {
        kind: place.multiselect(f"By its {kind} features", columns, key=_key(one, f"predict {kind}", []))
        for kind, place in (("numeric", numeric), ("categorical", categorical))
    }
    return {"signals": wanted, **found}


def _slate(one: Preview) -> dict[str, Any] | None:
    """Draws which column is a list of all items of a request, and what tells of each."""
    left, right = st.columns(2)
    label = "Its row is a request, and a list of items is in"
    options = ["", *one.columns]
    items = left.selectbox(label, options, format_func=lambda c: c or "none", key=_key(one, "items", ""))
    if not items:
        return None
    each = right.multiselect("Lists of a value for each item", one.columns, key=_key(one, "each", []))
    label = "Signals, and the lists of items where they happened"
    chosen = matching.table_of(_text(one, "chosen", label, "click: clicked", left), label)
    marks = _text(one, "marks", "Signal behind the hyphen of an item (N11-1)", "click", right)
    return {"items": items, "each": each, "chosen": chosen, "marks": marks or None}


def _text(one: Preview, rule: str, label: str, example: str, place: st.delta_generator.DeltaGenerator) -> str:
    return place.text_input(label, key=first(f"{KEPT}{rule} {one.file}", ""), placeholder=example)


def _key(one: Preview, name: str, value: object) -> str:
    """Returns the key of a choice among the columns of a file, which is another file's no more."""
    return first(f"{KEPT}{name} {one.file} {hash(one.columns)}", value)
