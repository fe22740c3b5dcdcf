"""The comparison that the pages of a section read: policies and a log are chosen, and evaluated by a job."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import streamlit as st

from mtf_engine.evaluation import EvaluationResult
from mtf_engine.evaluation.agreement import Agreement
from mtf_engine.evaluation.off_policy import OffPolicySettings
from mtf_engine.exploration.policies import EXPLORED
from mtf_engine.permissions import Action
from mtf_engine.policies.fixed import fixed_fits
from mtf_engine.questions.scoreboard import logs_behind
from mtf_engine.registry import BASELINE, REGRESSION, DatasetRow, RunRow, RunState, is_fixed, run_of
from mtf_engine.runs import executor
from mtf_engine.spec import FusionSpec
from mtf_engine.work.evaluate import submit_evaluate
from pages.shared import access, follow, links, loaders, places, processes, results, words

FIRST = 6
"""Policies that are compared at first, at most."""


class Chosen(NamedTuple):
    """The policies, the baseline first, and the log they are compared on."""

    policies: list[str]
    dataset: DatasetRow


class Comparison(NamedTuple):
    """A completed evaluation, narrowed to the chosen policies, and the trainings by id."""

    result: EvaluationResult
    runs: results.Runs
    chosen: Chosen
    n_evaluated: int
    """Of the policies evaluated together, those not chosen included."""


def choose_policies(place: Any = st) -> list[str] | None:
    """Draws the choice of policies and returns it; None, told in a sentence, where none is trained.

    At first the newest trainings that were explored around one baseline, six at most.
    """
    runs = loaders.trainings(RunState.COMPLETED)
    if not runs:
        st.info("No policy is trained yet, so there is nothing to read.")
        st.page_link(places.START, label="Start a training →")
        return None
    first = [run.id for run in _alike(runs)[:FIRST]]
    titles = words.policy_titles(runs, loaders.runs_by_id())
    asked = links.wanted("policies")
    there = [policy for policy in asked or () if policy in titles or is_fixed(policy)]
    titles |= fixed(there if there or asked == [] else first)
    return links.choices("Policies, beside the baseline", titles, "policies", place, first)


def fixed(beside: Sequence[str] = ()) -> dict[str, str]:
    """Returns the title of each prediction alone, what fusion has to beat, by the policy that ranks by it.

    Those that all trainings among the policies `beside` take; without any, those of all logs. The policies among them
    that have weights of their own are there too, but not `regression`, a floor of all.
    """
    heads = [_heads(takes.fusion) for takes in _taken(beside)]
    if heads:
        offered = [head for head in heads[0] if all(head in others for others in heads)]
    else:
        offered = [head for row in loaders.datasets() for head in _heads(_fusion(row))]
    own = [policy for policy in beside if is_fixed(policy) and policy != REGRESSION]
    return {policy: words.policy_title(policy, {}) for policy in (*offered, *own)}


def fitting(policies: Sequence[str]) -> list[DatasetRow]:
    """Returns the logs that have what all `policies` take: features, predictions and dimensions."""
    taken = _taken(policies)
    own = [policy for policy in policies if is_fixed(policy) and policy != REGRESSION]
    return [
        row
        for row in loaders.datasets()
        if all(takes.fits_log(row) for takes in taken)
        and all(fixed_fits(policy, _fusion(row)) for policy in own)
    ]


def _taken(policies: Sequence[str]) -> list[loaders.Takes]:
    """Returns what those of `policies` take that are of a training, where its file is there."""
    runs = loaders.runs_by_id()
    trained = [runs[run_of(policy)] for policy in policies if run_of(policy) in runs]
    return [takes for run in trained if (takes := loaders.takes(run))]


def _heads(fusion: FusionSpec) -> list[str]:
    return [words.HEAD + d.prediction for d in fusion.dimensions if d.kind == "pow"]


def _fusion(row: DatasetRow) -> FusionSpec:
    return FusionSpec.model_validate(row.meta["fusion"])


def _alike(runs: list[RunRow]) -> list[RunRow]:
    """Returns the trainings whose logs were explored around the baseline of the newest one's log, newest first.

    Parts of comparisons and rounds only where there are no others.
    """
    baselines = {row.id: row.meta.get("baseline") for row in loaders.datasets()}
    own = [run for run in runs if run.parent_id is None] or runs
    return [
        run
        for run in own
        if baselines.get(str(run.dataset_id)) == baselines.get(str(own[0].dataset_id))
        and loaders.takes(run) == loaders.takes(own[0])
    ]


def choose_log(policies: list[str], linked: bool, place: Any = st) -> DatasetRow | None:
    """Draws the choice of a log to score policies on and returns it; None where no log fits them all.

    At first the newest one that none of them was trained on, without exploration if there is such a one; it follows
    the policies, unless these are `linked`, as the log then is.
    """
    runs = loaders.runs_by_id()
    trained = [runs[run_of(policy)] for policy in policies if run_of(policy) in runs]
    learned_from = set[str]().union(*(logs_behind(loaders.workspace(), run) for run in trained))
    found = fitting(policies)
    found.sort(key=lambda row: (row.id in learned_from, row.meta["exploration"] in EXPLORED))
    rows = {row.id: row for row in found}
    if not rows:
        return None
    names = {row.id: f"{row.name} · {row.id}" for row in rows.values()}
    where = "Its test rows, or all where it has no split. At first the newest log that none of these was trained on."
    row = rows[links.choice("Scored on", names, "on", place, follows_first=not linked, help=where)]
    if row.id in learned_from:
        place.caption(
            "Some of these policies learned from it: where it has no test rows, that flatters them."
        )
    return row


def compared(policies: list[str], dataset: DatasetRow) -> Comparison | None:
    """Returns the evaluation of the baseline and `policies` on a log; until there is one, draws how to make it."""
    chosen = Chosen([BASELINE, *policies], dataset)
    found = evaluation_of(chosen)
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
    _show_floors(result, chosen, asked=run.config.get("floors", False))
    narrowed = results.narrowed(result, list(dict.fromkeys((*chosen.policies, *result.floors))))
    return Comparison(narrowed, loaders.runs_by_id(), chosen, len(result.policies))


def choose_segment(found: Comparison, place: Any = st) -> str:
    """Draws the choice of a user segment and returns its name; empty for all users."""
    titles = {"": "all users", **{name: name for name in found.result.segments}}
    return links.choice("Among", titles, "segment", place)


def show_agreement(beside: Agreement) -> None:
    """Says whether weighted GAUC and the A/B test order policies alike; where they do not, with the way to why."""
    st.markdown(beside.sentence)
    if beside.alike < beside.pairs:
        _why_they_may()


def explain_disagreement(sentence: str) -> None:
    """Draws the warning that weighted GAUC and the A/B test disagree, with the way to why."""
    st.warning(f"{sentence} Weighted GAUC is about a log, the A/B test about users: trust the A/B test.")
    _why_they_may()


def _why_they_may() -> None:
    st.page_link("pages/about/synthetic.py", label="Why they may disagree →")


def warn_if_synthetic(dataset: DatasetRow) -> None:
    if dataset.meta.get("synthetic"):
        st.warning(words.synthetic(dataset.meta.get("details", {}).get("env")))


def _introduce(result: EvaluationResult, chosen: Chosen) -> None:
    warn_if_synthetic(chosen.dataset)
    st.caption(
        f"{result.n_requests:,} requests, {result.n_impressions:,} impressions of {result.n_users:,} users; "
        f"split: {result.split}; intervals by {result.n_bootstrap:,} bootstrap draws over users."
    )


def _show_floors(result: EvaluationResult, chosen: Chosen, asked: bool) -> None:
    """Says what the floors are; where there are none, why, or how to have them."""
    if result.floors_from:
        st.caption(
            "Floors, which fusion has to beat: the best single head, which is one prediction alone, and weights by a "
            f"regression of the label on all predictions, both on training rows of {words.plain(result.floors_from)}."
        )
    elif asked:
        st.caption("There are no floors: neither this log nor that of the first policy has training rows.")
    elif access.button(Action.EVALUATE, "Compare again, with floors"):
        submit_evaluate(loaders.workspace(), chosen.policies, chosen.dataset.id)
        st.rerun()


def evaluation_of(chosen: Chosen, off_policy: OffPolicySettings | None = None) -> RunRow | None:
    """Returns the newest evaluation of these policies on this log, live or completed; one `off_policy` so, if asked."""
    runs = loaders.workspace().registry.runs(kind="evaluate", dataset_id=chosen.dataset.id)
    usable = [run for run in runs if run.state is RunState.COMPLETED or not run.state.is_finished]
    if off_policy:
        asked = {"tau": off_policy.tau, "min_ess": off_policy.min_ess}.items()
        usable = [run for run in usable if asked <= (run.config.get("off_policy") or {}).items()]
    return next((run for run in usable if set(chosen.policies) <= set(run.config["policies"])), None)


def _offer(chosen: Chosen) -> None:
    workspace = loaders.workspace()
    n_workers = processes.choose(st.columns([1, 3])[0])
    if access.button(Action.EVALUATE, "Compare", type="primary"):
        submit_evaluate(workspace, chosen.policies, chosen.dataset.id, n_workers=n_workers)
        st.rerun()
    st.caption("The same on the command line")
    arguments = ("evaluate", *chosen.policies, "--on", chosen.dataset.id, *processes.option(n_workers))
    st.code(words.command(workspace.path, *arguments), language=None, wrap_lines=True)
