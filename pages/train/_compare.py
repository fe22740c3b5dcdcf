"""Compare trainings: their settings first, then their curves. Decides which settings to go on with."""

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import differences
from pages.shared import charts, links, loaders, places, run_table, words
from pages.shared.exhibit import csv_download, exhibit
from pages.shared.run_actions import show_command
from pages.train import _run_charts
from pages.train._run_charts import Look

LIVE_SECONDS = 3.0
DRAWN_FIRST = ("validation_gauc", "fitness_best", "critic_loss", "q_mean", "q_std_inside")
LINKED = {"bind": "query-params"}


def choose_runs() -> list[RunRow]:
    """Returns the trainings chosen, at most ten."""
    by_id = loaders.runs_by_id()
    titles = {run_id: words.run_title(run) for run_id, run in by_id.items()}
    chosen = links.choices("Trainings", titles, "runs", max_selections=differences.MOST)
    return [by_id[run_id] for run_id in chosen]


def choose_look() -> tuple[Look, bool]:
    """Returns how curves are drawn, and whether seeds are grouped."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        help_ = "Exponential moving average; the faint line is what was logged."
        smoothing = st.slider(
            "Smoothing", 0.0, 0.99, 0.6, 0.01, key="smoothing", help=help_, width=260, **LINKED
        )
        over = st.segmented_control(
            "Over", ["step", _run_charts.MINUTES], default="step", required=True, key="over", **LINKED
        )
        logarithmic = st.toggle("Log axis", key="log_axis", **LINKED)
        together = "Trainings that differ in their seed alone: their mean over steps, with a 95 % t interval."
        group = st.toggle("Group seeds", key="group_seeds", help=together, **LINKED)
    return Look(over, smoothing, logarithmic), group


def show_settings(signed: Mapping[str, RunRow]) -> None:
    """Draws in which settings the trainings differ; the others are one click away."""
    differing, same = differences.compared(list(signed.values()))
    st.header("Settings that differ", anchor=False)
    if not differing:
        st.info("These trainings have the same settings.")
    else:
        rows = [
            {"setting": name, **dict(zip(signed, map(_shown, values), strict=True))}
            for name, values in differing.items()
        ]
        frame = pd.DataFrame(rows)
        heads = {sign: f"{sign} · {run.name}" for sign, run in signed.items()}
        alt = "Settings that differ, one column a training"
        st.dataframe(frame, placeholder="", hide_index=True, column_config=heads, alt=alt)
        csv_download(frame, "settings that differ")
    with st.expander(f"The {len(same)} settings that are the same"):
        rows = pd.DataFrame({"setting": same.keys(), "value": map(_shown, same.values())})
        st.dataframe(rows, placeholder="", hide_index=True, alt="Settings that are the same in all")


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def show_results(signed: Mapping[str, RunRow]) -> None:
    st.header("Results", anchor=False)
    names = {row.id: row.name for row in loaders.datasets()}
    table = run_table.table(list(signed.values()), names)
    table.insert(0, "", list(signed))
    shown = ["", "Name", "Seed", "State", "Best score", "Best step", "Took", "Memory", "Run"]
    st.dataframe(
        table[shown],
        hide_index=True,
        column_config=run_table.COLUMNS,
        placeholder="",
        alt="Results, one row a training",
    )
    csv_download(table[shown], "results")


def show_curves(signed: Mapping[str, RunRow], names: Sequence[str], look: Look, group: bool) -> None:
    """Draws a picture a metric, two beside each other."""
    metrics = {sign: loaders.metrics(run.id) for sign, run in signed.items()}
    titles = {sign: words.run_title(run) for sign, run in signed.items()}
    groups = {}
    if group:
        found = differences.seed_groups(list(signed.values()))
        sign_of = {run.id: sign for sign, run in signed.items()}
        titles = dict(zip(_run_charts.signs(len(found)), found, strict=True))
        groups = {
            sign: {run.id: metrics[sign_of[run.id]] for run in runs}
            for sign, runs in zip(titles, found.values(), strict=True)
        }
    columns = st.columns(2)
    for i, name in enumerate(names):
        with columns[i % 2]:
            curves = (
                _run_charts.grouped(groups, name, look) if group else _run_charts.lines(metrics, name, look)
            )
            show_metric(name, curves, titles, look)


def show_metric(name: str, curves: Mapping[str, pd.DataFrame], titles: Mapping[str, str], look: Look) -> None:
    title, unit = charts.metric_title(name)
    st.subheader(title, anchor=False)
    if not curves:
        st.caption("None of these trainings has logged it yet.")
        return
    figure = _run_charts.overlaid(curves, titles, unit, look)
    alt = f"{title} of {len(curves)} trainings, by {look.over}"
    exhibit(figure, _run_charts.ends(curves, titles), f"{name} compared", alt)


def choose_metrics(runs: Sequence[RunRow]) -> list[str]:
    logged = dict.fromkeys(name for run in runs for name in loaders.metrics(run.id).columns)
    names = [name for name in logged if name not in charts.NOT_CURVES]
    first = [name for name in DRAWN_FIRST if name in names]
    return st.multiselect(
        "Metrics",
        names,
        default=first,
        format_func=lambda name: charts.metric_title(name)[0],
        key="metrics",
        **LINKED,
    )


def completed(runs: Sequence[RunRow]) -> list[RunRow]:
    return [run for run in runs if run.state is RunState.COMPLETED]


def show() -> None:
    """Draws the tab."""
    st.caption("Decides which settings to go on with. The page's address carries all that is chosen here.")
    if not loaders.runs_by_id():
        st.info("No training yet, so there is nothing to compare.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    runs = choose_runs()
    if len(runs) < differences.FEWEST:
        st.info(f"Choose {differences.FEWEST} to {differences.MOST} trainings.")
        return
    signed = dict(zip(_run_charts.signs(len(runs)), runs, strict=True))
    show_settings(signed)
    show_results(signed)
    st.header("Curves", anchor=False)
    look, group = choose_look()
    names = choose_metrics(runs)
    live = any(not run.state.is_finished for run in runs)
    st.fragment(show_curves, run_every=LIVE_SECONDS if live else None)(signed, names, look, group)
    st.header("Policies", anchor=False)
    policies = [policy for run in completed(runs) for policy in words.policies(run)]
    if policies:
        query = {"policies": policies}
        st.page_link(places.POLICIES, label="Compare their policies on a log →", query_params=query)
    st.caption("The same on the command line")
    show_command("runs", "compare", *(run.id for run in runs))
