"""How many processes share the work of a run: a choice that every form with such a run draws alike."""

from typing import Any

import streamlit as st

MOST = 1024
WHY = "They share the playing and the scoring of a large log, each on a core; the result is the same."


def choose(place: Any = st) -> int:
    """Draws the choice, at a place; returns the number."""
    return int(place.number_input("Processes", 1, MOST, 1, key="processes", help=WHY))


def option(n: int) -> tuple[object, ...]:
    """Returns what asks for so many on the command line."""
    return ("--workers", n) if n > 1 else ()
