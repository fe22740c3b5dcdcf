"""The paper's datasets: 1, 1b, 2, 3 and test, as parts of one run.

IntegratedRL-MTF (arXiv 2404.17589), section 4.1: four groups of users, one for each way to explore; 1b is ours,
Gaussian noise of the variance of the uniform one, on the users of 1: the fair control.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field, ValidationError

from mtf_engine.environments import draws
from mtf_engine.environments.draws import Channel
from mtf_engine.environments.names import Played
from mtf_engine.release.criteria import Criteria
from mtf_engine.runs import parts
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_environment
from mtf_engine.runs.worker import Job
from mtf_engine.spec import MOST, HalfWidth, Refusal, Seed, Threads, Workers
from mtf_engine.work.collect import CollectConfig, submit_collect
from mtf_engine.work.join import submit_join
from mtf_engine.work.progressive import ProgressiveConfig, submit_config
from mtf_engine.workspace import Workspace

PAPER_DATASETS = 5
"""1, 1b, 2, 3 and test."""

ROUNDS = 5
SIGMA = 0.2


class PaperDataConfig(Played):
    """Make the paper's datasets from four groups of users who are in none of the other groups."""

    sessions: int = Field(
        ge=5, le=MOST, multiple_of=5, description="of each dataset; five rounds share those of one"
    )
    half_width: HalfWidth = 0.15
    algo: str
    training: dict[str, Any] = Field(description="of the rounds, which share n_steps; passes are of each")
    seed: Seed = 0
    n_threads: Threads = 1
    n_workers: Workers = 1


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
    from mtf_engine.learning.training import make_config

    training = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    values = {"algo": algo, "training": training, "seed": seed, "n_threads": training["n_threads"], **sizes}
    config = PaperDataConfig.asked("the paper's data", values)
    check_environment(config.env)
    try:
        progressive_config(config)
    except ValidationError as error:
        raise Refusal.invalid("the paper's data", error) from None
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=name or f"the paper's data, {config.sessions} sessions",
        algo=algo,
        seed=seed,
        n_steps=PAPER_DATASETS,
    )


def make(job: Job, config: PaperDataConfig) -> dict[str, Any]:
    """Makes the datasets and returns their ids by name; a policy of its own is promoted in each round of 3."""
    made = {}
    for number, (name, how) in enumerate(ways(config).items(), start=1):
        made[name] = _collected(job, collection(config, name, how))
        job.progress(number)
    made["3"] = _rounds(job, config)
    job.progress(len(made))
    return {"datasets": made}


def ways(config: PaperDataConfig) -> dict[str, dict[str, Any]]:
    """Returns how each dataset but 3 is explored, by its name."""
    matched = config.half_width / math.sqrt(3)
    return {
        "1": {"explore": "gaussian", "sigma": SIGMA, "seed": group_seed(config.seed, 1)},
        "1b": {"explore": "gaussian", "sigma": matched, "seed": group_seed(config.seed, 1)},
        "2": {"explore": "uniform", "seed": group_seed(config.seed, 2)},
        "test": {"explore": "baseline", "seed": group_seed(config.seed, 4)},
    }


def collection(config: PaperDataConfig, name: str, how: dict[str, Any]) -> CollectConfig:
    """Returns what collects the dataset that is explored as one of `ways` says."""
    return CollectConfig(
        env=config.env,
        source=config.source,
        half_width=config.half_width,
        n_sessions=config.sessions,
        n_threads=config.n_threads,
        n_workers=config.n_workers,
        name=name,
        **how,
    )


def progressive_config(config: PaperDataConfig) -> ProgressiveConfig:
    """Returns the five rounds that share the sessions and the steps of one; those of 3 train its policies."""
    return ProgressiveConfig(
        env=config.env,
        source=config.source,
        rounds=ROUNDS,
        sessions_per_round=config.sessions // ROUNDS,
        algo=config.algo,
        training=config.training,
        criteria=Criteria.default(config.env, tested=False),
        promote="always",  # as in the paper, whose five days each served what the day before had trained
        half_width=config.half_width,
        seed=group_seed(config.seed, 3),
        n_threads=config.n_threads,
        n_workers=config.n_workers,
    )


def group_seed(seed: int, group: int) -> int:
    """Returns the seed whose users are the group, 1 to 4; no two groups share a user."""
    return draws.seed(draws.child(draws.child(draws.root(seed), Channel.PAPER), group))


def _collected(job: Job, config: CollectConfig) -> str:
    settings = dict(config)
    name = settings.pop("name")
    return str(parts.done(job, "collect", name, partial(submit_collect, **settings)).dataset_id)


def _rounds(job: Job, config: PaperDataConfig) -> str:
    """Returns the id of dataset 3: the logs of its five rounds."""
    played = parts.done(job, "progressive", "3", partial(submit_config, config=progressive_config(config)))
    datasets = [one["dataset_id"] for one in (played.result or {})["rounds"]]
    return str(parts.done(job, "join", "3", partial(submit_join, datasets=datasets)).dataset_id)


KIND = RunKind("paper-data", PaperDataConfig, make)
