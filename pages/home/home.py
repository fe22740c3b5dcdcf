"""Home: what is in the workspace, and what to do next."""

from typing import NamedTuple

import pandas as pd
import streamlit as st

from mtf_engine.registry import DatasetRow, RunRow, RunState
from pages.home import _tour
from pages.shared import glossary, loaders, places, words


class Step(NamedTuple):
    """What to do next: why, and the page that does it with the selection it starts from."""

    reason: str
    label: str
    page: str
    query: dict[str, str]


def next_step(datasets: list[DatasetRow], runs: list[RunRow]) -> Step:
    """Returns the first step of the data's way that this workspace has not taken."""
    explored = loaders.explored(datasets)
    trained = [run for run in runs if run.kind == "train" and run.state is RunState.COMPLETED]
    live = [run for run in runs if run.kind == "train" and not run.state.is_finished]
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


def dataset_table(datasets: list[DatasetRow]) -> pd.DataFrame:
    """Returns one row a dataset, as home shows it."""
    return pd.DataFrame(
        {
            "Dataset": row.name,
            "Id": row.id,
            "Source": words.source(row),
            "Exploration": row.meta.get("exploration") or "none",
            "Requests": row.n_requests,
            "Impressions": row.n_impressions,
            "Written": row.created_at,
        }
        for row in datasets
    )


def run_table(runs: list[RunRow]) -> pd.DataFrame:
    """Returns one row a run, with a link that opens it, from home and so below the server's base path."""
    return pd.DataFrame(
        {
            "State": words.STATES[run.state],
            "Kind": run.kind,
            "Run": words.run_title(run),
            "Started": words.ago(run.created_at),
            "Took": words.duration(run.seconds),
            "Open": f"runs?run={run.id}",
        }
        for run in runs
    )


def main() -> None:
    st.title("Multi-Task Fusion workbench", anchor=False)
    st.caption(
        "Choose how a recommender fuses its predictions: explore inside bounds, train a policy on what was "
        "logged, compare it by weighted GAUC, and take it to serving."
    )
    workspace = loaders.workspace()
    datasets, runs = workspace.registry.datasets(), workspace.registry.runs()
    show_next_step(next_step(datasets, runs))
    _tour.show(_tour.stops(datasets, runs))
    show_counts(datasets, runs)
    st.header("Datasets", anchor=False)
    if datasets:
        columns = {
            "Requests": st.column_config.NumberColumn(format="localized"),
            "Impressions": st.column_config.NumberColumn(format="localized"),
            "Written": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        }
        table = dataset_table(datasets)
        st.dataframe(table, hide_index=True, column_config=columns, alt="Datasets of the workspace")
    else:
        st.info("No dataset yet. Import a log, or fill the workspace with synthetic users:")
        st.code(words.command(workspace.path, "demo"), language=None, wrap_lines=True)
    st.header("Latest runs", anchor=False)
    if runs:
        links = {"Open": st.column_config.LinkColumn(display_text="open")}
        st.dataframe(
            run_table([run for run in runs if not run.archived][:10]),
            hide_index=True,
            column_config=links,
            alt="Latest runs",
        )
    else:
        st.info("No run yet. Imports, trainings, comparisons and exports appear here.")


main()
