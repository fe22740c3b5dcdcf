"""Who is here and what they may do: the way in and out, and the buttons, each of which asks for its permission."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from mtf_engine.permissions import LOGIN, NO_FOLDER, Action, Login, Person, needed_for, read_login
from mtf_engine.spec import Refusal
from pages.shared import words


def person() -> Person | None:
    """Returns who is logged in; None where no login is set up. A Refusal says why somebody else may not come in."""
    if (login := _login()) is None:
        if "is_logged_in" in st.user:  # Streamlit's own settings ask for a login, and say nothing of roles
            raise Refusal(
                "this dashboard has a login without roles; start it by `mtf dashboard --login FILE`"
            )
        return None
    if not st.user.get("is_logged_in"):
        raise Refusal("log in to go on")
    return login.person(st.user.to_dict())


def _login() -> Login | None:
    return read_login(Path(file)) if (file := os.environ.get(LOGIN)) else None


def may(action: Action) -> bool:
    """Returns whether the visitor may do it: everybody may where no login is set up."""
    try:
        who = person()
    except Refusal:
        return False
    return who is None or who.may(action)


def closed_paths() -> str:
    """Returns why the visitor may have no file on the server read, as a sentence; empty where some may be."""
    if not may(Action.IMPORT):
        return needed_for(Action.IMPORT)
    login = _login()
    return "" if login is None or login.imports.folder else NO_FOLDER


def server_path(path: Path) -> Path:
    """Returns a path on the server that the visitor may have read: any where no login is set up, else see `Imports`."""
    if why := closed_paths():
        raise Refusal(why)
    login = _login()
    return path.expanduser() if login is None else login.imports.held(path)


def show_login(why: Refusal) -> None:
    """Draws the way in, in place of every page."""
    st.title("Multi-Task Fusion workbench", anchor=False)
    st.info(words.plain(why))
    logged_in = bool(st.user.get("is_logged_in"))
    if os.environ.get(LOGIN) and st.button(
        "Log in as somebody else" if logged_in else "Log in", type="primary"
    ):
        st.logout() if logged_in else st.login()


def show_person(who: Person) -> None:
    """Draws who is logged in, as what, and the way out."""
    with st.sidebar:
        st.caption(words.plain(f"{who.name} · {who.role}"))
        if st.button("Log out", type="tertiary"):
            st.logout()


def button(
    action: Action,
    label: str,
    *,
    place: Any = st,
    on_click: Callable[..., object] | None = None,
    disabled: bool = False,
    **how: Any,
) -> bool:
    """Draws Streamlit's button in `place` and returns whether it was pressed by somebody who may do `action`.

    It is disabled for others, and does nothing for them whatever their browser sends.
    """
    return _asking(place.button, action, label, on_click, disabled, how)


def form_submit_button(action: Action, label: str, *, disabled: bool = False, **how: Any) -> bool:
    """Draws the button of a form, as `button` does."""
    return _asking(st.form_submit_button, action, label, None, disabled, how)


def download_button(label: str, *arguments: Any, place: Any = st, disabled: bool = False, **how: Any) -> bool:
    """Draws Streamlit's button for a download: what is seen may be kept."""
    disabled = disabled or not may(Action.DOWNLOAD)
    return bool(place.download_button(label, *arguments, disabled=disabled, **how))


def _asking(
    draw: Callable[..., bool],
    action: Action,
    label: str,
    on_click: Callable[..., object] | None,
    disabled: bool,
    how: dict[str, Any],
) -> bool:
    if on_click is not None:
        how["on_click"] = _permitted(action, on_click)
    if not (permitted := may(action)):
        how["help"] = f"{needed_for(action)}."
    return draw(label, disabled=disabled or not permitted, **how) and permitted


def _permitted(action: Action, called: Callable[..., object]) -> Callable[..., None]:
    """Returns what calls `called` for those who may do `action`: it is called before the page is drawn anew."""

    def call(*arguments: Any) -> None:
        if may(action):
            called(*arguments)

    return call
