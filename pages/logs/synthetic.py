"""The synthetic users: what a figure that comes from them is worth, and how much there is to learn from them."""

import pandas as pd
import streamlit as st

from mtf_engine.environments.optima import NAMES
from mtf_engine.environments.properties import Properties
from mtf_engine.environments.session import FUSION
from pages.shared import evaluation_charts
from pages.shared.exhibit import described, exhibit

GAIN = "difference of session reward, %, 95 % interval"
DYNAMICS = """
- Users have interests, a taste for what they like or for what is good, and a susceptibility to click-bait, of which
  their profile tells a part. Items have interests, quality, a duration, click-bait and a topic.
- The ranking model's predictions are the true probabilities with noise and a miscalibration that differ by user
  segment and by length of the item: that is why the best weights are not the same for all.
- Click-bait is clicked now and disappoints later, a topic that repeats bores; both make leaving likelier, and
  satisfaction makes it rarer. A session has 20 requests at most.
"""


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


def weight_table(found: Properties) -> pd.DataFrame:
    """Returns one row a dimension: the best action for all users, and for each segment."""
    columns = {"all users": found.optima.everywhere, **found.optima.segments}
    return pd.DataFrame({"dimension": FUSION.names, **columns})


def main() -> None:
    st.title("Synthetic users", anchor=False)
    st.caption(
        "Decides how far to trust a figure that says synthetic, and how much there is to gain at most."
    )
    found = Properties.stored()
    st.markdown(DYNAMICS)
    st.header("How much there is to learn", anchor=False)
    gains = gain_table(found)
    alt = "Gains in session reward between weights that a search on the environment found, with intervals"
    table = gains.drop(columns=["policy", "algo"]).rename(columns={"segment": "weights"})
    exhibit(evaluation_charts.segments(gains, "difference", GAIN, "no difference"), table, "gains", alt)
    st.caption(
        f"Measured on {found.n_users:,} users that no search has seen, the same for all weights. "
        f"Around the best weights {found.effective_dimensions:.1f} of {len(FUSION.names)} directions matter."
    )
    described(
        standing_table(found), "standings", "Session reward, requests and reward of a request, by weights"
    )
    st.caption(
        "On logs of these users weighted GAUC orders such weights the other way: it asks for watching, they "
        "stay for what satisfies. Judge policies for them by A/B test."
    )
    st.page_link("pages/evaluate/abtest.py", label="A/B test policies →")
    st.header("The best weights", anchor=False)
    described(
        weight_table(found), "best weights", "Best action of each dimension, for all users and by segment"
    )
    st.caption(
        "Actions in [-1, 1]; 0 is the default. Multiplying all powers by one positive number changes no "
        "ranking, so one direction is free. The search is `python benchmarks/session_optima.py`."
    )


main()
