"""The tour of a first visit: what is decided where, on the demonstration's own logs and policies."""

from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mtf_engine.permissions import Action
from mtf_engine.questions.demo import LOGS, TRAININGS
from mtf_engine.registry import DatasetRow, RunRow, RunState
from pages.shared import access, memory, places

CLOSED = "closed"
BESIDE = 3
"""Stops in a row."""


class Stop(NamedTuple):
    """One decision: the question, what is there to answer it, and the page that shows it."""

    question: str
    sentence: str
    label: str
    page: str
    query: dict[str, str | list[str]]


def stops(datasets: list[DatasetRow], runs: list[RunRow]) -> list[Stop]:
    """Returns the tour in the order of the data; empty where this is not the demonstration's workspace."""
    logs = {row.name: row.id for row in datasets}
    done = {run.name: run.id for run in runs if run.kind == "train" and run.state is RunState.COMPLETED}
    if not (logs.keys() >= set(LOGS.values()) and done.keys() >= set(TRAININGS.values())):
        return []
    explored, learned = logs[LOGS["uniform"]], done[TRAININGS["uniform"]]
    policies = [done[name] for name in TRAININGS.values()]
    return [
        Stop(
            "How far may exploration go?",
            "It moves the live weights inside bounds; the planner shows what a box buys, and how long it "
            "takes to fill.",
            "Plan bounds",
            places.BOUNDS,
            {"dataset": explored},
        ),
        Stop(
            "May one learn from this log?",
            "It was explored in a box of ±0.15; the certificate says whether it covers that evenly.",
            "See its certificate",
            places.DATASETS,
            {places.TAB: places.COVERAGE, "dataset": explored},
        ),
        Stop(
            "Did the training go well?",
            "The policy learned from that log against 24 critics; its curves and warnings tell.",
            "Open the run",
            "pages/train/runs.py",
            {"run": learned},
        ),
        Stop(
            "Which policy is better?",
            "Both met the same synthetic users as the live one; the A/B test shows what these consumed.",
            "See the A/B test",
            places.POLICIES,
            {places.TAB: places.ABTEST, "policies": policies},
        ),
        Stop(
            "Where to explore next?",
            "The policy drifts away from the live one; the next box is drawn around that drift.",
            "Draw the next box",
            places.BOUNDS,
            {places.TAB: places.DRIFT, "run": learned, "dataset": explored},
        ),
        Stop(
            "What does a server load?",
            "One zip, which checks its own answers before it is handed over.",
            "Export the policy",
            "pages/release/export.py",
            {"run": learned},
        ),
    ]


def show(tour: list[Stop]) -> None:
    """Draws the tour, or what calls it again once this browser has closed it; nothing for an empty one."""
    if not tour:
        return
    closed = CLOSED in memory.remembered("tour", [CLOSED])
    if st.session_state.get("turn tour"):
        closed = not closed
        memory.remember("tour", [CLOSED] if closed else [])
    if not closed:
        st.header("The demo in six decisions", anchor=False)
        for first in range(0, len(tour), BESIDE):
            for i, column in enumerate(st.columns(BESIDE), start=first):
                _show_stop(column.container(border=True, height="stretch"), i + 1, tour[i])
    access.button(Action.LOOK, "Take the tour" if closed else "Close the tour", key="turn tour")


def _show_stop(place: DeltaGenerator, number: int, stop: Stop) -> None:
    place.markdown(f"**{number}. {stop.question}**  \n{stop.sentence}")
    place.page_link(stop.page, label=f"{stop.label} →", query_params=stop.query)
