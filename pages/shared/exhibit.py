"""A figure with its table and their downloads."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.shared import access, glossary
from pages.shared.pictures import picture_downloads

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""What a spreadsheet takes for the start of a formula, behind the apostrophes that keep it from doing so."""
ENDS = ("low", "high", "interval from", "interval to", "boundary from", "boundary to")
"""Columns that are ends of the interval of the number before them."""


def exhibit(figure: go.Figure, table: pd.DataFrame, name: str, alt: str, **meanings: str) -> None:
    """Draws `figure`, described by `alt` for who cannot see it.

    Its `table` is one click away, made when it is asked for, and there both are to take away: as CSV, PNG and
    SVG. `name` starts the names of the files; `meanings` explain columns that the glossary does not know.
    """
    explained = {column: st.column_config.Column(help=text) for column, text in meanings.items()}
    figure.update_layout(modebar_orientation="v")  # beside the drawing: above it are titles and legends
    config = {"displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}
    st.plotly_chart(figure, config=config, alt=alt, key=f"figure {name}")
    downloads = st.expander("Table and downloads", key=f"downloads {name}", on_change="rerun")
    if downloads.open:
        with downloads:
            _drawn(table, name, alt, explained)
            with st.container(horizontal=True):
                csv_download(table, name)
                picture_downloads(f"figure {name}", name)


def folded(
    title: str,
    draw: Callable[[], None],
    help: str | None = None,
    asked: Iterable[str] = (),
    opened: bool = False,
) -> None:
    """Draws a section that is worked out once it is unfolded: by a click, or by a link with a choice of `asked`.

    One that is `opened` is so from the start.
    """
    unfolded = opened or any(choice in st.query_params for choice in asked)
    section = st.expander(title, expanded=unfolded, key=f"unfold {title}", on_change="rerun")
    if section.open:
        with section:
            if help:
                st.caption(help)
            draw()


def described(table: pd.DataFrame, name: str, alt: str, **columns: Any) -> None:
    """Draws `table` with its download, its columns explained on hovering; `columns` are drawn as they say."""
    _drawn(table, name, alt, columns)
    csv_download(table, name)


def _drawn(table: pd.DataFrame, name: str, alt: str, columns: Mapping[str, Any]) -> None:
    """Draws `table`; what is not known is blank."""
    config = digits(table, glossary.columns(table) | dict(columns))
    st.dataframe(table, hide_index=True, column_config=config, placeholder="", alt=alt, key=f"table {name}")


def digits(table: pd.DataFrame, known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of `table` with the digits of its numbers, where the `known` ones do not say them.

    Weighted GAUC has four decimals, a difference its sign too, the ends of an interval those of the column before
    them; all others have three digits.
    """
    config, form = dict(known), "%.3g"
    for name in table.select_dtypes("float"):
        if name not in ENDS:
            form = _form(str(name), table[name])
        column = config.get(name, {})
        if not column.get("type_config"):
            config[name] = st.column_config.NumberColumn(format=form, help=column.get("help"))
    return config


def _form(name: str, values: pd.Series) -> str:
    if "difference" in name:
        return "%+.4f"
    if "GAUC" in name:
        return "%.4f"
    return "%.0f" if values.abs().max() >= 1_000 else "%.3g"


def shares(*names: str) -> dict[str, Any]:
    """Returns columns that show shares from 0 to 1 as bars."""
    bar = {"format": "percent", "min_value": 0, "max_value": 1}
    return {name: st.column_config.ProgressColumn(help=glossary.meaning(name), **bar) for name in names}


def csv_download(table: pd.DataFrame, name: str) -> None:
    """Draws a button that saves `table` as `name`.csv, written when it is clicked."""
    access.download_button(
        "Download CSV",
        lambda: safe_csv(table),
        f"{name}.csv",
        "text/csv",
        key=f"csv {name}",
        type="tertiary",
        on_click="ignore",
    )


def safe_csv(table: pd.DataFrame) -> str:
    """Returns `table` as CSV of which no cell is a formula to a spreadsheet.

    A text that would be one, or that has apostrophes before what would, has one apostrophe more: without it, it is
    the text again. Numbers are as they are; all else is in quotes, as a text with a carriage return must be.
    """
    safe = table.rename(columns=_no_formula).map(_no_formula)
    return safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        return value if math.isfinite(float(value)) and not value[0].isspace() else f"'{value}"
    except ValueError:
        return f"'{value}"
