"""`dataset import`, `export`, `collect`, `join`, `narrow`, `list`, `show`, `quality`, `signal`, `power`, and more."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mtf_engine.commands.frame import Session, command, confirm_deletion
from mtf_engine.commands.options import (
    Around,
    Bounds,
    Env,
    KeptTo,
    Name,
    Replay,
    Seed,
    Source,
    Workers,
    World,
    bounds_plan,
    environment,
)
from mtf_engine.reward import GAMMA
from mtf_engine.spec import Refusal

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Id or unique name of a dataset.")]
COLUMNS = ("dataset_id", "name", "source", "requests", "impressions", "created_at", "run_id")
SIGNAL = ("segment", "sessions", "chi2", "df", "p_value", "ratio", "sessions_needed", "relative_gain")
"""Of a segment, where it is printed as a row."""

app = typer.Typer(no_args_is_help=True, help="Logs: import, simulate, look at, delete.")


class Format(StrEnum):
    """How a log is written."""

    AUTO = "auto"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"
    IMPRESSIONS = "impressions"
    KUAIRAND = "kuairand"
    TRANSITIONS = "transitions"
    MINARI = "minari"
    D3RLPY = "d3rlpy"


class ExportFormat(StrEnum):
    """How a log is written for others."""

    MINARI = "minari"
    PARQUET = "parquet"
    D3RLPY = "d3rlpy"


class BadRows(StrEnum):
    """What becomes of a log with rows that have a defect of their own."""

    REFUSE = "refuse"
    DROP = "drop"


class Exploration(StrEnum):
    """How actions are drawn around the baseline action."""

    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"
    MIXED = "mixed"
    BASELINE = "baseline"


@command(app, "dataset import logs/KuaiRand --format kuairand --name real", name="import")
def import_log(
    shell: Session,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder of the log.")],
    format: Annotated[Format, typer.Option(help="How the log is written.")] = Format.AUTO,
    user_features: Annotated[Path | None, typer.Option(metavar="F", help="Table of user features.")] = None,
    mapping: Annotated[Path | None, typer.Option(metavar="F", help="YAML that renames columns.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="N", help="A label; default: the source's name.")
    ] = None,
    bad_rows: Annotated[
        BadRows, typer.Option(help="drop: leave out rows whose defect is of one row alone, and count them.")
    ] = BadRows.REFUSE,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET|RUN",
            help="Give it the features, predictions and fusion of that log, or of a training's.",
        ),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(metavar="B", help="day, user, or the column that holds train, validation and test."),
    ] = None,
    test_days: Annotated[int | None, typer.Option(metavar="N", help="The last days are for test.")] = None,
    validation_days: Annotated[
        int | None, typer.Option(metavar="N", help="The days before those are for validation.")
    ] = None,
    hold_out: Annotated[
        float | None, typer.Option(metavar="S", help="Share of the users who are for test (by user).")
    ] = None,
    to: KeptTo = "",
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that write the files of --to.")
    ] = 1,
) -> None:
    """Import a log; it is checked whole, and kept only if nothing is wrong with it."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.import_log import imported, submit_import

    run_id = submit_import(
        shell.workspace,
        source,
        format=format,
        user_features=user_features,
        mapping=mapping,
        name=name,
        bad_rows=bad_rows,
        like=like,
        to=to,
        n_workers=workers,
        by=split_by,
        test_days=test_days,
        validation_days=validation_days,
        hold_out=hold_out,
    )
    shell.show(finish(shell.workspace, run_id, imported).result)


@command(app, "dataset collect --env session --explore uniform --requests 30000")
def collect(
    shell: Session,
    env: Env,
    explore: Annotated[Exploration, typer.Option(help="How actions are drawn around the baseline.")],
    requests: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Requests to collect, in whole sessions.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Sessions to collect, instead of --requests.")
    ] = None,
    world: World = None,
    source: Source = None,
    replay: Replay = None,
    half_width: Annotated[
        float, typer.Option(help="Half width of the box around the baseline action.")
    ] = 0.15,
    sigma: Annotated[float, typer.Option(help="Standard deviation of Gaussian noise, mixed too.")] = 0.2,
    random_share: Annotated[
        float, typer.Option(help="Share of requests that mixed exploration draws at random.")
    ] = 0.5,
    random_sigma: Annotated[float, typer.Option(help="Standard deviation of those draws around 0.")] = 0.5,
    bounds: Bounds = None,
    baseline: Around = "baseline",
    control_share: Annotated[float, typer.Option(help="Share of users kept at the baseline action.")] = 0.1,
    seed: Seed = 0,
    name: Name = None,
    to: KeptTo = "",
    workers: Workers = 1,
) -> None:
    """Collect an explored log from an environment."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.collect import submit_collect

    run_id = submit_collect(
        shell.workspace,
        env=environment(env, world, replay),
        source=source,
        explore=explore,
        plan=bounds_plan(shell.workspace, bounds) if bounds else None,
        half_width=half_width,
        sigma=sigma,
        random_share=random_share,
        random_sigma=random_sigma,
        baseline=baseline,
        control_share=control_share,
        n_requests=requests,
        n_sessions=sessions,
        seed=seed,
        name=name,
        to=to,
        n_workers=workers,
    )
    shell.show(finish(shell.workspace, run_id).result)


@command(app, "dataset join round-1 round-2 --name pooled")
def join(
    shell: Session,
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="Ids or unique names, oldest first.")
    ],
    name: Annotated[str, typer.Option(metavar="N", help="A label.")],
) -> None:
    """Put several logs into one; each row keeps the baseline action and the bounds of its own log."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.join import submit_join

    run_id = submit_join(shell.workspace, datasets, name=name)
    shell.show(finish(shell.workspace, run_id).result)


@command(app, "dataset export explored --format minari --to explored-v0")
def export(
    shell: Session,
    name: Dataset,
    format: Annotated[ExportFormat, typer.Option(help="minari or parquet (folders), or d3rlpy (an HDF5).")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="The folder or file to write; it must not exist.")],
) -> None:
    """Write a dataset's log for other libraries: its steps (Minari, d3rlpy), or all of it (Parquet)."""
    from mtf_engine.logs.exporting import export_log
    from mtf_engine.runs.storage import open_dataset

    dataset = open_dataset(shell.workspace, name)
    shell.show({"to": str(to), "format": format, **export_log(dataset, format, to)})


@command(app, "dataset list --json", name="list")
def list_datasets(shell: Session) -> None:
    """List all datasets, newest first."""
    rows = [row.public() for row in shell.workspace.registry.datasets()]
    shell.show([{name: row[name] for name in COLUMNS} for row in rows])


@command(app, "dataset show real")
def show(shell: Session, name: Dataset) -> None:
    """Show one dataset: its size, origin, and what its columns mean."""
    shell.show(shell.workspace.dataset(name).public())


@command(app, "dataset quality real --against explored")
def quality(
    shell: Session,
    name: Dataset,
    against: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Tell the drift from this dataset instead.")
    ] = None,
) -> None:
    """Tell what a log holds, or which of its columns drifted from another log's."""
    from mtf_engine.logs.aggregates import quality as quality_of
    from mtf_engine.logs.shift import drift
    from mtf_engine.runs.storage import open_dataset

    found = quality_of(open_dataset(shell.workspace, name))
    if against is None:
        shell.show(found.public())
    else:
        shell.show(drift(found, quality_of(open_dataset(shell.workspace, against))).model_dump(mode="json"))


@command(app, "dataset signal explored --by-segment")
def signal(
    shell: Session,
    name: Dataset,
    gamma: Annotated[float, typer.Option(help="Discount of later requests.")] = GAMMA,
    chi2: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Sessions are told for this chi2; default: one that tells each slope."
        ),
    ] = None,
    by_segment: Annotated[bool, typer.Option("--by-segment", help="Each user segment too.")] = False,
    workers: Workers = 1,
) -> None:
    """Tell whether a log can teach: does the return hang on the explored actions, and how many sessions would tell?"""
    from mtf_engine.logs.aggregates import signal as signal_of
    from mtf_engine.runs.spread import by
    from mtf_engine.runs.storage import open_dataset

    found = signal_of(open_dataset(shell.workspace, name), gamma=gamma, spread=by(workers))
    told = [one.wishing(chi2) if chi2 is not None else one for one in (found.everybody, *found.segments)]
    first, *segments = [{"sentence": one.sentence, **one.model_dump(mode="json")} for one in told]
    if not shell.as_json:
        segments = [{column: row[column] for column in SIGNAL} for row in segments]
    shell.show(first | ({"segments": segments, "left_out": found.left_out} if by_segment else {}))


@command(app, "dataset shard explored --name explored-shards --workers 2")
def shard(
    shell: Session,
    dataset: Dataset,
    name: Annotated[str, typer.Option(metavar="N", help="A label of the new dataset.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="PLACE", help="Where: parquet, the workspace, or s3://BUCKET/PREFIX, by AWS_* settings."
        ),
    ] = "parquet",
    workers: Workers = 1,
) -> None:
    """Write a log as a folder of Parquet files, by buckets of users; as a dataset it is used like any other."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.shard import submit_shard

    run_id = submit_shard(shell.workspace, dataset, name=name, to=to, n_workers=workers)
    shell.show(finish(shell.workspace, run_id).result)


@command(app, "dataset narrow explored --bounds narrow --name inside")
def narrow(
    shell: Session,
    dataset: Dataset,
    bounds: Annotated[
        str, typer.Option("--bounds", metavar="NAME|FILE", help="A narrower plan: stored, or a YAML file.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Write those rows as a log to train on.")
    ] = None,
    workers: Workers = 1,
) -> None:
    """Tell what a narrower plan would have taught, by a uniform log's rows inside it; with --name, keep them."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.logs.aggregates import sub_box
    from mtf_engine.runs.spread import by
    from mtf_engine.runs.storage import open_dataset
    from mtf_engine.work.narrow import submit_narrow

    plan = bounds_plan(shell.workspace, bounds)
    found = sub_box(open_dataset(shell.workspace, dataset), plan, by(workers))
    run = finish(shell.workspace, submit_narrow(shell.workspace, dataset, plan, name)) if name else None
    told = found.model_dump(mode="json") if shell.as_json else {"kept": found.kept, "of": found.requests}
    shell.show({"sentence": found.sentence, **((run and run.result) or {}), **told})


@command(app, "dataset power real --users 50000")
def power(
    shell: Session,
    name: Dataset,
    users: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="So many users like them; default: the log's.")
    ] = None,
) -> None:
    """Tell the smallest difference in weighted GAUC that a log's test users, or so many like them, would show."""
    from mtf_engine.evaluation.power import resolvable
    from mtf_engine.runs.storage import open_dataset

    found = resolvable(open_dataset(shell.workspace, name), users=users)
    if found is None:
        raise Refusal(
            f"{name} has no test rows with impressions to tell anything; import it with --test-days"
        )
    shell.show({**found.model_dump(mode="json"), "warnings": list(found.warnings)})


@command(app, "dataset rewards real")
def rewards(shell: Session, name: Dataset) -> None:
    """Suggest reward weights by what each signal tells of the user's next day."""
    from mtf_engine.logs.aggregates import next_day
    from mtf_engine.runs.storage import open_dataset

    found = next_day(open_dataset(shell.workspace, name))
    suggested = found.suggested.weights if found.suggested else {}
    shell.show(
        {
            "days": found.n_days,
            "user_days": found.n_pairs,
            "warnings": list(found.warnings),
            "signals": [
                {"signal": signal, **c.model_dump(), "suggested_weight": suggested.get(signal)}
                for signal, c in found.correlations.items()
            ],
        }
    )


@command(app, "dataset delete real --yes")
def delete(
    shell: Session,
    name: Dataset,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a dataset, and say what needed it; refused while a run works with it."""
    from mtf_engine.questions import dependents
    from mtf_engine.runs.storage import delete_dataset

    row = shell.workspace.dataset(name)
    needed_by = dependents.of_dataset(shell.workspace, row)
    if not yes:
        what = f"{row.id} ({row.name}, {row.n_requests} requests)"
        confirm_deletion(what, needed_by, "Delete this dataset for good?")
    delete_dataset(shell.workspace, row.id)
    shown = [one.model_dump() for one in needed_by]
    shell.show({"dataset_id": row.id, "deleted": True, "needed_by": shown})
