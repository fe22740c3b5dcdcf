"""A/B tests: the same users of an environment under several policies."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field, model_validator

from mtf_engine.environments.names import EnvName, is_replay
from mtf_engine.registry import BASELINE
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_environment, open_environment, open_policy
from mtf_engine.runs.worker import Job
from mtf_engine.spec import MOST, Refusal, Seed, Spec, Threads
from mtf_engine.workspace import Workspace


class ABTestConfig(Spec):
    """Play the same users of an environment under several policies."""

    env: EnvName
    policies: tuple[str, ...] = Field(min_length=2, description="the base among them")
    base: str
    n_users: int = Field(default=10_000, ge=2, le=MOST, description="of each seed")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    personalisation: bool = Field(default=False, description="each policy beside its own mean actions too")
    n_threads: Threads = 1

    @model_validator(mode="after")
    def _users_decide(self) -> "ABTestConfig":
        if is_replay(self.env):
            raise ValueError("what replayed users consume is bounded by their log; take session or gym:ID")
        return self

    @property
    def sessions(self) -> int:
        """How many sessions are played; a policy and its two mean actions make three more each."""
        more = 3 * (len(self.policies) - 1) if self.personalisation else 0
        return (len(self.policies) + more) * len(self.seeds) * self.n_users


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
    config = ABTestConfig.asked("the A/B test", values)
    check_environment(config.env)
    return submit(
        workspace,
        KIND,
        config.model_dump(mode="json"),
        name=name or f"against {against} in {env}",
        seed=config.seeds[0],
        n_steps=config.sessions,
        parent_id=parent_id,
    )


def abtest(job: Job, config: ABTestConfig) -> dict[str, Any]:
    """Plays the same users under several policies, and tells what each does to them."""
    from mtf_engine.evaluation import ab_test
    from mtf_engine.evaluation.abtest import Flattened
    from mtf_engine.evaluation.personalisation import personalisation

    env = open_environment(job.workspace, config.env, n_threads=config.n_threads)
    policies = {name: open_policy(job.workspace, name, env) for name in config.policies}
    asked, of = (config.n_users, config.seeds), config.sessions
    result = ab_test(env, policies, config.base, *asked, partial(_further, job, 0, of))
    lost: list[Flattened] = []
    tested = [name for name in policies if name != config.base and config.personalisation]
    for before, name in enumerate(tested):
        played = (len(policies) + 3 * before) * len(config.seeds) * config.n_users
        lost += personalisation(env, name, policies[name], *asked, partial(_further, job, played, of))
    return result.model_copy(update={"personalisation": tuple(lost)}).model_dump(mode="json")


def _further(job: Job, before: int, of: int, done: int, _of: int) -> None:
    """Reports `done` of a share of the job's work, after what was done `before`."""
    job.progress(before + done, of)


KIND = RunKind("abtest", ABTestConfig, abtest)
