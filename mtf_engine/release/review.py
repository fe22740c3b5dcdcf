"""Review: what is known of a round's candidate, what the rule recommends, and what people decide.

A decision is an entry in the ledger, which is only ever appended to; going back is a decision too.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from mtf_engine.permissions import Action
from mtf_engine.registry import BASELINE, DecisionRow, RunRow, now, run_of
from mtf_engine.release.criteria import TESTED, Criteria, Guardrail, Metric
from mtf_engine.release.rounds import Estimate, Round, reward_effect
from mtf_engine.spec import Refusal, Spec
from mtf_engine.workspace import Workspace

Recommendation = Literal["promote", "discuss", "do not"]
Choice = Literal["promote", "reject"]
RULE = (
    "Do not promote where the 95 % interval of the primary metric's gain lies below 0 or a guardrail is broken. "
    "Promote where the interval lies above 0, every guardrail holds, and the gain is over what is live. "
    "Discuss everything else."
)


class Finding(Spec):
    """A guardrail, and the figure held against it; both None where the figure is not known."""

    guardrail: Guardrail
    value: float | None
    holds: bool | None


class Case(Spec):
    """All that is known of a candidate when it is reviewed; it needs nothing else to be read later."""

    run_id: str
    run_name: str
    env: str
    algo: str
    config: dict[str, Any]
    dataset_hash: str | None
    criteria: Criteria
    round: Round
    live: str
    gain: Estimate
    findings: tuple[Finding, ...]
    recommendation: Recommendation
    because: str


def case(workspace: Workspace, run_id: str, number: int | None = None) -> Case:
    """Returns the case of a round of a progressive run: the one asked for, else the last."""
    run = workspace.registry.run(run_id)
    one = _round(run, number)
    criteria = Criteria.model_validate(run.config["criteria"])
    gain = figure(one, criteria.metric)
    values = [(guardrail, figure(one, guardrail.metric).value) for guardrail in criteria.guardrails]
    findings = tuple(
        Finding(guardrail=guardrail, value=value, holds=None if value is None else guardrail.holds(value))
        for guardrail, value in values
    )
    live = workspace.live
    recommendation, because = recommend(gain, findings, against_live=one.baseline == live)
    hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
    return Case(
        run_id=run.id,
        run_name=run.name,
        env=run.config["env"],
        algo=run.config["algo"],
        config=run.config,
        dataset_hash=hashes.get(one.dataset_id),
        criteria=criteria,
        round=one,
        live=live,
        gain=gain,
        findings=findings,
        recommendation=recommendation,
        because=because,
    )


def _round(run: RunRow, number: int | None) -> Round:
    if run.kind != "progressive":
        raise Refusal(f"{run.id} is a run of kind {run.kind}; rounds are reviewed, see `runs list`")
    told = (run.result or {}).get("rounds", [])
    found = [one for one in told if number in (None, one["number"])]
    if not found:
        which = "no round" if number is None else f"no round {number}"
        raise Refusal(f"{run.id} has told {which} yet; it has {len(told)} so far")
    return Round.model_validate(found[-1])


def figure(one: Round, metric: Metric) -> Estimate:
    """Returns a round's figure; without a value where it was not measured."""
    if metric == "weighted_gauc":
        return one.policy.difference
    value, low, high = None, None, None
    if metric in TESTED:
        named = (effect for effect in one.effects if effect.metric == metric)
        effect = reward_effect(one.effects) if metric == "session_reward" else next(named, None)
        if effect is not None:
            value, low, high = effect.relative, effect.ci_low, effect.ci_high
    else:
        value = one.policy.share_at_wall if metric == "share_at_wall" else one.policy.path
    return Estimate(value=value, ci_low=low, ci_high=high, n_users=0)


def recommend(
    gain: Estimate, findings: tuple[Finding, ...], against_live: bool
) -> tuple[Recommendation, str]:
    """Returns what `RULE` says, and why."""
    broken = [str(finding.guardrail) for finding in findings if finding.holds is False]
    if broken:
        return "do not", f"guardrail broken: {', '.join(broken)}"
    if gain.ci_low is None or gain.ci_high is None:
        return "discuss", "the primary metric has no interval"
    if gain.ci_high < 0:
        return "do not", "the interval of the gain lies below 0"
    doubts = [
        *(["the interval of the gain holds 0"] if gain.ci_low <= 0 else []),
        *(["the gain is over another policy than the live one"] if not against_live else []),
        *(f"not known: {finding.guardrail}" for finding in findings if finding.holds is None),
    ]
    if doubts:
        return "discuss", "; ".join(doubts)
    return "promote", "the interval of the gain lies above 0, and every guardrail holds"


def last_entry(workspace: Workspace) -> int:
    """Returns the number of the ledger's last entry, 0 while it is empty."""
    return max((row.id for row in workspace.registry.decisions()), default=0)


def decide(
    workspace: Workspace,
    run_id: str,
    number: int | None,
    choice: Choice,
    *,
    name: str,
    reason: str = "",
    seen: int | None = None,
) -> DecisionRow:
    """Returns the ledger's new entry: a round's candidate is made live, or not.

    Who is logged in stands in it, else `name`. Refused are an entry without a name, a second one for the same round,
    one that the rule does not recommend without a reason, and one where something else was made live after the entry
    that was `seen` (None: the last).
    """
    workspace.ask(Action.DECIDE)
    follows = last_entry(workspace)
    found = case(workspace, run_id, number)
    earlier = decision_of(workspace, run_id, found.round.number)
    if earlier is not None:
        raise _decided(earlier)
    recommended = {"promote": "promote", "reject": "do not"}[choice]
    if found.recommendation != recommended and not reason.strip():
        raise Refusal(
            f"the rule recommends: {found.recommendation} ({found.because}); to {choice}, give a --reason"
        )
    return _append(
        workspace,
        DecisionRow(
            created_at=now(),
            name=name,
            decision=choice,
            candidate=found.round.candidate,
            incumbent=found.live,
            live=found.round.candidate if choice == "promote" else found.live,
            recommendation=found.recommendation,
            reason=reason.strip(),
            run_id=run_id,
            round=found.round.number,
            case=found.model_dump(mode="json"),
            follows=follows,
        ),
        seen,
    )


def rollback(
    workspace: Workspace, *, name: str, reason: str, to: str | None = None, seen: int | None = None
) -> DecisionRow:
    """Returns the ledger's new entry: what was live before is live again, or `to`, which must have been.

    Refused where something else was made live after the entry that was `seen` (None: the last).
    """
    workspace.ask(Action.ROLL_BACK)
    follows = last_entry(workspace)
    past = history(workspace)
    live = past[-1]["policy"]
    target = to or (past[-2]["policy"] if len(past) > 1 else None)
    if target is None or target == live:
        raise Refusal(f"{live} is live and nothing else was before; there is nothing to go back to")
    if target not in {row["policy"] for row in past}:
        raise Refusal(f"{target} was never live; `review history` lists what was")
    if not reason.strip():
        raise Refusal("going back needs a --reason")
    row = DecisionRow(
        created_at=now(),
        name=name,
        decision="rollback",
        candidate=target,
        incumbent=live,
        live=target,
        reason=reason.strip(),
        follows=follows,
    )
    return _append(workspace, row, seen)


def _append(workspace: Workspace, row: DecisionRow, seen: int | None) -> DecisionRow:
    row = row.model_copy(update={"name": workspace.person or row.name})
    moved = [one for one in history(workspace) if seen is not None and (one["decision"] or 0) > seen]
    if moved:
        raise Refusal(
            f"{moved[-1]['name']} has made {moved[-1]['policy']} live at {moved[-1]['since']:%Y-%m-%d %H:%M:%S} UTC, "
            "after you saw what was live; look again, then decide"
        )
    if not row.name.strip():
        raise Refusal("a decision needs the name of who takes it: --by NAME")
    with workspace.lock():  # or what goes live might be deleted meanwhile
        if row.live != BASELINE:
            workspace.trained(row.live)
        added = workspace.registry.add_decision(row)
    if added is None:  # somebody was faster
        earlier = decision_of(workspace, str(row.run_id), int(row.round or 0))
        if earlier is not None:
            raise _decided(earlier)
        last = workspace.registry.decisions()[-1]
        raise Refusal(
            f"{last.name} has decided to {last.decision} at this very moment; look again, then decide"
        )
    with suppress(Refusal, OSError, sqlite3.Error):  # it is decided, and the daily backup will have it
        workspace.back_up()  # what people decided stands in no run's folder
    return added


def _decided(earlier: DecisionRow) -> Refusal:
    return Refusal(
        f"{earlier.name} has decided round {earlier.round} of {earlier.run_id} already ({earlier.decision}); "
        "an entry is never changed, `review rollback` goes back"
    )


def decision_of(workspace: Workspace, run_id: str, number: int) -> DecisionRow | None:
    """Returns what was decided of a round; None while nobody has."""
    ledger = workspace.registry.decisions()
    return next((row for row in ledger if (row.run_id, row.round) == (run_id, number)), None)


def decided_case(
    workspace: Workspace, run_id: str, number: int | None = None
) -> tuple[Case, DecisionRow | None]:
    """Returns the case of a round with its decision: as it was known then where there is one, else as it is now."""
    found = case(workspace, run_id, number)
    row = decision_of(workspace, run_id, found.round.number)
    return (found, None) if row is None else (Case.model_validate(row.case), row)


def history(workspace: Workspace) -> list[dict[str, Any]]:
    """Returns what was live, oldest first, each with since when and by whose decision (an id of the ledger)."""
    lived: list[dict[str, Any]] = [{"policy": BASELINE, "since": None, "decision": None, "name": ""}]
    for row in workspace.registry.decisions():
        if row.live != lived[-1]["policy"]:
            entry = {"policy": row.live, "since": row.created_at, "decision": row.id, "name": row.name}
            lived.append(entry)
    return lived


def approval(workspace: Workspace, policy: str) -> Mapping[str, Any] | None:
    """Returns who made `policy` live, when and why; None where it is not live."""
    if policy != workspace.live or run_of(policy) == BASELINE:
        return None
    row = next(row for row in reversed(workspace.registry.decisions()) if row.live == policy)
    return {"decision": row.id, "name": row.name, "reason": row.reason, "at": row.created_at.isoformat()}
