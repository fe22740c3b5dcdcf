"""The choice that drift and wall pressure start from: a trained policy, and a log on which it acts."""

from typing import NamedTuple

import streamlit as st

from mtf_engine.registry import DatasetRow, RunRow, RunState
from pages.shared import links, loaders, words


class Acting(NamedTuple):
    """A completed training, and the log that its policy acts on."""

    run: RunRow
    dataset: DatasetRow

    @property
    def text(self) -> str:
        """What a plan made from it says about where it comes from."""
        return f"{self.run.name} ({self.run.id}) on {self.dataset.name}"


def choose() -> Acting | None:
    """Draws the choice and returns it; None, told in a sentence, where no policy is trained."""
    runs = {run.id: run for run in loaders.trainings(RunState.COMPLETED)}
    if not runs:
        st.info("No policy is trained yet, so there are no learned actions to draw bounds from.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return None
    left, right = st.columns(2)
    run = runs[links.choice("Policy", {i: words.run_title(r) for i, r in runs.items()}, "run", left)]
    rows = {row.id: row for row in _logs_for(run, loaders.datasets())}
    if not rows:
        st.info("There is no log with the features and actions of this policy. Import or collect one.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        return None
    titles = {i: f"{row.name} · {row.n_requests:,} requests · {i}" for i, row in rows.items()}
    why = "The policy acts on a sample of this log's requests; the log's baseline actions are compared with."
    return Acting(run, rows[links.choice("On the log", titles, "dataset", right, help=why)])


def _logs_for(run: RunRow, rows: list[DatasetRow]) -> list[DatasetRow]:
    """Returns the logs with the features and actions of a training's policy; the one it learned from first."""
    takes = loaders.takes(run)
    fits = [row for row in rows if takes is None or takes.fits_log(row)]
    return sorted(fits, key=lambda row: row.id != run.dataset_id)
