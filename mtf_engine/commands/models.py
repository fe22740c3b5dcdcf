"""`train`, `evaluate`, `export`, `verify`, `import-policy`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtf_engine.commands.frame import Session, command
from mtf_engine.commands.options import (
    Algo,
    Background,
    Name,
    Policies,
    Preset,
    Seed,
    Settings,
    Workers,
    bounds_plan,
    parse_seeds,
    parse_settings,
)
from mtf_engine.registry import BASELINE, RunRow
from mtf_engine.spec import Refusal

if TYPE_CHECKING:
    from mtf_engine.evaluation.off_policy import OffPolicySettings


class Purpose(StrEnum):
    """What a bundle is for."""

    TEST = "test"
    LIVE = "live"


MLFLOW = Path("mlflow")
"""What a policy is exported to in place of a file: a tracking server."""
SCORES = ("run_id", "weighted_gauc", "ci_low", "ci_high", "users_used", "users_left_out", "split")
OFF_POLICY = ("run_id", "estimator", "value", "ci_low", "ci_high", "ess", "in_support")

OffPolicy = Annotated[
    bool,
    typer.Option(
        "--off-policy", help="What a session would bring, too, by five estimators on held-out users."
    ),
]
Tau = Annotated[
    float | None,
    typer.Option(help="With --off-policy: std of the smoothed policy in half widths of the logged box, 2."),
]
MinESS = Annotated[
    float | None,
    typer.Option(help="With --off-policy: effective sample size below which nothing is told, 50."),
]
FitSteps = Annotated[
    int | None, typer.Option(metavar="N", help="With --off-policy: updates of the fitted Q, 1,000.")
]

BundleTo = Annotated[
    Path,
    typer.Option(
        "--to",
        metavar="FILE.zip|mlflow",
        help="The bundle to write; `mlflow`: log it to a tracking server, and register its model there.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URL",
        envvar="MLFLOW_TRACKING_URI",
        help="The MLflow server of --to mlflow; a password is MLflow's own MLFLOW_TRACKING_PASSWORD.",
    ),
]
ModelName = Annotated[
    str,
    typer.Option("--model", metavar="NAME", help="In MLflow, of the experiment and of the registered model."),
]

app = typer.Typer()


@command(app, "train explored --algo integrated_rl --set n_steps=2000 --background")
def train(
    shell: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Id or unique name of an explored dataset.")
    ],
    algo: Algo = "integrated_rl",
    preset: Preset = "laptop",
    settings: Settings = None,
    seed: Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="S", help="Several trainings: 1-5, 0,3,7, or how many from --seed on."),
    ] = None,
    name: Name = None,
    background: Background = False,
) -> None:
    """Train a policy on an explored dataset; the best step on validation users is kept beside the last."""
    from mtf_engine.commands.foreground import finish_all
    from mtf_engine.learning.training import make_config
    from mtf_engine.runs.estimates import search_cost
    from mtf_engine.work.train import submit_seeds

    chosen = parse_settings(settings or [])
    config = make_config(algo, preset=preset, settings=chosen, seed=seed).model_dump(mode="json")
    if said := search_cost(shell.workspace, algo, config, shell.workspace.dataset(dataset)):
        typer.echo(said, err=True)
    run_ids = submit_seeds(
        shell.workspace,
        dataset,
        (seed,) if seeds is None else parse_seeds(seeds, first=seed),
        algo=algo,
        preset=preset,
        settings=chosen,
        name=name,
    )
    if not background:
        finish_all(shell.workspace, *run_ids)
    runs = [shell.workspace.registry.run(run_id) for run_id in run_ids]
    shown: list[dict[str, Any]] = [
        {"run_id": run.id, "state": run.state, "best_score": run.best_score, **_unvalidated(run)}
        for run in runs
    ]
    shell.show(shown if seeds else shown[0])


def _unvalidated(run: RunRow) -> dict[str, str]:
    """Returns the sentence that says why a training has no best step, if it has none."""
    told = (run.result or {}).get("no_validation")
    return {"no_validation": told} if told else {}


@command(app, "evaluate train-1f00ba77 baseline --on real")
def evaluate(
    shell: Session,
    policies: Policies,
    on: Annotated[str, typer.Option("--on", metavar="DATASET", help="The log to score them on.")],
    floors: Annotated[
        bool,
        typer.Option(
            "--floors/--no-floors",
            help="The best single head and regression weights beside them, chosen on training rows.",
        ),
    ] = True,
    off_policy: OffPolicy = False,
    tau: Tau = None,
    min_ess: MinESS = None,
    fit_steps: FitSteps = None,
    seed: Seed = 0,
    workers: Workers = 1,
) -> None:
    """Score policies by weighted GAUC on a log's test rows, or on all where it has no split, and against the baseline.

    Differences are paired by user; without the baseline among the policies they are to the last one named.
    """
    from mtf_engine.commands.foreground import finish
    from mtf_engine.evaluation.result import alike
    from mtf_engine.work.evaluate import submit_evaluate

    how = _how(off_policy, {"tau": tau, "min_ess": min_ess, "fit_steps": fit_steps})
    run_id = submit_evaluate(
        shell.workspace, policies, on, seed=seed, floors=floors, off_policy=how, n_workers=workers
    )
    result = finish(shell.workspace, run_id).result or {}
    rows = scores(result)
    if shell.as_json:
        shell.show(rows)
        return
    untold = ("no_gauc",) if result.get("no_gauc") else ()
    named = [row["run_id"] for row in rows if not row["floor"]] or [row["run_id"] for row in rows]
    base = BASELINE if BASELINE in named else named[-1]
    if len(rows) > 1:
        compared = [row | _against(row, base) for row in rows]
        shell.show(compared, (*SCORES, *untold, f"minus {base}", "from", "to", "is"))
    else:
        shell.show(rows, (*SCORES, *untold))
    if how:
        shell.show(_off_policy(result), OFF_POLICY)
    for sentence, of in alike((row["run_id"], row["differs"]) for row in result["policies"]).items():
        print(f"{', '.join(of)}: {sentence}")
    if floors and not result["floors"] and not untold:
        print(
            "no floors: neither this log nor the one that a policy learned from has training rows to choose them on"
        )


def _how(off_policy: bool, asked: dict[str, float | None]) -> "OffPolicySettings | None":
    """Returns the settings of --off-policy, None without it; a Refusal where some are given all the same."""
    from mtf_engine.evaluation.off_policy import OffPolicySettings

    given = {name: value for name, value in asked.items() if value is not None}
    if given and not off_policy:
        raise Refusal(f"--{next(iter(given)).replace('_', '-')} says how --off-policy works; give that, too")
    return OffPolicySettings.asked("--off-policy", given) if off_policy else None


def _off_policy(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row a policy and estimator, where a sentence stands for a value that is not told."""
    from mtf_engine.evaluation.off_policy import NOT_ENOUGH

    return [
        {"run_id": row["run_id"], **one, "value": NOT_ENOUGH if one["value"] is None else one["value"]}
        for row in result["policies"]
        for one in row["off_policy"]
    ]


def _against(row: dict[str, Any], base: str) -> dict[str, Any]:
    """Returns a policy's difference to `base`, paired by user, as columns; empty ones for the base itself."""
    paired = (d for d in row["differences"] if (d["base"], d["group"]) == (base, "user"))
    found = next(paired, dict.fromkeys(("value", "ci_low", "ci_high")))
    return {
        f"minus {base}": found["value"],
        "from": found["ci_low"],
        "to": found["ci_high"],
        "is": "floor" if row["floor"] else "",
    }


def scores(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns each policy's scores, its differences to the others, if it is a floor; where there can be none, why."""
    told = {"no_gauc": result["no_gauc"]} if result.get("no_gauc") else {}
    return [
        row
        | {
            "floor": row["run_id"] in result.get("floors", ()),
            "differences": [d for d in result["differences"] if d["run_id"] == row["run_id"]],
        }
        | told
        for row in result["policies"]
    ]


@command(app, "export train-1f00ba77 --to policy.zip")
def export(
    shell: Session,
    run: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="A completed training: RUN, its last step, or RUN@best; rounds; with --on default, head:NAME, "
            "constant:..., regression.",
        ),
    ],
    to: BundleTo,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="DATASET", help="Check it with rows of this log, not of its own."),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            "--clip",
            metavar="NAME|FILE",
            help="Hold what is served inside this bounds plan, around its baseline; scored so on --on.",
        ),
    ] = None,
    purpose: Annotated[
        Purpose, typer.Option("--for", help="What the bundle is for; live asks for an approved policy.")
    ] = Purpose.TEST,
    unapproved: Annotated[
        bool, typer.Option("--unapproved", help="For live use although nobody has approved it.")
    ] = False,
    readme: Annotated[
        bool,
        typer.Option(
            "--readme", help="Beside it: how to serve it (FILE.md), and a reference scorer in numpy."
        ),
    ] = False,
    tracking_uri: TrackingUri = None,
    model: ModelName = "multi-task-fusion",
) -> None:
    """Write a policy as a bundle that a server loads, after checking that it computes the same; or log it to MLflow."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.export import fetch_bundle, submit_export, write_readme
    from mtf_engine.work.mlflow import submit_mlflow

    _check_target(to, readme, tracking_uri, model)
    plan = bounds_plan(shell.workspace, clip) if clip else None
    exported = finish(
        shell.workspace, submit_export(shell.workspace, run, on, plan, purpose.value, unapproved)
    )
    if to == MLFLOW:
        shell.show(
            finish(shell.workspace, submit_mlflow(shell.workspace, exported.id, tracking_uri, model)).result
        )
        return
    fetch_bundle(shell.workspace, exported.id, to)
    result = exported.result or {}
    shell.show(result | ({"beside": write_readme(result["manifest"], to)} if readme else {}))


def _check_target(to: Path, readme: bool, tracking_uri: str | None, model: str) -> None:
    """Refuses a target that nothing can be written to, before minutes of work."""
    from mtf_engine.policies.bundle_readme import SCORER
    from mtf_engine.work.mlflow import reached

    if to == MLFLOW:
        if readme:
            raise Refusal(
                "--readme is written beside a file, and --to mlflow writes none; leave one of them out"
            )
        reached(tracking_uri, model)
    elif readme and (to.suffix == ".md" or to.name == SCORER.name):
        raise Refusal(f"--readme writes a file of the name {to.name} itself; name the bundle otherwise")
    elif not to.absolute().parent.is_dir():
        raise Refusal(f"there is no folder {to.parent} to write {to.name} to; create it")


@command(app, "verify policy.zip --json")
def verify(
    shell: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle.")],
) -> None:
    """Check a bundle against the answers stored in it, with numpy and onnxruntime alone."""
    from mtf_engine.policies.bundle import verify as verify_bundle

    shell.show(verify_bundle(path))


@command(app, "import-policy policy.zip --name theirs", name="import-policy")
def import_policy(
    shell: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle, exported anywhere.")],
    name: Name = None,
) -> None:
    """Make the policy of a bundle one of this workspace, a baseline or a candidate like any that was trained here."""
    from mtf_engine.commands.foreground import finish
    from mtf_engine.work.import_policy import read_bundle_file, submit_import_policy

    run_id = submit_import_policy(shell.workspace, read_bundle_file(path), path.name, name)
    run = finish(shell.workspace, run_id)
    shell.show({"run_id": run.id, "name": run.name, "state": run.state, **(run.result or {})})
