"""The only caching of the dashboard. Registry rows are few and are read anew at every run of a page."""

import os

import pandas as pd
import streamlit as st

from mtf_engine.registry import DatasetRow, RunRow, RunState, Workspace
from pages.shared import words


def workspace() -> Workspace:
    """Returns the workspace named by MTF_WORKSPACE, else `data`."""
    return _workspace(os.environ.get("MTF_WORKSPACE", ""))


@st.cache_resource(show_spinner=False)
def _workspace(path: str) -> Workspace:
    return Workspace(path or None)


def datasets() -> list[DatasetRow]:
    """Returns all datasets, newest first."""
    return workspace().registry.datasets()


def explored(rows: list[DatasetRow]) -> list[DatasetRow]:
    """Returns the datasets whose log has actions of an exploration, so that a policy can learn from it."""
    return [row for row in rows if row.meta.get("exploration") in ("uniform", "gaussian")]


def trainings(*states: RunState) -> list[RunRow]:
    """Returns the trainings in any of `states` (default all), newest first."""
    return workspace().registry.runs(*states, kind="train")
