"""The demonstration workspace: methods and policies compared and A/B tested, a round that waits for you."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mtf_engine.commands.foreground import finish_all
from mtf_engine.commands.models import scores
from mtf_engine.commands.options import DEFAULT_WORLD, environment
from mtf_engine.questions.demo import LOGS, ROUNDS, TRAININGS
from mtf_engine.registry import BASELINE, RunState
from mtf_engine.runs import executor
from mtf_engine.work.abtest import submit_abtest
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.work.study import submit_compare
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace

N_REQUESTS, N_TEST_REQUESTS, N_USERS = 100_000, 20_000, 10_000
N_SESSIONS, N_ROUND_USERS = 4_000, 4_000
N_COMPARED_SESSIONS, N_COMPARED_USERS = 1_000, 1_000
COMPARED = ("linear_one_step", "best_single_head", "integrated_rl")


def fill(workspace: Workspace, world: str = DEFAULT_WORLD) -> dict[str, Any]:
    """Returns the ids of the demonstration's datasets and trainings, and their scores; makes what is missing.

    A log is explored uniformly and one with Gaussian noise, a policy is trained on each, and both are
    compared with the baseline on a log that the baseline made, and A/B tested against it. Beside them a round is
    played, up to the decision that people are to take, and before them methods are compared on a small scale: their
    logs are older than the ones that policies are compared on by default. A second call finds everything there.
    """
    from mtf_engine.evaluation import ABTest
    from mtf_engine.evaluation.agreement import agreement
    from mtf_engine.evaluation.result import PairedDifference

    comparison = _comparison(workspace, environment("session", world))
    collect = partial(submit_collect, workspace, env=environment("session", world))
    sizes = {"baseline": N_TEST_REQUESTS}
    collections = {
        name: partial(
            collect, explore=explore, seed=seed, name=name, n_requests=sizes.get(explore, N_REQUESTS)
        )
        for seed, (explore, name) in enumerate(LOGS.items(), start=1)
    }
    collected = finish_all(workspace, *_started(workspace, "collect", collections))
    *explored, test = (run.dataset_id or "" for run in collected)
    rounds = _rounds(workspace, environment("session", world))
    train = partial(submit_train, workspace, algo="integrated_rl", preset="demo", settings={})
    trainings = {
        name: partial(train, dataset, name=name)
        for name, dataset in zip(TRAININGS.values(), explored, strict=True)
    }
    policies = _started(workspace, "train", trainings)
    finish_all(workspace, *policies)
    score = partial(submit_evaluate, workspace, [*policies, BASELINE], test, name="demo comparison")
    against: dict[str, Any] = {"against": BASELINE, "env": environment("session", world), "n_users": N_USERS}
    test_all = partial(submit_abtest, workspace, policies, name="demo A/B test", **against)
    evaluation, tested = finish_all(
        workspace,
        *_started(workspace, "evaluate", {"demo comparison": score}),
        *_started(workspace, "abtest", {"demo A/B test": test_all}),
    )
    beside = agreement(
        map(PairedDifference.model_validate, (evaluation.result or {})["differences"]),
        ABTest.model_validate(tested.result),
    )
    waits = executor.wait(workspace, rounds)
    if waits.state is not RunState.WAITING:
        executor.completed(workspace, waits)
    return {
        "datasets": [*explored, test],
        "rounds": rounds,
        "comparison": comparison,
        "trainings": policies,
        "scores": scores(evaluation.result or {}),
        "beside_the_ab_test": beside and {**beside.model_dump(), "said": beside.sentence},
    }


def _comparison(workspace: Workspace, env: str) -> str:
    """Returns the id of the finished comparison of methods."""
    comparison = submit_compare(
        workspace,
        methods=COMPARED,
        datasets=("2",),
        seeds=(0,),
        env=env,
        preset="demo",
        settings={},
        sessions=N_COMPARED_SESSIONS,
        users=N_COMPARED_USERS,
        reuse="any",
    )
    finish_all(workspace, comparison)
    return comparison


def _rounds(workspace: Workspace, env: str) -> str:
    """Returns the id of the demonstration's rounds, which go on until they wait for a decision."""
    for run in workspace.registry.runs(kind="progressive"):
        if run.name == ROUNDS:
            if run.state.can_resume and run.state is not RunState.WAITING:
                executor.resume(workspace, run.id)
            return run.id
    return submit_progressive(
        workspace,
        algo="integrated_rl",
        preset="demo",
        settings={},
        env=env,
        rounds=2,
        sessions_per_round=N_SESSIONS,
        promote="by-hand",
        ab_users=N_ROUND_USERS,
        seed=4,
        name=ROUNDS,
    )


def _started(workspace: Workspace, kind: str, submissions: Mapping[str, Callable[[], str]]) -> list[str]:
    """Returns the ids of the runs with these names: those that are there, else resumed or submitted."""
    there = {run.name: run for run in reversed(workspace.registry.runs(kind=kind))}
    datasets = {row.id for row in workspace.registry.datasets()}
    run_ids = []
    for name, submit in submissions.items():
        run = there.get(name)
        if run is None or (kind == "collect" and run.state.is_finished and run.dataset_id not in datasets):
            run_ids.append(submit())
            continue
        if run.state.can_resume:
            executor.resume(workspace, run.id)
        run_ids.append(run.id)
    return run_ids
