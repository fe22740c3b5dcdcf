"""How far policies deviate from the baseline. Decides whether bounds were wide enough, and were kept."""

import pandas as pd
import streamlit as st

from pages.shared import action_results, comparison, evaluation_charts, glossary, links
from pages.shared.comparison import Comparison
from pages.shared.exhibit import described, exhibit, shares

VIEWS = {"size": "size (the paper's Fig. 2)", "direction": "direction"}


def show(found: Comparison) -> None:
    """Draws the tab."""
    if len(found.result.policies) == 1:
        st.info("Choose a policy beside the baseline: the baseline does not deviate from itself.")
        return
    left, right = st.columns(2)
    segment = comparison.choose_segment(found, left)
    view = links.choice("Show", VIEWS, "view", right)
    deviations = action_results.deviations(found.result, segment, found.runs)
    table = action_results.deviation_table(deviations)
    bins = action_results.deviation_bins(deviations, signed=view == "direction")
    figure = evaluation_charts.deviation(bins, table, signed=view == "direction")
    alt = (
        f"Deviation of {len(deviations)} policies from the baseline action in each of "
        f"{table['dimension'].nunique()} dimensions, with the bounds"
    )
    exhibit(figure, table, f"deviation {segment or 'all'}", alt)
    if table["lower"].isna().all():
        st.caption("The log has no bounds, and the policies were trained without any.")
    else:
        st.caption("Dashed: the bounds, their median over requests.")
    if found.result.baseline_actions == "zero":
        st.caption("The log has no baseline actions: deviations start from the action 0.")
    show_shares(table)


def show_shares(table: pd.DataFrame) -> None:
    """Draws where the actions lie in their bounds, the busiest dimensions first."""
    st.header("At the bounds", anchor=False, help=glossary.TERMS["share outside"])
    columns = ["policy", "dimension", "share outside", "share at the wall", "mean drift"]
    busiest = table[columns].sort_values("share outside", ascending=False)
    bars = shares("share outside", "share at the wall")
    described(busiest, "shares", "Share of requests outside the bounds and at the wall", **bars)
