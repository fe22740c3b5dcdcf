"""Weighted GAUC of policies on a log. Decides which policy is better, and by how much one can know it."""

from functools import partial

import pandas as pd
import streamlit as st

from mtf_engine.evaluation import ABTest
from mtf_engine.evaluation.agreement import agreement
from mtf_engine.evaluation.result import alike
from mtf_engine.registry import RunState
from pages.shared import (
    charts,
    comparison,
    evaluation_charts,
    glossary,
    links,
    loaders,
    places,
    results,
    words,
)
from pages.shared.comparison import Comparison
from pages.shared.exhibit import described, exhibit, folded, shares

GROUPS = {"user": "by user (the paper's)", "request": "by request"}
GAUC, INTERVAL = "weighted GAUC", "weighted GAUC, 95 % interval"
NO_DIFFERENCE = "no difference"


def show_scores(found: Comparison) -> None:
    st.header("Weighted GAUC", anchor=False, help=glossary.TERMS[GAUC])
    for column, (group, title) in zip(st.columns(2), GROUPS.items(), strict=True):
        frame = results.scores(found.result, group, found.runs)
        with column:
            st.subheader(title, anchor=False)
            best = frame.loc[frame[GAUC].idxmax(), "policy"] if frame[GAUC].notna().any() else "none"
            alt = f"Weighted GAUC {title} of {len(frame)} policies with 95 % intervals; highest: {best}"
            figure = charts.intervals(frame, GAUC, INTERVAL)
            exhibit(figure, frame.drop(columns="algo"), f"weighted GAUC {group}", alt)
            used, left_out = frame[f"{group}s used"].iloc[0], frame[f"{group}s left out"].iloc[0]
            st.caption(f"{used:,} {group}s used, {left_out:,} with one class left out.")


def show_what_differs(found: Comparison) -> None:
    """Says in what the log is not the one that policies learned from, each sentence once."""
    chosen = (one for one in found.result.policies if one.run_id in found.chosen.policies)
    told = alike((words.policy_title(one.run_id, found.runs), one.differs) for one in chosen)
    if told:
        said = [words.plain(f"{', '.join(titles)}: {sentence}.") for sentence, titles in told.items()]
        st.caption("  \n".join(said))


def show_searches(found: Comparison) -> None:
    """Draws what search methods were handed, which RL methods are not: a fitness, so many times."""
    table = results.searches(found.chosen.policies, found.runs)
    if len(table):
        st.header("Found by search", anchor=False, help=glossary.TERMS["fitness"])
        counts = {
            name: st.column_config.NumberColumn(format="localized", help=glossary.meaning(name))
            for name in table.select_dtypes("number")
        }
        described(table, "searches", "What each search was for, and its evaluations", **counts)


def choose_base(found: Comparison) -> str:
    titles = {run_id: words.policy_title(run_id, found.runs) for run_id in found.chosen.policies}
    return links.choice("Of each policy, against", titles, "base")


def show_differences(found: Comparison, base: str) -> None:
    colours = charts.policy_colours(results.scores(found.result, "user", found.runs))
    for column, (group, title) in zip(st.columns(2), GROUPS.items(), strict=True):
        frame = results.differences(found.result, group, base, found.runs)
        with column:
            st.subheader(title, anchor=False)
            alt = f"Paired differences of weighted GAUC {title} with 95 % intervals"
            figure = charts.intervals(
                frame, "difference", "difference of weighted GAUC, 95 % interval", NO_DIFFERENCE, colours
            )
            exhibit(figure, frame.drop(columns="algo"), f"difference {group}", alt)
            st.caption(resolved("In these rows", frame))


def show_tested(found: Comparison) -> None:
    """Draws what an A/B test says of the same policies, where there is one."""
    chosen = set(found.chosen.policies)
    for run in loaders.workspace().registry.runs(RunState.COMPLETED, kind="abtest"):
        if run.config["base"] not in chosen or len(chosen.intersection(run.config["policies"])) < 2:
            continue
        beside = agreement(found.result.differences, ABTest.model_validate(run.result))
        if beside:
            break
    else:
        return
    st.header("Beside their A/B test", anchor=False)
    comparison.show_agreement(beside)
    table = pd.DataFrame(
        {
            "policy": words.policy_title(one.policy, found.runs),
            "difference of weighted GAUC": one.gauc_difference,
            "from": one.gauc_low,
            "to": one.gauc_high,
            "difference of session reward, %": _percent(one.reward_difference),
            "from, %": _percent(one.reward_low),
            "to, %": _percent(one.reward_high),
        }
        for one in beside.policies
    )
    numbers = {
        name: st.column_config.NumberColumn(format="%+.1f" if "%" in name else "%+.4f")
        for name in table.columns[1:]
    }
    said = f"Differences from {words.policy_title(beside.base, found.runs)} on the log and in the A/B test"
    described(table, "beside the A/B test", said, **numbers)
    query = {places.TAB: places.ABTEST, "test": run.id}
    st.page_link(places.POLICIES, label="The A/B test →", query_params=query)


def _percent(relative: float | None) -> float | None:
    return None if relative is None else 100 * relative


def resolved(where: str, frame: pd.DataFrame) -> str:
    """Returns what gap to the base the log can show, for the policy where that is hardest."""
    gap = frame["resolvable gap"].max()
    if pd.isna(gap):
        return f"{where} too few users have both classes to say what gap would show."
    return f"{where} a true gap of {gap:.4f} would show (80 % power at 5 %); a smaller one may well not."


def show_best(found: Comparison) -> None:
    """Draws how sure one can be of the best, by both groupings."""
    st.header("Best of all", anchor=False, help=glossary.TERMS["probability best"])
    by_group = [
        results.scores(found.result, group, found.runs)[["policy", "probability best"]].rename(
            columns={"probability best": title}
        )
        for group, title in GROUPS.items()
    ]
    table = by_group[0].merge(by_group[1], on="policy")
    bars = shares(*GROUPS.values())
    described(table, "best", "Probability of being the best policy, by user and by request", **bars)
    if found.n_evaluated > len(table):
        st.caption(f"Among all {found.n_evaluated} policies evaluated together, those not chosen included.")


def show_segments(found: Comparison, base: str) -> None:
    if not found.result.segments:
        st.info("All users of this log are of one segment.")
        return
    left, right = st.columns(2)
    group = links.choice("Groups", GROUPS, "group", left)
    shown = {"difference": "difference to the base chosen above", "score": "weighted GAUC"}
    what = links.choice("Show", shown, "by_segment", right)
    if what == "score":
        frame = results.segment_scores(found.result, group, found.runs)
        figure = evaluation_charts.segments(frame, GAUC, INTERVAL)
    else:
        frame = results.segment_differences(found.result, group, base, found.runs)
        unit = "difference of weighted GAUC, 95 % interval"
        figure = evaluation_charts.segments(frame, "difference", unit, NO_DIFFERENCE)
    alt = f"{shown[what]} of each policy in {len(found.result.segments)} segments, {GROUPS[group]}"
    exhibit(figure, frame.drop(columns="algo"), f"segments {group} {what}", alt)
    if what == "difference":
        st.caption(resolved("In the segment that tells least", frame))


def show(found: Comparison) -> None:
    """Draws the tab."""
    if found.result.no_gauc:
        st.info(found.result.no_gauc)
        return
    show_scores(found)
    show_what_differs(found)
    if len(found.result.policies) == 1:
        st.info("Choose a policy beside the baseline to see their difference.")
        return
    st.header("Differences", anchor=False, help=glossary.TERMS["difference"])
    base = choose_base(found)
    show_differences(found, base)
    show_tested(found)
    show_best(found)
    folded(
        "By user segment",
        partial(show_segments, found, base),
        "A user is of the segment of its first request.",
    )
    show_searches(found)
