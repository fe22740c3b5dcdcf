"""The form that starts progressive rounds, and the command line that does the same."""

from typing import Any

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.environments.names import is_replay, is_session
from mtf_engine.learning.training import make_config
from mtf_engine.permissions import Action
from mtf_engine.registry import BASELINE, RunRow
from mtf_engine.release.rounds import Round
from mtf_engine.runs import estimates
from mtf_engine.work.progressive import default_ab_users, submit_progressive
from pages.shared import access, follow, links, loaders, plans, processes, words, worlds
from pages.shared.worlds import World

TRAIN_ON = {"current": "the round's own log", "cumulative": "all logs so far"}
PROMOTE = {
    "if-better": "a candidate that is better",
    "always": "every candidate",
    "by-hand": "what people decide",
}
DEFAULT_PRESET = "laptop"


def fill_next(run: RunRow, last: Round) -> None:
    """Makes the form ask for one more round around what was promoted last, with new users."""
    st.session_state.update(
        {
            "rounds baseline": last.next_baseline,
            "rounds count": 1,
            "rounds sessions": last.sessions,
            "rounds steps": last.steps,
            "rounds seed": run.config["seed"] + 1,
            "rounds train on": "current",
        }
    )
    plans.draw(last.plan, f"round {last.number} of {run.name}")


def show() -> None:
    """Draws the form; a started run is then the one that the page shows."""
    st.header("Start rounds", anchor=False)
    world = worlds.choose()
    if world is None:
        return
    settings, options, where = _choose(world)
    workspace = loaders.workspace()
    n_parts = settings["rounds"] * (4 if settings["ab_users"] else 3)
    took = estimates.campaign(workspace, "progressive", world.env, n_parts, settings["sessions_per_round"])
    st.caption(words.plain(f"They will take about {words.duration(took.seconds)} ({took.basis})."))
    if access.button(Action.START_ROUNDS, "Start rounds", type="primary"):
        with follow.refusals():
            run_id = submit_progressive(workspace, **settings)
            links.forget("run")
            st.query_params["run"] = run_id
            st.rerun()
    st.caption(f"The same on the command line{where}")
    command = words.command(workspace.path, "progressive", *options, "--background")
    st.code(command, language=None, wrap_lines=True)


def _choose(world: World) -> tuple[dict[str, Any], tuple[object, ...], str]:
    """Returns the settings, the same as a command's options, and where a file that they name comes from."""
    first, second, third, fourth = st.columns(4)
    rounds = first.number_input("Rounds", 1, 100, 5, key="rounds count")
    sessions = second.number_input("Sessions a round", 1, value=4_000, step=1_000, key="rounds sessions")
    users = _ab_users(world, third)
    seed = fourth.number_input("Seed", 0, value=0, key="rounds seed", help="Same seed, same rounds.")
    left, right = st.columns(2)
    titles = _baselines(world)
    baseline = left.selectbox("First baseline", titles, format_func=titles.get, key="rounds baseline")
    n_actions = world.fusion.n_actions
    chosen = plans.choose(n_actions, right, plans.default(n_actions))
    first, second, third, fourth = st.columns(4)
    algo = first.selectbox("Method", list(ALGOS), key="rounds algo")
    presets = list(ALGOS[algo].presets)
    preset = second.selectbox("Preset", presets, presets.index(DEFAULT_PRESET), key="rounds preset")
    train_on = third.selectbox("Learn from", list(TRAIN_ON), format_func=TRAIN_ON.get, key="rounds train on")
    promote = fourth.selectbox("Promote", list(PROMOTE), format_func=PROMOTE.get, key="rounds promote")
    length = make_config(algo, preset=preset, settings={}, seed=0)
    default, passes = length.n_steps, getattr(length, "passes", None)
    left, middle, right = st.columns([2, 5, 1])
    steps = left.number_input(
        "Gradient steps in all",
        1,
        value=default,
        key="rounds steps",
        help="The rounds share them."
        + ("" if default else f" Empty: each goes {passes:g} times over what it learns from."),
        placeholder=None if default else f"{passes:g} passes a round",
    )
    name = middle.text_input("Name (optional)", key="rounds name", placeholder="what lists call it")
    n_workers = processes.choose(right)
    settings = {
        "env": world.env,
        "source": world.log and world.log.id,
        "rounds": rounds,
        "sessions_per_round": sessions,
        "algo": algo,
        "preset": preset,
        "settings": {"n_steps": str(steps)} if steps not in (None, default) else {},
        "plan": chosen.plan,
        "baseline": baseline,
        "train_on": train_on,
        "promote": promote,
        "ab_users": users,
        "seed": seed,
        "n_workers": n_workers,
        "name": name or None,
    }
    options = (
        *(*world.options, "--rounds", rounds, "--sessions-per-round", sessions, "--algo", algo),
        *("--preset", preset, *(("--set", f"n_steps={steps}") if steps not in (None, default) else ())),
        *(*chosen.option, *(("--baseline", baseline) if baseline != BASELINE else ())),
        *("--train-on", train_on, "--promote", promote, "--ab-users", users, "--seed", seed),
        *processes.option(n_workers),
        *(("--name", name) if name else ()),
    )
    return settings, options, plans.where(chosen)


def _ab_users(world: World, place: Any) -> int:
    """Draws how many users test a round; none do where consumption is bounded by a log."""
    if is_replay(world.env):
        why = "Replayed users cannot be A/B tested: what they consume is bounded by their log."
        return place.number_input("A/B users a round", 0, 0, key="rounds no ab", disabled=True, help=why)
    label = "A/B users a round"
    # of each environment its own default
    key, users = f"rounds ab {is_session(world.env)}", default_ab_users(world.env)
    return place.number_input(label, 0, value=users, step=100, key=key, help="0: no A/B test.")


def _baselines(world: World) -> dict[str, str]:
    """Returns what lists call the policies that rounds can start from: what is live, the default one, all others."""
    titles = {BASELINE: "the live policy; action 0 for everybody where there is none"}
    titles |= words.policy_titles(worlds.fitting(world), loaders.runs_by_id())
    live = loaders.workspace().live
    if live not in titles:
        return titles
    return {live: f"live: {titles[live]}", **{i: t for i, t in titles.items() if i != live}}
