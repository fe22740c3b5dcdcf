"""The dashboard's frame: navigation in the order of the data, and the one place where refusals are shown."""

import streamlit as st

from mtf_engine.disk import refusals, workspace_path
from mtf_engine.runs import executor
from mtf_engine.spec import Refusal
from pages.shared import loaders, words

PAGES = {
    "": [st.Page("pages/home/home.py", title="Home", default=True)],
    "Logs": [
        st.Page("pages/logs/import_logs.py", title="Import logs"),
        st.Page("pages/logs/collect.py", title="Collect a log"),
        st.Page("pages/logs/datasets.py", title="Datasets"),
        st.Page("pages/logs/rewards.py", title="Reward weights"),
        st.Page("pages/logs/synthetic.py", title="Synthetic users"),
    ],
    "Explore": [
        st.Page("pages/explore/bounds.py", title="Bounds planner"),
        st.Page("pages/explore/drift.py", title="Bounds from drift"),
        st.Page("pages/explore/walls.py", title="Wall pressure"),
        st.Page("pages/explore/cost.py", title="Cost before collecting"),
        st.Page("pages/explore/coverage.py", title="Coverage certificate"),
        st.Page("pages/explore/density.py", title="Exploration density"),
        st.Page("pages/explore/formulas.py", title="Penalty formulas"),
    ],
    "Train": [
        st.Page("pages/train/start.py", title="Start a training"),
        st.Page("pages/train/runs.py", title="Runs"),
        st.Page("pages/train/compare_runs.py", title="Compare runs"),
    ],
    "Evaluate": [
        st.Page("pages/evaluate/compare.py", title="Compare policies"),
        st.Page("pages/evaluate/compare_methods.py", title="Compare methods"),
        st.Page("pages/evaluate/deviation.py", title="Deviation"),
        st.Page("pages/evaluate/critics.py", title="Critics"),
        st.Page("pages/evaluate/explain.py", title="Explain one request"),
        st.Page("pages/evaluate/abtest.py", title="A/B test"),
    ],
    "Release": [
        st.Page("pages/release/rounds.py", title="Rounds"),
        st.Page("pages/release/review.py", title="Review"),
        st.Page("pages/release/export.py", title="Export a policy"),
    ],
}

st.set_page_config(page_title="Multi-Task Fusion workbench", layout="wide")
page = st.navigation(PAGES)
try:
    with refusals(workspace_path()):
        executor.reconcile(loaders.workspace())
        page.run()
except Refusal as refusal:
    st.error(words.plain(str(refusal)))
