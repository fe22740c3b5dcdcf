"""Whether a log can teach: what to expect, each dimension's slope, and the sessions that would do."""

import pandas as pd
import streamlit as st

from mtf_engine import aggregates
from mtf_engine.exploration.signal import Signal, Signals
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import Refusal
from pages.shared import dataset_charts, links, loaders, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import csv_download, described, exhibit

SIGNAL = Aggregate(aggregates.stored_signal, aggregates.signal, "requests")
EVERYBODY = "*everybody"
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
    st.header("Can it teach?", anchor=False)
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
    if one.dead:
        st.caption(words.plain(f"Dimensions that never move on their own: {', '.join(one.dead)}."))
    if found.segments:
        with st.expander("Segments"):
            segments = segment_table(found)
            described(segments, "signal by segment", "Signal of everybody and of each segment")
            csv_download(segments, "signal by segment")
    if found.left_out:
        named = ", ".join(found.left_out)
        st.caption(words.plain(f"Segments that cannot tell by themselves: {named}."))


def show_sentence(one: Signal) -> None:
    """Says what to expect of learning from the log."""
    (st.success if one.verdict == "enough" else st.warning)(words.plain(one.sentence))


def show_figures(one: Signal) -> None:
    """Says what the sentence rests on."""
    gain = one.relative_gain
    shown = "" if gain is None else f" A gain of {gain:.1%} of a session's return or more would show in it."
    cut = f" {one.sessions_cut:,} sessions are cut off: slopes are understated." if one.sessions_cut else ""
    text = (
        f"chi2 {one.chi2:.1f} with {one.df} degrees of freedom, p {one.p_value:.3g}, on {one.sessions:,} explored "
        f"sessions; {one.wished:.0f} would tell each slope.{shown}{cut}"
    )
    st.caption(words.plain(text))
