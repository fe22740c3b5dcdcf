"""Where the rows of a new log are to lie: in one file, or in Parquet files here or on a server."""

from typing import Any

import streamlit as st

from mtf_engine.logs.buckets import HERE, S3
from pages.shared import links
from pages.shared.firsts import first

WAYS = {"": "one file", HERE: "Parquet files in the workspace", S3: "Parquet files on an S3 server"}
WHY = "Parquet files, by buckets of users, are for logs that other tools or machines read, too."


def choose(place: Any = st) -> str | None:
    """Returns what `--to` would say; None, which is then told, where the place on a server has no name yet."""
    way = links.choice("Kept as", WAYS, "kept", place, help=WHY)
    if way != S3:
        return way
    label = "Place of the files"
    to = place.text_input(label, key=first("kept_to", ""), placeholder=f"{S3}bucket/prefix").strip()
    if not to:
        st.error(f"Name the place of the files, {S3}bucket/prefix, or choose another way to keep the log.")
        return None
    return to
