"""The work of a comparison: every method on every dataset with every seed, scored, and A/B tested where it can be.

A seed draws the paper's datasets (`paper_data`), the training, and the users of the A/B test: the same for all
methods, and others for another seed. So seeds are independent, and what differs within one is the method or
the data.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from mtf_engine.environments.names import GYM, Played, is_session, meets_again
from mtf_engine.registry import BASELINE, RunRow, RunState
from mtf_engine.runs.campaign import (
    Campaign,
    Done,
    Order,
    Part,
    Reuse,
    always,
    as_asked_now,
    counts,
    same_result,
)
from mtf_engine.runs.executor import enqueue, submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_environment
from mtf_engine.runs.worker import Job
from mtf_engine.spec import MOST, HalfWidth, Refusal, Seed, Threads, Workers
from mtf_engine.study.comparison import ROUNDS, Cell, Comparison, algo_of
from mtf_engine.work import paper_data
from mtf_engine.work.abtest import KIND as ABTEST
from mtf_engine.work.abtest import ABTestConfig
from mtf_engine.work.collect import KIND as COLLECT
from mtf_engine.work.evaluate import KIND as EVALUATE
from mtf_engine.work.evaluate import EvaluateConfig
from mtf_engine.work.join import KIND as JOIN
from mtf_engine.work.join import JoinConfig
from mtf_engine.work.paper_data import PaperDataConfig
from mtf_engine.work.progressive import KIND as PROGRESSIVE
from mtf_engine.work.train import KIND as TRAIN
from mtf_engine.workspace import Workspace

TEST, POOLED = "test", "3"
MAKER = "integrated_rl"
"""Trains the policies that the rounds of dataset 3 are collected around, and is retrained with other critics."""
CRITICS_ON = "2"
AB_GROUP = 5
"""Of users, beside the four of the datasets."""


class CompareConfig(Played):
    """Train every method on every dataset with every seed, score each policy and A/B test it.

    A seed draws the datasets, the training and the users of the A/B test, the same ones for all methods.
    `training` is the trainer's config of each method, without its seed.
    """

    training: dict[str, dict[str, Any]] = Field(min_length=1, description="by method")
    preset: str
    datasets: tuple[Literal["1", "1b", "2", "3"], ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    sessions: int = Field(
        ge=5, le=MOST, multiple_of=5, description="of each dataset; five rounds share those of one"
    )
    rounds: bool = Field(default=False, description="every method that learns collects its own five, too")
    n_critics: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(), description="integrated_rl on dataset 2 with so many"
    )
    users: int = Field(default=10_000, ge=2, le=MOST, description="of each A/B test")
    half_width: HalfWidth = 0.15
    reuse: Reuse = Field(
        default="same-code",
        description="what is stored already and not done again: results of this code, or any",
    )
    n_threads: Threads = 1
    n_workers: Workers = 1

    @field_validator("datasets", "seeds", "n_critics")
    @classmethod
    def _named_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("each may be named only once")
        return values


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

    What is asked for is that of `asked_for`, which refuses what cannot be made.
    """
    checked = asked_for(workspace, methods=methods, preset=preset, settings=settings, source=source, **design)
    config = checked.model_dump(mode="json")
    asked = (run for run in workspace.registry.runs(kind="compare") if same_result(KIND, run.config, config))
    same = [run for run in asked if run.state is not RunState.COMPLETED or counts(run, checked.reuse)]
    if same:
        as_asked_now(workspace, same[0].id, config)
        enqueue(workspace, same[0].id)
        return same[0].id
    kinds, seeds = config["datasets"], config["seeds"]
    name = f"{_n(methods, 'method')} on {_n(kinds, 'dataset')}, {_n(seeds, 'seed')}"
    return submit(workspace, KIND, config, name=name)


def _n(things: Sequence[Any], word: str) -> str:
    """Returns how many things there are, with their word."""
    return f"{len(things)} {word}{'s' if len(things) != 1 else ''}"


def asked_for(
    workspace: Workspace,
    *,
    methods: Sequence[str],
    preset: str,
    settings: Mapping[str, str],
    source: str | None = None,
    **design: Any,
) -> CompareConfig:
    """Returns the comparison of `methods`.

    METHOD:item is the method with weights for each item. `design` are fields of `CompareConfig`. `settings` go over
    those of `preset` for each method that has them. A Refusal where they or `design` ask for a part that cannot be
    made.
    """
    if "seed" in settings:
        raise Refusal("a comparison gives every training its seed; say by seeds which")
    shows_nothing = str(design.get("env")).startswith(GYM)
    training = {method: _settings_of(method, methods, preset, settings, shows_nothing) for method in methods}
    source_id = workspace.dataset(source).id if source else None
    values = {"source": source_id, "training": training, "preset": preset, **design}
    checked = CompareConfig.asked("the comparison", values)
    check_environment(checked.env)
    if settings and MAKER not in methods and needs_maker(checked):
        raise Refusal(
            f"dataset 3 and numbers of critics are made with {MAKER}, which the settings would not reach; "
            "name it among the methods, or leave the settings out"
        )
    try:
        parts(checked)
    except ValidationError as error:
        raise Refusal.invalid("the comparison", error) from None
    return checked


def _settings_of(
    method: str, methods: Sequence[str], preset: str, settings: Mapping[str, str], shows_nothing: bool
) -> dict[str, Any]:
    """Returns the config of a method; a setting that none of `methods` has is refused.

    Where the environment `shows_nothing` that could be ranked, a search is for reward.
    """
    from mtf_engine.algos import ALGOS
    from mtf_engine.learning.training import make_config

    algo, fields = algo_of(method), {name: one.Config.model_fields for name, one in ALGOS.items()}
    known = [algo_of(m) for m in methods if algo_of(m) in ALGOS]
    unknown = [name for name in settings if not any(name in fields[m] for m in known)]
    if unknown:
        raise Refusal(f"none of {', '.join(methods)} has a setting {unknown[0]}")
    own = {name: value for name, value in settings.items() if name in fields.get(algo, ())}
    if shows_nothing and "fitness" in fields.get(algo, ()):
        own = {"fitness": "reward", **own}
    if algo != method:
        if shows_nothing:
            raise Refusal(f"{method} has weights for each item, and the environment shows none; name {algo}")
        own["action_level"] = "item"
    return make_config(algo, preset=preset, settings=own, seed=0).model_dump(mode="json")


def compare(job: Job, config: CompareConfig) -> dict[str, Any]:
    """Carries out what is missing of a comparison and returns its record; a Refusal names what failed."""
    campaign = Campaign(job, config.reuse)
    wanted = list(cells(config))
    record = Comparison(
        env=config.env, synthetic=meets_again(config.env), preset=config.preset, reuse=config.reuse
    )
    for done in campaign.carry_out(parts(config)):
        told = tuple(filled(job, config, cell, done) for cell in wanted if _scores(config, cell) <= set(done))
        record = record.model_copy(update={"cells": told, "seconds_left": campaign.seconds_left()})
        job.workspace.registry.update_run(job.run.id, result=record.model_dump(mode="json"))
    if campaign.failed:
        name, why = next(iter(campaign.failed.items()))
        raise Refusal(
            f"{len(campaign.failed)} of {len(campaign.failed) + len(campaign.done)} parts are missing; the first "
            f"is {name}: {why}; `runs resume {job.run.id}` tries them again"
        )
    return record.model_dump(mode="json")


def cells(config: CompareConfig) -> Iterator[Cell]:
    """Yields the cells of the comparison, seed after seed, without their figures."""
    for seed in config.seeds:
        for method in config.training:
            for dataset in (*config.datasets, *((ROUNDS,) if method in _own_rounds(config) else ())):
                yield Cell(method=method, dataset=dataset, seed=seed)
        for n_critics in config.n_critics:
            yield Cell(method=MAKER, dataset=CRITICS_ON, seed=seed, n_critics=n_critics)


def parts(config: CompareConfig) -> list[Part]:
    """Returns the runs that the comparison needs, seed after seed, the longest first among those that can begin."""
    planned: list[Part] = []
    for seed in config.seeds:
        planned += _data(config, seed)
        of_seed = [cell for cell in cells(config) if cell.seed == seed]
        planned += [_training(config, cell) for cell in of_seed if cell.dataset != ROUNDS]
        planned += [_in_rounds(config, cell.method, seed) for cell in of_seed if cell.dataset == ROUNDS]
        for cell in of_seed:
            planned += _scoring(config, cell)
    return list({part.name: part for part in planned}.values())


def needs_maker(config: CompareConfig) -> bool:
    """Returns whether `MAKER` is trained, be it among the compared methods or not."""
    return POOLED in config.datasets or bool(config.n_critics)


def title(cell: Cell) -> str:
    """Returns what the runs of a cell are called."""
    critics = f", {cell.n_critics} critics" if cell.n_critics else ""
    where = "in five rounds" if cell.dataset == ROUNDS else f"on dataset {cell.dataset}"
    return f"{cell.method} {where}{critics}, seed {cell.seed}"


def _data_name(dataset: str, seed: int) -> str:
    return f"dataset {dataset}, seed {seed}"


def _own_rounds(config: CompareConfig) -> tuple[str, ...]:
    """Returns the methods that collect rounds of their own: those that learn from transitions."""
    from mtf_engine.algos import ALGOS

    alone = [
        method for method in config.training if algo_of(method) == method
    ]  # rounds have one action a request
    learning = [method for method in alone if "fitness" not in ALGOS[method].Config.model_fields]
    return tuple(learning) if config.rounds else ()


def _data(config: CompareConfig, seed: int) -> Iterator[Part]:
    """Yields the runs that make the datasets of a seed."""
    paper = _paper(config, seed)
    wanted = {*config.datasets, *((CRITICS_ON,) if config.n_critics else ())}
    if POOLED in wanted:
        rounds = _in_rounds(config, MAKER, seed)
        yield rounds
        name = _data_name(POOLED, seed)
        yield Part(name, JOIN, partial(_joined, name, rounds.name), needs=(rounds.name,))
    for dataset, how in paper_data.ways(paper).items():
        if dataset in wanted or (dataset == TEST and is_session(config.env)):
            name = _data_name(dataset, seed)
            collection = paper_data.collection(paper, name, how)
            order = Order(collection.model_dump(mode="json"), seed=collection.seed, n_steps=paper.sessions)
            yield Part(name, COLLECT, partial(always, order))


def _paper(config: CompareConfig, seed: int) -> PaperDataConfig:
    from mtf_engine.learning.training import make_config

    maker = config.training.get(MAKER) or make_config(MAKER, config.preset, {}, seed).model_dump(mode="json")
    return PaperDataConfig(
        env=config.env,
        source=config.source,
        sessions=config.sessions,
        half_width=config.half_width,
        algo=MAKER,
        training={**maker, "seed": seed},
        seed=seed,
        n_threads=config.n_threads,
        n_workers=config.n_workers,
    )


def _in_rounds(config: CompareConfig, method: str, seed: int) -> Part:
    """Returns five rounds of a method; those of `MAKER` are the ones that dataset 3 pools."""
    paper = _paper(config, seed)
    own = config.training.get(method, paper.training)
    paper = paper.model_copy(update={"algo": method, "training": {**own, "seed": seed}})
    rounds = paper_data.progressive_config(paper)
    n_steps = len(rounds.stages) * rounds.rounds
    order = Order(rounds.model_dump(mode="json"), seed=rounds.seed, n_steps=n_steps)
    name = title(Cell(method=method, dataset=ROUNDS, seed=seed))
    return Part(name, PROGRESSIVE, partial(always, order), algo=method)


def _joined(name: str, rounds: str, done: Done) -> Order:
    logs = tuple(one["dataset_id"] for one in (done[rounds].result or {})["rounds"])
    return Order(JoinConfig(datasets=logs, name=name).model_dump(mode="json"))


def _training(config: CompareConfig, cell: Cell) -> Part:
    data = _data_name(cell.dataset, cell.seed)
    own = {"seed": cell.seed, **({"n_critics": cell.n_critics} if cell.n_critics else {})}
    training = {**config.training.get(cell.method, _paper(config, cell.seed).training), **own}

    def order(done: Done) -> Order:
        return Order(training, done[data].dataset_id, seed=cell.seed, n_steps=training["n_steps"] or 0)

    return Part(title(cell), TRAIN, order, needs=(data,), algo=algo_of(cell.method))


def _scoring(config: CompareConfig, cell: Cell) -> Iterator[Part]:
    """Yields the evaluation of a cell's policy on the test log, and its A/B test where users can be met again.

    Without impressions nothing is ranked, and the A/B test alone scores.
    """
    trained, test = title(cell), _data_name(TEST, cell.seed)

    def evaluation(done: Done) -> Order:
        dataset_id = str(done[test].dataset_id if is_session(config.env) else config.source)
        asked = EvaluateConfig(
            policies=(_policy(done[trained]), BASELINE),
            dataset_id=dataset_id,
            floors=True,
            n_workers=config.n_workers,
        )
        return Order(asked.model_dump(mode="json"), dataset_id, seed=asked.seed)

    def test_users(done: Done) -> Order:
        asked = ABTestConfig(
            env=config.env,
            policies=(BASELINE, _policy(done[trained])),
            base=BASELINE,
            n_users=config.users,
            seeds=(paper_data.group_seed(cell.seed, AB_GROUP),),
            personalisation=True,
        )
        return Order(asked.model_dump(mode="json"), seed=asked.seeds[0], n_steps=asked.sessions)

    needs = (trained, test) if is_session(config.env) else (trained,)
    if not config.env.startswith(GYM):
        yield Part(f"score of {trained}", EVALUATE, evaluation, needs)
    if meets_again(config.env):
        yield Part(f"A/B test of {trained}", ABTEST, test_users, (trained,))


def _scores(config: CompareConfig, cell: Cell) -> set[str]:
    """Returns the parts that a cell's figures are read from."""
    return {title(cell), *(part.name for part in _scoring(config, cell))}


def _policy(run: RunRow) -> str:
    """Returns the policy of a training, or the last one that rounds promoted."""
    return run.id if run.kind == "train" else str((run.result or {})["promoted"])


def _steps(run: RunRow) -> int:
    """Returns how long a training was, or those of all rounds."""
    rounds = (run.result or {}).get("rounds", ())
    return run.n_steps if run.kind == "train" else sum(one["steps"] for one in rounds)


def filled(job: Job, config: CompareConfig, cell: Cell, done: Done) -> Cell:
    """Returns the cell with what its runs found."""
    name = title(cell)
    policy = _policy(done[name])
    trained = job.workspace.registry.run(policy)
    figures = {
        "policy": policy,
        "steps": _steps(done[name]),
        "seconds": done[name].seconds,
        "fitness": trained.config.get("fitness"),
        "search": (trained.result or {}).get("search"),
    }
    if scored := done.get(f"score of {name}"):
        figures |= {"test_dataset": scored.dataset_id, **_ranked(scored.result or {}, policy)}
    if tested := done.get(f"A/B test of {name}"):
        result = tested.result or {}
        figures |= {kind: result.get(kind, ()) for kind in ("effects", "personalisation")}
    return Cell.model_validate(cell.model_dump() | figures)


def _ranked(scored: dict[str, Any], policy: str) -> dict[str, Any]:
    """Returns the figures of a cell that an evaluation found."""
    gaucs = {row["run_id"]: row["weighted_gauc"] for row in scored["policies"]}
    (difference,) = (
        row
        for row in scored["differences"]
        if (row["run_id"], row["base"], row["group"]) == (policy, BASELINE, "user")
    )
    return {
        "gauc": gaucs[policy],
        "baseline_gauc": gaucs[BASELINE],
        "gauc_difference": {key: difference[key] for key in ("value", "ci_low", "ci_high")},
        "floors": {floor: gaucs[floor] for floor in scored.get("floors", ())},
    }


KIND = RunKind("compare", CompareConfig, compare, coordinates=True)
