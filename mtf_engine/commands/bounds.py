"""`bounds`: plans kept by name, proposed from a policy's actions, what they cost, reach and change."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtf_engine.commands.frame import Session, command, confirm_deletion
from mtf_engine.commands.options import Seed, Workers, bounds_plan
from mtf_engine.spec import Refusal

if TYPE_CHECKING:
    from mtf_engine.spec import BoundsPlan

Plan = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A stored bounds plan or a YAML file.")]
PlanOption = Annotated[
    str, typer.Option("--bounds", metavar="NAME|FILE", help="A stored bounds plan or a YAML file.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A completed training.")]
On = Annotated[str, typer.Option("--on", metavar="DATASET", help="The log that its policy acts on.")]
Save = Annotated[str | None, typer.Option("--save", metavar="NAME", help="Store the plan under this name.")]
Note = Annotated[str, typer.Option(metavar="TEXT", help="What lists show beside the name.")]
BySegment = Annotated[bool, typer.Option("--by-segment", help="A box for each segment of 100 rows or more.")]
DRIFT = ("segment", "n_rows", "held", "level", "lower", "upper")
WALLS = ("segment", "dimension", "lower", "upper", "proposal", "new_lower", "new_upper", "reason")

app = typer.Typer(no_args_is_help=True, help="Bounds plans: keep, compare, propose, and price them.")


@command(app, "bounds list", name="list")
def list_plans(shell: Session) -> None:
    """List the stored plans by name."""
    rows = shell.workspace.registry.plans()
    shell.show([row.model_dump(mode="json", exclude={"plan"}) for row in rows])


@command(app, "bounds show narrow")
def show(shell: Session, plan: Plan) -> None:
    """Show a plan; what it prints is YAML that `bounds save` takes."""
    found = bounds_plan(shell.workspace, plan)
    if shell.as_json:
        shell.show(found.model_dump(mode="json"))
    else:
        print(found.to_yaml(), end="")


@command(app, "bounds save narrow narrow.yaml --note 'after round 2'")
def save(
    shell: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the plan is called from now on.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The plan as YAML.")],
    note: Note = "",
) -> None:
    """Store the plan in a YAML file under a name, in place of an earlier one of that name."""
    from mtf_engine.spec import BoundsPlan

    if not file.is_file():
        raise Refusal(f"there is no file {file}; check the path")
    _store(shell, name, BoundsPlan.from_yaml(file.read_bytes()), note)
    shell.show({"name": name, "note": note})


def _store(shell: Session, name: str, plan: "BoundsPlan", note: str) -> None:
    """Stores a plan, and says on stderr which one it replaces."""
    replaced = shell.workspace.registry.save_plan(name, plan, note)
    if replaced is not None:
        told = f" ({replaced.note})" if replaced.note else ""
        print(f"replaced {name} of {replaced.created_at:%Y-%m-%d %H:%M:%S} UTC{told}", file=sys.stderr)


@command(app, "bounds delete narrow --yes")
def delete(
    shell: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A stored plan.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a stored plan; datasets collected with it keep their own copy."""
    from mtf_engine.questions import dependents

    needed_by = dependents.of_plan(shell.workspace, shell.workspace.plan(name))
    if not yes:
        confirm_deletion(f"the bounds plan {name}", needed_by, "Delete this plan for good?")
    shell.workspace.registry.delete_plan(name)
    shell.show({"name": name, "deleted": True, "needed_by": [one.model_dump() for one in needed_by]})


@command(app, "bounds diff narrow wide")
def diff(shell: Session, plan: Plan, other: Plan) -> None:
    """Tell in which dimensions of which segments two plans differ."""
    from mtf_engine.questions.exploring import plan_changes

    changes = plan_changes(bounds_plan(shell.workspace, plan), bounds_plan(shell.workspace, other))
    shell.show([change.model_dump(mode="json") for change in changes])


@command(app, "bounds drift train-1f00ba77 --on explored --share 0.95 --save wider")
def drift(
    shell: Session,
    run: Run,
    on: On,
    share: Annotated[float, typer.Option(help="Of the policy's actions that the box holds.")] = 0.95,
    by_segment: BySegment = False,
    include_baseline: Annotated[
        bool, typer.Option("--include-baseline", help="Widen the box to hold offset 0.")
    ] = False,
    seed: Seed = 0,
    save: Save = None,
) -> None:
    """Draw bounds around a policy's drift from the baseline."""
    import numpy as np

    from mtf_engine.exploration.drift import bounds_from_drift
    from mtf_engine.questions.exploring import policy_actions

    acted = policy_actions(shell.workspace, run, on)
    found = bounds_from_drift(
        acted.new_actions,
        acted.baseline_actions,
        acted.segments,
        acted.users,
        np.random.default_rng(seed),
        share=share,
        by_segment=by_segment,
        include_baseline=include_baseline,
    )
    if save:
        _store(shell, save, found.plan, f"from drift of {run} on {on}, {100 * share:g} %")
    shell.show([box.model_dump(mode="json") for box in found.boxes], DRIFT)


@command(app, "bounds walls train-1f00ba77 --on explored --bounds narrow --save moved")
def walls(
    shell: Session,
    run: Run,
    on: On,
    bounds: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A plan; default: that of the log it learned from."),
    ] = None,
    by_segment: BySegment = False,
    save: Save = None,
) -> None:
    """Tell where a policy presses against the bounds, and where its walls should go."""
    from mtf_engine.exploration.wall_pressure import wall_pressure
    from mtf_engine.questions.exploring import logged_plan, policy_actions

    plan = bounds_plan(shell.workspace, bounds) if bounds else logged_plan(shell.workspace, run)
    if plan is None:
        raise Refusal(f"the log that {run} learned from declares no bounds; name a plan with --bounds")
    acted = policy_actions(shell.workspace, run, on)
    found = wall_pressure(
        plan,
        acted.new_actions,
        acted.baseline_actions,
        acted.segments,
        acted.names,
        by_segment=by_segment,
    )
    if save:
        note = f"from wall pressure of {run} on {on}, against {bounds or 'the bounds of its log'}"
        _store(shell, save, found.plan, note)
    shell.show([row.model_dump(mode="json") for row in found.rows], WALLS)


@command(app, "bounds cost explored --bounds narrow --sigma 0.2")
def cost(
    shell: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A log with candidates.")],
    bounds: PlanOption,
    sigma: Annotated[float, typer.Option(help="Of the Gaussian noise compared with.")] = 0.2,
    k: Annotated[int, typer.Option(metavar="K", min=1, help="Places shown.")] = 3,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Requests replayed.")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Tell what exploring would do to logged rankings, before anything is collected."""
    from mtf_engine.questions.exploring import collection_cost

    plan = bounds_plan(shell.workspace, bounds)
    found = collection_cost(shell.workspace, dataset, plan, sigma=sigma, k=k, n_requests=requests, seed=seed)
    shell.show(found.model_dump(mode="json"))


@command(app, "bounds sensitivity explored --bounds narrow")
def sensitivity(
    shell: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A log with candidates or impressions.")],
    bounds: PlanOption,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Requests ranked.")] = 2_000,
) -> None:
    """Tell how many dimensions change the ranking inside the bounds, in effect, and which."""
    from mtf_engine.questions.exploring import sensitivity as sensitivity_of

    found = sensitivity_of(shell.workspace, dataset, bounds_plan(shell.workspace, bounds), requests)
    shell.show({"sentence": found.sentence, **found.model_dump(mode="json")})


@command(app, "bounds reach --rounds 5 --half-width 0.15")
def reach(
    shell: Session,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Small boxes, one after the other.")] = 5,
    half_width: Annotated[float, typer.Option(help="Of a small box.")] = 0.15,
    dims: Annotated[int, typer.Option(metavar="D", min=1, help="Dimensions.")] = 10,
    k: Annotated[int, typer.Option(metavar="K", min=1, help="Samples in each cell.")] = 10,
    cells: Annotated[int, typer.Option(metavar="C", min=1, help="Cells along a side of a small box.")] = 5,
) -> None:
    """Hold several small boxes against one wide box of the same reach: what is covered, samples, and loss."""
    from mtf_engine.exploration.reach import progressive_reach

    found = progressive_reach(rounds, half_width, dims, k=k, cells=cells)
    shell.show({"sentence": found.sentence, **found.model_dump(mode="json")})


@command(app, "bounds coverage explored")
def coverage(
    shell: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="An explored log.")],
) -> None:
    """Certify that a log covers its boxes evenly, or is drawn as its mixture says, or say why not."""
    from mtf_engine.exploration.coverage import certify_coverage
    from mtf_engine.logs.aggregates import coverage as counts_of
    from mtf_engine.runs.storage import open_dataset

    opened = open_dataset(shell.workspace, dataset)
    found = certify_coverage(counts_of(opened), opened.meta.fusion.names)
    shell.show(found.model_dump(mode="json"))


@command(app, "bounds teach explored --sessions 100000 --loss 0.005 --save taught")
def teach(
    shell: Session,
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="An explored log, of uniform or Gaussian noise: the pilot."),
    ],
    sessions: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Of the log to come, all users; default: the pilot's."),
    ] = None,
    loss: Annotated[
        float | None,
        typer.Option(metavar="X", help="Accepted: share of a session's return, 0.005 for 0.5 %."),
    ] = None,
    information: Annotated[
        float | None,
        typer.Option(metavar="X", help="Wished: precision of the slopes, in times the pilot's own."),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="One standard error for all slopes, not the least mean square.")
    ] = False,
    widest: Annotated[float, typer.Option(help="Half width that no dimension exceeds.")] = 0.4,
    sigma: Annotated[float, typer.Option(help="Of the Gaussian noise compared with.")] = 0.2,
    workers: Workers = 1,
    save: Annotated[
        str | None, typer.Option("--save", "--name", metavar="NAME", help="Store the plan under this name.")
    ] = None,
) -> None:
    """Find the box that teaches most for what it costs users, beside Gaussian noise, by a pilot log."""
    from mtf_engine.exploration.teaching import origin
    from mtf_engine.exploration.teaching import teach as find
    from mtf_engine.logs.aggregates import pilot
    from mtf_engine.runs.spread import by
    from mtf_engine.runs.storage import open_dataset

    opened = open_dataset(shell.workspace, dataset)
    measured = pilot(opened, spread=by(workers))
    found = find(
        measured,
        sessions or measured.sessions,
        loss=loss,
        information=information,
        each=each,
        widest=widest,
        sigma=sigma,
    )
    if save:
        _store(shell, save, found.plan, origin(opened.meta.name, found))
    document = {
        "sentence": found.sentence,
        **found.model_dump(mode="json"),
        "pilot": measured.model_dump(mode="json"),
    }
    if not shell.as_json:
        document = {
            name: document[name]
            for name in ("sentence", "sessions", "learned", "basis", "dimensions", "fixed")
        }
        document["ways"] = [way.model_dump() for way in found.ways]
    shell.show(document)
