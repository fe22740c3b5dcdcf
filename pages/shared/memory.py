"""Choices that a browser remembers until the next visit, each in a cookie."""

from collections.abc import Collection, Sequence
from urllib.parse import quote, unquote

import streamlit as st

YEAR = 365 * 24 * 3600
_write = st.components.v2.component(
    "memory",
    js="""
    export default function({ data }) {
        document.cookie = `${data.name}=${data.value}; max-age=${data.age}; path=/; SameSite=Strict`;
    }
    """,
)


def remembered(name: str, options: Collection[str]) -> list[str]:
    """Returns those of `options` that this browser last remembered under `name`; none on a first visit."""
    cookie = unquote(str(st.context.cookies.get(f"mtf_{name}", "")))
    return [one for one in st.session_state.get(f"remembered {name}", cookie.split(",")) if one in options]


def remember(name: str, chosen: Sequence[str]) -> None:
    """Makes the browser remember what is `chosen`."""
    st.session_state[f"remembered {name}"] = list(chosen)
    cookie = {"name": f"mtf_{name}", "value": quote(",".join(chosen)), "age": YEAR}
    _write(data=cookie, key=f"remember {name}")
