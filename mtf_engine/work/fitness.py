"""The fitness that a search method is handed, by what its config says and where its log is from."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import Acting, Environment, draws
from mtf_engine.environments.draws import Channel
from mtf_engine.environments.play import play
from mtf_engine.logs.splits import ALL, TRAIN
from mtf_engine.registry import DatasetRow
from mtf_engine.runs.storage import open_dataset, open_environment
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

USERS = "users"


class SizedFitness(Protocol):
    """A fitness that knows how much an evaluation looks at."""

    def __call__(self, policy: Acting) -> float: ...

    @property
    def size(self) -> dict[str, int]:
        """Returns how many users and impressions, or sessions, one evaluation is over."""


class InstantReward:
    """The mean reward of a request in the same sessions at every call, whatever it does to their length."""

    def __init__(self, env: Environment, visits: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
        self.env, self.visits = env, visits

    def __call__(self, policy: Acting) -> float:
        """Returns rewards by requests, both summed over the sessions."""
        outcome = play(self.env, policy, *self.visits)
        return float(outcome.rewards.sum() / outcome.requests.sum())

    @property
    def size(self) -> dict[str, int]:
        return {"sessions": len(self.visits[0])}


def open_fitness(workspace: Workspace, dataset_id: str, config: Mapping[str, Any]) -> SizedFitness | None:
    """Returns the fitness that a training's `config` names; None where it names none, as RL methods do."""
    makers = {None: _none, "weighted_gauc": _ranking, "reward": _instant_reward}
    return makers[config.get("fitness")](workspace, dataset_id, config)


def consumed(fitness: SizedFitness, evaluations: int) -> dict[str, int]:
    """Returns how many evaluations a search made, what each looked at, and all of them; users are the same."""
    size = fitness.size.items()
    all_of_them = {f"{what}_in_all": n * evaluations for what, n in size if what != USERS}
    return {"evaluations": evaluations, **fitness.size, **all_of_them}


def _none(workspace: Workspace, dataset_id: str, config: Mapping[str, Any]) -> None:
    return None


def _ranking(workspace: Workspace, dataset_id: str, config: Mapping[str, Any]) -> SizedFitness:
    from mtf_engine.evaluation.ranking import Ranking, undefined

    dataset = open_dataset(workspace, dataset_id)
    split = TRAIN if TRAIN in dataset.splits else ALL
    rows = dataset.evaluation_rows(split, n_users=config["batch_size"])
    if why := undefined(rows):
        raise Refusal(
            f"a search by weighted GAUC on training users of {dataset.meta.name} is undefined: {why}; set "
            "fitness=reward if it was collected here from an environment, or take a method that learns from steps, "
            "such as integrated_rl"
        )
    return Ranking(rows)


def _instant_reward(workspace: Workspace, dataset_id: str, config: Mapping[str, Any]) -> SizedFitness:
    from mtf_engine.learning.search import sessions_each  # with torch, which only trainings need

    played = _collection(workspace, workspace.dataset(dataset_id))
    seed = draws.seed(draws.child(draws.root(config["seed"]), Channel.FITNESS))
    env = open_environment(
        workspace, played["env"], source=played["source"], seed=seed, n_threads=config["n_threads"]
    )
    return InstantReward(env, env.visits(0, sessions_each(config), seed))


def _collection(workspace: Workspace, log: DatasetRow) -> dict[str, Any]:
    """Returns how a log was collected: of joined ones the first, of a narrowed or sharded one the log it is of."""
    run = workspace.registry.run(log.run_id) if log.run_id else None
    if run is not None and run.kind == "join":
        return _collection(workspace, workspace.dataset(run.config["datasets"][0]))
    if run is not None and run.kind in ("narrow", "shard"):
        return _collection(workspace, workspace.dataset(run.config["source"]))
    if run is None or run.kind != "collect":
        raise Refusal(f"{log.name} was not collected from an environment here; set fitness=weighted_gauc")
    return run.config
