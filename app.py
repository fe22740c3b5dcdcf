"""The dashboard's frame: navigation in the order of the decisions, and the one place where refusals are shown."""

import streamlit as st

from mtf_engine.disk import refusals, workspace_path
from mtf_engine.runs import executor
from mtf_engine.spec import Refusal
from pages.shared import access, links, loaders, notices, places, words

SECTIONS = {
    "": {"pages/home/home.py": "Home"},
    "Data": {"pages/logs/import_logs.py": "Import logs", places.DATASETS: "Datasets"},
    "Explore": {
        places.BOUNDS: "Bounds planner",
        "pages/explore/density.py": "Exploration density",
        "pages/explore/collect.py": "Collect a log",
    },
    "Train": {places.START: "Start a training", places.RUNS: "Runs"},
    "Evaluate": {places.POLICIES: "Policies", "pages/evaluate/methods.py": "Methods"},
    "Release": {
        "pages/release/rounds.py": "Rounds",
        "pages/release/review.py": "Review",
        "pages/release/export.py": "Export a policy",
    },
    "About": {"pages/about/synthetic.py": "Synthetic users", "pages/about/glossary.py": "Glossary"},
}
PAGES = {
    section: [st.Page(path, title=title, default=not section) for path, title in titles.items()]
    for section, titles in SECTIONS.items()
}
PAGES[""] += [
    st.Page(places.leading(old), title=old, url_path=old, visibility="hidden") for old in places.MOVED
]

st.set_page_config(page_title="Multi-Task Fusion workbench", layout="wide")
try:
    who = access.person()
except Refusal as refusal:
    st.navigation(PAGES, position="hidden")
    access.show_login(refusal)
    st.stop()
page = st.navigation(PAGES)
try:
    if who:
        access.show_person(who)
    links.one_entry_a_page()
    places.lead_earlier_link(page.url_path)
    with refusals(workspace_path()):
        executor.reconcile(loaders.whole_workspace())
        notices.follow()
        page.run()
except Refusal as refusal:
    st.error(words.plain(str(refusal)))
