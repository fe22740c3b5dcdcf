"""Progressive rounds: each collects, trains and evaluates as parts of one run, and promotes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from mtf_engine.environments import draws
from mtf_engine.environments.draws import Channel
from mtf_engine.environments.names import GYM, Played, is_replay
from mtf_engine.evaluation.abtest import Effect
from mtf_engine.exploration.signal import Signal
from mtf_engine.logs import aggregates
from mtf_engine.registry import BASELINE, DecisionRow, RunRow, RunState, is_trained
from mtf_engine.release import review
from mtf_engine.release.criteria import Criteria
from mtf_engine.release.rounds import Promote, Round, log_figures, policy_figures, share_of, verdict
from mtf_engine.reward import GAMMA
from mtf_engine.runs import executor, parts
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.spread import by
from mtf_engine.runs.storage import check_environment, load_policy, open_critics, open_dataset, open_policy
from mtf_engine.runs.worker import Job, Waits
from mtf_engine.spec import MOST, BoundsPlan, Count, HalfWidth, Refusal, Seed, Threads, Workers
from mtf_engine.work.abtest import submit_abtest
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.join import submit_join
from mtf_engine.work.train import KIND as TRAINING
from mtf_engine.workspace import Workspace

COLLECT, TRAIN, ABTEST = range(3)
"""What the seeds of a round are for."""
SYNTHETIC_USERS, EPISODES = 2_000, 400
"""Users of a round's A/B test unless told otherwise: synthetic ones, and those of a Gymnasium environment, whose
episodes take some hundred times as long."""


def default_ab_users(env: str) -> int:
    """Returns the users of a round's A/B test, where nobody says: none where consumption is bounded by a log."""
    if is_replay(env):
        return 0
    return EPISODES if env.startswith(GYM) else SYNTHETIC_USERS


class ProgressiveConfig(Played):
    """Explore, train and promote, round after round. `training` is the trainer's config for all rounds."""

    rounds: int = Field(default=5, ge=1, le=100)
    sessions_per_round: Count
    algo: str
    training: dict[str, Any] = Field(description="n_steps is shared by the rounds, passes are of each")
    half_width: HalfWidth = Field(default=0.15, description="of the box, where no plan is given")
    plan: BoundsPlan | None = None
    control_share: float = Field(default=0.1, ge=0, lt=1, description="share of users kept at the baseline")
    baseline: str = Field(default=BASELINE, description="policy that the first round explores around")
    train_on: Literal["current", "cumulative"] = Field(
        default="current", description="the log of the round, or of all rounds so far"
    )
    promote: Promote = "if-better"
    criteria: Criteria = Field(description="what a round is judged by, fixed before it is played")
    ab_users: int = Field(
        default=0, ge=0, le=MOST, description="of an A/B test against the round's baseline; 0: none"
    )
    seed: Seed = 0
    n_threads: Threads = 1
    n_workers: Workers = 1

    @property
    def stages(self) -> tuple[str, ...]:
        """What a round does, in order; a join of logs is part of its training."""
        return ("collect", "train", "evaluate", *(("abtest",) if self.ab_users else ()))

    @model_validator(mode="after")
    def _every_round_learns(self) -> "ProgressiveConfig":
        if self.training.get("action_level") == "item":
            raise ValueError(
                "a round explores around one action of the request, and action_level=item gives every item its own; "
                "set action_level=request"
            )
        if self.training["n_steps"] is not None and self.training["n_steps"] < self.rounds:
            raise ValueError(f"{self.training['n_steps']} steps are too few for {self.rounds} rounds")
        if self.ab_users and is_replay(self.env):
            raise ValueError("replayed users cannot be A/B tested: what they consume is bounded by their log")
        return self


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
    is shared by the rounds. Without `ab_users` they are judged by as many as `default_ab_users` says.
    """
    from mtf_engine.learning.training import make_config

    seed = rounds.get("seed", 0)
    if rounds.get("ab_users") is None:
        rounds["ab_users"] = default_ab_users(rounds["env"])
    training = make_config(algo, preset=preset, settings=dict(settings), seed=seed).model_dump(mode="json")
    source_id = workspace.dataset(source).id if source else None
    defaults = {
        "n_threads": training["n_threads"],
        "criteria": Criteria.default(rounds["env"], tested=rounds["ab_users"] > 0),
    }
    rounds["baseline"] = workspace.policy(rounds.get("baseline", BASELINE))
    values = {**defaults, "source": source_id, "algo": algo, "training": training, **rounds}
    config = ProgressiveConfig.asked("the rounds", values)
    check_environment(config.env)
    workspace.check_policy(config.baseline)
    return submit_config(workspace, config, name=name or f"{algo} {config.rounds} rounds on {config.env}")


def submit_config(
    workspace: Workspace, config: ProgressiveConfig, *, name: str, parent_id: str | None = None
) -> str:
    """Returns the id of the progressive run of `config`."""
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=name,
        algo=config.algo,
        seed=config.seed,
        n_steps=len(config.stages) * config.rounds,
        parent_id=parent_id,
    )


def decide(
    workspace: Workspace,
    run_id: str,
    number: int | None,
    choice: review.Choice,
    *,
    name: str,
    reason: str = "",
    seen: int | None = None,
) -> DecisionRow:
    """Returns the ledger's new entry, see `review.decide`; a run that waited for it is resumed."""
    row = review.decide(workspace, run_id, number, choice, name=name, reason=reason, seen=seen)
    run = workspace.registry.run(run_id)
    if run.config["promote"] == "by-hand" and run.state in (RunState.WAITING, RunState.INTERRUPTED):
        executor.resume(workspace, run_id)
    return row


def progressive(job: Job, config: ProgressiveConfig) -> dict[str, Any]:
    """Works the rounds of a run, each around the policy last promoted, and returns what they came to.

    Parts that are done are not done again, so a run that was killed ends like one that was not.
    """
    rounds = _Rounds(job, config)
    while len(rounds.told) < rounds.config.rounds:
        rounds.told.append(rounds.decided(rounds.next()))
        job.workspace.registry.update_run(job.run.id, result=rounds.result())
    return rounds.result()


def round_seed(seed: int, number: int, of: int) -> int:
    """Returns the seed of one round's collection or training."""
    key = draws.child(draws.child(draws.root(seed), Channel.ROUNDS), number)
    return draws.seed(draws.child(key, of))


@dataclass
class _Rounds:
    job: Job
    config: ProgressiveConfig
    told: list[Round] = field(default_factory=list)

    @property
    def number(self) -> int:
        """The number of the round at work."""
        return len(self.told) + 1

    @property
    def baseline(self) -> str:
        """The policy last promoted."""
        return self.told[-1].next_baseline if self.told else self.config.baseline

    def result(self) -> dict[str, Any]:
        return {"promoted": self.baseline, "rounds": [one.model_dump(mode="json") for one in self.told]}

    def next(self) -> Round:
        """Returns the next round, played."""
        runs = {"collect": self._collected()}
        self._progress("collect")
        if self.config.train_on == "cumulative" and self.told:
            runs["join"] = self._joined(runs["collect"])
        runs["train"] = self._trained(runs.get("join", runs["collect"]))
        self._progress("train")
        runs["evaluate"] = self._evaluated(runs["train"], runs["collect"])
        self._progress("evaluate")
        if self.config.ab_users:
            runs["abtest"] = self._tested(runs["train"])
            self._progress("abtest")
        return self._summed_up(runs)

    def decided(self, one: Round) -> Round:
        """Returns the round as people decided it, where that is theirs; ends the run here until they have."""
        if self.config.promote != "by-hand":
            return one
        workspace, run = self.job.workspace, self.job.run
        row = review.decision_of(workspace, run.id, one.number)
        if row is None:
            waiting = {**self.result(), "rounds": [*self.result()["rounds"], one.model_dump(mode="json")]}
            workspace.registry.update_run(run.id, result=waiting)
            raise Waits(
                f"round {one.number} waits for a decision: `review show {run.id}`, `review decide {run.id}`"
            )
        why = f"decided by {row.name}: {row.reason or row.recommendation}"
        return one.model_copy(update={"promoted": row.decision == "promote", "why": why})

    def _progress(self, stage: str) -> None:
        stages = self.config.stages
        self.job.progress(len(stages) * len(self.told) + stages.index(stage) + 1)

    @property
    def _name(self) -> str:
        return f"{self.job.run.name} round {self.number}"

    def _collected(self) -> RunRow:
        config = self.config
        collection = partial(
            submit_collect,
            env=config.env,
            source=config.source,
            plan=config.plan,
            half_width=config.half_width,
            control_share=config.control_share,
            baseline=self.baseline,
            n_sessions=config.sessions_per_round,
            seed=round_seed(config.seed, self.number, COLLECT),
            n_threads=config.n_threads,
            n_workers=config.n_workers,
        )
        return parts.done(self.job, "collect", self._name, collection)

    def _joined(self, log: RunRow) -> RunRow:
        datasets = [*(one.dataset_id for one in self.told), str(log.dataset_id)]
        return parts.done(self.job, "join", self._name, partial(submit_join, datasets=datasets))

    def _trained(self, log: RunRow) -> RunRow:
        shared = self.config.training["n_steps"]
        steps = shared and share_of(shared, self.number, self.config.rounds)
        seed = round_seed(self.config.seed, self.number, TRAIN)
        training = partial(
            submit,
            kind=TRAINING,
            config={**self.config.training, "n_steps": steps, "seed": seed, **self._reward_scale()},
            dataset_id=log.dataset_id,
            algo=self.config.algo,
            n_steps=steps or 0,
            seed=seed,
        )
        return parts.done(self.job, "train", self._name, training)

    def _reward_scale(self) -> dict[str, float]:
        """Returns what rewards are multiplied by, which the first training fixed, where one was."""
        first = self.told[0].candidate if self.told else self.config.baseline
        if not is_trained(first) or self.config.training.get("reward_scale", 1.0) is not None:
            return {}
        scale = load_policy(self.job.workspace, first).info.get("reward_scale")
        return {"reward_scale": scale} if scale else {}

    def _evaluated(self, trained: RunRow, log: RunRow) -> RunRow:
        # without floors: what is asked is whether the candidate is better than the round's baseline
        policies = (trained.id, self.baseline)
        scoring = partial(
            submit_evaluate,
            policies=policies,
            dataset=str(log.dataset_id),
            floors=False,
            n_workers=self.config.n_workers,
        )
        return parts.done(self.job, "evaluate", self._name, scoring)

    def _tested(self, trained: RunRow) -> RunRow:
        test = partial(
            submit_abtest,
            policies=(trained.id,),
            against=self.baseline,
            env=self.config.env,
            n_users=self.config.ab_users,
            seeds=(round_seed(self.config.seed, self.number, ABTEST),),
        )
        return parts.done(self.job, "abtest", self._name, test)

    def _summed_up(self, runs: dict[str, RunRow]) -> Round:
        """Returns what the completed parts of the round come to."""
        workspace, candidate = self.job.workspace, runs["train"].id
        log = open_dataset(workspace, str(runs["collect"].dataset_id))
        policy, baseline, first = (
            open_policy(workspace, name, log.meta)
            for name in (candidate, self.baseline, self.config.baseline)
        )
        figures = policy_figures(
            log,
            policy,
            first,
            open_critics(workspace, candidate),
            runs["evaluate"].result or {},
            (candidate, self.baseline),
        )
        tested = runs["abtest"].result if "abtest" in runs else None
        effects = tuple(Effect.model_validate(one) for one in (tested or {}).get("effects", ()))
        promoted, why = verdict(self.config.promote, figures.difference, effects)
        assert log.meta.plan is not None
        return Round(
            number=self.number,
            baseline=self.baseline,
            candidate=candidate,
            dataset_id=str(runs["collect"].dataset_id),
            runs={kind: run.id for kind, run in runs.items()},
            plan=log.meta.plan,
            sessions=self.config.sessions_per_round,
            requests=log.n_requests,
            steps=runs["train"].n_steps,
            log=log_figures(log, baseline, self.config.training.get("gamma", 1.0)),
            policy=figures,
            effects=effects,
            signal=self._signal(runs.get("join", runs["collect"])),
            synthetic=log.meta.synthetic,
            promoted=promoted,
            why=why,
        )

    def _signal(self, trained_on: RunRow) -> Signal | None:
        """Returns what the log trained on tells of the return; None where it is too short to tell."""
        log = open_dataset(self.job.workspace, str(trained_on.dataset_id))
        try:
            gamma, spread = self.config.training.get("gamma", GAMMA), by(self.config.n_workers)
            return aggregates.signal(log, gamma=gamma, spread=spread).everybody
        except Refusal:
            return None


KIND = RunKind("progressive", ProgressiveConfig, progressive)
