"""Glossary: what the numbers and columns of all pages mean. Decides nothing; it is what an answer can be checked by."""

import pandas as pd
import streamlit as st

from pages.shared import glossary
from pages.shared.exhibit import csv_download


def _start(term: str) -> str:
    """Returns the letter that a term stands under."""
    return term[0].upper() if term[0].isalpha() else "%"


def main() -> None:
    st.title("Glossary", anchor=False)
    st.caption("What each number and column means: the same sentences that are one hover away on the pages.")
    text = st.text_input(
        "Find", key="term", placeholder="a word of a term or of its meaning", bind="query-params"
    )
    words = text.lower().split()
    found = {
        term: meaning
        for term, meaning in sorted(glossary.TERMS.items(), key=lambda item: item[0].lower())
        if all(word in f"{term} {meaning}".lower() for word in words)
    }
    if not found:
        st.info("No term has these words. Take some of them back.")
        return
    table = pd.DataFrame({"term": found.keys(), "what it means": found.values()})
    if words:
        st.table(table.set_index("term"))
    else:
        for start, terms in table.groupby(table["term"].map(_start)):
            st.expander(f"{start}: {', '.join(terms['term'])}").table(terms.set_index("term"))
    csv_download(table, "glossary")


main()
