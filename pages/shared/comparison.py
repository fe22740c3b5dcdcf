"""The comparison that the pages of a section read: policies and a log are chosen, and evaluated by a job."""

from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.registry import BASELINE, DatasetRow, RunRow, RunState, run_of
from mtf_engine.runs import executor
from mtf_engine.work.evaluate import submit_evaluate
from pages.shared import follow, links, loaders, results, words

PAGES = {
    "pages/evaluate/compare.py": "Compare their weighted GAUC →",
    "pages/evaluate/deviation.py": "How far they deviate →",
    "pages/evaluate/critics.py": "What their critics say →",
    "pages/evaluate/explain.py": "Explain one request →",
    "pages/evaluate/abtest.py": "A/B test them →",
}


class Chosen(NamedTuple):
    """The policies, the baseline first, and the log they are compared on."""

    policies: list[str]
    dataset: DatasetRow

    @property
    def query(self) -> dict[str, list[str]]:
        """What a link must carry to make the same choice."""
        return {"policies": [p for p in self.policies if p != BASELINE], "dataset": [self.dataset.id]}


class Comparison(NamedTuple):
    """A completed evaluation, narrowed to the chosen policies, and the trainings by id."""

    result: EvaluationResult
    runs: results.Runs
    chosen: Chosen
    n_evaluated: int
    """Of the policies evaluated together, those not chosen included."""


def choose() -> Chosen | None:
    """Draws the choice of policies and a log and returns it; None, told in a sentence, where there is none."""
    runs = loaders.trainings(RunState.COMPLETED)
    if not runs:
        st.info("No policy is trained yet, so there is nothing to read.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return None
    titles = words.policy_titles(runs)
    left, right = st.columns([3, 2])
    chosen = links.choices("Policies, beside the baseline", titles, "policies", left)
    first = next((run for run in runs if run.id in map(run_of, chosen)), None)
    rows = {row.id: row for row in _fitting(loaders.datasets(), first)}
    if not rows:
        st.info("There is no log with the features and actions of these policies. Import or collect one.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        return None
    names = {row.id: f"{row.name} · {row.id}" for row in rows.values()}
    where = "Its test rows, or all where it has no split."
    dataset_id = links.choice("On the dataset", names, "dataset", right, help=where)
    return Chosen([BASELINE, *chosen], rows[dataset_id])


def compared() -> Comparison | None:
    """Draws the choice and returns its evaluation; until there is one, draws how to make it."""
    chosen = choose()
    if chosen is None:
        return None
    found = _evaluation_of(chosen)
    if found is None:
        _offer(chosen)
        return None
    run = follow.finished(found.id)
    if run is None:
        return None
    result = loaders.evaluation(executor.completed(loaders.workspace(), run).id)
    if result is None:
        st.info(
            "An earlier version made this comparison and measured less than is shown here: compare again."
        )
        _offer(chosen)
        return None
    _introduce(result, chosen)
    narrowed = results.narrowed(result, chosen.policies)
    return Comparison(narrowed, loaders.runs_by_id(), chosen, len(result.policies))


def choose_segment(found: Comparison, place: Any = st) -> str:
    """Draws the choice of a user segment and returns its name; empty for all users."""
    titles = {"": "all users", **{name: name for name in found.result.segments}}
    return links.choice("Among", titles, "segment", place)


def show_links(chosen: Chosen, here: str) -> None:
    """Draws links to the other pages that read the same choice."""
    with st.container(horizontal=True):
        for page, label in PAGES.items():
            if page != here:
                st.page_link(page, label=label, query_params=chosen.query)


def warn_if_synthetic(dataset: DatasetRow) -> None:
    if dataset.meta.get("synthetic"):
        st.warning(words.synthetic(dataset.meta.get("details", {}).get("env")))


def _introduce(result: EvaluationResult, chosen: Chosen) -> None:
    warn_if_synthetic(chosen.dataset)
    st.caption(
        f"{result.n_requests:,} requests, {result.n_impressions:,} impressions of {result.n_users:,} users; "
        f"split: {result.split}; intervals by {result.n_bootstrap:,} bootstrap draws over users."
    )


def _fitting(datasets: list[DatasetRow], run: RunRow | None) -> list[DatasetRow]:
    """Returns the datasets that have the features and the fusion of a training's policy; test logs first."""
    takes, own = (loaders.takes(run), run.dataset_id) if run else (None, None)
    fits = [row for row in datasets if takes is None or takes.fits_log(row)]
    return sorted(fits, key=lambda row: (row.meta["exploration"] in ("uniform", "gaussian"), row.id == own))


def _evaluation_of(chosen: Chosen) -> RunRow | None:
    """Returns the newest evaluation of these policies on this log, live or completed."""
    runs = loaders.workspace().registry.runs(kind="evaluate", dataset_id=chosen.dataset.id)
    usable = [run for run in runs if run.state is RunState.COMPLETED or not run.state.is_finished]
    return next((run for run in usable if set(chosen.policies) <= set(run.config["policies"])), None)


def _offer(chosen: Chosen) -> None:
    workspace = loaders.workspace()
    if st.button("Compare", type="primary"):
        submit_evaluate(workspace, chosen.policies, chosen.dataset.id)
        st.rerun()
    st.caption("The same on the command line")
    arguments = ("evaluate", *chosen.policies, "--on", chosen.dataset.id)
    st.code(words.command(workspace.path, *arguments), language=None, wrap_lines=True)
