"""Choices that the address carries, so that a page can be shared by its link."""

from collections.abc import Mapping
from typing import Any

import streamlit as st


def choice(label: str, titles: Mapping[str, str], key: str, place: Any = st, **options: Any) -> str:
    """Draws a select box on `place` and returns the key of `titles` chosen: at first that of the address.

    Without one the first is chosen. One that is not there, as in a link of last month, is told and replaced.
    """
    linked = st.query_params.get(key)
    if key not in st.session_state and linked is not None and linked not in titles:
        st.warning(f"There is no `{linked}` to choose here.")
    asked = st.session_state.get(key, linked)
    st.session_state[key] = asked if asked in titles else next(iter(titles))
    chosen = place.selectbox(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = chosen
    return chosen


def choices(label: str, titles: Mapping[str, str], key: str, place: Any = st, **options: Any) -> list[str]:
    """Draws a box for several and returns the keys of `titles` chosen: at first those of the address.

    Without any there the first is chosen.
    """
    linked = [one for one in st.query_params.get_all(key) if one in titles] or [next(iter(titles))]
    st.session_state[key] = [one for one in st.session_state.get(key, linked) if one in titles]
    chosen = place.multiselect(label, titles, format_func=titles.__getitem__, key=key, **options)
    st.query_params[key] = chosen
    return chosen
