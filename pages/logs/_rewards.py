"""Reward weights: what each signal tells of the user's next day. Decides what a policy is trained to bring."""

import pandas as pd
import streamlit as st
import yaml

from mtf_engine.logs import aggregates
from mtf_engine.logs.next_day import NextDay
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import RewardSpec
from pages.shared import access, dataset_charts, loaders, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import exhibit

NEXT_DAY = Aggregate(aggregates.stored_next_day, aggregates.next_day, "parts")


def weight_table(found: NextDay, now: RewardSpec) -> pd.DataFrame:
    """Returns one row a signal, the one that tells most of the next day first."""
    suggested = found.suggested.weights if found.suggested else {}
    rows = pd.DataFrame(
        {
            "signal": signal,
            "correlation": correlation.value,
            "low": correlation.low,
            "high": correlation.high,
            "suggested weight": suggested.get(signal),
            "weight now": now.weights.get(signal, 0.0),
        }
        for signal, correlation in found.correlations.items()
    )
    return rows.sort_values("correlation", key=abs, ascending=False, ignore_index=True)


def show_suggestion(found: NextDay, now: RewardSpec) -> None:
    """Draws the suggested weights as the mapping of an import takes them."""
    st.header("Suggested weights", anchor=False)
    if found.suggested is None:
        reason = (
            "The log cannot be trusted with them"
            if found.warnings
            else "No signal surely tells of the next day"
        )
        st.info(f"{reason}, so no weights are suggested.")
        return
    weights = {name: weight for name, weight in found.suggested.weights.items() if weight}
    reward = {"reward": {"weights": weights, "valid_seconds": now.valid_seconds}}
    text = yaml.safe_dump(reward, sort_keys=False)
    st.code(text, language=None)
    access.download_button("Download YAML", text, "reward.yaml", "application/yaml", on_click="ignore")
    st.caption(
        "Put it into the mapping with which a CSV or Parquet log is imported. Each weight is a signal's correlation by "
        "itself: of signals that nearly always come together, such as valid and long views, keep one."
    )


def show(row: DatasetRow) -> None:
    """Draws the tab."""
    if "watch_time" not in row.meta["signals"]:
        st.info("This log has no watch times, which tomorrow is judged by. Choose another.")
        return
    found = counted(row, NEXT_DAY)
    if found is None:
        return
    for warning in found.warnings:
        st.warning(warning)
    now = RewardSpec.model_validate(row.meta["reward"])
    if found.correlations:
        table = weight_table(found, now)
        alt = f"Correlation of {len(table)} signals with the next day's watch time"
        exhibit(dataset_charts.correlations(table), table, "reward weights", alt)
        st.caption(
            f"{found.n_pairs:,} days of a user that are followed by another, on {found.n_days} days; test rows "
            "are left out. Each day's sum of a signal is set against the watch time of the day after, since "
            "the same day's would be circular. Intervals: 95 %, users are the unit."
        )
    show_suggestion(found, now)
    st.caption("The same on the command line")
    command = words.command(loaders.workspace().path, "dataset", "rewards", row.id)
    st.code(command, language=None, wrap_lines=True)
