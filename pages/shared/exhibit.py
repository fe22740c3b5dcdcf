"""A figure with its table and their downloads."""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.shared import glossary


def exhibit(figure: go.Figure, table: pd.DataFrame, name: str, alt: str) -> None:
    """Draws `figure`, described by `alt` for who cannot see it; `table` is one click away, as is its CSV.

    The camera above the picture saves it as SVG. `name` starts the names of the files.
    """
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "svg", "filename": name},
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
    st.plotly_chart(figure, config=config, alt=alt, key=f"figure {name}")
    with st.expander("Table"):
        described = glossary.columns(table)
        st.dataframe(table, hide_index=True, column_config=described, alt=alt, key=f"table {name}")
        csv_download(table, name)


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
