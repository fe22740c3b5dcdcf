"""The form that starts a comparison of methods, and the command line that does the same."""

from typing import Any

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.environments.names import meets_again
from mtf_engine.permissions import Action
from mtf_engine.runs import estimates
from mtf_engine.study.comparison import BY_ITEM
from mtf_engine.work.study import asked_for, parts, submit_compare
from pages.evaluate._factorial_tables import DATASETS
from pages.shared import access, follow, links, loaders, processes, words, worlds

PRESETS = ("laptop", "demo", "paper")
HALF_WIDTH = 0.15
CRITICS = ("2", "4", "8", "24")


def show() -> None:
    """Draws the form; a started comparison is then the one that the page shows."""
    world = worlds.choose()
    if world is None:
        return
    asked = design(world)
    if not asked["methods"] or not asked["datasets"]:
        st.info("Choose a method and a dataset.")
        return
    workspace = loaders.workspace()
    whole = {"settings": {}, "env": world.env, "source": world.log.id if world.log else None, **asked}
    with follow.refusals():
        n_parts = len(parts(asked_for(workspace, **whole)))
        took = estimates.campaign(workspace, "compare", world.env, n_parts, asked["sessions"])
        said = f"{n_parts:,} runs, which will take about {words.duration(took.seconds)} ({took.basis})."
        st.caption(words.plain(said))
    if access.button(Action.COMPARE, "Start the comparison", type="primary"):
        with follow.refusals():
            run_id = submit_compare(workspace, **whole)
            links.forget("run")
            st.query_params["run"] = run_id
            st.rerun()
    command = words.command(workspace.path, "compare", *options(world, asked), "--background")
    st.caption("The same on the command line")
    st.code(command, language=None, wrap_lines=True)


def design(world: worlds.World) -> dict[str, Any]:
    """Returns what `submit_compare` is asked for, as chosen."""
    by_item = [f"{name}{BY_ITEM}" for name in ALGOS if "action_level" in ALGOS[name].Config.model_fields]
    methods = st.multiselect(
        "Methods",
        [*ALGOS, *by_item],
        list(ALGOS),
        key="compare methods",
        help="Those that end in :item give every item weights of its own.",
    )
    logs = {name: title for name, title in DATASETS.items() if name in ("1", "1b", "2", "3")}
    datasets = st.multiselect(
        "Datasets", list(logs), list(logs), format_func=logs.__getitem__, key="compare data"
    )
    critics = st.multiselect("Numbers of critics, integrated_rl on dataset 2", CRITICS, key="compare critics")
    first, second, third, fourth = st.columns(4)
    seeds = first.number_input("Seeds", 1, 20, 3, key="compare seeds", help="Each has data of its own.")
    sessions = second.number_input("Sessions of a dataset", 5, value=20_000, step=5, key="compare sessions")
    users = third.number_input(
        "A/B users of a seed",
        2,
        value=10_000,
        step=1_000,
        key="compare users",
        disabled=not meets_again(world.env),
        help="Replayed users cannot be met again: there the log's test days score, without an A/B test.",
    )
    preset = fourth.selectbox(
        "Preset", PRESETS, key="compare preset", help="Of every method; none is tuned further."
    )
    left, right = st.columns([3, 1])
    half_width = left.number_input(
        "Half width of the box", 0.01, 2.0, HALF_WIDTH, 0.05, key="compare half width"
    )
    n_workers = processes.choose(right)
    rounds = st.checkbox("Every method that learns collects its own five rounds, too", key="compare rounds")
    return {
        "methods": methods,
        "datasets": tuple(datasets),
        "n_critics": tuple(map(int, critics)),
        "seeds": tuple(range(seeds)),
        "sessions": sessions,
        "users": users,
        "preset": preset,
        "half_width": half_width,
        "rounds": rounds,
        "n_workers": n_workers,
    }


def options(world: worlds.World, asked: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what asks for the same on the command line."""
    methods = "all" if asked["methods"] == list(ALGOS) else ",".join(asked["methods"])
    return (
        *("--methods", methods, "--datasets", ",".join(asked["datasets"]), "--seeds", len(asked["seeds"])),
        *(*world.options, "--preset", asked["preset"], "--sessions", asked["sessions"]),
        *(("--users", asked["users"]) if meets_again(world.env) else ()),
        *(("--half-width", asked["half_width"]) if asked["half_width"] != HALF_WIDTH else ()),
        *processes.option(asked["n_workers"]),
        *(("--rounds",) if asked["rounds"] else ()),
        *(("--n-critics", ",".join(map(str, asked["n_critics"]))) if asked["n_critics"] else ()),
    )
