"""An export in MLflow: logged to the team's tracking server. Decides whether it can be followed there too."""

import os

import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.registry import RunRow, RunState
from mtf_engine.work.mlflow import MODEL, TRACKING_URI, submit_mlflow
from pages.shared import access, follow, loaders, words


def show(exported: RunRow) -> None:
    """Draws the form that logs a completed export to an MLflow server, and what came of it."""
    st.header("In MLflow", anchor=False)
    st.caption(
        "Settings, metrics, memo, card and bundle go to your tracking server, the model with its signature into its "
        "registry: under the alias live or candidate where the policy is that here."
    )
    logged = loaders.workspace().registry.runs(kind="mlflow")
    first = logged[0].config if logged else {"tracking_uri": os.environ.get(TRACKING_URI, ""), "model": MODEL}
    left, right = st.columns(2)
    server = left.text_input(
        "Tracking server",
        first["tracking_uri"],
        key="mlflow_server",
        placeholder="http://mlflow.example.org:5000",
    )
    model = right.text_input("Experiment and registered model", first["model"], key="mlflow_model")
    if access.button(Action.EXPORT, "Log to MLflow"):
        with follow.refusals():
            submit_mlflow(loaders.workspace(), exported.id, server, model)
            st.rerun()
    mine = next((run for run in logged if run.config["export_id"] == exported.id), None)
    if mine and (run := follow.finished(mine.id)):
        _show_logged(run)
    command = words.command(
        loaders.workspace().path,
        *("export", exported.config["run_id"], "--to", "mlflow"),
        *("--tracking-uri", server or "URL", "--model", model),
    )
    st.code(command, language=None, wrap_lines=True)


def _show_logged(run: RunRow) -> None:
    if run.state is not RunState.COMPLETED:
        follow.show_error(run)
        return
    told = run.result or {}
    named = f", alias {told['alias']}" if told["alias"] else ""
    st.success(words.plain(f"Logged to MLflow: {told['model']} version {told['version']}{named}."))
    st.link_button("Open in MLflow", told["url"])
