"""What the critics say. Decides whether their Q can be trusted, where, and which of them stands apart."""

from functools import partial

import pandas as pd
import streamlit as st

from mtf_engine.evaluation.disagreement import Spreads
from pages.evaluate import _critic_charts
from pages.shared import action_results, comparison, glossary, links
from pages.shared.comparison import Comparison
from pages.shared.exhibit import described, exhibit, folded

OVERLAY = {"policies": "policies", "segments": "segments of one policy"}
SPREAD = {
    "count": "steps",
    "std_mean": "std over critics",
    "error": "root mean square error",
    "ci_low": "from",
    "ci_high": "to",
}
DIFFER = {"bias": "direction: above or below all", "size": "size: root mean square"}


def show_together(found: Comparison, run_id: str, spreads: action_results.Named[Spreads]) -> None:
    st.header("Together", anchor=False, help=glossary.TERMS["std over critics"])
    overlay = "policies"
    if found.result.segments:
        overlay = links.choice("Overlay", OVERLAY, "overlay")
    lines = spreads
    if overlay == "segments":
        lines = action_results.by_segment(found.result, run_id)
    profile = action_results.profile(lines)
    if profile.empty:
        st.info("These policies act as the baseline does, so no ray leaves the bounds.")
    else:
        alt = f"Standard deviation of Q over critics by distance beyond the bounds, {len(lines)} {overlay}"
        table = profile.rename(columns={"policy": "segment"}) if overlay == "segments" else profile
        exhibit(
            _critic_charts.disagreement(profile), table.drop(columns="algo"), f"disagreement {overlay}", alt
        )
        st.caption(
            "Along rays from the baseline action through the policy's own: mean, and 5 to 95 % of actions."
        )
    own = action_results.own_actions(lines)
    if overlay == "segments":
        own = own.rename(columns={"policy": "segment"})
    st.write("About the policy's own actions:")
    described(own, "own", "Disagreement about the policies' own actions")


def show_histogram(found: Comparison, run_id: str) -> None:
    """Draws the disagreement inside the bounds against that outside, of all critics or of one."""
    together = action_results.histogram(found.result, run_id, None)
    if together.empty:
        return
    st.header("Inside against outside the bounds", anchor=False, help=glossary.TERMS["std over critics"])
    (policy,) = (policy for policy in found.result.policies if policy.run_id == run_id)
    n_critics = len(policy.disagreement.pairs.levels)
    titles = {"all": "all critics together"} | {str(i): f"critic {i}" for i in range(1, n_critics + 1)}
    which = links.choice("Differences of", titles, "differences_of")
    frame = together if which == "all" else action_results.histogram(found.result, run_id, int(which) - 1)
    unit = "std of Q over critics, reward" if which == "all" else "|Q - mean of all|, reward"
    alt = f"How much {titles[which]} differ at points inside the bounds and outside, {len(frame)} bins"
    exhibit(_critic_charts.histogram(frame, unit), frame, f"disagreement of {which}", alt)
    st.caption(
        "All users together: points on rays from the baseline action through the policy's own, to four half widths."
    )


def show_each(found: Comparison, run_id: str, parts: Spreads) -> None:
    value = links.choice("Difference to the mean of all", DIFFER, "differ")
    frame = action_results.each_critic(parts)
    table = action_results.critic_table(parts, found.result.calibrations.get(run_id))
    if len(frame):
        n_critics = frame["critic"].nunique()
        alt = f"How each of {n_critics} critics differs from their mean, by distance beyond the bounds"
        exhibit(_critic_charts.each_critic(frame, value), frame, f"each critic {value}", alt)
    described(table, "critics", "How each critic differs from their mean about the policy's own actions")


def show_two(found: Comparison, run_id: str) -> None:
    (policy,) = (policy for policy in found.result.policies if policy.run_id == run_id)
    pairs = policy.disagreement.pairs
    names = {str(i): f"critic {i}" for i in range(1, len(pairs.levels) + 1)}
    least = [str(i + 1) for i in action_results.least_alike(pairs)]
    left, right = st.columns(2)
    first = links.choice("One critic", at_front(names, least[0]), "critic", left)
    second = links.choice("Another", at_front(names, least[1]), "other_critic", right)
    counts = action_results.two_critics(pairs, int(first) - 1, int(second) - 1)
    correlation = pairs.correlation[int(first) - 1][int(second) - 1]
    table = (
        counts.rename_axis(index=names[first], columns=f"{names[second]} ").stack().dropna().rename("actions")
    )
    alt = f"Q of {names[first]} against Q of {names[second]}, number of actions"
    figure = _critic_charts.two_critics(counts, (names[first], names[second]))
    exhibit(figure, table.reset_index(), f"critics {first} and {second}", alt)
    told = "cannot be told" if correlation is None else f"is {correlation:.3f}"
    st.caption(f"All users together. The correlation of the two {told}; at first the least alike are chosen.")


def at_front(names: dict[str, str], key: str) -> dict[str, str]:
    """Returns `names` with `key` as the one that is chosen first."""
    return {key: names[key], **names}


def show_calibration(found: Comparison, run_id: str) -> None:
    calibration = found.result.calibrations.get(run_id)
    if calibration is None:
        st.info("The log that this policy was trained on is deleted, or keeps no users for validation.")
        return
    frame = action_results.calibration_bins(calibration)
    alt = f"Mean return of logged steps against the critics' mean Q, in {len(frame)} bins, with intervals"
    exhibit(_critic_charts.calibration(frame), frame, f"calibration {run_id}", alt)
    correlation = "-" if calibration.correlation is None else f"{calibration.correlation:.3f}"
    st.caption(
        f"{calibration.n_steps:,} steps of {calibration.n_sessions:,} sessions of {calibration.dataset_id}, "
        f"its {calibration.split} users, on whom the critics were not trained; gamma {calibration.gamma:g}; "
        f"intervals by bootstrap over sessions. Mean Q {calibration.q_mean:.3g}, mean return "
        f"{calibration.return_mean:.3f}, correlation {correlation}. Q is of going on with the learned "
        "policy, the return of how the log went on: of a better policy Q should lie above."
    )
    if not calibration.by_disagreement:
        return
    st.write("How far off they were where they differ little, and where much:")
    spread = pd.DataFrame(one.model_dump() for one in calibration.by_disagreement)
    described(spread.rename(columns=SPREAD), "off", "Error of the mean Q by the disagreement of the critics")
    found = "-" if calibration.rank_correlation is None else f"{calibration.rank_correlation:.3f}"
    st.caption(
        f"Rank correlation of disagreement and error {found}. The error holds the luck of single sessions too, so it "
        "lies above the disagreement; what tells is whether it rises with it."
    )


def show(found: Comparison) -> None:
    """Draws the tab."""
    everyone = action_results.spreads(found.result, "", found.runs)
    titles = {run_id: name["policy"] for run_id, (name, _) in everyone.items()}
    if not titles:
        st.info(
            "None of these policies has an ensemble of critics, or no bounds are known; "
            "choose one trained by a method with several critics."
        )
        return
    left, right = st.columns(2)
    run_id = links.choice("Critics of", titles, "critics_of", left)
    segment = comparison.choose_segment(found, right)
    spreads = action_results.spreads(found.result, segment, found.runs)
    show_together(found, run_id, spreads)
    show_histogram(found, run_id)
    folded("Each critic", partial(show_each, found, run_id, spreads[run_id][1]), glossary.TERMS["bias"])
    folded("Two critics", partial(show_two, found, run_id), "Q of both about the same actions of the policy.")
    folded("Against the log", partial(show_calibration, found, run_id), glossary.TERMS["mean return"])
