"""The form that starts a comparison of methods, and the command line that does the same."""

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.jobs import submissions
from pages.shared import follow, links, loaders, words
from pages.shared.factorial_tables import DATASETS

PRESETS = ("laptop", "demo", "paper")
CRITICS = ("2", "4", "8", "24")


def show() -> None:
    """Draws the form; a started comparison is then the one that the page shows."""
    st.header("Start a comparison", anchor=False)
    methods = st.multiselect("Methods", list(ALGOS), list(ALGOS), key="compare methods")
    logs = {name: title for name, title in DATASETS.items() if name in ("1", "1b", "2", "3")}
    left, right = st.columns(2)
    datasets = left.multiselect(
        "Datasets", list(logs), list(logs), format_func=logs.__getitem__, key="compare data"
    )
    critics = right.multiselect(
        "Numbers of critics, integrated_rl on dataset 2", CRITICS, key="compare critics"
    )
    first, second, third, fourth = st.columns(4)
    seeds = first.number_input("Seeds", 1, 20, 3, key="compare seeds", help="Each has data of its own.")
    sessions = second.number_input("Sessions of a dataset", 5, value=20_000, step=5, key="compare sessions")
    users = third.number_input("A/B users of a seed", 2, value=10_000, step=1_000, key="compare users")
    preset = fourth.selectbox(
        "Preset", PRESETS, key="compare preset", help="Of every method; none is tuned further."
    )
    rounds = st.checkbox("Every method that learns collects its own five rounds, too", key="compare rounds")
    if not methods or not datasets:
        st.info("Choose a method and a dataset.")
        return
    workspace = loaders.workspace()
    if st.button("Start the comparison", type="primary"):
        with follow.refusals():
            run_id = submissions.submit_compare(
                workspace,
                methods=methods,
                preset=preset,
                settings={},
                datasets=tuple(datasets),
                seeds=tuple(range(seeds)),
                env="session",
                sessions=sessions,
                rounds=rounds,
                n_critics=tuple(map(int, critics)),
                users=users,
            )
            links.forget("run")
            st.query_params["run"] = run_id
            st.rerun()
    everything = len(methods) == len(ALGOS)
    options = (
        *("--methods", "all" if everything else ",".join(methods), "--datasets", ",".join(datasets)),
        *("--seeds", seeds, "--env", "session", "--preset", preset, "--sessions", sessions, "--users", users),
        *(("--rounds",) if rounds else ()),
        *(("--n-critics", ",".join(critics)) if critics else ()),
    )
    st.caption("The same on the command line")
    st.code(
        words.command(workspace.path, "compare", *options, "--background"), language=None, wrap_lines=True
    )
