"""Collect a log: which users to explore on, how, and for how long. Decides what a policy can learn from."""

from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.registry import BASELINE, RunRow
from mtf_engine.runs import estimates, executor
from mtf_engine.spec import Refusal
from mtf_engine.work.collect import submit_collect
from pages.shared import access, follow, kept, links, loaders, places, plans, processes, words, worlds
from pages.shared.worlds import World

KINDS = {
    "uniform": "uniform inside bounds around the baseline",
    "gaussian": "Gaussian noise around the baseline",
    "mixed": "some requests at random over the whole range, the others with Gaussian noise",
    "baseline": "the bare baseline, unexplored",
}
BOUND: dict[str, Any] = {"bind": "query-params"}
FOLLOWED = "collected"
"""Name of the run in the address."""


def choose_baseline(world: World, place: Any) -> str:
    """Draws the choice of the policy explored around: the default one, or a training that fits the users."""
    titles = {BASELINE: "the live policy; action 0 for everybody where there is none"} | words.policy_titles(
        worlds.fitting(world), loaders.runs_by_id()
    )
    why = "The live policy. In a next round it is the policy that was promoted."
    return links.choice("Baseline policy", titles, "baseline", place, help=why)


class Noise(NamedTuple):
    """How actions are drawn: settings for the collection, options for its command, and where a file is from."""

    settings: dict[str, Any]
    options: tuple[object, ...]
    where: str = ""


def choose_noise(world: World) -> Noise:
    left, right = st.columns(2)
    kind = links.choice("Explore", KINDS, "explore", left)
    if kind == "uniform":
        n_actions = world.fusion.n_actions
        chosen = plans.choose(n_actions, right, plans.default(n_actions))
        return Noise({"explore": kind, "plan": chosen.plan}, chosen.option, plans.where(chosen))
    if kind == "mixed":
        return choose_mixture(right)
    if kind == "gaussian":
        label = "Sigma of the noise"
        sigma = right.number_input(label, 0.01, 2.0, 0.2, 0.05, format="%g", key="sigma", **BOUND)
        return Noise({"explore": kind, "sigma": sigma}, ("--sigma", f"{sigma:g}"))
    return Noise({"explore": kind}, ())


def choose_mixture(place: Any) -> Noise:
    """Draws what mixed exploration is of."""
    places = place.columns(3)
    asked = {
        "sigma": ("Sigma of the noise", 0.01, 2.0, 0.2, "Around the baseline action."),
        "random_share": ("Share at random", 0.01, 0.99, 0.5, "Of requests; the others have the noise."),
        "random_sigma": ("Sigma at random", 0.01, 10.0, 0.5, "Around 0, the middle of each weight's range."),
    }
    settings = {
        key: column.number_input(label, least, most, usual, 0.05, format="%g", key=key, help=why, **BOUND)
        for column, (key, (label, least, most, usual, why)) in zip(places, asked.items(), strict=True)
    }
    options = (
        part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", f"{value:g}")
    )
    return Noise({"explore": "mixed", **settings}, tuple(options))


def choose_settings(world: World) -> tuple[dict[str, Any], tuple[object, ...], str]:
    """Draws the form; returns the settings, the same as a command's options, and what that needs to know.

    In the settings `to` is None where a place that is needed has no name yet.
    """
    noise = choose_noise(world)
    first, second, third, fourth = st.columns([3, 1, 1, 1])
    baseline = choose_baseline(world, first)
    requests = second.number_input("Requests", 1, value=30_000, step=10_000, key="requests", **BOUND)
    why = "Kept at the baseline action, for the baseline's own value in the same log."
    control = third.number_input("Control users, %", 0, 99, 10, key="control", help=why, **BOUND)
    seed = fourth.number_input("Seed", 0, value=0, help="Same seed, same log.", key="collect_seed", **BOUND)
    named, placed, shared = st.columns([3, 2, 1])
    name = named.text_input("Name (optional)", placeholder="what lists call it", key="collect name")
    to, n_workers = kept.choose(placed), processes.choose(shared)
    settings = {"env": world.env, "source": world.log and world.log.id, **noise.settings}
    settings |= {
        "n_requests": requests,
        "control_share": control / 100,
        "seed": seed,
        "name": name or None,
        "to": to,
        "n_workers": n_workers,
    }
    options = (
        *(*world.options, "--explore", noise.settings["explore"], *noise.options),
        *(("--baseline", baseline) if baseline != BASELINE else ()),
        *(("--control-share", f"{control / 100:g}") if control != 10 else ()),
        *("--requests", requests, "--seed", seed, *(("--name", name) if name else ())),
        *(("--to", to) if to else ()),
        *processes.option(n_workers),
    )
    return settings | {"baseline": baseline}, options, noise.where


def show_form() -> None:
    world = worlds.choose()
    if world is None:
        return
    settings, options, where = choose_settings(world)
    workspace = loaders.workspace()
    took = estimates.collection(workspace, world.env, settings["n_requests"])
    st.caption(words.plain(f"It will take about {words.duration(took.seconds)} ({took.basis})."))
    if access.button(Action.COLLECT, "Collect", type="primary", disabled=settings["to"] is None):
        with follow.refusals():
            st.query_params[FOLLOWED] = submit_collect(workspace, **settings)
            st.rerun()
    st.caption(f"The same on the command line{where}")
    st.code(words.command(workspace.path, "dataset", "collect", *options), language=None, wrap_lines=True)


def show_result(run: RunRow) -> None:
    """Says what the finished collection brought, and where to go with it."""
    if run.kind != "collect":
        raise Refusal(f"{run.id} is no collection but a run of kind {run.kind}; open it on the page of runs")
    try:
        result = executor.completed(loaders.workspace(), run).result or {}
    except Refusal as refusal:
        st.error(f"Nothing was collected: {words.plain(refusal)}")
        st.page_link("pages/train/runs.py", label="Look at the run →", query_params={"run": run.id})
        return
    passes = f", each user replayed {result['passes']} times" if result["passes"] > 1 else ""
    st.success(
        f"Collected {result['requests']:,} requests and {result['impressions']:,} impressions as "
        f"**{words.plain(run.name)}** (`{result['dataset_id']}`){passes}."
    )
    query = {"dataset": result["dataset_id"]}
    with st.container(horizontal=True):
        if run.config["explore"] in ("uniform", "mixed"):
            certify = {**query, places.TAB: places.COVERAGE}
            st.page_link(places.DATASETS, label="Certify its coverage →", query_params=certify)
        if run.config["explore"] != "baseline":
            st.page_link("pages/train/start.py", label="Train on it →", query_params=query)
        st.page_link("pages/logs/datasets.py", label="Look at its quality →", query_params=query)


def main() -> None:
    st.title("Collect a log", anchor=False)
    st.caption("Decides what a policy can learn from: whom to explore on, how far from the live weights.")
    if run_id := st.query_params.get(FOLLOWED):
        with follow.refusals():
            run = follow.finished(run_id)
            if run is None:
                return
            show_result(run)
    show_form()


main()
