"""Ways to submit each kind of run, for command line and pages alike: check early, then queue."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mtf_engine.disk import write_atomically
from mtf_engine.jobs import files
from mtf_engine.jobs.configs import (
    ABTestConfig,
    CollectConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    JoinConfig,
    PaperDataConfig,
    ProgressiveConfig,
    world_of,
)
from mtf_engine.jobs.environments import check_environment
from mtf_engine.jobs.executor import enqueue, submit
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.registry import BASELINE, RunState, Workspace
from mtf_engine.release.criteria import Criteria
from mtf_engine.spec import BoundsPlan, Refusal, Spec

PAPER_DATASETS = 5
"""1, 1b, 2, 3 and test."""

AnySpec = TypeVar("AnySpec", bound=Spec)


def submit_import(
    workspace: Workspace,
    source: Path,
    *,
    format: str = "auto",
    user_features: Path | None = None,
    mapping: Path | None = None,
    name: str | None = None,
    bad_rows: str = "refuse",
) -> str:
    """Returns the id of the run that imports the log at `source`."""
    for path in filter(None, (source, user_features, mapping)):
        if not path.exists():
            raise Refusal(f"there is no file or folder {path}; check the path")
    config = ImportConfig.model_validate(
        {
            "source": str(source.absolute()),
            "format": format,
            "user_features": user_features and str(user_features.absolute()),
            "mapping": mapping and str(mapping.absolute()),
            "name": name or source.stem,
            "bad_rows": bad_rows,
        }
    )
    return submit(workspace, "import", config.model_dump(mode="json"), name=config.name)


def submit_collect(
    workspace: Workspace,
    *,
    source: str | None = None,
    name: str | None = None,
    parent_id: str | None = None,
    **settings: Any,
) -> str:
    """Returns the id of the run that collects a dataset; `settings` are fields of `CollectConfig`."""
    source_id = workspace.dataset(source).id if source else None
    settings["baseline"] = workspace.policy(settings.get("baseline", BASELINE))
    label = name or f"{settings['env']} {settings.get('explore', 'uniform')} {settings.get('seed', 0)}"
    config = _checked(CollectConfig, "the collection", {"source": source_id, "name": label, **settings})
    check_environment(config.env)
    if config.baseline != BASELINE:
        workspace.trained(config.baseline)
    return submit(
        workspace,
        "collect",
        config.model_dump(mode="json"),
        name=config.name,
        seed=config.seed,
        n_steps=config.n_requests or config.n_sessions or 0,
        parent_id=parent_id,
    )


def submit_join(
    workspace: Workspace, datasets: Sequence[str], *, name: str, parent_id: str | None = None
) -> str:
    """Returns the id of the run that puts the logs of several datasets into one, oldest first."""
    from mtf_engine.logs.joining import joined_meta

    rows = [workspace.dataset(dataset) for dataset in dict.fromkeys(datasets)]
    values = {"datasets": tuple(row.id for row in rows), "name": name}
    config = _checked(JoinConfig, "the join", values)
    joined_meta(name, config.datasets, [DatasetMeta.model_validate(row.meta) for row in rows])
    return submit(workspace, "join", config.model_dump(mode="json"), name=name, parent_id=parent_id)


def submit_train(
    workspace: Workspace,
    dataset: str,
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    seed: int = 0,
    seed_group: str = "",
    name: str | None = None,
) -> str:
    """Returns the id of the run that trains `algo` on a dataset, with `settings` over those of `preset`."""
    from mtf_engine.learning.training import make_config

    row = workspace.dataset(dataset)
    if row.meta.get("exploration") is None and row.meta.get("source") in ("kuairand", "impressions"):
        raise Refusal(
            f"the dataset {row.name} has no actions to learn from; explore on it first: "
            f"dataset collect --env replay --from {row.id}"
        )
    config = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    return submit(
        workspace,
        "train",
        config,
        name=name or f"{algo} on {row.name}",
        dataset_id=row.id,
        algo=algo,
        seed=seed,
        seed_group=seed_group,
        n_steps=config["n_steps"] or 0,
    )


def submit_progressive(
    workspace: Workspace,
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    source: str | None = None,
    name: str | None = None,
    **rounds: Any,
) -> str:
    """Returns the id of the run that explores, trains and promotes, round after round.

    `rounds` are fields of `ProgressiveConfig`; `settings` go over those of `preset`, and `n_steps` among them
    is shared by the rounds.
    """
    from mtf_engine.learning.training import make_config

    seed = rounds.get("seed", 0)
    training = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    source_id = workspace.dataset(source).id if source else None
    defaults = {
        "n_threads": training["n_threads"],
        "criteria": Criteria.default(rounds["env"], tested=bool(rounds.get("ab_users"))),
    }
    rounds["baseline"] = workspace.policy(rounds.get("baseline", BASELINE))
    values = {**defaults, "source": source_id, "algo": algo, "training": training, **rounds}
    config = _checked(ProgressiveConfig, "the rounds", values)
    check_environment(config.env)
    if config.baseline != BASELINE:
        workspace.trained(config.baseline)
    return submit_rounds(workspace, config, name=name or f"{algo} {config.rounds} rounds on {config.env}")


def submit_rounds(
    workspace: Workspace, config: ProgressiveConfig, *, name: str, parent_id: str | None = None
) -> str:
    """Returns the id of the run that plays the rounds of `config`."""
    return submit(
        workspace,
        "progressive",
        config.model_dump(mode="json"),
        name=name,
        algo=config.algo,
        seed=config.seed,
        n_steps=len(config.stages) * config.rounds,
        parent_id=parent_id,
    )


def submit_paper_data(
    workspace: Workspace,
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    seed: int = 0,
    name: str | None = None,
    **sizes: Any,
) -> str:
    """Returns the id of the run that makes the paper's datasets; `sizes` are fields of `PaperDataConfig`."""
    from mtf_engine.jobs import paper_data
    from mtf_engine.learning.training import make_config

    training = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    values = {"algo": algo, "training": training, "seed": seed, "n_threads": training["n_threads"], **sizes}
    config = _checked(PaperDataConfig, "the paper's data", values)
    check_environment(config.env)
    try:
        paper_data.rounds_config(config)
    except ValidationError as error:
        raise Refusal.invalid("the paper's data", error) from None
    return submit(
        workspace,
        "paper-data",
        config.model_dump(mode="json"),
        name=name or f"the paper's data, {config.sessions} sessions",
        algo=algo,
        seed=seed,
        n_steps=PAPER_DATASETS,
    )


def submit_compare(
    workspace: Workspace,
    *,
    methods: Sequence[str],
    preset: str,
    settings: Mapping[str, str],
    source: str | None = None,
    **design: Any,
) -> str:
    """Returns the id of the run that compares `methods`; one that was asked for the same before goes on.

    `design` are fields of `CompareConfig`. `settings` go over those of `preset` for each method that has them. A
    Refusal where they or `design` ask for a part that cannot be made.
    """
    from mtf_engine.jobs import compare

    if "seed" in settings:
        raise Refusal("a comparison gives every training its seed; say by seeds which")
    training = {method: _training(method, methods, preset, settings) for method in methods}
    source_id = workspace.dataset(source).id if source else None
    values = {"source": source_id, "training": training, "preset": preset, **design}
    checked = _checked(CompareConfig, "the comparison", values)
    check_environment(checked.env)
    if settings and compare.MAKER not in methods and compare.needs_maker(checked):
        raise Refusal(
            f"dataset 3 and numbers of critics are made with {compare.MAKER}, which the settings would not reach; "
            "name it among the methods, or leave the settings out"
        )
    try:
        compare.parts(checked)
    except ValidationError as error:
        raise Refusal.invalid("the comparison", error) from None
    config = checked.model_dump(mode="json")
    same = [run for run in workspace.registry.runs(kind="compare") if run.config == config]
    if same:
        enqueue(workspace, same[0].id)
        return same[0].id
    name = f"{len(methods)} methods on {len(config['datasets'])} datasets, {len(config['seeds'])} seeds"
    return submit(workspace, "compare", config, name=name)


def _training(
    method: str, methods: Sequence[str], preset: str, settings: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the config of a method; a setting that none of `methods` has is refused."""
    from mtf_engine.algos import ALGOS
    from mtf_engine.learning.training import make_config

    has = {name: name in ALGOS[method].Config.model_fields for name in settings if method in ALGOS}
    unknown = [
        n for n in settings if not any(n in ALGOS[m].Config.model_fields for m in methods if m in ALGOS)
    ]
    if unknown:
        raise Refusal(f"none of {', '.join(methods)} has a setting {unknown[0]}")
    own = {name: value for name, value in settings.items() if has.get(name)}
    return make_config(method, preset=preset, settings=own, seed=0).model_dump(mode="json")


def submit_evaluate(
    workspace: Workspace,
    policies: Sequence[str],
    dataset: str,
    *,
    seed: int = 0,
    name: str | None = None,
    parent_id: str | None = None,
) -> str:
    """Returns the id of the run that scores `policies` (`RUN`, `RUN@best`, `baseline`) on a dataset."""
    row = workspace.dataset(dataset)
    policies = [workspace.policy(policy) for policy in policies]
    for policy in policies:
        if policy != BASELINE:
            workspace.trained(policy)
    config = _checked(
        EvaluateConfig,
        "the evaluation",
        {"policies": tuple(dict.fromkeys(policies)), "dataset_id": row.id, "seed": seed},
    )
    return submit(
        workspace,
        "evaluate",
        config.model_dump(mode="json"),
        name=name or f"on {row.name}",
        dataset_id=row.id,
        seed=seed,
        parent_id=parent_id,
    )


def world_of_policies(workspace: Workspace, policies: Sequence[str]) -> str | None:
    """Returns the world that the log of the first of `policies` is from; None where none of them tells."""
    learned = [
        workspace.trained(name).dataset_id for name in map(workspace.policy, policies) if name != BASELINE
    ]
    details = {row.id: row.meta["details"] for row in workspace.registry.datasets()}
    worlds = (world_of(details.get(log or "", {}).get("env") or "") for log in learned)
    return next(filter(None, worlds), None)


def submit_abtest(
    workspace: Workspace,
    policies: Sequence[str],
    *,
    against: str,
    env: str,
    n_users: int,
    seeds: Sequence[int] = (0,),
    personalisation: bool = False,
    name: str | None = None,
    parent_id: str | None = None,
) -> str:
    """Returns the id of the run that plays `policies` and the base `against` in an environment."""
    against, *tested = (workspace.policy(policy) for policy in (against, *policies))
    compared = tuple(dict.fromkeys((against, *tested)))
    if len(compared) == 1:
        raise Refusal(f"{against} would be tested against itself; name another policy")
    for policy in compared:
        if policy != BASELINE:
            workspace.trained(policy)
    values = {"policies": compared, "base": against, "env": env, "n_users": n_users, "seeds": tuple(seeds)}
    values |= {"personalisation": personalisation}
    config = _checked(ABTestConfig, "the A/B test", values)
    check_environment(config.env)
    return submit(
        workspace,
        "abtest",
        config.model_dump(mode="json"),
        name=name or f"against {against} in {env}",
        seed=config.seeds[0],
        n_steps=config.sessions,
        parent_id=parent_id,
    )


def submit_export(workspace: Workspace, run_id: str, on: str | None = None) -> str:
    """Returns the id of the run that exports the policy of a training, `RUN` or `RUN@best`.

    It is checked with rows of the dataset `on`, else with the examples that the training kept, else, where an
    earlier version kept none, with rows of the log it learned from.
    """
    run_id = workspace.policy(run_id)
    trained = workspace.trained(run_id)
    own = None if has_examples(workspace, trained.id) else trained.dataset_id
    if on is None and own is not None and own not in {row.id for row in workspace.registry.datasets()}:
        raise Refusal(
            f"the log that {trained.id} learned from is deleted, and with it the rows that its bundle is checked "
            "with; name a dataset with the same features: --on DATASET"
        )
    on = workspace.dataset(on).id if on else own
    config = ExportConfig(run_id=run_id, on=on).model_dump(mode="json")
    return submit(
        workspace, "export", config, name=trained.name, dataset_id=on or trained.dataset_id, algo=trained.algo
    )


def has_examples(workspace: Workspace, run_id: str) -> bool:
    """Returns whether a training kept the rows that an export needs; those of earlier versions kept none."""
    return (workspace.run_dir(run_id) / files.EXAMPLES).exists()


def bundle_path(workspace: Workspace, export_id: str) -> Path:
    """Returns where the bundle of a completed export lies."""
    run = workspace.registry.run(export_id)
    if run.kind != "export" or run.state is not RunState.COMPLETED:
        raise Refusal(f"{export_id} is not a completed export; `runs show {export_id}` says what it is")
    return workspace.run_dir(export_id) / files.BUNDLE


def fetch_bundle(workspace: Workspace, export_id: str, to: Path) -> None:
    """Copies the bundle of a completed export to `to`, where it appears at once or not at all."""
    write_atomically(to, bundle_path(workspace, export_id).read_bytes())


def bounds_plan(workspace: Workspace, name_or_file: str) -> BoundsPlan:
    """Returns the bounds plan in a YAML file, or else the one stored under that name."""
    path = Path(name_or_file)
    return BoundsPlan.from_yaml(path.read_text()) if path.is_file() else workspace.plan(name_or_file)


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Returns `name=value` pairs as a dict; a Refusal names one that is not such a pair."""
    for setting in settings:
        if "=" not in setting:
            raise Refusal(f"--set {setting} has no value; write --set name=value")
    return dict(setting.split("=", 1) for setting in settings)


def _checked(of: type[AnySpec], what: str, values: dict[str, Any]) -> AnySpec:
    try:
        return of.model_validate(values)
    except ValidationError as error:
        raise Refusal.invalid(what, error) from None
