"""Choices that the address carries, so that a page can be shared by its link.

Without one in the address a choice is at first what it was on the page before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

_one_entry = st.components.v2.component(
    "one_entry_a_page",
    js="""
    export default function() {
        if (history.pushes) return;
        history.pushes = history.pushState.bind(history);
        history.pushState = (state, title, url) => {
            const stays = new URL(url, location.href).pathname === location.pathname;
            (stays ? history.replaceState : history.pushes).call(history, state, title, url);
        };
    }
    """,
)


def one_entry_a_page() -> None:
    """Makes Back lead to the page before: choices replace the address of their page, where Streamlit adds one each."""
    _one_entry(key="one entry a page")


def choice(
    label: str,
    titles: Mapping[str, str],
    key: str,
    place: Any = st,
    follows_first: bool = False,
    **options: Any,
) -> str:
    """Draws a select box on `place` and returns the key of `titles` chosen: at first that of the address.

    Else the one of the page before, else the first. One that is not there, as in a link of last month, is
    told and replaced. With `follows_first` a visitor who is at the first of `titles` stays at the first when others
    come before it.
    """
    linked, first = st.query_params.get(key), next(iter(titles))
    asked = _asked(key, linked)
    if follows_first and st.session_state.get(_first(key)) == asked:
        asked = first
    st.session_state[_first(key)] = first
    if linked is not None and linked != st.session_state.get(_kept(key)) and linked not in titles:
        st.warning(f"There is no `{linked}` to choose here.")
    st.session_state[key] = asked if asked in titles else first
    chosen = place.selectbox(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = st.session_state[_kept(key)] = chosen
    return chosen


def choices(
    label: str,
    titles: Mapping[str, str],
    key: str,
    place: Any = st,
    first: Sequence[str] = (),
    **options: Any,
) -> list[str]:
    """Draws a box for several and returns the keys of `titles` chosen: at first those of the address.

    Without any there those of the page before, else `first`, else the first alone. The visitor may choose none.
    """
    asked = wanted(key)
    there = [one for one in asked or () if one in titles]
    st.session_state[key] = there if there or asked == [] else list(first) or [next(iter(titles))]
    chosen = place.multiselect(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = st.session_state[_kept(key)] = chosen
    return chosen


def wanted(key: str) -> list[str] | None:
    """Returns the `choices` that are asked for, whether they are there or not; None on a first visit."""
    return _asked(key, st.query_params.get_all(key) or None)


def tabs(labels: Sequence[str], key: str) -> Sequence[Any]:
    """Draws tabs and returns them, the one of the address in front, else the first; `open` tells which is.

    A link that names no tab opens the first, whatever was open on the page before.

    A tab bound by Streamlit itself could not be chosen by `st.switch_page`.
    """
    linked = st.query_params.get(key)
    asked = labels[0] if linked is None else _asked(key, linked)
    st.session_state[key] = asked if asked in labels else labels[0]
    drawn = st.tabs(labels, key=key, on_change="rerun")
    st.query_params[key] = st.session_state[_kept(key)] = st.session_state[key]
    return drawn


def followed(key: str) -> bool:
    """Returns whether the address asks for other choices than those kept: a link was just followed."""
    linked = st.query_params.get_all(key)
    return bool(linked) and linked != st.session_state.get(_kept(key))


def _asked(key: str, linked: Any) -> Any:
    """Returns what is asked for: by a link just followed, else by the widget, else on the page before."""
    kept = st.session_state.get(_kept(key))
    if linked is not None and linked != kept:
        return linked
    return st.session_state.get(key, kept)


def forget(key: str) -> None:
    """Makes the choice anew at the next run of the page, as on a first visit."""
    for name in (key, _kept(key), _first(key)):
        st.session_state.pop(name, None)
    st.query_params.pop(key, None)


def _kept(key: str) -> str:
    """Returns where a choice outlives its widget, whose own state ends with its page."""
    return f"kept {key}"


def _first(key: str) -> str:
    """Returns where the first of the titles is kept that a choice was drawn with last."""
    return f"first {key}"
