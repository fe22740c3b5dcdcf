"""Export a policy: the bundle that a server loads. Decides whether that bundle can be trusted."""

import shlex
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.policies.bundle import MANIFEST
from mtf_engine.policies.bundle_readme import SCORER, bundle_readme, serving_lines
from mtf_engine.registry import DEFAULT, REGRESSION, DatasetRow, RunRow, RunState, is_fixed, run_of
from mtf_engine.release.card import card
from mtf_engine.release.review import approval
from mtf_engine.runs import executor, keeping
from mtf_engine.spec import BoundsPlan
from mtf_engine.work.export import read_bundle, submit_export
from mtf_engine.work.import_policy import submit_import_policy
from pages.release import _mlflow
from pages.shared import access, comparison, follow, links, loaders, places, words

UNBOUND = "*unbound"
PURPOSES = {"test": "tests and staging", "live": "live use, which asks for an approved policy"}


class Held(NamedTuple):
    """Bounds that served actions are held in, and the log that the policy is scored on so."""

    plan: BoundsPlan | None = None
    dataset_id: str | None = None
    options: tuple[str, ...] = ()


def newest_export(run_id: str, held: Held, purpose: str, approved: bool) -> RunRow | None:
    """Returns the newest export of a training for a purpose, held in these bounds, as it is approved today."""
    clip = held.plan and held.plan.model_dump(mode="json")
    for run in loaders.workspace().registry.runs(kind="export"):
        same = run.config["run_id"], run.config.get("clip"), run.config.get("purpose", "test")
        same_log = held.dataset_id in (None, run.config["on"])
        told = (run.result or {}).get("manifest", {}).get("approved", approved)
        if same == (run_id, clip, purpose) and same_log and told == approved:
            return run
    return None


def logs_for(policy: str) -> list[DatasetRow]:
    """Returns the logs that a policy which is no run can be exported for: `regression` where it has rows to learn."""
    return [
        row for row in comparison.fitting([policy]) if policy != REGRESSION or loaders.has_training_rows(row)
    ]


def choose_log(policy: str) -> Held:
    """Draws the choice of the log that a policy which is no run is exported for."""
    logs = {row.id: f"{row.name} · {row.n_requests:,} requests · {row.id}" for row in logs_for(policy)}
    if not logs:
        st.info("There is no log with the predictions of this policy. Import or collect one.")
        st.stop()
    on = links.choice("For logs like", logs, "on")
    return Held(None, on, ("--on", on))


def choose_bounds(run_id: str) -> Held:
    """Draws a choice of stored plans to hold the policy in; where one is chosen, of the log to score it on."""
    registry = loaders.workspace().registry
    takes = loaders.takes(registry.run(run_of(run_id)))
    if takes is None:
        return Held()
    like = {row.id: row for row in loaders.datasets() if takes.fits_log(row)}
    plans = {
        row.name: row.plan
        for row in registry.plans()
        if not row.plan.segments and row.plan.n_actions == takes.fusion.n_actions
    }
    if not plans or not like:
        return Held()
    left, right = st.columns(2)
    titles = {UNBOUND: "nothing: served as it was trained"} | {name: f"the plan {name}" for name in plans}
    why = (
        "What is served is cut to the bounds around the policy it was explored around. That is another policy, "
        "so it is scored anew on the log beside this."
    )
    name = links.choice("Hold what is served inside", titles, "clip", left, help=why)
    if name == UNBOUND:
        return Held()
    logs = {id: f"{row.name} · {row.n_requests:,} requests · {id}" for id, row in like.items()}
    on = links.choice("Scored on", logs, "on", right)
    return Held(plans[name], on, ("--clip", name, "--on", on))


def show_score(run: RunRow) -> None:
    """Draws what a policy held in bounds is worth against itself unbound."""
    for score in (run.result or {})["manifest"]["evaluation"]["evaluations"]:
        against = score.get("minus_unbound")
        if against and against["value"] is None:
            st.write(
                f"No user of {score['dataset_id']} has both classes, so there is no weighted GAUC of it."
            )
        elif against:
            ends = [figure for figure in (against["ci_low"], against["ci_high"]) if figure is not None]
            between = f" (95 % between {' and '.join(f'{end:+.4f}' for end in ends)})" if ends else ""
            st.write(
                f"Held in these bounds it has a weighted GAUC of {score['weighted_gauc']:.4f} on "
                f"{score['dataset_id']}, {against['value']:+.4f}{between} against itself without them."
            )


def choose(runs: list[RunRow]) -> str:
    which = (
        "Of each training the last step and, where it is another, the one that ranked validation users best."
    )
    learned = {REGRESSION: words.policy_title(REGRESSION, {})} if logs_for(REGRESSION) else {}
    own = comparison.fixed() | learned | {DEFAULT: "the middle of every range"}
    titles = words.policy_titles(runs, loaders.runs_by_id()) | own
    return links.choice("Policy", titles, "run", help=which)


def show_bundle(run: RunRow) -> None:
    """Draws the bundle's check and its download."""
    bundle = read_bundle(loaders.workspace(), run.id)
    checked = loaders.verified(bundle)
    if checked["ok"]:
        st.success(
            "Verified with numpy and onnxruntime alone: the bundle answers as the policy does, "
            f"largest difference {checked['max_abs_diff']:.1e}."
        )
    else:
        st.error(
            f"The bundle answers otherwise than the policy, largest difference {checked['max_abs_diff']:.1e}."
        )
    name = f"{run.config['run_id'].replace(':', '-')}.zip"
    access.download_button(
        f"Download policy.zip ({len(bundle) / 1024:,.0f} KB)",
        bundle,
        name,
        "application/zip",
        type="primary",
        on_click="ignore",
        disabled=not checked["ok"],
    )
    for sentence in (run.result or {}).get("warnings", ()):
        st.warning(f"Mind that {words.plain(sentence)}.")
    access.download_button(
        "Download card.md",
        card(loaders.workspace(), run.config["run_id"], (run.result or {})["manifest"]),
        "card.md",
        "text/markdown",
        on_click="ignore",
    )
    show_score(run)
    _mlflow.show(run)
    st.header("What is in it", anchor=False)
    contents = {
        "policy.onnx": "observation → action",
        "scores.onnx": "observation and predictions of N candidates → log final scores",
        "policy.safetensors": "the weights",
        MANIFEST: "features and their order, fusion, bounds, origin, scores, whether it was approved",
        "golden.npz": "inputs and answers that a server can check itself against",
    }
    held = {MANIFEST, *(run.result or {})["manifest"]["sha256"]}
    table = pd.DataFrame([pair for pair in contents.items() if pair[0] in held], columns=["File", "Holds"])
    st.dataframe(table, placeholder="", hide_index=True, alt="Files of the bundle")
    show_serving((run.result or {})["manifest"], name)
    with st.expander("Manifest"):
        st.json(run.result or {})


def show_serving(manifest: dict[str, Any], name: str) -> None:
    """Draws how a server loads the bundle in the file `name`, and what to read beside it."""
    st.header("Serve it", anchor=False)
    st.code(serving_lines(manifest, name), language="python", wrap_lines=True)
    alone = "item_features" not in manifest["inputs"]  # weights for each item are served by the graphs
    if alone:
        st.caption("For tests and staging, by HTTP (docs/serving.md):")
        st.code(f"mtf serve {shlex.quote(name)}", language=None, wrap_lines=True)
    left, right = st.columns(2)
    readme = f"{name.removesuffix('.zip')}.md"
    access.download_button(
        "Download its README",
        bundle_readme(manifest, name),
        readme,
        "text/markdown",
        place=left,
        on_click="ignore",
    )
    if alone:
        access.download_button(
            f"Download {SCORER.name} (numpy alone)",
            SCORER.read_text(),
            SCORER.name,
            "text/x-python",
            place=right,
            on_click="ignore",
        )


def offer_import(opened: bool) -> None:
    """Draws the way in for a policy of another machine, which is a candidate or a baseline from then on."""
    with st.expander("Import a policy from a bundle", expanded=opened):
        st.caption(
            "A bundle that was exported on another machine. It is checked whole before anything is kept: its weights "
            "must answer as its graphs do, and nothing in it is unpacked here."
        )
        upload = st.file_uploader("Bundle", "zip", key="policy_bundle")
        name = st.text_input(
            "Name", key="policy_name", placeholder="that of its file", max_chars=keeping.LONGEST_NAME
        )
        if access.button(Action.IMPORT_POLICY, "Import the policy", disabled=upload is None) and upload:
            with follow.refusals():
                submitted = submit_import_policy(
                    loaders.workspace(), upload.getvalue(), upload.name, name or None
                )
                st.session_state["imported_policy"] = submitted
        if (imported := st.session_state.get("imported_policy")) and (run := follow.finished(imported)):
            with follow.refusals():
                executor.completed(loaders.workspace(), run)
                st.success(f"Imported as {words.plain(run.name)} ({run.id}).")
                st.page_link(places.POLICIES, label="Compare it →", query_params={"policies": run.id})
        st.caption("The same on the command line")
        called = upload.name if upload else "policy.zip"
        asked = ("--name", name) if name else ()
        command = words.command(loaders.workspace().path, "import-policy", called, *asked)
        st.code(command, language=None, wrap_lines=True)


def main() -> None:
    st.title("Export a policy", anchor=False)
    st.caption(
        "One zip that a server loads; it is marked as approved where the team has made its policy live."
    )
    runs = loaders.trainings(RunState.COMPLETED)
    offer_import(opened=not runs)
    if not runs:
        st.info("No policy is trained yet, so there is nothing to export.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    run_id = choose(runs)
    held = choose_log(run_id) if is_fixed(run_id) else choose_bounds(run_id)
    purpose = links.choice("For", PURPOSES, "for")
    workspace = loaders.workspace()
    approved = held.plan is None and approval(workspace, run_id) is not None
    found = newest_export(run_id, held, purpose, approved)
    told = False
    if purpose == "live" and not approved:
        st.warning(
            "Nobody has approved this for live use: review its round, and make it live as it is served."
        )
        told = st.checkbox("Export it for live use all the same.", key=f"unapproved {run_id}")
    meant = purpose == "test" or approved or told
    label = "Export" if found is None else "Export again"
    if access.button(
        Action.EXPORT, label, type="primary" if found is None else "secondary", disabled=not meant
    ):
        with follow.refusals():
            submit_export(workspace, run_id, held.dataset_id, held.plan, purpose, unapproved=told)
            st.rerun()
    if found and meant and (run := follow.finished(found.id)):
        with follow.refusals():
            show_bundle(executor.completed(workspace, run))
    st.caption("The same on the command line")
    asked = (*held.options, "--for", purpose, *(("--unapproved",) if told else ()))
    command = words.command(
        workspace.path, "export", run_id, "--to", f"{run_id.replace(':', '-')}.zip", *asked
    )
    st.code(command, language=None, wrap_lines=True)


main()
