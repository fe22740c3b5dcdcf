"""What a widget shows at first, however often the page is drawn before the browser has heard of it."""

from typing import Any

import streamlit as st


def first(key: str, value: Any) -> str:
    """Returns `key` once the widget of that key is set to what it shows: at first `value`.

    It is set at every run. A browser is told a widget's value by the run that sets it; where a visitor's move
    ends that run before the widget is drawn, it would show an empty widget and send that back.
    """
    st.session_state[key] = st.session_state.get(key, value)
    return key
