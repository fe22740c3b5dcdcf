"""A dataset's log for other libraries: as Minari, d3rlpy's HDF5 or Parquet. Decides what else may learn from it."""

from functools import partial
from importlib.util import find_spec

import streamlit as st

from mtf_engine.logs.exporting import packed
from mtf_engine.registry import DatasetRow
from mtf_engine.runs.storage import open_dataset
from pages.shared import access, loaders, words

FORMATS = {"parquet": "Parquet, as an import reads it", "minari": "Minari dataset", "d3rlpy": "d3rlpy, HDF5"}
NEEDS = {"parquet": "pyarrow", "minari": "minari", "d3rlpy": "h5py"}
"""The package that writes it."""


def show(row: DatasetRow) -> None:
    """Draws the choice of a format, the download and the command."""
    steps = bool(loaders.learnable([row]))
    offered = {
        of: title for of, title in FORMATS.items() if (steps or of == "parquet") and find_spec(NEEDS[of])
    }
    chosen = st.selectbox(
        "Format", offered, format_func=offered.__getitem__, key=f"export format of {row.id}"
    )
    suffix = "h5" if chosen == "d3rlpy" else "zip"
    access.download_button(
        "Download",
        partial(_written, row.id, chosen),
        f"{row.id}.{suffix}",
        on_click="ignore",
        key=f"export of {row.id}",
    )
    missing = [FORMATS[of] for of in FORMATS if steps and of not in offered]
    if missing:
        st.caption(f"{', '.join(missing)}: pip install minari h5py first.")
    if row.n_impressions and chosen != "parquet":
        st.caption("Steps alone: what was shown in each request is left out.")
    st.caption("The same on the command line")
    to = row.id if suffix == "zip" else f"{row.id}.h5"
    command = words.command(
        loaders.workspace().path, "dataset", "export", row.id, "--format", chosen, "--to", to
    )
    st.code(command, language=None, wrap_lines=True)


def _written(dataset_id: str, format: str) -> bytes:
    return packed(open_dataset(loaders.workspace(), dataset_id), format)
