"""What a deletion would take from the rest of the workspace, told before it is asked for."""

from collections.abc import Sequence

import streamlit as st

from mtf_engine.questions.dependents import Dependent
from pages.shared import words

SHOWN = 8
"""Named one by one."""


def show(dependents: Sequence[Dependent]) -> None:
    """Draws who needs what is to be deleted; nothing where nobody does."""
    if not dependents:
        return
    st.write("Needed by:")
    more = len(dependents) - SHOWN
    lines = [words.plain(one) for one in dependents[:SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    st.markdown("\n".join(f"- {line}" for line in lines))
