"""Whether a log can teach: what to expect, each dimension's slope, and the sessions that would do."""

from functools import partial

import pandas as pd
import streamlit as st

from mtf_engine.exploration.signal import Signal, Signals
from mtf_engine.logs import aggregates
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import Refusal
from pages.logs import _narrow
from pages.shared import dataset_charts, links, loaders, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import described, exhibit, folded

SIGNAL = Aggregate(aggregates.stored_signal, aggregates.signal, "requests")
EVERYBODY = "*everybody"
NARROWER = (
    "The rows whose actions lie inside a narrower plan are those that it would have drawn, evenly and with a known "
    "density. They can be kept as a log of their own, and trained on."
)
MEANINGS = {
    "slope": "What the return of a request gains per unit of the action, which lies in [−1, 1].",
    "low": "Lower end of the 95 % interval: errors are clustered by session.",
    "high": "Upper end of the 95 % interval: errors are clustered by session.",
}


def slope_table(found: Signal) -> pd.DataFrame:
    """Returns one row a dimension that moves."""
    table = pd.DataFrame(row.model_dump() for row in found.slopes)
    return table.rename(columns={"error": "standard error", "half_width": "half width"})


def segment_table(found: Signals) -> pd.DataFrame:
    """Returns one row a segment, everybody first."""
    return pd.DataFrame(
        {
            "segment": one.segment or "everybody",
            "sessions": one.sessions,
            "chi2": one.chi2,
            "degrees of freedom": one.df,
            "p-value": one.p_value,
            "times the signal of none": one.ratio,
            "sessions needed": one.sessions_needed,
        }
        for one in (found.everybody, *found.segments)
    )


def show(row: DatasetRow) -> None:
    """Draws whether the log can teach, measured once; says why where it cannot tell."""
    if row.meta.get("exploration") == "unknown":
        st.info(
            "Nobody knows how this log's actions were drawn, so what the return owes to them cannot be told; policies "
            "do learn from it."
        )
        return
    if not loaders.explored([row]):
        st.info("This log was not explored, so nothing can be learned from it. Explore on it first.")
        st.page_link("pages/explore/collect.py", label="Collect a log →")
        return
    place = st.empty()
    try:
        with place.container():
            found = counted(row, SIGNAL)
    except Refusal as refusal:
        place.info(words.plain(refusal))
        return
    if found is not None:
        place.empty()
        show_signal(found)
        st.caption("The same on the command line")
        command = words.command(loaders.workspace().path, "dataset", "signal", row.id, "--by-segment")
        st.code(command, language=None, wrap_lines=True)
        if row.meta["exploration"] == "uniform":
            folded("What a narrower plan would have taught", partial(_narrow.show, row), NARROWER, ("plan",))


def show_signal(found: Signals) -> None:
    show_sentence(found.everybody)
    by_segment = {EVERYBODY: found.everybody} | {str(one.segment): one for one in found.segments}
    titles = {name: name.removeprefix("*") for name in by_segment}
    name = links.choice("Slopes of", titles, "slopes") if found.segments else EVERYBODY
    one = by_segment[name]
    show_figures(one)
    table = slope_table(one)
    alt = f"Slope of the return in each of {len(table)} dimensions, with 95 % intervals: {one.sentence}"
    exhibit(dataset_charts.slopes(table), table, f"slopes {titles[name]}", alt, **MEANINGS)
    st.caption("Means over the requests: what helps some and harms as many others does not show here.")
    if one.dead:
        st.caption(words.plain(f"Dimensions that never move on their own: {', '.join(one.dead)}."))
    if found.segments:
        with st.expander("Segments"):
            segments = segment_table(found)
            described(segments, "signal by segment", "Signal of everybody and of each segment")
    if found.left_out:
        named = ", ".join(found.left_out)
        st.caption(words.plain(f"Segments that cannot tell by themselves: {named}."))


def show_sentence(one: Signal) -> None:
    """Says what to expect of learning from the log."""
    (st.success if one.verdict == "enough" else st.warning)(words.plain(one.sentence))


def show_figures(one: Signal) -> None:
    """Says what the sentence rests on."""
    gain, cut = one.relative_gain, one.sessions_cut
    parts = (
        f"chi2 {one.chi2:.1f} with {one.df} degrees of freedom, {words.p_value(one.p_value)}, "
        f"on {one.sessions:,} explored sessions; {one.wished:.0f} would tell each slope, for which it takes "
        f"{_sessions(one)}.",
        "" if gain is None else f"A gain of {gain:.1%} of a session's return or more would show here.",
        f"{cut:,} sessions are cut off by the log: slopes are understated." if cut else "",
    )
    st.caption(words.plain(" ".join(parts)))


def _sessions(one: Signal) -> str:
    """Returns how many sessions are needed, with the 95 % interval as far as it is known."""
    low, needed, high = one.sessions_needed_low, one.sessions_needed, one.sessions_needed_high
    if low is None:
        return "more sessions than can be said"
    if needed is None:
        return f"more than {low:,} explored sessions"
    return f"{needed:,} explored sessions ({low:,} to {'any number' if high is None else f'{high:,}'})"
