"""Home: which policy is better than the live one, what waits for people, and what to do next."""

from typing import NamedTuple

import streamlit as st

from mtf_engine.exploration.coverage import certify_coverage
from mtf_engine.logs import aggregates
from mtf_engine.questions.scoreboard import Waiting, waiting
from mtf_engine.registry import DatasetRow, RunRow, RunState
from mtf_engine.spec import FusionSpec
from pages.home import _scoreboard, _tour
from pages.shared import glossary, loaders, places, words

MOST_WAITING = 5
"""Things that wait, in the list of home."""


class Step(NamedTuple):
    """What to do next: why, and the page that does it with the selection it starts from."""

    reason: str
    label: str
    page: str
    query: dict[str, str]


def next_step(datasets: list[DatasetRow], runs: list[RunRow]) -> Step:
    """Returns the first step of the data's way that this workspace has not taken."""
    explored = loaders.learnable(datasets)
    own = [run for run in runs if run.kind == "train" and run.parent_id is None]
    trained = [run for run in own if run.state is RunState.COMPLETED]
    live = [run for run in own if not run.state.is_finished]
    evaluated = {i for run in runs if run.kind == "evaluate" and run.result for i in run.config["policies"]}
    if not datasets:
        return Step("The workspace is empty.", "Import a log", "pages/logs/import_logs.py", {})
    if not explored:
        return Step(
            "There are logs, but none with explored actions to learn from.",
            "Collect one by replay",
            "pages/explore/collect.py",
            {"env": "replay", "explore": "uniform"},
        )
    if not trained and live:
        return Step("A training is at work.", "Follow it", "pages/train/runs.py", {"run": live[0].id})
    if not trained:
        return Step(
            "There is an explored log and no policy yet.",
            "Train on it",
            "pages/train/start.py",
            {"dataset": explored[0].id},
        )
    if fresh := [run for run in trained if run.id not in evaluated]:
        return Step(
            f"{words.run_title(fresh[0])} is trained and not compared yet.",
            "Compare it with the baseline",
            places.POLICIES,
            {"policies": fresh[0].id},
        )
    return Step("Every trained policy is compared.", "Look at the comparison", places.POLICIES, {})


def show_next_step(step: Step) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"**Next:** {words.plain(step.reason)}")
        st.page_link(step.page, label=f"{step.label} →", query_params=step.query)


def show_counts(datasets: list[DatasetRow], runs: list[RunRow]) -> None:
    trained = [run for run in runs if run.kind == "train" and run.state is RunState.COMPLETED]
    live = [run for run in runs if not run.state.is_finished]
    counts = {
        "Datasets": len(datasets),
        "Requests": sum(row.n_requests for row in datasets),
        "Impressions": sum(row.n_impressions for row in datasets),
        "Trained policies": len(trained),
        "Live runs": len(live),
    }
    for column, (label, count) in zip(st.columns(len(counts)), counts.items(), strict=True):
        column.metric(label, f"{count:,}", border=True, help=glossary.meaning(label))


def failed_certificates(datasets: list[DatasetRow]) -> dict[str, str]:
    """Returns why uniform and mixed logs failed their certificate, by id, of those whose coverage was counted."""
    workspace, found = loaders.workspace(), {}
    for row in datasets:
        if row.meta.get("exploration") not in ("uniform", "mixed"):
            continue
        counts = aggregates.stored_coverage(workspace.dataset_path(row.id), row.content_hash)
        if counts is not None:
            certificate = certify_coverage(counts, FusionSpec.model_validate(row.meta["fusion"]).names)
            if not certificate.passed:
                found[row.id] = f"fails its certificate: {certificate.reason}"
    return found


def show_waiting(waits: list[Waiting]) -> None:
    """Draws what waits for people, each with the page where it is settled."""
    if not waits:
        return
    st.header("What waits for you", anchor=False)
    ways = {
        "round": ("pages/release/review.py", "Review", lambda id: {"run": id}),
        "run": (places.RUNS, "Look at it", lambda id: {"run": id}),
        "dataset": (
            places.DATASETS,
            "See its certificate",
            lambda id: {places.TAB: places.COVERAGE, "dataset": id},
        ),
    }
    for one in waits[:MOST_WAITING]:
        page, label, query = ways[one.kind]
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{words.plain(one.name)}**: {words.plain(one.reason)}")
            st.page_link(page, label=f"{label} →", query_params=query(one.id))
    if len(waits) > MOST_WAITING:
        st.caption(f"And {len(waits) - MOST_WAITING} more, among the runs.")


def main() -> None:
    st.title("Multi-Task Fusion workbench", anchor=False)
    st.caption(
        "Choose how a recommender fuses its predictions: explore inside bounds, train a policy on what was "
        "logged, compare it by weighted GAUC, and take it to serving."
    )
    workspace = loaders.workspace()
    datasets, runs = workspace.registry.datasets(), workspace.registry.runs()
    show_waiting(waiting(workspace, failed_certificates(datasets)))
    _scoreboard.show()
    show_next_step(next_step(datasets, runs))
    _tour.show(_tour.stops(datasets, runs))
    show_counts(datasets, runs)
    if not datasets:
        st.info("No dataset yet. Import a log, or fill the workspace with synthetic users:")
        st.code(words.command(workspace.path, "demo"), language=None, wrap_lines=True)


main()
