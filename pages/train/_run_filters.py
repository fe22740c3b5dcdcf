"""The choices above the table of runs: what is shown, in which order and columns; all in the address."""

from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.registry import RunRow, RunState
from mtf_engine.work import kinds
from pages.shared import links, memory, run_table, words
from pages.shared.run_table import Filters

FIRST = ("all", "train", "progressive")
"""Kinds of run, in the order that most are looked for in; the others follow."""
LINKED: dict[str, Any] = {"bind": "query-params"}


class View(NamedTuple):
    """How the table is drawn."""

    filters: Filters
    by: str
    descending: bool
    columns: list[str]


def choose(runs: list[RunRow], datasets: dict[str, str]) -> View:
    """Draws the choices in one line, most of them behind two buttons, and returns them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        hidden = {"label_visibility": "collapsed", **LINKED}
        kind = st.segmented_control(
            "Kind",
            list(dict.fromkeys((*FIRST, *kinds()))),
            default="all",
            required=True,
            key="kind",
            **hidden,
        )
        text = st.text_input("Find", key="find", placeholder="Name, note, tag, id", width=170, **hidden)
        filters = _more_filters("" if kind == "all" else kind, text, runs, datasets)
        with st.popover("View"):
            by = st.selectbox("Sort by", list(run_table.ORDERS), key="sort", **LINKED)
            descending = st.toggle("Descending", value=True, key="descending", **LINKED)
            columns = _choose_columns()
    memory.remember("columns", columns)
    return View(filters, by, descending, columns or list(run_table.SHOWN_FIRST))


def _more_filters(kind: str, text: str, runs: list[RunRow], datasets: dict[str, str]) -> Filters:
    keys = ("state", "method", "log", "tag", "archived", "parts")
    n_set = sum(bool(st.session_state.get(key)) for key in keys)
    with st.popover(f"Filters ({n_set})" if n_set else "Filters"):
        return Filters(
            kind=kind,
            text=text,
            states=st.multiselect(
                "State", list(RunState), format_func=words.STATES.get, key="state", **LINKED
            ),
            methods=_several("Method", {run.algo: run.algo for run in runs if run.algo}, "method"),
            datasets=_several("Dataset", datasets, "log"),
            tags=_several("Tag", {tag: tag for run in runs for tag in sorted(run.tags)}, "tag"),
            archived=st.toggle("Show the archive too", key="archived", **LINKED),
            parts=st.toggle("Show the parts of comparisons and rounds", key="parts", **LINKED),
        )


def _several(label: str, titles: dict[str, str], key: str) -> list[str]:
    options = list(titles)
    return st.multiselect(label, options, format_func=titles.get, key=key, disabled=not options, **LINKED)


def _choose_columns() -> list[str]:
    """Returns the columns of the table: those of the address, else those this browser remembers."""
    if "columns" not in st.session_state and "columns" not in st.query_params:
        kept = memory.remembered("columns", run_table.COLUMNS)
        st.session_state["columns"] = kept or list(run_table.SHOWN_FIRST)
    titles = {name: name for name in run_table.COLUMNS}
    why = "Remembered by this browser, and carried by the page's address."
    return links.choices("Columns, in this order", titles, "columns", help=why)
