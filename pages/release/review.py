"""Review: what is known of a round's candidate, and what people decide. Decides what goes live."""

from typing import Any, get_args

import pandas as pd
import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.policies.monotony import sentences
from mtf_engine.questions.scoreboard import Change, Verdict, verdict
from mtf_engine.registry import BASELINE, DecisionRow, RunRow
from mtf_engine.release import memo, review
from mtf_engine.release.review import RULE, Case
from mtf_engine.release.rounds import Round
from mtf_engine.work.progressive import decide
from pages.shared import (
    access,
    action_results,
    comparison,
    evaluation_charts,
    follow,
    glossary,
    links,
    loaders,
    places,
    results,
    words,
)
from pages.shared.exhibit import csv_download, described, exhibit
from pages.shared.round_tables import DISTANCE, interval_text

SIGNS = {"promote": "▲ promote", "discuss": "◆ discuss", "do not": "▼ do not promote"}
"""A sign and the words, so that recommendations are told apart without colour."""
COLOURS = {"promote": "green", "discuss": "orange", "do not": "red"}
HOLDS = {True: "✔ holds", False: "✖ broken", None: "? not known"}
FORMS = {"weighted_gauc": "{:+.4f}", "path": "{:.4f}", "share_at_wall": "{:.1%}"}
"""How figures are written; others are relative changes."""


def figure_text(metric: str, value: float | None) -> str:
    return "-" if value is None else FORMS.get(metric, "{:+.2%}").format(value)


def gains(found: Case) -> dict[str, str]:
    """Returns the candidate's gain by both metrics, and which one decides, as the facts show it."""
    told = {"weighted_gauc": "weighted GAUC", "session_reward": "session reward, A/B"}
    told |= {found.criteria.metric: told.get(found.criteria.metric, found.criteria.metric.replace("_", " "))}
    measured = {metric: review.figure(found.round, metric) for metric in told}  # type: ignore[arg-type]
    return {
        f"gain in {title}{' (decides)' if metric == found.criteria.metric else ''}": interval_text(
            measured[metric], FORMS.get(metric, "{:+.2%}")
        )
        for metric, title in told.items()
        if measured[metric].value is not None
    }


def disagree(one: Round) -> bool:
    """Returns whether one metric says better and the other worse, each by its whole interval."""
    both = (review.figure(one, "weighted_gauc"), review.figure(one, "session_reward"))
    changes = [
        Change(value=found.value, low=found.ci_low, high=found.ci_high, run_id=one.candidate)
        for found in both
        if found.value is not None and found.ci_low is not None and found.ci_high is not None
    ]
    return verdict(*changes) is Verdict.DISAGREE


def show_live(runs: dict[str, RunRow]) -> None:
    lived = review.history(loaders.workspace())[-1]
    title = words.policy_title(lived["policy"], runs)
    if lived["policy"] == BASELINE:
        title = "the default baseline"
    since = f", since {lived['since']:%Y-%m-%d %H:%M} UTC, by {lived['name']}" if lived["since"] else ""
    st.markdown(f"**Live:** {words.plain(title + since)}.")


def choose_round(runs: list[RunRow]) -> tuple[str, int]:
    left, right = st.columns(2)
    by_id = {run.id: run for run in runs}
    run_id = links.choice("Rounds of", {i: words.run_title(run) for i, run in by_id.items()}, "run", left)
    numbers = [str(one["number"]) for one in reversed((by_id[run_id].result or {})["rounds"])]
    return run_id, int(links.choice("Round", {n: f"round {n}" for n in numbers}, "round", right))


def show_case(found: Case, runs: dict[str, RunRow]) -> None:
    one = found.round
    st.header("What is known", anchor=False, help=RULE)
    if one.synthetic:
        st.caption("Synthetic: users and feedback are simulated.")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(SIGNS[found.recommendation], color=COLOURS[found.recommendation])  # type: ignore[arg-type]
        st.markdown(f"The rule recommends so: {words.plain(found.because)}.")
    for sentence in sentences(one.policy.negative_pows):
        st.warning(f"Mind that {words.plain(sentence)}.")
    if disagree(one):
        comparison.explain_disagreement("The metrics disagree on this candidate.")
    facts = {
        "candidate": words.policy_title(one.candidate, runs),
        "compared with": words.policy_title(one.baseline, runs),
        **gains(found),
        "data": f"{one.dataset_id}: {one.sessions:,} sessions, {one.requests:,} requests",
        DISTANCE: f"{one.policy.path:.3g}",
    }
    left, right = st.columns([4, 3])
    with left:
        table = pd.DataFrame({"what": facts.keys(), "figure": facts.values()})
        st.dataframe(
            table,
            placeholder="",
            hide_index=True,
            height="content",
            alt="What is known of the candidate",
            key="facts",
        )
        csv_download(table, "candidate")
    with right:
        rails = pd.DataFrame(
            [
                {
                    "guardrail": str(f.guardrail).replace("_", " "),
                    "measured": figure_text(f.guardrail.metric, f.value),
                    "verdict": HOLDS[f.holds],
                }
                for f in found.findings
            ]
        )
        st.dataframe(
            rails,
            placeholder="",
            hide_index=True,
            height="content",
            alt="Guardrails, fixed before the round",
            key="rails",
        )
        csv_download(rails, "guardrails")
    with st.expander("Configuration of the rounds"):
        st.json(found.config)


def show_deviation(found: Case, runs: dict[str, RunRow]) -> None:
    """Draws how far the candidate is from the baseline, and the ways to look closer."""
    one = found.round
    result = loaders.evaluation(one.runs["evaluate"]) if "evaluate" in one.runs else None
    if result is not None:
        st.header("How far it deviates", anchor=False, help=glossary.TERMS["share outside"])
        candidate = results.narrowed(result, [one.candidate])
        deviations = action_results.deviations(candidate, "", runs)
        table = action_results.deviation_table(deviations)
        bins = action_results.deviation_bins(deviations, signed=False)
        alt = "Deviation of the candidate from the baseline in each dimension, with the bounds"
        exhibit(evaluation_charts.deviation(bins, table, signed=False), table, "deviation", alt)
        st.caption("Size of new minus baseline action. Dashed: the bounds, their median over requests.")
    query = {"policies": one.candidate, "on": one.dataset_id}
    with st.container(horizontal=True):
        for tab, label in (
            (places.SHADOW, "Shadow diff →"),
            (places.CRITICS, "What its critics say →"),
            (places.REQUEST, "Explain one request →"),
        ):
            st.page_link(places.POLICIES, label=label, query_params=query | {places.TAB: tab})


def name_of_visitor(place: Any = st, key: str | None = None) -> str:
    """Returns who is logged in, where somebody must be, else the name that is typed."""
    if who := access.person():
        place.markdown(f"In the name of **{words.plain(who.name)}**")
        return who.name
    return str(place.text_input("Your name", key=key))


def show_decision(found: Case, row: DecisionRow | None) -> None:
    st.header("Decision", anchor=False)
    if row is not None:
        said = f": {words.plain(row.reason)}" if row.reason else ""
        st.success(f"{words.plain(row.name)} decided to **{row.decision}**{said}")
        return
    with st.form("decision", border=False):
        left, right = st.columns(2)
        choice = left.radio(
            "The candidate", get_args(review.Choice), horizontal=True, key="choice", index=None
        )
        name = name_of_visitor(right, key="reviewer")
        reason = st.text_area(
            "Reason",
            key="reason",
            help="Needed where the rule does not recommend what you decide.",
            height=80,
        )
        st.caption("An entry in the ledger is never changed; going back is a decision of its own.")
        decided = access.form_submit_button(Action.DECIDE, "Decide", type="primary", **saw())
    if decided:
        with follow.refusals():
            if choice is None:
                st.error("Choose promote or reject.")
                return
            number = found.round.number
            seen = st.session_state["seen entry"]
            decide(loaders.workspace(), found.run_id, number, choice, name=name, reason=reason, seen=seen)
            st.rerun()
    show_command(
        "review",
        "decide",
        found.run_id,
        "--round",
        found.round.number,
        "--decision",
        "promote",
        "--by",
        "NAME",
    )


def saw() -> dict[str, Any]:
    """Returns what has a button tell which entry of the ledger was the last one when its page was drawn."""
    last = review.last_entry(loaders.workspace())
    return {"on_click": lambda: st.session_state.update({"seen entry": last})}


def show_memo(found: Case, row: DecisionRow | None) -> None:
    st.header("Memo", anchor=False)
    st.caption("One page with everything above, which opens without a network.")
    name = f"{found.run_id}-round-{found.round.number}"
    with st.container(horizontal=True):
        access.download_button(
            "Download HTML", memo.html(found, row), f"{name}.html", "text/html", on_click="ignore"
        )
        access.download_button(
            "Download Markdown", memo.markdown(found, row), f"{name}.md", "text/markdown", on_click="ignore"
        )
        if row is not None and row.decision == "promote":
            query = {"run": found.round.candidate}
            st.page_link("pages/release/export.py", label="Export it →", query_params=query)
    show_command("review", "show", found.run_id, "--round", found.round.number, "--memo", f"{name}.html")


def show_ledger(rows: list[DecisionRow], runs: dict[str, RunRow]) -> None:
    st.header("Ledger", anchor=False)
    if not rows:
        st.info("Nobody has decided anything yet.")
        return
    table = pd.DataFrame(
        {
            "entry": row.id,
            "when": f"{row.created_at:%Y-%m-%d %H:%M} UTC",
            "name": row.name,
            "decision": row.decision,
            "policy": words.policy_title(row.candidate, runs),
            "recommended": row.recommendation or "-",
            "reason": row.reason,
            "live from then on": words.policy_title(row.live, runs),
        }
        for row in reversed(rows)
    )
    described(table, "ledger", f"{len(rows)} decisions, newest first")
    show_command("review", "history")


def show_rollback(runs: dict[str, RunRow]) -> None:
    workspace = loaders.workspace()
    past = dict.fromkeys(entry["policy"] for entry in reversed(review.history(workspace)))
    past.pop(workspace.live)
    if not past:
        return
    with st.expander("Roll back"), st.form("rollback", border=False):
        to = st.selectbox("Make live again", list(past), format_func=lambda p: words.policy_title(p, runs))
        name, reason = name_of_visitor(), st.text_area("Reason", height=80)
        if access.form_submit_button(Action.ROLL_BACK, "Roll back", **saw()):
            with follow.refusals():
                review.rollback(
                    workspace, name=name, reason=reason, to=to, seen=st.session_state["seen entry"]
                )
                st.rerun()
        show_command("review", "rollback", "--to", to, "--by", "NAME", "--reason", "TEXT")


def show_command(*arguments: object) -> None:
    st.caption("The same on the command line")
    st.code(words.command(loaders.workspace().path, *arguments), language=None, wrap_lines=True)


def main() -> None:
    st.title("Review", anchor=False)
    st.caption(
        "Decides what goes live: figures and a rule recommend, people decide, and the ledger keeps it."
    )
    reviewed = [run for run in loaders.rounds_runs() if (run.result or {}).get("rounds")]
    if not reviewed:
        st.info("No round was played yet, so there is nothing to review.")
        st.page_link("pages/release/rounds.py", label="Start rounds →")
        return
    runs = loaders.runs_by_id()
    show_live(runs)
    found, row = review.decided_case(loaders.workspace(), *choose_round(reviewed))
    show_case(found, runs)
    show_deviation(found, runs)
    show_decision(found, row)
    show_memo(found, row)
    show_ledger(loaders.workspace().registry.decisions(), runs)
    show_rollback(runs)


main()
