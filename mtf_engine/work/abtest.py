"""A/B tests: the same users of an environment under several policies."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter, model_validator

from mtf_engine.environments.names import EnvName, is_replay
from mtf_engine.runs import files
from mtf_engine.runs.executor import submit
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.storage import check_environment, open_environment, open_policy
from mtf_engine.runs.worker import Job
from mtf_engine.spec import MOST, Refusal, Seed, Spec, Threads
from mtf_engine.workspace import Workspace

if TYPE_CHECKING:
    from mtf_engine.evaluation.sequential import Look


class ABTestConfig(Spec):
    """Play the same users of an environment under several policies."""

    env: EnvName
    policies: tuple[str, ...] = Field(min_length=2, description="the base among them")
    base: str
    n_users: int = Field(default=10_000, ge=2, le=MOST, description="of each seed")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    personalisation: bool = Field(default=False, description="each policy beside its own mean actions too")
    stop_early: bool = Field(
        default=False, description="end once every policy's reward is told from the base's"
    )
    n_threads: Threads = 1

    @model_validator(mode="after")
    def _users_decide(self) -> "ABTestConfig":
        if is_replay(self.env):
            raise ValueError("what replayed users consume is bounded by their log; take session or gym:ID")
        if self.stop_early and len(self.seeds) > 1:
            raise ValueError("stops early by the users of one seed; take one seed, or let it play to its end")
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
    stop_early: bool = False,
    name: str | None = None,
    parent_id: str | None = None,
) -> str:
    """Returns the id of the run that plays `policies` and the base `against` in an environment."""
    against, *tested = (workspace.policy(policy) for policy in (against, *policies))
    compared = tuple(dict.fromkeys((against, *tested)))
    if len(compared) == 1:
        raise Refusal(f"{against} would be tested against itself; name another policy")
    for policy in compared:
        workspace.check_policy(policy)
    values = {"policies": compared, "base": against, "env": env, "n_users": n_users, "seeds": tuple(seeds)}
    values |= {"personalisation": personalisation, "stop_early": stop_early}
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
    from mtf_engine.evaluation.sequential import Look

    env = open_environment(job.workspace, config.env, n_threads=config.n_threads)
    policies = {name: open_policy(job.workspace, name, env) for name in config.policies}
    looks: list[Look] = []
    _keep(job, looks, ())  # a resumed test begins anew
    result = ab_test(
        env,
        policies,
        config.base,
        config.n_users,
        config.seeds,
        partial(_further, job, 0, config.sessions),
        partial(_keep, job, looks),
        config.stop_early,
    )
    config = config.model_copy(update={"n_users": result.n_users})
    lost: list[Flattened] = []
    tested = [name for name in policies if name != config.base and config.personalisation]
    asked, a_policy = (config.n_users, config.seeds), len(config.seeds) * config.n_users
    for before, name in enumerate(tested):
        further = partial(_further, job, (len(policies) + 3 * before) * a_policy, config.sessions)
        lost += personalisation(env, name, policies[name], *asked, further)
    job.progress(config.sessions, config.sessions)
    return result.model_copy(update={"personalisation": tuple(lost)}).model_dump(mode="json")


def looks_so_far(workspace: Workspace, run_id: str) -> "list[Look]":
    """Returns the looks at a test that works, so far."""
    from mtf_engine.evaluation.sequential import Look

    path = workspace.run_dir(run_id) / files.LOOKS
    return TypeAdapter(list[Look]).validate_json(path.read_bytes()) if path.exists() else []


def _keep(job: Job, looks: "list[Look]", new: "Sequence[Look]") -> None:
    """Adds `new` looks to those of before, in the run's folder too, for whoever follows the test."""
    looks += new
    job.write_json(files.LOOKS, looks)


def _further(job: Job, before: int, of: int, done: int, _of: int) -> None:
    """Reports `done` of a share of the job's work, after what was done `before`."""
    job.progress(before + done, of)


KIND = RunKind("abtest", ABTestConfig, abtest)
