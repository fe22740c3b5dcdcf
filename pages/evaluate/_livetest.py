"""A live A/B test from a file: was it split as meant, and what did each arm do. Decides whether to believe it."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from mtf_engine.evaluation import ABTest
from mtf_engine.evaluation.livetest import PLANNED, LiveTest, live_test
from mtf_engine.logs.endings import SUFFIXES
from mtf_engine.logs.live_users import Arms
from mtf_engine.registry import RunState
from pages.evaluate import _abtest_looks
from pages.shared import follow, glossary, links, loaders, words
from pages.shared.charts import intervals
from pages.shared.exhibit import exhibit

NUMBERS = ("relative difference", "low", "high", "p-value", "boundary from", "boundary to", "simulated")
Simulated = Mapping[tuple[str, str], float | None]


def effects(test: LiveTest, simulated: Simulated) -> pd.DataFrame:
    """Returns one row an arm and metric; what cannot be told is NaN.

    Where an arm is called as a policy of a simulated test, what that told of the same metric is beside it.
    """
    known = {(effect.arm, effect.metric) for effect in test.effects} & simulated.keys()
    frame = pd.DataFrame(
        {
            **_named(effect.arm),
            "metric": effect.metric,
            "users": effect.users,
            "mean per user": effect.mean,
            "base per user": effect.base_mean,
            "relative difference": effect.relative,
            "low": effect.ci_low,
            "high": effect.ci_high,
            "p-value": effect.p_value,
            "boundary from": effect.low,
            "boundary to": effect.high,
            **({"simulated": simulated.get((effect.arm, effect.metric))} if known else {}),
        }
        for effect in test.effects
    )
    return frame.astype({name: float for name in NUMBERS if name in frame})


def simulated(test: LiveTest) -> Simulated:
    """Returns by arm and metric what the newest simulated test of the policy so called told against the same base."""
    told: dict[tuple[str, str], float | None] = {}
    for run in loaders.workspace().registry.runs(RunState.COMPLETED, kind="abtest"):
        played = ABTest.model_validate(run.result)
        effects = played.effects if played.base == test.base else ()
        for effect in effects:
            told.setdefault((effect.policy, effect.metric), effect.relative)
    return told


def _named(arm: str) -> dict[str, str]:
    return {"policy": arm, "algo": arm}  # any but the baseline's: its colour is by its place


def long_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns `effects` as it is shown and saved."""
    titles = {"policy": "arm", "low": "interval from", "high": "interval to"}
    return frame.drop(columns="algo").rename(columns=titles)


def figure(frame: pd.DataFrame) -> go.Figure:
    """Returns a dot with its interval for each arm of `effects`, of one metric."""
    drawn = intervals(frame, "relative difference", "difference to the base", "the base")
    drawn.update_xaxes(tickformat="+.1%")
    return drawn.update_traces(
        texttemplate="%{x:+.2%}",
        hovertemplate="%{y}<br>%{x:+.2%} [%{customdata[0]:+.2%}, %{customdata[1]:+.2%}]<extra></extra>",
    )


def show() -> None:
    """Draws the upload, what is to be said of it, and what it tells."""
    upload = st.file_uploader("Users of the test", type=list(SUFFIXES), key="live_users")
    st.caption(
        "A row a user: `user`, `arm`, a column of numbers for each metric, and, where it is known, `date`, the day "
        "the user came into the test. The file is read and not kept."
    )
    if upload is None:
        return
    with follow.refusals():
        arms = loaders.live_arms(upload)
        base, ratio, planned = choose(arms)
        show_test(live_test(arms, base, ratio, planned))
        given = (("--ratio", ratio) if ratio else ()) + (("--planned", planned) if planned != PLANNED else ())
        st.caption("The same on the command line")
        called = words.command(loaders.workspace().path, "livetest", upload.name, "--base", base, *given)
        st.code(called, language=None, wrap_lines=True)


def choose(arms: Arms) -> tuple[str, str, int]:
    """Draws what the file does not say, and returns the base, the intended ratio and the users planned for."""
    left, middle, right = st.columns(3)
    base = links.choice("Base", {name: name for name in arms.names}, "live_base", left)
    like = ",".join(f"{name}=1" for name in arms.names)
    ratio = middle.text_input(
        "Intended ratio", placeholder=like, key="live_ratio", help="Empty: equal shares."
    )
    why = "Of two arms together, said before the test began: the boundary is tightest near them."
    return base, ratio, right.number_input("Users planned", 1, value=PLANNED, key="live_planned", help=why)


def show_test(test: LiveTest) -> None:
    show_split(test)
    frame = effects(test, simulated(test))
    st.header("What each arm did", anchor=False, help=glossary.TERMS["relative difference"])
    metric = links.choice("Metric shown", {name: name for name in frame["metric"]}, "live_metric")
    alt = f"Relative difference of {metric} to {test.base}, with 95 % intervals"
    exhibit(figure(frame[frame["metric"] == metric]), long_table(frame), "live test", alt)
    st.caption(
        "These intervals are for a single look, at the end. Where the test was looked at before, the boundary holds; "
        "it is in the table."
    )
    if test.looks:
        _abtest_looks.head()
        _abtest_looks.show(test.looks, metric, {e.arm: _named(e.arm) for e in test.effects}, "live")


def show_split(test: LiveTest) -> None:
    """Says whether users were split as meant: if not, over all that follows."""
    st.header("Were users split as meant?", anchor=False, help=glossary.TERMS["sample ratio mismatch"])
    said = words.plain(test.sample_ratio.sentence)
    (st.error if test.sample_ratio.is_mismatch else st.success)(said)
