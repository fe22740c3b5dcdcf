"""The scoreboard of home: each policy beside the live one by both metrics, in words, with the step that comes next."""

from collections import Counter
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from mtf_engine.environments.names import GYM, meets_again
from mtf_engine.questions.scoreboard import MOST, Change, Standing, Verdict, scoreboard
from mtf_engine.registry import BASELINE, run_of
from pages.shared import charts, comparison, glossary, loaders, places, words
from pages.shared.exhibit import csv_download, exhibit

GAUC, REWARD = "weighted GAUC", "session reward, %"
SIGNS = {
    Verdict.LIVE: "● live",
    Verdict.BETTER: "▲ better",
    Verdict.WORSE: "▼ worse",
    Verdict.ALIKE: "≈ not told apart",
    Verdict.DISAGREE: "⇅ metrics disagree",
    Verdict.UNKNOWN: "? not measured",
}
"""A sign and the words, so that verdicts are told apart without colour."""


def told_apart(standings: list[Standing]) -> list[Standing]:
    """Returns the standings with the end of the id, and the step, behind names that several have."""
    times, runs = Counter(standing.name for standing in standings), loaders.runs_by_id()
    return [
        standing.model_copy(update={"name": words.policy_title(standing.policy, runs)})
        if times[standing.name] > 1
        else standing
        for standing in standings
    ]


def next_step(standing: Standing, live: str) -> str:
    """Returns the address, below home, of what comes next for a policy; what it is called stands behind the #."""
    run_id = run_of(standing.policy)
    compare = [
        ("policies", policy) for policy in dict.fromkeys((live, standing.policy)) if policy != BASELINE
    ]
    if standing.waits_in:
        return f"review?{urlencode({'run': standing.waits_in})}#review"
    if standing.policy == BASELINE:
        return f"policies?{urlencode({places.TAB: places.GAUC})}#compare"
    run = loaders.runs_by_id().get(run_id)
    takes = loaders.takes(run) if run else None
    env = (takes and takes.env) or ""
    if standing.gauc is None and not standing.is_live and not env.startswith(GYM):
        return f"policies?{urlencode([(places.TAB, places.GAUC), *compare])}#compare"
    if standing.reward is None and not standing.is_live and meets_again(env):
        return f"policies?{urlencode([(places.TAB, places.ABTEST), *compare, ('against', live)])}#A/B"
    if standing.verdict in (Verdict.BETTER, Verdict.LIVE) and not env.startswith(GYM):
        return f"export?{urlencode({'run': standing.policy})}#export"
    tab = places.ABTEST if env.startswith(GYM) else places.DEVIATION
    return f"policies?{urlencode([(places.TAB, tab), *compare])}#why"


def at_wall(standing: Standing) -> float | None:
    """Returns the percentage of requests at or beyond the wall, the mean over dimensions; None where nobody knows."""
    result = loaders.evaluation(standing.gauc.run_id) if standing.gauc else None
    if result is None:
        return None
    (policy,) = (policy for policy in result.policies if policy.run_id == standing.policy)
    dimensions = policy.deviation.dimensions
    explored = [one for one in dimensions if one.bounds and one.bounds.lower < one.bounds.upper]
    shares = [one.bounds.share_at_wall for one in explored]
    return 100 * float(np.mean(shares)) if shares else None


def table(standings: list[Standing]) -> pd.DataFrame:
    """Returns one row a policy, as home shows it."""
    return pd.DataFrame(
        {
            "policy": standing.name,
            "verdict": SIGNS[standing.verdict] + (" · waits" if standing.waits_in else ""),
            "next": next_step(standing, standings[0].policy),
            GAUC: standing.gauc.value if standing.gauc else None,
            "95 %": _interval(standing.gauc, "+.4f"),
            "session reward": 100 * standing.reward.value if standing.reward else None,
            "95 % ": _interval(standing.reward, "+.1f", 100),
            "at the wall": at_wall(standing),
            "trained": words.ago(standing.trained_at) if standing.trained_at else "",
            "id": standing.policy,
        }
        for standing in standings
    )


def _interval(change: Change | None, form: str, scale: int = 1) -> str:
    return f"{change.low * scale:{form}} to {change.high * scale:{form}}" if change else ""


def both(standings: list[Standing]) -> pd.DataFrame:
    """Returns the policies that both metrics measured, one row each."""
    return pd.DataFrame(
        {
            "policy": standing.name,
            "verdict": str(standing.verdict),
            GAUC: standing.gauc.value,
            f"{GAUC}, low": standing.gauc.low,
            f"{GAUC}, high": standing.gauc.high,
            REWARD: 100 * standing.reward.value,
            f"{REWARD}, low": 100 * standing.reward.low,
            f"{REWARD}, high": 100 * standing.reward.high,
        }
        for standing in standings
        if standing.gauc and standing.reward
    )


def picture(frame: pd.DataFrame) -> go.Figure:
    """Returns each policy's change by both metrics with its intervals; upper right is better by both."""
    figure = go.Figure()
    for i, (_, row) in enumerate(frame.iterrows()):
        colour = charts.SEQUENCE[i % len(charts.SEQUENCE)]
        error = [
            {
                "type": "data",
                "array": [row[f"{of}, high"] - row[of]],
                "arrayminus": [row[of] - row[f"{of}, low"]],
            }
            for of in (GAUC, REWARD)
        ]
        figure.add_scatter(
            x=[row[GAUC]],
            y=[row[REWARD]],
            error_x=error[0],
            error_y=error[1],
            mode="markers+text",
            text=charts.escape(row["policy"]),
            textposition="top left",
            textfont={"color": colour},
            marker={"size": 10, "color": colour, "symbol": charts.SYMBOLS[i % len(charts.SYMBOLS)]},
            hovertemplate="%{text}<br>weighted GAUC %{x:+.4f}<br>session reward %{y:+.1f} %<extra></extra>",
        )
    figure.add_hline(0, line={"color": charts.BOUND, "dash": "dash"})
    figure.add_vline(0, line={"color": charts.BOUND, "dash": "dash"}, annotation_text="as the live policy")
    figure.update_xaxes(title="change of weighted GAUC, on a log", zeroline=False, tickformat="+.3f")
    figure.update_yaxes(
        title="change of session reward, %, in the A/B test", zeroline=False, tickformat="+.1f"
    )
    return charts.sized(figure, 360)


def show() -> None:
    """Draws the scoreboard; nothing where no policy is trained."""
    standings = told_apart(scoreboard(loaders.workspace()))
    if len(standings) < 2:
        return
    st.header("Scoreboard", anchor=False, help="Each policy beside the live one; 95 % intervals over users.")
    columns = {
        "verdict": st.column_config.Column(help=glossary.TERMS["better or worse"]),
        GAUC: st.column_config.NumberColumn(format="%+.4f", help=glossary.TERMS["difference"]),
        "95 %": st.column_config.Column(help="Bootstrap over the users of the log."),
        "session reward": st.column_config.NumberColumn(
            format="%+.1f %%", help=glossary.TERMS["relative difference"]
        ),
        "95 % ": st.column_config.Column(help="Of the A/B test, %."),
        "at the wall": st.column_config.NumberColumn(
            format="%.1f %%", help=glossary.meaning("share at the wall")
        ),
        "next": st.column_config.LinkColumn(display_text="#(.+)$"),
    }
    shown = table(standings)
    st.dataframe(
        shown,
        hide_index=True,
        column_config=columns,
        placeholder="",
        alt=f"{len(standings)} policies beside the live one, {standings[0].name}",
    )
    csv_download(shown, "scoreboard")
    st.caption("Change against the live policy: of weighted GAUC on a log, of session reward in an A/B test.")
    if len(standings) == MOST:
        st.page_link(places.RUNS, label="All trainings →")
    if any(standing.verdict is Verdict.DISAGREE for standing in standings):
        comparison.explain_disagreement("The metrics disagree on a policy.")
    frame = both(standings)
    if len(frame):
        st.subheader("Does weighted GAUC rank policies as users do?", anchor=False)
        alt = (
            f"Change of weighted GAUC and of session reward against the live policy, of {len(frame)} policies"
        )
        exhibit(picture(frame), frame, "both metrics", alt)
