"""One linear step: the baseline action, moved by the same offset for everybody. A floor, no paper.

What every method with networks has to beat: the least-squares slope of a target on how far the logged action
went from the baseline action, dimension by dimension, shrunk by how sure it is. The policy keeps what the baseline
tells of users and adds a share of the box, `min(|t| / full_t, 1)` of the way to the edge that the slope's sign
points to, where t is the slope over its standard error. As in `exploration/signal.py`, the fits of target and
deviation on the observation are taken out before, errors are clustered by session, and requests that met the
baseline action itself (control users) are left out.

- The target is the TD residual `r + gamma V(s') - V(s)` or, with `target=return`, the discounted return minus V.
  V is linear in the observation, fitted to the returns of other sessions. Where V is right both have the same
  slope; the TD residual is free of the luck of all later requests, and of what a cut session lacks. Where the
  observation does not tell what an action did to later requests, the return alone sees it.
- A step deals the sessions to the folds of V anew. Slopes and variances are means over the steps: steps take
  out the luck of the deal, they do not converge to anything else, and one would do.
- A dimension that never moves on its own stays at the baseline, and all do where every return is the same. Of a log
  without any effect t is noise: an offset is 0 in the mean, and 0.4 of the way to one edge or the other in size.
- One offset cannot tell users apart: what helps some and harms as many others is not found. Where boxes differ
  it is cut at their mean, beyond the box of those who have a narrower one.
- Observations are read from the log a chunk at a time; what is held of each request are its action, its rewards and
  what the fits leave of them.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.clustered import FOLDS, clustered_slopes, residuals, values
from mtf_engine.exploration.signal import moving, varying
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.start import baseline_network
from mtf_engine.logs.transitions import Requests, Transitions
from mtf_engine.policies.networks import OffsetPolicy
from mtf_engine.policies.policy import Policy
from mtf_engine.reward import GAMMA
from mtf_engine.spec import MOST, Count, Refusal

HIDDEN = (64, 64)
"""Of the actor that stands for the baseline where no policy is given, only its logged actions."""


class LinearOneStepConfig(TrainerConfig):
    """Settings of the linear step."""

    n_steps: Count = Field(default=10, description="deals of the sessions to folds, averaged over (ours)")
    batch_size: int = Field(
        default=10_000_000, ge=FOLDS, le=MOST, description="sessions that a step looks at, at most (ours)"
    )
    checkpoint_every: Count = Field(
        default=1, description="steps between checkpoints, from which a run resumes"
    )
    log_every: Count = Field(default=1, description="steps between rows of metrics")
    validate_every: Count = Field(
        default=5, description="steps between scores on validation users; the best step is kept"
    )
    gamma: float = Field(
        default=GAMMA, ge=0, le=1, description="discount of later requests (IntegratedRL-MTF: 0.9)"
    )
    target: Literal["td_residual", "return"] = Field(
        default="td_residual",
        description="what the slopes are of: r + gamma V(s') - V(s), or the discounted return minus V (ours)",
    )
    full_t: float = Field(
        default=2.0, gt=0, description="slope over standard error at which an offset reaches its edge (ours)"
    )
    ridge: float = Field(
        default=1.0, gt=0, description="pull of the slopes to 0, as of so many requests without effect (ours)"
    )


@dataclass(frozen=True)
class LoggedCovariates:
    """Observation of n requests, and middle of the box where that varies: float32 [n, c], read a slice at a time."""

    requests: Callable[[NDArray[np.int64]], Requests]
    steps: NDArray[np.int64]  # [n]
    varies: NDArray[np.bool_]  # [d]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        asked = self.requests(self.steps[rows])
        return np.column_stack([asked.observations, _middles(asked)[:, self.varies]])


@dataclass(frozen=True)
class Explored:
    """The explored steps of a log, n of them, as the regression takes them."""

    steps: NDArray[np.int64]  # [n], among those of the log
    offsets: NDArray[np.float32]  # [n, d], action minus baseline action
    rewards: NDArray[np.float32]  # [n]
    returns: NDArray[np.float64]  # [n], discounted
    discounts: NDArray[np.float64]  # [n], gamma, or 0 where the step is terminal
    sessions: NDArray[np.int64]  # [n], numbered from 0
    log: Transitions
    varies: NDArray[np.bool_]  # [d], whether the middles of their boxes differ

    @classmethod
    def of(cls, log: Transitions, gamma: float) -> "Explored":
        """Returns the steps whose action is not the baseline action itself; a Refusal of too few sessions."""
        kept: dict[str, list[NDArray[Any]]] = defaultdict(list)
        first = 0
        for block in log.blocks():
            offsets = block.actions - block.baseline_actions
            own = np.flatnonzero(offsets.any(axis=1))
            columns = {"steps": first + own, "offsets": offsets[own], "rewards": block.rewards[own]}
            columns |= {"discounts": gamma * ~block.terminals[own], "sessions": block.sessions[own]}
            columns["edges"] = _edges(_middles(block)[own])
            for name, column in columns.items():
                kept[name].append(column)
            first += len(block)
        found = {name: np.concatenate(parts) for name, parts in kept.items()}
        found["sessions"] = np.unique(found["sessions"], return_inverse=True)[1]
        if found["sessions"].max(initial=-1) + 1 < FOLDS:
            raise Refusal(
                f"the log has fewer than {FOLDS} sessions with explored actions: collect more with --explore uniform"
            )
        varies = varying(found.pop("edges"))
        return cls(**found, returns=log.returns(gamma)[found["steps"]], log=log, varies=varies)

    @property
    def covariates(self) -> LoggedCovariates:
        return LoggedCovariates(self.log.__getitem__, self.steps, self.varies)

    @property
    def later(self) -> LoggedCovariates:
        """Those of the next request, 0 where there is none."""
        return LoggedCovariates(self.log.after, self.steps, self.varies)

    def draw(self, n: int, generator: torch.Generator) -> "Explored":
        """Returns the requests of n sessions at most, drawn without replacement and numbered as they were drawn."""
        order = torch.randperm(int(self.sessions.max()) + 1, generator=generator).numpy()
        dealt = replace(self, sessions=order[self.sessions])
        if n >= len(order):
            return dealt
        drawn, whole = dealt.sessions < n, ("log", "varies")
        return replace(dealt, **{name: of[drawn] for name, of in vars(dealt).items() if name not in whole})

    def target(self, of: Literal["td_residual", "return"]) -> NDArray[np.float64]:
        """Returns what the slopes are of, [n]; V is taken from the return where the fits are taken out."""
        if of == "return":
            return self.returns
        here, after = values(self.covariates, self.later, self.returns, self.sessions)
        return self.rewards + self.discounts * after - here


def _middles(requests: Requests) -> NDArray[np.float32]:
    """Returns the middles of the boxes [n, d], as offsets from the baseline action."""
    return (requests.lower + requests.upper) / np.float32(2)


def _edges(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the smallest and the largest of values [n, d], [2, d]; of none, none."""
    return np.stack([values.min(axis=0), values.max(axis=0)]) if len(values) else values


class LinearOneStep:
    """The regression: `update` does one on one deal of the sessions."""

    Config: ClassVar[type[TrainerConfig]] = LinearOneStepConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}, "paper": {}, "demo": {"n_steps": 5}}
    critics = None

    def __init__(
        self, config: LinearOneStepConfig, transitions: Transitions, baseline: Policy | None = None
    ) -> None:
        self.config, self.step = config, 0
        self.generator = torch.Generator().manual_seed(config.seed)
        d = transitions.fusion.n_actions
        self.network = OffsetPolicy(baseline_network(transitions, HIDDEN, baseline, self.generator), d)
        self.fusion, self.feature_names = transitions.fusion, transitions.feature_names
        self.numeric_mask = transitions.numeric_mask
        self.box = tuple(
            transitions.mean(edge, np.float64) for edge in (attrgetter("lower"), attrgetter("upper"))
        )
        self.slope_sum, self.covariance_sum = np.zeros(d), np.zeros((d, d))

    @property
    def slopes(self) -> NDArray[np.float64]:
        """The gain in the target per unit of each dimension [d], mean over the steps; 0 where none moves."""
        return self.slope_sum / max(1, self.step)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of the slopes [d, d], mean over the steps; 0 where a dimension never moves."""
        return self.covariance_sum / max(1, self.step)

    @property
    def t(self) -> NDArray[np.float64]:
        """Slopes over their standard errors [d]; 0 where a dimension never moves."""
        errors = np.sqrt(self.covariance.diagonal())
        return np.divide(self.slopes, errors, out=np.zeros_like(errors), where=errors > 0)

    @property
    def policy(self) -> Policy:
        """The baseline policy with the offset of the slopes so far."""
        told = {"slopes": self.slopes, "t": self.t}
        info: dict[str, Any] = {
            name: dict(zip(self.fusion.names, of.tolist(), strict=True)) for name, of in told.items()
        }
        info |= {"algo": "linear_one_step", "target": self.config.target, "gamma": self.config.gamma}
        return Policy(self.network, self.fusion, self.feature_names, self.numeric_mask, info)

    def prepare(self, transitions: Transitions) -> Explored:
        """Returns the explored requests, all at once."""
        return Explored.of(transitions, self.config.gamma)

    def update(self, batch: Explored) -> dict[str, float]:
        """Returns slope, t and offset of each dimension after one more regression."""
        deviations, target = residuals(
            batch.covariates, batch.offsets, batch.target(self.config.target), batch.sessions
        )
        told = np.ptp(batch.returns) > 0
        spread = batch.offsets.std(axis=0, dtype=np.float64)
        live = np.flatnonzero(moving(spread, deviations.std(axis=0)) & told)
        slopes, covariance = clustered_slopes(deviations[:, live], target, batch.sessions, self.config.ridge)
        self.slope_sum[live] += slopes
        self.covariance_sum[np.ix_(live, live)] += covariance
        self.step += 1
        self._move()
        return {
            "chi2": float(self.slopes @ np.linalg.pinv(self.covariance, hermitian=True) @ self.slopes),
            **self._by_dimension("slope", self.slopes),
            **self._by_dimension("t", self.t),
            **self._by_dimension("offset", self.network.offset.numpy()),
        }

    def _move(self) -> None:
        """Sets the offset: at t of 0 none, at `full_t` and beyond the edge of the log's mean box."""
        share, (lower, upper) = np.clip(self.t / self.config.full_t, -1, 1), self.box
        self.network.offset.copy_(torch.as_tensor(np.where(share > 0, share * upper, -share * lower)))

    def _by_dimension(self, what: str, of: NDArray[np.floating]) -> dict[str, float]:
        return {f"{what}/{name}": float(value) for name, value in zip(self.fusion.names, of, strict=True)}

    def diagnose(self, batch: Explored) -> dict[str, float]:
        """Returns nothing: what is watched is what `update` returns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a step changes, as tensors and primitives."""
        return {
            "slope_sum": torch.tensor(self.slope_sum),
            "covariance_sum": torch.tensor(self.covariance_sum),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state_dict` was called, to the bit."""
        self.slope_sum, self.covariance_sum = (
            state[n].numpy().copy() for n in ("slope_sum", "covariance_sum")
        )
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        self._move()
