"""A figure with its table and their downloads."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.shared import glossary
from pages.shared.pictures import picture_downloads


def exhibit(figure: go.Figure, table: pd.DataFrame, name: str, alt: str, **meanings: str) -> None:
    """Draws `figure`, described by `alt` for who cannot see it.

    Its `table` is one click away, made when it is asked for, and there both are to take away: as CSV, PNG and
    SVG. `name` starts the names of the files; `meanings` explain columns that the glossary does not know.
    """
    explained = {column: st.column_config.Column(help=text) for column, text in meanings.items()}
    config = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
    st.plotly_chart(figure, config=config, alt=alt, key=f"figure {name}")
    downloads = st.expander("Table and downloads", key=f"downloads {name}", on_change="rerun")
    if downloads.open:
        with downloads:
            described(table, name, alt, **explained)
            with st.container(horizontal=True):
                csv_download(table, name)
                picture_downloads(f"figure {name}", name)


def folded(title: str, draw: Callable[[], None], help: str | None = None) -> None:
    """Draws a section that is worked out once it is unfolded."""
    section = st.expander(title, key=f"unfold {title}", on_change="rerun")
    if section.open:
        with section:
            if help:
                st.caption(help)
            draw()


def described(table: pd.DataFrame, name: str, alt: str, **columns: Any) -> None:
    """Draws `table`, its columns explained on hovering; `columns` are drawn as they say."""
    config = glossary.columns(table) | columns
    st.dataframe(table, hide_index=True, column_config=config, alt=alt, key=f"table {name}")


def shares(*names: str) -> dict[str, Any]:
    """Returns columns that show shares from 0 to 1 as bars."""
    bar = {"format": "percent", "min_value": 0, "max_value": 1}
    return {name: st.column_config.ProgressColumn(help=glossary.meaning(name), **bar) for name in names}


def csv_download(table: pd.DataFrame, name: str) -> None:
    """Draws a button that saves `table` as `name`.csv, written when it is clicked."""
    st.download_button(
        "Download CSV",
        lambda: table.to_csv(index=False),
        f"{name}.csv",
        "text/csv",
        key=f"csv {name}",
        on_click="ignore",
    )
