"""The worlds of synthetic users: what a figure that comes from one is worth, and how much there is to learn in it."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from mtf_engine.environments.world import World
from mtf_engine.study.optima import NAMES
from mtf_engine.study.premises import PREMISES, Premises, stored
from mtf_engine.study.properties import Properties
from pages.shared import evaluation_charts, places
from pages.shared.exhibit import described, exhibit
from pages.shared.worlds import choose_world

GAIN = "difference of session reward, %, 95 % interval"
BY_SEED = "difference of session reward from live, %, mean and range of the seeds"
DYNAMICS = """
- Users have interests, a taste for what they like or for what is good, and a susceptibility to click-bait, of which
  their profile tells a part. Items have interests, quality, a duration, click-bait and a topic.
- The ranking model's predictions are the true probabilities with noise and a miscalibration that differ by user
  segment and by length of the item: that is why the best weights are not the same for all.
- Click-bait is clicked now and disappoints later, a topic that repeats bores; both make leaving likelier, and
  satisfaction makes it rarer.
"""
AROUND_LIVE = {
    "anywhere_gain": "best anywhere, by search",
    "box_gain": "best within ±0.15",
    "greedy_gain": "best within ±0.15 for the reward of a request",
    "default": "default weights",
    "uniform": "exploring uniformly within ±0.15",
    "gaussian": "exploring by Gaussian noise of sigma 0.2",
}


def around_live(measured: Sequence[Premises]) -> pd.DataFrame:
    """Returns one row a policy: its gain over live, in percent, mean and range over the seeds."""
    values = {title: [100 * getattr(p, name) for p in measured] for name, title in AROUND_LIVE.items()}
    return pd.DataFrame(
        {
            "segment": title,
            "policy": "around the live policy",
            "algo": "search",
            "difference": sum(gains) / len(gains),
            "low": min(gains),
            "high": max(gains),
        }
        for title, gains in values.items()
    )


def premise_table(measured: Sequence[Premises]) -> pd.DataFrame:
    """Returns one row a premise: what is asked, and what each seed of users and items has."""
    return pd.DataFrame(
        {
            "premise": premise.what,
            "asked": premise.asked,
            **{
                f"seed {p.seed}": f"{premise.value(p):{premise.form}}{'' if premise.holds(p) else ' ✗'}"
                for p in measured
            },
        }
        for premise in PREMISES
    )


def standing_table(found: Properties) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "weights": NAMES[row.name],
            "session reward": row.session_reward,
            "requests": row.requests,
            "reward of a request": row.request_reward,
        }
        for row in found.standings
    )


def gain_table(found: Properties) -> pd.DataFrame:
    """Returns one row a comparison, in percent."""
    return pd.DataFrame(
        {
            "segment": f"{NAMES[gain.name]}, against {NAMES[gain.base]}",
            "policy": "weights found by search",
            "algo": "search",
            "difference": 100 * gain.relative,
            "low": 100 * gain.ci_low,
            "high": 100 * gain.ci_high,
        }
        for gain in found.gains
    )


def weight_table(found: Properties, world: World) -> pd.DataFrame:
    """Returns one row a dimension: the best action for all users, and for each segment."""
    columns = {"all users": found.optima.everywhere, **found.optima.segments}
    return pd.DataFrame({"dimension": world.fusion.names, **columns})


def show_premises(measured: Sequence[Premises]) -> None:
    st.header("What it is like around its live policy", anchor=False)
    frame = around_live(measured)
    table = frame.drop(columns=["policy", "algo"]).rename(columns={"segment": "policy"})
    alt = "Gains in session reward over the live policy: best weights found, default weights, exploring"
    exhibit(evaluation_charts.segments(frame, "difference", BY_SEED, "as live"), table, "around live", alt)
    st.caption(
        f"{len(measured)} seeds of users and items, {measured[0].n_users:,} users each, the same for all policies. "
        "Measured before any method was tried (`python benchmarks/premises.py`)."
    )
    st.subheader("Premises of the paper", anchor=False)
    described(premise_table(measured), "premises", "What the world is asked to be and what it is, by seed")
    misses = sum(not premise.holds(p) for premise in PREMISES for p in measured)
    st.caption(
        f"✗ marks the {misses} of {len(PREMISES) * len(measured)} that are missed. "
        if misses
        else "All hold for every seed. "
    )


def show_properties(found: Properties, world: World) -> None:
    st.header("How much there is to learn", anchor=False)
    gains = gain_table(found)
    alt = "Gains in session reward between weights that a search on the environment found, with intervals"
    table = gains.drop(columns=["policy", "algo"]).rename(columns={"segment": "weights"})
    exhibit(evaluation_charts.segments(gains, "difference", GAIN, "no difference"), table, "gains", alt)
    st.caption(
        f"Measured on {found.n_users:,} users that no search has seen, the same for all weights. "
        f"Around the best weights {found.effective_dimensions:.1f} of {world.fusion.n_actions} directions matter."
    )
    described(
        standing_table(found), "standings", "Session reward, requests and reward of a request, by weights"
    )
    st.header("The best weights", anchor=False)
    described(
        weight_table(found, world),
        "best weights",
        "Best action of each dimension, for all users and by segment",
    )
    st.caption(
        "Actions in [-1, 1]; 0 is the default. Multiplying all powers by one positive number changes no "
        "ranking, so one direction is free. The search is `python benchmarks/session_optima.py`."
    )


def main() -> None:
    st.title("Synthetic users", anchor=False)
    st.caption(
        "Decides how far to trust a figure that says synthetic, and how much there is to gain at most."
    )
    world = World.named(choose_world(st.container()))
    st.markdown(
        DYNAMICS + f"- A request shows {world.n_shown} of {world.n_candidates} candidates; a session has "
        f"{world.n_requests} requests at most."
    )
    measured, found = stored(world.name), Properties.stored(world.name)
    if measured:
        show_premises(measured)
        agrees = sum(p.kendall for p in measured) / len(measured)
        st.caption(
            f"Weighted GAUC and session reward rank policies within ±0.15 alike: Kendall's tau is {agrees:+.2f} "
            "in the mean, 1 for the same order, 0 for none."
            if agrees > 0
            else f"On logs of these users weighted GAUC orders policies the other way: Kendall's tau is {agrees:+.2f}. "
            "Judge policies for them by A/B test."
        )
        st.page_link(places.POLICIES, label="A/B test policies →", query_params={places.TAB: places.ABTEST})
    if found:
        show_properties(found, world)


main()
