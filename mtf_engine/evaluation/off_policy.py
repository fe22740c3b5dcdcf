"""Off-policy evaluation: what a session would bring under a policy, told by a log that another one made.

A value is the discounted return of a session from its start to its end (unscaled reward, mean over sessions). Five
estimators stand side by side, since none is to be trusted everywhere (`benchmarks/off_policy.py`):

- `per_decision_is`: importance sampling per decision (Precup, Sutton and Singh, ICML 2000). Unbiased, wide.
- `ncis`: the same with weights cut at `cap` and normalised to a mean of 1 at each step: the metric of UnifiedRL, the
  paper's v6. A session that has ended keeps its weight, or its shortness would not count.
- `doubly_robust` (Jiang and Li, arXiv 1511.03722): a fitted Q, corrected by what the log says beyond it.
- `fqe`: fitted Q evaluation (Le, Voloshin and Yue, arXiv 1903.08738) at the start of each session.
- `conservative_fqe`: the same with a CQL term, BatchRL-MTF's estimator (arXiv 2208.04560).

The first three are of the smoothed policy (`smoothing`), on sessions whose every action has a density: control users,
who were drawn apart from all else, are left out. The last two are of the policy itself. Q is fitted on training users
(`learning.fqe`), and all values are of users that no training saw. Intervals are bootstrap draws over those users; they
do not know how far a fitted Q is off.

Where an action was cut at the edge of [-1, 1] the log has a mass and no density: a smoothed policy draws it never.

These are our own: `obp` 0.5.7 pins torch 1.12; `scope-rl` 0.2.1 installs beside today's numpy and torch, but its
estimators want sessions of one length and a kernel without a box, and know no users; `d3rlpy.ope.FQE` 2.8.1 takes a
method of d3rlpy's, and forces gymnasium 1.0. Where scope-rl's can say the same, they are the oracle
(`tests/oracles/make_scope_rl.py`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.evaluation import smoothing
from mtf_engine.evaluation.bootstrap import interval, poisson_bootstrap
from mtf_engine.evaluation.disagreement import Critics
from mtf_engine.logs.held_out import LoggedSessions
from mtf_engine.reward import GAMMA
from mtf_engine.spec import Count, Spec

if TYPE_CHECKING:
    from mtf_engine.policies.policy import Policy

Floats = NDArray[np.float64]
Estimator = Literal["ncis", "per_decision_is", "doubly_robust", "fqe", "conservative_fqe"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
OF_POLICY, CONSERVATIVE, OF_SMOOTHED = range(3)
"""Which of the critics is fitted to what."""
NOT_ENOUGH = "not enough support"
"""What is said where the effective sample size is below the gate."""
LARGEST_LOG = 300.0
"""Of a weight: beyond it the effective sample size is 1 all the same, and sums would overflow."""
N_DRAWS = 16
"""Actions of the smoothed policy that its mean Q is taken over; a mean of few is as unbiased as one of many."""


class OffPolicySettings(Spec):
    """How policies are evaluated off-policy."""

    tau: float = Field(
        default=2.0,
        ge=0.01,
        le=100,
        description="standard deviation of the smoothed policy, in half widths of the logged box",
    )
    cap: float = Field(default=10.0, gt=0, le=1e6, description="of a weight in ncis")
    min_ess: float = Field(
        default=50.0, ge=2, description="effective sample size below which nothing is told"
    )
    gamma: float = Field(default=GAMMA, ge=0, lt=1, description="discount of later requests")
    fit_steps: Count = Field(default=1_000, description="updates of the fitted Q, however large the log is")


class OffPolicyEstimate(Spec):
    """What one estimator tells of a policy; None where its effective sample size is below the gate."""

    estimator: Estimator
    value: float | None
    ci_low: float | None
    ci_high: float | None
    ess: float = Field(
        description="(sum w)^2 / sum w^2 of the weights of sessions at their end; where none are weighed, sessions"
    )
    in_support: float = Field(description="share of held-out requests whose action lies in the logged box")


class OffPolicyRows(OffPolicySettings):
    """The settings, and what of a log was held out."""

    split: str
    n_users: int
    n_sessions: int
    n_explored: int = Field(description="sessions whose every action has a density")
    n_cut: int = Field(description="sessions whose end the log did not see, which count as far as they go")

    @classmethod
    def of(cls, settings: OffPolicySettings, sessions: LoggedSessions) -> "OffPolicyRows":
        """Returns what was held out, and how it is evaluated."""
        return cls(
            **settings.model_dump(),
            split=sessions.split,
            n_users=sessions.n_users,
            n_sessions=len(sessions),
            n_explored=int(sessions.explored.sum()),
            n_cut=int((~sessions.ended).sum()),
        )


def off_policy(
    policy: "Policy",
    sessions: LoggedSessions,
    critics: Critics,
    settings: OffPolicySettings,
    *,
    reward_scale: float,
    n_bootstrap: int = 1_000,
    seed: int = 0,
) -> tuple[OffPolicyEstimate, ...]:
    """Returns what each estimator tells of a policy on held-out sessions.

    `critics` are those of `learning.fqe`, in units of the reward times `reward_scale`.
    """
    generator = np.random.default_rng(seed)
    actions = policy.act(sessions.observations)
    low, high = smoothing.box_of(sessions.baseline_actions, sessions.lower, sessions.upper)
    inside = (actions >= low - smoothing.ROUNDING) & (actions <= high + smoothing.ROUNDING)
    in_support = float(inside.all(axis=1).mean())
    seen = (sessions.observations, sessions.baseline_actions, sessions.lower, sessions.upper)
    q = np.asarray(critics.q(*seen, sessions.actions), np.float64)[OF_SMOOTHED] / reward_scale
    means = np.zeros(len(q))
    for _ in range(N_DRAWS):
        drawn = smoothing.drawn(actions, low, high, settings.tau, generator.random(actions.shape))
        means += np.asarray(critics.q(*seen, drawn), np.float64)[OF_SMOOTHED] / reward_scale / N_DRAWS
    starts = tuple(part[sessions.starts] for part in (*seen, actions))
    at_start = np.asarray(critics.q(*starts), np.float64) / reward_scale
    density = smoothing.log_density(sessions.actions, actions, low, high, settings.tau)
    found: dict[Estimator, UserSums] = {
        **weighted_estimates(sessions, log_ratios(sessions, density), q, means, settings),
        "fqe": UserSums.of_sessions(at_start[OF_POLICY], sessions.users, len(sessions)),
        "conservative_fqe": UserSums.of_sessions(at_start[CONSERVATIVE], sessions.users, len(sessions)),
    }
    return tuple(
        OffPolicyEstimate(
            estimator=name,
            ess=found[name].ess,
            in_support=in_support,
            **found[name].told(settings.min_ess, n_bootstrap, np.random.default_rng(seed)),
        )
        for name in ESTIMATORS
    )


@dataclass(frozen=True)
class UserSums:
    """A value `sum_k discounts_k sum_u numerators_ku / sum_u denominators_ku` of users u, and what it rests on."""

    numerators: Floats  # [k, n_users]
    denominators: Floats  # [k, n_users]
    discounts: Floats  # [k]
    ess: float

    @classmethod
    def of_sessions(cls, values: Floats, users: NDArray[np.int64], ess: float) -> "UserSums":
        """Returns the mean of one value a session, [s], of the users [s]."""
        return cls(
            _by_user(values[:, None], users), _by_user(np.ones((len(users), 1)), users), np.ones(1), ess
        )

    @property
    def value(self) -> float:
        return float(self.discounts @ (self.numerators.sum(1) / self.denominators.sum(1)))

    def told(
        self, min_ess: float, n_bootstrap: int, generator: np.random.Generator
    ) -> dict[str, float | None]:
        """Returns the value with its 95 % interval, all None where too few sessions count."""
        if self.ess < min_ess:
            return dict.fromkeys(("value", "ci_low", "ci_high"))
        draws = poisson_bootstrap(self.numerators, self.denominators, n_bootstrap, generator)
        low, high = interval(draws @ self.discounts)
        return {"value": self.value, "ci_low": low, "ci_high": high}


def log_ratios(sessions: LoggedSessions, log_densities: Floats) -> Floats:
    """Returns by how much likelier each logged action is under the smoothed policy, logs [s, longest session].

    0 after a session's end, and where the action has no density.
    """
    known = ~np.isnan(sessions.pscore)
    logged = np.log(np.where(known, sessions.pscore, 1.0))
    ratios = np.where(sessions.clipped > 0, -np.inf, log_densities - logged)
    return sessions.by_step(np.where(known, ratios, 0.0))


def weighted_estimates(
    sessions: LoggedSessions, ratios: Floats, q: Floats, v: Floats, settings: OffPolicySettings
) -> dict[Estimator, UserSums]:
    """Returns what the three estimators make of log ratios [s, steps], and of Q and V [n] at each request."""
    own = sessions.explored
    users = sessions.users[own]
    rewards, q, v = (sessions.by_step(values)[own] for values in (sessions.rewards, q, v))
    logs = np.minimum(ratios[own].cumsum(axis=1), LARGEST_LOG)
    weights = np.exp(logs)
    before = np.column_stack([np.ones(len(weights)), weights[:, :-1]])
    discounts = settings.gamma ** np.arange(weights.shape[1])
    capped = np.minimum(weights, settings.cap)
    ess = effective_sample_size(weights[:, -1])
    return {
        "ncis": UserSums(
            _by_user(capped * rewards, users),
            _by_user(capped, users),
            discounts,
            effective_sample_size(capped[:, -1]),
        ),
        "per_decision_is": UserSums.of_sessions(weights * rewards @ discounts, users, ess),
        "doubly_robust": UserSums.of_sessions((weights * (rewards - q) + before * v) @ discounts, users, ess),
    }


def effective_sample_size(weights: Floats) -> float:
    """Returns (sum w)^2 / sum w^2 of weights [s]; 0 where all are 0 or there are none (Kish, 1965)."""
    largest = weights.max(initial=0.0)
    if largest == 0:
        return 0.0
    weights = weights / largest
    return float(np.square(weights.sum()) / np.square(weights).sum())


def _by_user(values: Floats, users: NDArray[np.int64]) -> Floats:
    """Returns the sums [steps, n_users] of values [s, steps] over the sessions of each user."""
    return np.stack([np.bincount(users, column).astype(np.float64) for column in values.T])
