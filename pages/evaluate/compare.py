"""Compare policies on a log. Decides which policy is better, and by how much one can know it."""

import streamlit as st

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.jobs import executor, submissions
from mtf_engine.registry import BASELINE, DatasetRow, RunRow, RunState
from pages.shared import charts, follow, links, loaders, results, words
from pages.shared.exhibit import exhibit

GROUPS = {"user": "by user (the paper's)", "request": "by request"}
GAUC_HELP = (
    "AUC of the final score within each group, label: watched longer than the valid time, sample weight: "
    "reward + 1; averaged by the groups' total weight. Groups with one class are left out."
)


def fitting(datasets: list[DatasetRow], run: RunRow | None) -> list[DatasetRow]:
    """Returns the datasets that have the features and the fusion of a training's own; test logs first."""
    by_id = {row.id: row for row in datasets}
    own = by_id.get(run.dataset_id) if run else None
    keys = ("feature_names", "fusion")
    fits = [row for row in datasets if own is None or all(row.meta[k] == own.meta[k] for k in keys)]
    return sorted(fits, key=lambda row: (row.meta["exploration"] in ("uniform", "gaussian"), row is own))


def choose(runs: list[RunRow]) -> tuple[list[str], DatasetRow]:
    """Returns the policies chosen, the baseline first, and the dataset to compare them on."""
    titles = {run.id: words.policy_title(run.id, {run.id: run}) for run in runs}
    left, right = st.columns([3, 2])
    chosen = links.choices("Policies, beside the baseline", titles, "policies", left)
    first = next((run for run in runs if run.id in chosen), None)
    rows = {row.id: row for row in fitting(loaders.datasets(), first)}
    names = {row.id: f"{row.name} · {row.id}" for row in rows.values()}
    where = "Its test rows, or all where it has no split."
    dataset_id = links.choice("On the dataset", names, "dataset", right, help=where)
    return [BASELINE, *chosen], rows[dataset_id]


def evaluation_of(policies: list[str], dataset_id: str) -> RunRow | None:
    """Returns the newest evaluation of these policies on this dataset, live or completed."""
    runs = loaders.workspace().registry.runs(kind="evaluate", dataset_id=dataset_id)
    usable = [run for run in runs if run.state is RunState.COMPLETED or not run.state.is_finished]
    return next((run for run in usable if set(policies) <= set(run.config["policies"])), None)


def show_scores(result: EvaluationResult, runs: results.Runs) -> None:
    st.header("Weighted GAUC", anchor=False, help=GAUC_HELP)
    for column, (group, title) in zip(st.columns(2), GROUPS.items(), strict=True):
        frame = results.scores(result, group, runs)
        with column:
            st.subheader(title, anchor=False)
            best = frame.loc[frame["value"].idxmax(), "label"] if frame["value"].notna().any() else "none"
            alt = f"Weighted GAUC {title} of {len(frame)} policies with 95 % intervals; highest: {best}"
            exhibit(
                charts.intervals(frame, "weighted GAUC, 95 % interval"), frame, f"weighted GAUC {group}", alt
            )
            used, left_out = frame[f"{group}s_used"].iloc[0], frame[f"{group}s_left_out"].iloc[0]
            st.caption(f"{used:,} {group}s used, {left_out:,} with one class left out.")


def show_differences(result: EvaluationResult, runs: results.Runs) -> None:
    st.header("Differences", anchor=False, help="Paired: both policies are resampled with the same users.")
    ids = sorted((policy.run_id for policy in result.policies), key=lambda i: i != BASELINE)
    base = st.selectbox(
        "Of each policy, against", ids, format_func=lambda i: words.policy_title(i, runs), key="base"
    )
    for column, (group, title) in zip(st.columns(2), GROUPS.items(), strict=True):
        frame = results.differences(result, group, base, runs)
        with column:
            st.subheader(title, anchor=False)
            alt = f"Paired differences of weighted GAUC {title} with 95 % intervals"
            figure = charts.intervals(
                frame, "difference of weighted GAUC, 95 % interval", zero="no difference"
            )
            exhibit(figure, frame, f"difference {group}", alt)


def show_deviation(result: EvaluationResult, runs: results.Runs) -> None:
    st.header("Deviation from the baseline action", anchor=False)
    left, right = st.columns(2)
    ids = [policy.run_id for policy in result.policies if policy.run_id != BASELINE]
    run_id = left.selectbox(
        "Policy", ids, format_func=lambda i: words.policy_title(i, runs), key="deviation_of"
    )
    view = right.segmented_control(
        "Show", ["Size (the paper's Fig. 2)", "Direction"], default="Size (the paper's Fig. 2)", required=True
    )
    bins = results.deviation_bins(result, run_id, signed=view == "Direction")
    bounds = results.bounds_of(result, run_id)
    figure = charts.deviation(bins, bounds, signed=view == "Direction")
    alt = f"Histograms of the deviation of {words.policy_title(run_id, runs)} per dimension, with the bounds"
    exhibit(figure, results.deviation_table(result, run_id), f"deviation {run_id}", alt)
    if bounds is None:
        st.caption("The log has no bounds, and the policy was trained without any.")
    else:
        st.caption("Dashed: the bounds (median over requests). The second colour: actions beyond them.")


def show_disagreement(result: EvaluationResult, runs: results.Runs) -> None:
    st.header("Disagreement of the critics", anchor=False)
    profile = results.disagreement_profile(result, runs)
    if profile.empty:
        st.info("None of these policies has an ensemble of critics, or no bounds are known.")
        return
    alt = "Standard deviation of Q over the critics against the distance beyond the bounds, per policy"
    exhibit(charts.disagreement(profile), profile, "disagreement", alt)
    st.caption(
        "Along rays from the baseline action through the policy's: mean, and a band from 5 to 95 % of them."
    )
    st.write("About the policy's own actions:")
    st.dataframe(
        results.own_disagreement(result, runs), hide_index=True, alt="Disagreement about own actions"
    )


def show(run: RunRow, policies: list[str]) -> None:
    runs = {row.id: row for row in loaders.trainings()}
    result = loaders.evaluation(run.id, tuple(policies))
    dataset = loaders.workspace().dataset(run.config["dataset_id"])
    if dataset.meta.get("synthetic"):
        st.warning("Synthetic: these users and their feedback are simulated.")
    st.caption(
        f"{result.n_requests:,} requests, {result.n_impressions:,} impressions of {result.n_users:,} users; "
        f"split: {result.split}; intervals by {result.n_bootstrap:,} bootstrap draws over users."
    )
    show_scores(result, runs)
    if len(result.policies) > 1:
        show_differences(result, runs)
        show_deviation(result, runs)
        show_disagreement(result, runs)


def main() -> None:
    st.title("Compare policies", anchor=False)
    st.caption("Decides which policy is better on a log, and how sure one can be of it.")
    runs = loaders.trainings(RunState.COMPLETED)
    if not runs:
        st.info("No policy is trained yet, so there is nothing to compare.")
        st.page_link("pages/train/start.py", label="Start a training →")
        return
    policies, dataset = choose(runs)
    found = evaluation_of(policies, dataset.id)
    if found is None:
        if st.button("Compare", type="primary"):
            submissions.submit_evaluate(loaders.workspace(), policies, dataset.id)
            st.rerun()
        st.caption("The same on the command line")
        arguments = ("evaluate", *policies, "--on", dataset.id)
        st.code(words.command(loaders.workspace().path, *arguments), language="bash", wrap_lines=True)
    elif run := follow.finished(found.id):
        show(executor.completed(loaders.workspace(), run), policies)


main()
