"""Which off-policy estimator to trust: each against what its policy brings, where that can be played or is known.

    python benchmarks/off_policy.py [--sessions 4000] [--policies 20] [--users 300] [--fit-steps 500] [--write]

1. Policies x logs of synthetic users. Each log is explored uniformly within +-0.15: of the world feed around its live
   policy, of feed around what a first round learned from that log (its second round), and of the world clickbait.
   Policies are the log's baseline, the offset that `linear_one_step` finds, scaled up to 2, and random offsets. What
   each brings is played, with and without its smoothing, on the same users for all: the mean difference to the baseline
   there, which few users tell, on top of what the baseline brings to many.
2. Coverage of the interval of importance sampling per decision, 500 logs of a small problem whose value is known.

With `--write` the section goes into docs/results.md.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr, truncnorm

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.compared import put
from mtf_engine.algos import ALGOS
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.play import each_request
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.evaluation import smoothing
from mtf_engine.evaluation.off_policy import (
    ESTIMATORS,
    Estimator,
    OffPolicyEstimate,
    OffPolicySettings,
    log_ratios,
    off_policy,
    weighted_estimates,
)
from mtf_engine.learning.fqe import FQEConfig, fitted_q
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.held_out import LoggedSessions, held_out_sessions
from mtf_engine.policies.networks import OffsetPolicy
from mtf_engine.policies.policy import Policy
from mtf_engine.runs.storage import live_policy
from mtf_engine.spec import BoundsPlan, FusionSpec

TITLE = "## Which off-policy estimator to trust"
HALF_WIDTH = 0.15
TEST_SEED = 1_000
ANCHOR_USERS = 20_000
"""That the baseline is played on."""
REPEATS, USERS, STEPS = 500, 200, 3
OF_SMOOTHED = ("ncis", "per_decision_is", "doubly_robust")
Floats = NDArray[np.float64]


class Log(NamedTuple):
    """An explored log, the policy that it was explored around, and the one learned from it."""

    name: str
    env: SessionEnvironment
    dataset: Dataset
    baseline: Policy
    learned: Policy


class Judged(NamedTuple):
    """What an estimator said of a policy on a log, and what the policy and its smoothed one brought."""

    log: str
    told: OffPolicyEstimate
    own: float
    smoothed: float


def collected(folder: Path, name: str, world: str, n_sessions: int, baseline: Policy | None = None) -> Log:
    """Returns a log of a world around its live policy, or around `baseline`."""
    env = SessionEnvironment(SessionConfig(world=world))
    baseline = baseline or live_policy(env)
    how = Collection(
        plan=BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions), n_sessions=n_sessions, seed=len(name)
    )
    file = name.replace(" ", "_").replace(",", "")
    write_dataset(folder, file, how.meta(env, name, "session"), collect(env, baseline, how))
    dataset = Dataset.open(folder / f"{file}.duckdb")
    transitions = dataset.transitions()
    algo = ALGOS["linear_one_step"](
        make_config("linear_one_step", "laptop", {}, seed=0), transitions, baseline
    )
    for _ in fit(algo, transitions):
        pass
    return Log(name, env, dataset, baseline, algo.policy)


def policies(log: Log, n: int) -> Iterator[Policy]:
    """Yields n policies: the baseline, the learned offset at eight scales, and random offsets up to 1.5 half widths."""
    generator = np.random.default_rng(7)
    learned = np.asarray(log.learned.network.offset, np.float64)
    offsets = [np.zeros(len(learned)), *(scale * learned for scale in np.linspace(-0.5, 2, 8))]
    offsets += [
        generator.uniform(-1, 1, len(learned)) * HALF_WIDTH * size for size in np.linspace(0.2, 1.5, 50)
    ]
    for offset in offsets[: n // 2] + offsets[9 :: max(1, 50 // (n - n // 2))][: n - n // 2]:
        network = OffsetPolicy(log.baseline.network, len(learned))
        network.offset.copy_(torch.as_tensor(offset, dtype=torch.float32))
        yield Policy(network, log.env.fusion, log.env.feature_names, log.env.numeric_mask)


def brought(
    log: Log, act: Callable[[NDArray[np.float32]], NDArray[np.float32]], users: int, gamma: float
) -> float:
    """Returns the mean discounted return of a session; nobody leaves, and rewards count with the chance to be there."""
    env = SessionEnvironment(log.env.config, weigh_leaving=True)
    total = np.zeros(users)
    env.reset(*env.visits(0, users, TEST_SEED))
    for active, observations in each_request(env):
        who, discount = active.sessions, gamma**active.step
        total[who] += discount * env.step(act(observations)).rewards
    return float(total.mean())


def smoothed(log: Log, policy: Policy, tau: float) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Returns how the smoothed policy acts, inside the box of the log."""
    generator = np.random.default_rng(0)

    def act(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        baseline = log.baseline.act(observations)
        low, high = smoothing.box_of(
            baseline, np.full_like(baseline, -HALF_WIDTH), np.full_like(baseline, HALF_WIDTH)
        )
        luck = generator.random(baseline.shape)
        return smoothing.drawn(policy.act(observations), low, high, tau, luck)

    return act


def judged(log: Log, how: OffPolicySettings, n_policies: int, users: int) -> Iterator[Judged]:
    """Yields what each estimator says of each policy, and what that brings."""
    sessions, transitions = held_out_sessions(log.dataset), log.dataset.transitions()
    config = FQEConfig(n_steps=how.fit_steps, gamma=how.gamma, smoothing=how.tau)
    few, many = (brought(log, log.baseline.act, n, how.gamma) for n in (users, ANCHOR_USERS))
    for i, policy in enumerate(policies(log, n_policies)):
        fitted = fitted_q(transitions, policy, config)
        told = off_policy(policy, sessions, fitted.critics, how, reward_scale=fitted.reward_scale)
        own, soft = (
            brought(log, act, users, how.gamma) - few + many
            for act in (policy.act, smoothed(log, policy, how.tau))
        )
        print(f"{log.name}, policy {i}: {own:.2f}, smoothed {soft:.2f}", file=sys.stderr, flush=True)
        yield from (Judged(log.name, one, own, soft) for one in told)


def row(estimator: Estimator, log: str, found: list[Judged]) -> str:
    """Returns the line of a table about one estimator on one log."""
    own = [one for one in found if (one.log, one.told.estimator) == (log, estimator)]
    told = [one for one in own if one.told.value is not None]
    if len(told) < 3:
        return f"| {log} | `{estimator}` | {len(told)} of {len(own)} | | | | |"
    values = np.array([one.told.value for one in told])
    aims = np.array([one.smoothed if estimator in OF_SMOOTHED else one.own for one in told])
    rank = spearmanr(values, [one.own for one in told]).statistic
    covered = np.mean(
        [one.told.ci_low <= aim <= one.told.ci_high for one, aim in zip(told, aims, strict=True)]
    )
    error = float(np.sqrt(np.square(values - aims).mean()))
    bias = float((values - aims).mean())
    figures = f"{rank:.2f} | {bias:+.2f} | {error:.2f} | {covered:.0%}"
    return f"| {log} | `{estimator}` | {len(told)} of {len(own)} | {figures} |"


def known_problem(generator: np.random.Generator, mean: float, tau: float) -> tuple[LoggedSessions, Floats]:
    """Returns a log of 200 users, two sessions each, and the smoothed policy's log densities of its actions.

    A reward is 1 + the action + what its user always adds; a session goes on with a chance of 0.8, to three requests.
    """
    lengths = np.minimum(generator.geometric(0.2, 2 * USERS), STEPS)
    n, users = lengths.sum(), np.repeat(np.arange(USERS), 2)
    actions = generator.uniform(-1, 1, (n, 1))
    own = np.repeat(generator.normal(0, 0.5, USERS)[users], lengths)
    ones = np.ones((n, 1), np.float32)
    sessions = LoggedSessions(
        split="test", observations=ones, actions=actions, baseline_actions=0 * ones, lower=-ones, upper=ones,
        pscore=np.full(n, 0.5), clipped=np.zeros(n, np.int32), ended=np.ones(2 * USERS, bool),
        rewards=1 + actions[:, 0] + own + generator.normal(0, 0.5, n), starts=np.cumsum([0, *lengths[:-1]]),
        users=users, fusion=FusionSpec.default(("click",)), feature_names=("one",),
    )  # fmt: skip
    return sessions, smoothing.log_density(
        actions, np.full((n, 1), mean), -np.ones((n, 1)), np.ones((n, 1)), tau
    )


def coverage(mean: float, tau: float) -> dict[str, tuple[float, float, float]]:
    """Returns coverage, bias and mean effective sample size of NCIS and importance sampling on 500 known problems."""
    how = OffPolicySettings(tau=tau)
    centre = float(truncnorm.mean((-1 - mean) / tau, (1 - mean) / tau, mean, tau))
    value = (1 + centre) * sum((0.9 * 0.8) ** t for t in range(STEPS))
    hits: dict[str, list[tuple[bool, float, float]]] = {"ncis": [], "per_decision_is": []}
    for seed in range(REPEATS):
        generator = np.random.default_rng(seed)
        sessions, density = known_problem(generator, mean, tau)
        nothing = np.zeros(len(sessions.rewards))
        found = weighted_estimates(sessions, log_ratios(sessions, density), nothing, nothing, how)
        for name, list_of in hits.items():
            sums = found[name]  # type: ignore[index]
            told = sums.told(2, 1_000, generator)
            list_of.append((told["ci_low"] <= value <= told["ci_high"], sums.value - value, sums.ess))  # type: ignore[operator]
    return {name: tuple(np.mean(list_of, axis=0)) for name, list_of in hits.items()}  # type: ignore[misc]


def coverage_rows() -> Iterator[str]:
    """Yields the lines of the table on the known problem."""
    yield "| policy's action | tau | estimator | coverage of the 95 % interval | bias | effective sample size of 400 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for mean, tau in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5), (0.8, 0.3)):
        for name, (covered, bias, ess) in coverage(mean, tau).items():
            yield f"| {mean:g} | {tau:g} | `{name}` | {covered:.1%} | {bias:+.3f} | {ess:.0f} |"


def section(options: argparse.Namespace) -> str:
    """Returns what was found, as a section of docs/results.md."""
    start, how = time.monotonic(), OffPolicySettings(fit_steps=options.fit_steps)
    known = "\n".join(coverage_rows())
    found: list[Judged] = []
    with tempfile.TemporaryDirectory() as folder:
        first = collected(Path(folder), "feed", "feed", options.sessions)
        second = collected(Path(folder), "feed, second round", "feed", options.sessions, first.learned)
        third = collected(Path(folder), "clickbait", "clickbait", options.sessions)
        logs = first, second, third
        for log in logs:
            found += judged(log, how, options.policies, options.users)
        errors = error_of(logs)
    rows = "\n".join(row(estimator, log.name, found) for log in logs for estimator in ESTIMATORS)
    minutes = (time.monotonic() - start) / 60
    names = ("sessions", "policies", "users", "fit_steps")
    told = " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in names)
    return f"""{TITLE}

`python benchmarks/off_policy.py {told}`, {minutes:.0f} minutes on a busy machine.
Synthetic users. Each log has {options.sessions:,} sessions, explored uniformly within ±{HALF_WIDTH:g} in 10 dimensions,
a tenth of their users held out. Smoothing is {how.tau:g} half widths, the least effective sample size {how.min_ess:g}.
Rank: Spearman's correlation of the values told with what the policies themselves bring. Bias, error (root mean
square) and coverage of the 95 % interval are against what an estimator is of: the smoothed policy for the first three,
the policy itself for the last two. The estimates of a log share its held-out users, so that a bias of one standard
error of their mean, {errors}, is chance.

| log | estimator | policies told | rank | bias | error | coverage |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

Standard deviation over policies of what they bring: {spread(found)}; of what their
smoothed ones bring: {spread(found, True)}.

On a problem whose value is known, {REPEATS} logs of {USERS} users with two sessions of up to {STEPS} requests each:

{known}"""


def error_of(logs: Sequence[Log]) -> str:
    """Returns the standard error of the mean discounted return of each log's held-out sessions."""
    errors = {}
    for log in logs:
        sessions = held_out_sessions(log.dataset)
        rewards = sessions.by_step(sessions.rewards)[sessions.explored]
        returns = rewards @ OffPolicySettings().gamma ** np.arange(rewards.shape[1])
        errors[log.name] = returns.std() / np.sqrt(len(returns))
    return ", ".join(f"{error:.2f} ({name})" for name, error in errors.items())


def spread(found: list[Judged], soft: bool = False) -> str:
    """Returns by how much what the policies bring differs on each log."""
    by_log: dict[str, set[float]] = {}
    for one in found:
        by_log.setdefault(one.log, set()).add(one.smoothed if soft else one.own)
    return ", ".join(f"{np.std(list(values)):.2f} ({log})" for log, values in by_log.items())


def main() -> None:
    """Measures and prints the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=4_000, help="of each log")
    parser.add_argument("--policies", type=int, default=20, help="on each log")
    parser.add_argument("--users", type=int, default=300, help="that each policy is played on")
    parser.add_argument("--fit-steps", type=int, default=500, help="of the fitted Q")
    parser.add_argument("--write", action="store_true", help="put the section into docs/results.md, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = section(options)
    print(told)
    if options.write:
        put(told)


if __name__ == "__main__":
    main()
