"""Export a policy: the bundle that a server loads. Decides whether that bundle can be trusted."""

import pandas as pd
import streamlit as st

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor
from mtf_engine.work.export import bundle_path, submit_export
from pages.shared import follow, links, loaders, words


def newest_export(run_id: str) -> RunRow | None:
    """Returns the newest export of a training that is live or completed."""
    runs = loaders.workspace().registry.runs(kind="export")
    usable = [run for run in runs if run.state is RunState.COMPLETED or not run.state.is_finished]
    return next((run for run in usable if run.config["run_id"] == run_id), None)


def choose(runs: list[RunRow]) -> str:
    which = (
        "Of each training the last step and, where it is another, the one that ranked validation users best."
    )
    return links.choice("Policy", words.policy_titles(runs), "run", help=which)


def show_bundle(run: RunRow) -> None:
    """Draws the bundle's check and its download."""
    path = bundle_path(loaders.workspace(), run.id)
    checked = loaders.verified(str(path))
    if checked["ok"]:
        st.success(
            "Verified with numpy and onnxruntime alone: the bundle answers as the policy does, "
            f"largest difference {checked['max_abs_diff']:.1e}."
        )
    else:
        st.error(
            f"The bundle answers otherwise than the policy, largest difference {checked['max_abs_diff']:.1e}."
        )
    st.download_button(
        f"Download policy.zip ({path.stat().st_size / 1024:,.0f} KB)",
        path.read_bytes,
        f"{run.config['run_id']}.zip",
        "application/zip",
        type="primary",
        on_click="ignore",
        disabled=not checked["ok"],
    )
    st.header("What is in it", anchor=False)
    contents = {
        "policy.onnx": "observation → action",
        "scores.onnx": "observation and predictions of N candidates → log final scores",
        "policy.safetensors": "the weights",
        "manifest.json": "features and their order, fusion, bounds, origin, scores, whether it was approved",
        "golden.npz": "inputs and answers that a server can check itself against",
    }
    table = pd.DataFrame({"File": contents.keys(), "Holds": contents.values()})
    st.dataframe(table, hide_index=True, alt="Files of the bundle")
    with st.expander("Manifest"):
        st.json(run.result or {})


def main() -> None:
    st.title("Export a policy", anchor=False)
    st.caption(
        "One zip that a server loads; it is marked as approved where the team has made its policy live."
    )
    runs = loaders.trainings(RunState.COMPLETED)
    if not runs:
        st.info("No policy is trained yet, so there is nothing to export.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    run_id = choose(runs)
    workspace = loaders.workspace()
    found = newest_export(run_id)
    label = "Export" if found is None else "Export again"
    if st.button(label, type="primary" if found is None else "secondary"):
        with follow.refusals():
            submit_export(workspace, run_id)
            st.rerun()
    if found and (run := follow.finished(found.id)):
        show_bundle(executor.completed(workspace, run))
    st.caption("The same on the command line")
    st.code(
        words.command(workspace.path, "export", run_id, "--to", f"{run_id}.zip"),
        language=None,
        wrap_lines=True,
    )


main()
