"""Explain one request. Decides whether a policy ranks for reasons that one would stand by."""

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.evaluation.explain import LoggedRequest, draw_request
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow
from pages.evaluate import _explain_charts, _explaining
from pages.shared import access, comparison, follow, glossary, links, loaders, words
from pages.shared.exhibit import described, exhibit, folded
from pages.shared.firsts import first

MOST_RANKS = 10
"""Places whose items are followed from policy to policy in the picture."""


def forget_item() -> None:
    links.forget("item")


def draw(dataset: DatasetRow) -> None:
    forget_item()
    st.session_state["request"] = str(draw_request(loaders.opened(dataset), np.random.default_rng()))


def choose_request(dataset: DatasetRow) -> int | None:
    """Draws the box for a request's id and returns it; at first that of the address."""
    key = first("request", st.query_params.get("request", ""))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Request id", key=key, width=260, placeholder="a number, or draw one", on_change=forget_item
        )
        access.button(Action.LOOK, "Draw one at random", on_click=draw, args=(dataset,))
    if text.strip().isdigit():
        st.query_params["request"] = text.strip()
        return int(text)
    if text.strip():
        st.error(f"{words.plain(text)} is no request id: write a whole number, or draw one.")
    else:
        st.info("Write the id of a request of this log, or draw one at random.")
    return None


def show_facts(request: LoggedRequest) -> None:
    facts = request.facts
    shown = {
        "User": facts["user_id"],
        "Session, request": f"{facts['session_id']}, {int(facts['step']) + 1}",
        "Time": pd.Timestamp(facts["timestamp"]).strftime("%Y-%m-%d %H:%M"),
        "Segment": facts["segment"],
        "Reward": f"{facts['reward']:.3g}",
        "Items": f"{len(request.items)} ({int(request.items['position'].notna().sum())} shown)",
    }
    for column, (label, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
        column.caption(label)
        column.markdown(words.plain(value))


def show_ranks(frame: pd.DataFrame, table: pd.DataFrame, request_id: int) -> None:
    st.header("Rankings", anchor=False, help=glossary.TERMS["rank"])
    policies = frame["policy"].nunique()
    alt = f"Rank of the items of request {request_id} as shown and under {policies} policies"
    exhibit(_explain_charts.ranks(frame, MOST_RANKS), table, f"request {request_id} ranks", alt)
    st.caption(
        f"Items that are among the first {MOST_RANKS} somewhere; all are in the table, with their "
        "predictions, scores and what the user did."
    )


def show_weights(frame: pd.DataFrame, request_id: int) -> None:
    st.header("Weights", anchor=False, help=glossary.TERMS["weight"])
    kinds = {"pow": "pow of each prediction", "bias": "bias of each prediction"}
    for kind, unit in kinds.items():
        rows = frame[frame["kind"] == kind]
        if len(rows):
            alt = f"Real {unit} for request {request_id}, by policy"
            figure = _explain_charts.weights(rows, f"{unit}; the grey bar is its range")
            exhibit(figure, rows.drop(columns="algo"), f"request {request_id} {kind}", alt)
    if "item" in frame:
        st.caption("A policy with weights for each item has a mark an item; the table says of which.")


def show_item(frame: pd.DataFrame) -> None:
    titles = _explaining.item_titles(frame)
    item = int(links.choice("Item", titles, "item"))
    parts = _explaining.contributions(frame, item)
    alt = f"What each prediction adds to the score of item {titles[str(item)]}, by policy"
    table = parts.drop(columns="algo")
    exhibit(_explain_charts.contributions(parts), table, f"item {item}", alt)
    st.caption(
        "What lifts or sinks the item within its list: each part of its score, less the mean over the list."
    )


def explain(dataset: DatasetRow, policies: list[str], request_id: int) -> None:
    request, explanation = loaders.explained(dataset, request_id, tuple(policies))
    weights, ranking = _explaining.frames(explanation, request, loaders.runs_by_id())
    show_facts(request)
    show_ranks(ranking, _explaining.item_table(request, ranking), request_id)
    show_weights(weights, request_id)
    folded("One item", partial(show_item, ranking), glossary.TERMS["score"], asked=("item",))
    everything = ranking.drop(columns=["algo", "did"])
    with st.expander("Everything as one table"):
        described(everything, f"request {request_id}", "Every item under every policy")


def show(dataset: DatasetRow, policies: list[str]) -> None:
    """Draws the tab."""
    comparison.warn_if_synthetic(dataset)
    request_id = choose_request(dataset)
    if request_id is None:
        return
    with follow.refusals():
        explain(dataset, policies, request_id)
