"""`review show`, `decide`, `next`, `history`, `rollback`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.spec import Refusal

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run of rounds, such as progressive-1f00ba77.")]
Number = Annotated[int | None, typer.Option("--round", metavar="K", min=1, help="Which; default: the last.")]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Needed where the rule recommends otherwise.")]
COLUMNS = ("id", "created_at", "name", "decision", "candidate", "recommendation", "reason", "live")

app = typer.Typer(no_args_is_help=True, help="What is known of a round, what was decided, what is live.")


@command(app, "review show progressive-1f00ba77 --round 2 --memo memo.html")
def show(
    shell: Session,
    run: RunId,
    number: Number = None,
    memo: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the memo: FILE.html or FILE.md.")
    ] = None,
) -> None:
    """Show a round's candidate: its figures, the rule's recommendation, and the decision where there is one."""
    from mtf_engine.disk import write_atomically
    from mtf_engine.policies.monotony import sentences
    from mtf_engine.release import memo as memos
    from mtf_engine.release.review import RULE, decided_case

    found, row = decided_case(shell.workspace, run, number)
    if memo is not None:
        if memo.suffix not in (".html", ".md"):
            raise Refusal(f"{memo.name} is neither .html nor .md; name the memo one of them")
        write = memos.html if memo.suffix == ".html" else memos.markdown
        write_atomically(memo, write(found, row).encode())
    shell.show(
        {
            "run_id": found.run_id,
            "round": found.round.number,
            "candidate": found.round.candidate,
            "baseline": found.round.baseline,
            "live": found.live,
            "dataset_id": found.round.dataset_id,
            "primary": {"metric": found.criteria.metric, **found.gain.model_dump(exclude={"n_users"})},
            "guardrails": [
                {"guardrail": str(one.guardrail), "value": one.value, "holds": one.holds}
                for one in found.findings
            ],
            "rule": RULE,
            "recommendation": found.recommendation,
            "because": found.because,
            "warnings": sentences(found.round.policy.negative_pows),
            "decision": row and row.model_dump(mode="json", exclude={"case"}),
        }
    )


@command(app, 'review decide progressive-1f00ba77 --round 2 --decision promote --by "A. Analyst"')
def decide(
    shell: Session,
    run: RunId,
    decision: Annotated[
        Literal["promote", "reject"], typer.Option(help="Make the candidate live, or keep what is.")
    ],
    by: By,
    number: Number = None,
    reason: Reason = "",
) -> None:
    """Decide a round, for good; rounds that waited for it go on."""
    from mtf_engine.work.progressive import decide

    row = decide(shell.workspace, run, number, decision, name=by, reason=reason)
    shell.show(row.model_dump(mode="json", exclude={"case"}))


@command(app, "review next progressive-1f00ba77", name="next")
def next_one(shell: Session, run: RunId) -> None:
    """Tell whether another round is worth it: its expected gain, what a test can show, and what exploring costs."""
    from mtf_engine.release.rounds import Round
    from mtf_engine.release.stopping import next_round

    told = (shell.workspace.registry.run(run).result or {}).get("rounds", ())
    found = next_round(tuple(Round.model_validate(one) for one in told))
    shell.show(found.model_dump(mode="json"))


@command(app, "review history")
def history(shell: Session) -> None:
    """List every decision, oldest first, with what was live from then on."""
    rows = shell.workspace.registry.decisions()
    shell.show([row.model_dump(mode="json", exclude={"case"}) for row in rows], COLUMNS)


@command(app, 'review rollback --by "A. Analyst" --reason "complaints about repeats"')
def rollback(
    shell: Session,
    by: By,
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="What was live once; default: before the present one."),
    ] = None,
) -> None:
    """Make live again what was live before; that is a decision too."""
    from mtf_engine.release import review

    row = review.rollback(shell.workspace, name=by, reason=reason, to=to)
    shell.show(row.model_dump(mode="json", exclude={"case"}))
