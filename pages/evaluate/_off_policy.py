"""Off-policy evaluation on an explored log. Decides whether a policy is worth a live test."""

import streamlit as st

from mtf_engine.evaluation.off_policy import OffPolicyRows, OffPolicySettings
from mtf_engine.permissions import Action
from mtf_engine.registry import BASELINE, DatasetRow
from mtf_engine.work.evaluate import submit_evaluate
from pages.shared import access, comparison, evaluation_charts, follow, glossary, loaders, results, words
from pages.shared.comparison import Chosen
from pages.shared.exhibit import described, exhibit, shares

UNEXPLORED = (None, "baseline")
DEFAULT = OffPolicySettings()
VALUE = "discounted reward of a session, 95 % interval"


def choose_settings() -> OffPolicySettings:
    """Draws the choice of how much the policy is smoothed, and of what is support enough."""
    left, right = st.columns(2)
    tau = left.number_input(
        "Smoothing, half widths",
        0.01,
        100.0,
        DEFAULT.tau,
        0.5,
        key="tau",
        help=glossary.TERMS["smoothed policy"],
    )
    least = right.number_input(
        "Least effective sample size", 2.0, 1e6, DEFAULT.min_ess, 10.0, key="min_ess",
        help=glossary.TERMS["effective sample size"],
    )  # fmt: skip
    return OffPolicySettings(tau=tau, min_ess=least)


def offer(chosen: Chosen, how: OffPolicySettings) -> None:
    """Draws the button that evaluates these policies off-policy, and the command that does the same."""
    if access.button(Action.EVALUATE, "Evaluate off-policy", type="primary"):
        submit_evaluate(loaders.workspace(), chosen.policies, chosen.dataset.id, off_policy=how)
        st.rerun()
    st.caption("The same on the command line")
    told = [f"--{name.replace('_', '-')}={getattr(how, name):g}" for name in ("tau", "min_ess")]
    arguments = ("evaluate", *chosen.policies, "--on", chosen.dataset.id, "--off-policy", *told)
    st.code(words.command(loaders.workspace().path, *arguments), language=None, wrap_lines=True)


def introduce(rows: OffPolicyRows) -> None:
    """Says on whom the estimates are, and who is left out."""
    cut = (
        f" {rows.n_cut:,} sessions, whose end the log did not see, count as far as they go."
        if rows.n_cut
        else ""
    )
    st.caption(
        f"{rows.n_sessions:,} sessions of {rows.n_users:,} users of the split {rows.split}, none of whom has a "
        f"training row. {rows.n_explored:,} sessions were explored in every request: on these the estimators with "
        f"weights are.{cut} Rewards are discounted by {rows.gamma:g} a request."
    )


def show(policies: list[str], log: DatasetRow) -> None:
    """Draws the tab."""
    if log.meta["exploration"] in UNEXPLORED:
        st.info(
            "This log explored no actions, so it tells nothing of policies that act otherwise: choose an explored one "
            "above, or collect one."
        )
        st.page_link("pages/explore/collect.py", label="Collect →")
        return
    comparison.warn_if_synthetic(log)
    how, chosen = choose_settings(), Chosen([BASELINE, *policies], log)
    found = comparison.evaluation_of(chosen, how)
    run = follow.finished(found.id) if found else None
    result = loaders.evaluation(run.id) if run else None
    if result is None or result.off_policy is None:
        if found is None or run:
            offer(chosen, how)
        return
    introduce(result.off_policy)
    frame = results.off_policy(results.narrowed(result, chosen.policies), loaders.runs_by_id())
    st.header("What a session would bring", anchor=False, help=glossary.TERMS["off-policy evaluation"])
    figure = evaluation_charts.segments(
        frame.rename(columns={"estimator": "segment"}), "session value", VALUE
    )
    alt = f"Value of {frame['policy'].nunique()} policies by {frame['estimator'].nunique()} estimators, with intervals"
    exhibit(figure, frame.drop(columns="algo"), "off-policy", alt)
    described(results.ladder(frame), "ladder", alt)
    weighed = frame[["policy", "estimator", "effective sample size", "share in support"]]
    described(weighed, "support", "What each estimate rests on", **shares("share in support"))
