"""Progressive rounds: what one round is, what its log and its policy tell, and whether the policy is promoted.

A round explores around a baseline policy, trains on the log, evaluates on validation users and decides; what is
promoted is the next round's baseline (IntegratedRL-MTF, arXiv 2404.17589, section 4.2.3).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtf_engine.evaluation import evaluate
from mtf_engine.evaluation.abtest import Effect
from mtf_engine.evaluation.bootstrap import interval, poisson_bootstrap
from mtf_engine.evaluation.disagreement import Critics
from mtf_engine.exploration.signal import Signal
from mtf_engine.exploration.walls import at_wall
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.splits import CONTROL, VALIDATION
from mtf_engine.policies.monotony import NegativePow, negative_pows
from mtf_engine.spec import BoundsPlan, Spec

if TYPE_CHECKING:
    from mtf_engine.policies.policy import Policy

Promote = Literal["always", "if-better", "by-hand"]
REWARDS = ("session_reward", "return")
"""What an A/B test calls the reward of a session, by environment."""
N_BOOTSTRAP = 1_000


class Estimate(Spec):
    """A figure with its 95 % interval over users, and of how many users; None where there are too few."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_users: int


class LogFigures(Spec):
    """What a round's log says of its baseline policy and of exploring around it, in units of the reward.

    Control users met the baseline policy itself. `control_return` is discounted to the start of a session.
    """

    control_reward: Estimate
    explored_reward: Estimate
    control_return: Estimate
    control_gauc: Estimate


class PolicyFigures(Spec):
    """What a round's log says of the policy trained in it, on the requests of validation users.

    `predicted_return` is what its critics expect of a session, discounted to its start. `walked` is the mean
    |action - action of the first baseline| of each dimension, `share_at_wall` the share of explored weights
    at a wall of the bounds (`exploration.walls`), `negative_pows` where it ranks against a positive behaviour.
    """

    gauc: Estimate
    baseline_gauc: Estimate
    difference: Estimate
    predicted_return: Estimate | None
    walked: tuple[float, ...]
    share_at_wall: float
    negative_pows: tuple[NegativePow, ...] = ()

    @property
    def path(self) -> float:
        """The mean distance from the first baseline over all dimensions."""
        return float(np.mean(self.walked))


class Round(Spec):
    """One round: who explored around whom, what was found, what was decided and why.

    `runs` names the round's runs by kind. `steps` are gradient steps. `effects` are those of an A/B test against
    the baseline of the round, where there was one. `signal` is that of the log trained on, where it can tell.
    """

    number: int
    baseline: str
    candidate: str
    dataset_id: str
    runs: dict[str, str]
    plan: BoundsPlan
    sessions: int
    requests: int
    steps: int
    log: LogFigures
    policy: PolicyFigures
    effects: tuple[Effect, ...] = ()
    signal: Signal | None = None
    synthetic: bool
    promoted: bool
    why: str

    @property
    def next_baseline(self) -> str:
        return self.candidate if self.promoted else self.baseline


def share_of(total: int, number: int, rounds: int) -> int:
    """Returns how many of `total` steps the round `number` (from 1) takes: all rounds together take them all."""
    return total * number // rounds - total * (number - 1) // rounds


def reward_effect(effects: Sequence[Effect]) -> Effect | None:
    """Returns what a candidate does to the reward of a session; None without an A/B test."""
    return next((effect for effect in effects if effect.metric in REWARDS), None)


def verdict(promote: Promote, difference: Estimate, effects: Sequence[Effect] = ()) -> tuple[bool, str]:
    """Returns whether a candidate is promoted, and why.

    What counts is its session reward in an A/B test, where there was one, else its `difference` of weighted
    GAUC on validation users, each against the baseline of the round.
    """
    effect = reward_effect(effects)
    tested = None if effect is None else effect.relative
    gain = difference.value if tested is None else tested
    if tested is not None:
        found = f"session reward {tested:+.2%} against the baseline in the A/B test"
    elif difference.value is not None:
        found = f"weighted GAUC {difference.value:+.4f} against the baseline on validation users"
    else:
        found = "no validation user has impressions of both classes"
    if promote == "by-hand":
        return False, f"waits for a decision; {found}"
    if promote == "always":
        return True, f"every round promotes; {found}"
    better = gain is not None and gain > 0
    return better, f"{'better' if better else 'not better'}: {found}"


def log_figures(log: Dataset, baseline: "Policy", gamma: float) -> LogFigures:
    """Returns what a round's log says of its baseline policy; returns are discounted by `gamma`."""
    rows = log.arrays(
        "SELECT session_id, step, user_id, pscore, reward FROM requests ORDER BY session_id, step"
    )
    first = np.flatnonzero(np.diff(rows["session_id"], prepend=rows["session_id"][:1] - 1))
    control = np.isnan(rows["pscore"][first])
    users = np.unique(rows["user_id"][first], return_inverse=True)[1]
    totals = np.add.reduceat(rows["reward"], first)
    returns = np.add.reduceat(rows["reward"] * gamma ** rows["step"].astype(float), first)
    return LogFigures(
        control_reward=_mean(totals[control], users[control]),
        explored_reward=_mean(totals[~control], users[~control]),
        control_return=_mean(returns[control], users[control]),
        control_gauc=_control_gauc(log, baseline, any_control=bool(control.any())),
    )


def policy_figures(
    log: Dataset,
    policy: "Policy",
    first_baseline: "Policy",
    critics: Critics | None,
    evaluation: Mapping[str, Any],
    names: tuple[str, str],
) -> PolicyFigures:
    """Returns what a round's log says of the `policy` trained in it.

    `evaluation` is the summary of an evaluation that holds the policy and the baseline, under `names`.
    """
    rows = log.evaluation_rows()
    actions = policy.act(rows.observations)
    scores = {row["run_id"]: row for row in evaluation["policies"]}
    (difference,) = (
        row
        for row in evaluation["differences"]
        if (row["run_id"], row["base"], row["group"]) == (*names, "user")
    )
    assert rows.baseline_actions is not None and rows.lower is not None and rows.upper is not None
    offsets = actions - rows.baseline_actions
    gauc, baseline_gauc = (_scored(scores[name], "weighted_gauc", scores[name]) for name in names)
    return PolicyFigures(
        gauc=gauc,
        baseline_gauc=baseline_gauc,
        difference=_scored(difference, "value", scores[names[0]]),
        predicted_return=predicted_return(log, policy, critics) if critics is not None else None,
        walked=tuple(np.abs(actions - first_baseline.act(rows.observations)).mean(0, dtype=float).tolist()),
        share_at_wall=_share_at_wall(offsets, rows.lower, rows.upper),
        negative_pows=negative_pows(rows.fusion, actions, log.meta.reward.weights)
        if len(rows.request)
        else (),
    )


def _scored(row: Mapping[str, Any], value: str, users: Mapping[str, Any]) -> Estimate:
    return Estimate(
        value=row[value], ci_low=row["ci_low"], ci_high=row["ci_high"], n_users=users["users_used"]
    )


def _mean(values: NDArray[np.float64], users: NDArray[np.int64]) -> Estimate:
    """Returns the mean of values [n] of sessions of `users` [n], with a bootstrap over users."""
    sums, counts = np.bincount(users, values), np.bincount(users).astype(float)
    drawn = poisson_bootstrap(sums[None], counts[None], N_BOOTSTRAP, np.random.default_rng(0))
    low, high = interval(drawn[:, 0])
    mean = float(values.mean()) if len(values) else None
    return Estimate(value=mean, ci_low=low, ci_high=high, n_users=int((counts > 0).sum()))


def _control_gauc(log: Dataset, baseline: "Policy", any_control: bool) -> Estimate:
    if not any_control:
        return Estimate(value=None, ci_low=None, ci_high=None, n_users=0)
    (found,) = evaluate({"baseline": baseline}, log.evaluation_rows(CONTROL)).policies
    return _scored(found.model_dump(), "weighted_gauc", found.model_dump())


def predicted_return(log: Dataset, policy: "Policy", critics: Critics) -> Estimate | None:
    """Returns the critics' mean Q of the policy where validation users' sessions start; None without any."""
    first = log.arrays(
        "SELECT user_id, observation, baseline_action, lower, upper FROM requests "
        "WHERE split = ? AND NOT isnan(action[1]) "
        "QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY step) = 1 ORDER BY session_id",
        [VALIDATION],
    )
    if not len(first["user_id"]):
        return None
    context = first["baseline_action"], first["lower"], first["upper"]
    q = critics.q(first["observation"], *context, policy.act(first["observation"]))
    users = np.unique(first["user_id"], return_inverse=True)[1]
    return _mean(q.mean(0, dtype=float) / policy.info["reward_scale"], users)


def _share_at_wall(offsets: NDArray, lower: NDArray, upper: NDArray) -> float:
    """Returns the share of explored weights that are at a wall; those of fixed dimensions are not explored."""
    return float(at_wall(offsets, lower, upper).sum() / max(int((upper > lower).sum()), 1))
