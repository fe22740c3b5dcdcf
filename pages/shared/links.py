"""Choices that the address carries, so that a page can be shared by its link.

Without one in the address a choice is at first what it was on the page before.
"""

from collections.abc import Mapping
from typing import Any

import streamlit as st


def choice(label: str, titles: Mapping[str, str], key: str, place: Any = st, **options: Any) -> str:
    """Draws a select box on `place` and returns the key of `titles` chosen: at first that of the address.

    Else the one of the page before, else the first. One that is not there, as in a link of last month, is
    told and replaced.
    """
    linked = st.query_params.get(key)
    asked = _asked(key, linked)
    if linked is not None and asked == linked and linked not in titles:
        st.warning(f"There is no `{linked}` to choose here.")
    st.session_state[key] = asked if asked in titles else next(iter(titles))
    chosen = place.selectbox(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = st.session_state[_kept(key)] = chosen
    return chosen


def choices(label: str, titles: Mapping[str, str], key: str, place: Any = st, **options: Any) -> list[str]:
    """Draws a box for several and returns the keys of `titles` chosen: at first those of the address.

    Without any there those of the page before, else the first. The visitor may choose none.
    """
    asked = _asked(key, st.query_params.get_all(key) or None)
    there = [one for one in asked or () if one in titles]
    st.session_state[key] = there if there or asked == [] else [next(iter(titles))]
    chosen = place.multiselect(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = st.session_state[_kept(key)] = chosen
    return chosen


def _asked(key: str, linked: Any) -> Any:
    """Returns what is asked for: by a link just followed, else by the widget, else on the page before."""
    kept = st.session_state.get(_kept(key))
    if linked is not None and linked != kept:
        return linked
    return st.session_state.get(key, kept)


def forget(key: str) -> None:
    """Makes the choice anew at the next run of the page, as on a first visit."""
    for name in (key, _kept(key)):
        st.session_state.pop(name, None)
    st.query_params.pop(key, None)


def _kept(key: str) -> str:
    """Returns where a choice outlives its widget, whose own state ends with its page."""
    return f"kept {key}"
