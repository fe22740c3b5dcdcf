"""The choices above the table of runs: what is shown, in which order and columns; all in the address."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs.finding import ABOUT, EXAMPLE, FIGURES, Facts, Holds, matching
from mtf_engine.spec import Refusal
from mtf_engine.work import kinds
from pages.shared import access, follow, links, loaders, memory, run_table, words
from pages.shared.run_table import Filters

FIRST = ("all", "train", "progressive")
"""Kinds of run, in the order that most are looked for in; the others follow."""
LINKED: dict[str, Any] = {"bind": "query-params"}
NARROWING = ("where", "state", "method", "log", "tag", "archived", "parts")
VIEW_REFUSAL = "view refusal"
VIEW = ("kind", "find", *NARROWING, "sort", "descending", "columns")
"""What the address carries of a view."""
WHERE = (
    "Compare with == != < <= > >= in; join by and, or, not. params.X is a setting, metrics.X what was logged last. "
    f"Else there are {', '.join((*ABOUT, *FIGURES))}. Texts are in quotes: 'laptop' in name."
)


class View(NamedTuple):
    """How the table is drawn."""

    filters: Filters
    holds: Holds
    by: str
    descending: bool
    columns: list[str]


def choose(runs: list[RunRow], datasets: dict[str, str], facts: Mapping[str, Facts]) -> View:
    """Draws the choices in one line, most of them behind three buttons, and returns them."""
    more = run_table.measured(facts)
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
        filters, where = _more_filters("" if kind == "all" else kind, text, runs, datasets)
        with st.popover("View"):
            by = st.selectbox("Sort by", [*run_table.ORDERS, *more], key="sort", **LINKED)
            descending = st.toggle("Descending", value=True, key="descending", **LINKED)
            columns = _choose_columns(more)
        with st.popover("Kept views"):
            _kept_views()
    memory.remember("columns", columns)
    return View(filters, _expression(where, facts), by, descending, columns or list(run_table.SHOWN_FIRST))


def _expression(where: str, facts: Mapping[str, Facts]) -> Holds:
    """Returns whether the expression holds of a run; all runs where there is none, or where it is wrong and told so."""
    if where:
        try:
            holds = matching(where, {name for known in facts.values() for name in known})
            for known in facts.values():
                holds(known)
            return holds
        except Refusal as refusal:
            st.error(words.plain(f"{refusal} Until then the table shows all runs."))
    return lambda _: True


def _kept_views() -> None:
    """Draws the views that the workspace keeps by name, and what keeps the one that is drawn."""
    registry = loaders.workspace().registry
    views = registry.views()
    for view in views:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.page_link("pages/train/runs.py", label=words.plain(view.name), query_params=view.query)
            access.button(
                Action.SAVE_VIEW,
                "Delete",
                key=f"delete view {view.name}",
                on_click=registry.delete_view,
                args=(view.name,),
            )
    if not views:
        st.caption("No view is kept yet. Choose what is shown, then give it a name: everybody here finds it.")
    name = st.text_input("Keep this view as", key="view name", placeholder="best of this week").strip()
    query = {key: values for key in VIEW if (values := st.query_params.get_all(key))}
    there = next((view.created_at for view in views if view.name == name), None)
    access.button(
        Action.SAVE_VIEW,
        "Replace" if there else "Keep",
        disabled=not name,
        on_click=follow.told,
        args=(VIEW_REFUSAL, registry.save_view, name, query, there),
    )
    follow.tell(VIEW_REFUSAL)


def _more_filters(kind: str, text: str, runs: list[RunRow], datasets: dict[str, str]) -> tuple[Filters, str]:
    """Returns the filters, and the expression that is asked for beside them."""
    n_set = sum(bool(st.session_state.get(key, st.query_params.get(key))) for key in NARROWING)
    with st.popover(f"Filters ({n_set})" if n_set else "Filters"):
        where = st.text_input("Where", key="where", placeholder=EXAMPLE, help=WHERE, **LINKED).strip()
        filters = Filters(
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
    return filters, where


def _several(label: str, titles: dict[str, str], key: str) -> list[str]:
    options = list(titles)
    return st.multiselect(label, options, format_func=titles.get, key=key, disabled=not options, **LINKED)


def _choose_columns(more: list[str]) -> list[str]:
    """Returns the columns of the table: those of the address, else those this browser remembers.

    `more` are the settings and metrics that there are.
    """
    titles = {name: name for name in (*run_table.COLUMNS, *more)}
    if "columns" not in st.session_state and "columns" not in st.query_params:
        kept = memory.remembered("columns", titles)
        st.session_state["columns"] = kept or list(run_table.SHOWN_FIRST)
    why = "Remembered by this browser, and carried by the page's address."
    return links.choices("Columns, in this order", titles, "columns", help=why)
