"""What a pilot log tells of exploring: how well a session tells each slope, and what deviations cost its users.

The return of a request is taken as `V(s) + b'd - sum_i k_i d_i^2 / 2` in its deviation d from the live action.
Its slopes b are those of `signal`. Curvatures k come from the same regression, errors clustered by session, on the
squares of the deviations beside the deviations. A log tells slopes long before it tells curvatures: the square of
a uniform deviation within +-w has a standard deviation of 0.30 w^2, the deviation itself one of 0.58 w. So where the
log does not tell each curvature, only their common scale is asked of it. The shape is then that of churn: a small
deviation replaces a share of the top k in proportion to its size, and what it brings in is worse by the live score in
proportion to it too, so the loss goes as the square of the churn. Two measurements tell the scale: the estimated
curvatures, and the return of control users above that of explored ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_ndtr, ndtr, ndtri

from mtf_engine.exploration.clustered import CONSTANT, FOLDS, jackknife, solved
from mtf_engine.exploration.cost import CandidateLists, top_changed
from mtf_engine.exploration.coverage_counts import Arrays
from mtf_engine.exploration.explored_returns import ExploredLog, ExploredReturns
from mtf_engine.exploration.explored_sums import ExploredSums, Regression, left_over, starts_of, sums
from mtf_engine.exploration.signal import NOTHING_EXPLORED, PER_DIMENSION, WORST_CONDITION, Z, regression
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal, Spec

REFERENCE = 0.15
"""Half width at which the churn of each dimension is measured."""
CHURN_REQUESTS, CHURN_SEED = 2_000, 0
SURE = 0.05
TOLD = float(ndtri(1 - SURE))
"""Errors above 0 from which on a loss is told."""
FLAT = 1e-3
"""Squares that vary by no more besides what goes along with a deviation, in squares of its variance."""
"""One-sided: a loss is told from none, or told at most, with 95 % confidence."""

Array = NDArray[np.float64]
Basis = Literal["curvature", "churn", "even"]


class PilotDimension(Spec):
    """What the pilot tells of one dimension; per unit of the action, which lies in [-1, 1]."""

    dimension: str
    baseline: float = Field(description="mean baseline action")
    moved: bool = Field(description="the pilot explored it; the figures of others are 0")
    rate: float = Field(description="precision of the slope, a learned session and a unit of variance")
    error: float = Field(description="standard error of the slope in the pilot")
    variance: float = Field(description="of the pilot's deviations")
    estimated: float = Field(description="curvature as the regression has it, of either sign")
    estimated_error: float
    churn: float = Field(
        description="share of the top k that uniform deviations within +-REFERENCE in it replace"
    )
    curvature: float = Field(description="that losses are reckoned with, at least 0")


class ControlLoss(Spec):
    """What explored sessions brought less than those of control users, which need not be their first order."""

    sessions: int = Field(description="of control users")
    loss: float = Field(description="share of a session's return")
    error: float = Field(description="standard error, clustered by user")


class Pilot(Spec):
    """What a pilot log tells of exploring, see this module's first lines; returns are discounted by `gamma`."""

    gamma: float
    sessions: int = Field(description="of the whole log")
    learned: int = Field(description="sessions that are explored and trained on")
    mean_return: float = Field(description="of an explored session")
    requests: float = Field(description="mean of sum_t gamma^t over a session")
    basis: Basis = Field(description="what gives the curvatures of dimensions their proportions")
    loss: float = Field(description="of the pilot's own exploration by these, share of a session's return")
    loss_low: float = Field(
        description="of the 95 % interval by the measurements, which may hold less than 0"
    )
    loss_high: float
    loss_told: bool = Field(description="else curvatures are such that no greater loss is likely, at 95 %")
    control: ControlLoss | None
    dimensions: tuple[PilotDimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.dimension for one in self.dimensions)

    @property
    def share(self) -> float:
        """The share of a session's return that a loss of 1 a request is."""
        return self.requests / abs(self.mean_return)


@dataclass(frozen=True)
class Arms:
    """The discounted returns of sessions, summed by user: explored throughout, or kept at the baseline."""

    explored: NDArray[np.bool_]  # [u]
    sessions: NDArray[np.int64]  # [u]
    returns: Array  # [u]


def read_arms(arrays: Arrays, gamma: float) -> Arms:
    """Returns the sessions of explored and of control users; those that are part one, part the other are left out."""
    rows = arrays(
        "WITH placed AS (SELECT user_id, session_id, reward, action IS NOT NULL AS acted, "
        "action IS NOT NULL AND pscore IS NOT NULL AS explored, "
        "row_number() OVER (PARTITION BY session_id ORDER BY step) - 1 AS place FROM requests "
        "WHERE action IS NULL OR NOT isnan(action[1])), "
        "played AS (SELECT user_id, bool_and(explored) AS explored, sum(reward * pow(?, place)) AS value "
        "FROM placed GROUP BY user_id, session_id "
        "HAVING bool_and(acted) AND bool_and(explored) = bool_or(explored)) "
        "SELECT explored, count(*) AS sessions, sum(value) AS returns FROM played "
        "GROUP BY user_id, explored ORDER BY user_id, explored",
        [gamma],
    )
    return Arms(rows["explored"].astype(bool), rows["sessions"], rows["returns"].astype(np.float64))


def dimension_churn(fusion: FusionSpec, lists: CandidateLists, k: int) -> Array:
    """Returns the share of the top k that moving each dimension by itself replaces [d], on the same requests."""
    widths = REFERENCE * np.eye(fusion.n_actions)
    return np.array(
        [
            top_changed(fusion, lists, BoundsPlan(lower=-w, upper=w), np.random.default_rng(CHURN_SEED), k=k)
            for w in widths
        ]
    )


def pilot(
    log: ExploredLog,
    arms: Arms,
    churn: Array,
    names: tuple[str, ...],
    baseline: tuple[float, ...],
    sessions: int,
) -> Pilot:
    """Returns what a log of so many `sessions` in all tells of exploring around its mean `baseline` action [d].

    Refuses what `signal` refuses, and returns of mean 0, of which no share can be told. The log is read three times.
    """
    seen, squares = _first_look(log)
    told = regression(seen, names)
    live = told.live
    mean_return = seen.begun_returns / max(seen.begun, 1)
    if mean_return == 0:
        raise Refusal(
            "pilot: the mean return of a session is 0, so no share of it can be told; shift the reward"
        )
    squares.refuse_flat(live, names)
    bent = _Bent.of(told, reduce(add, log.each(partial(_squares, told))))
    spread, bent_spread = (reduce(add, of) for of in zip(*log.each(partial(_spreads, bent)), strict=True))
    covariance, bent_covariance = (of * (seen.sessions - 1) / seen.sessions for of in (spread, bent_spread))
    variances, errors = told.fit.variances()[live], np.sqrt(covariance.diagonal())
    m = len(live)
    estimated, its_covariance = -2 * bent.slopes[m:], 4 * bent_covariance[m:, m:]
    requests = seen.discounts / seen.sessions
    middles = told.fit.means[seen.n_covariates :][live]
    control = _control(arms, middles, told.slopes, covariance, requests)
    bend = _bend(churn[live], estimated, its_covariance, control, variances, middles)
    figures = {
        "rate": 1 / (errors**2 * variances * seen.sessions),
        "error": errors,
        "variance": variances,
        "estimated": estimated,
        "estimated_error": np.sqrt(its_covariance.diagonal()),
        "churn": churn[live],
        "curvature": bend.used,
    }
    share = requests / abs(mean_return)
    return Pilot(
        gamma=log.gamma,
        sessions=sessions,
        learned=seen.sessions,
        mean_return=mean_return,
        requests=requests,
        basis=bend.basis,
        loss=share * float(bend.used @ variances) / 2,
        loss_low=share * (bend.loss - Z * bend.error),
        loss_high=share * (bend.loss + Z * bend.error),
        loss_told=bend.is_told,
        control=arms_loss(arms),
        dimensions=_rows(names, baseline, live, figures),
    )


@dataclass(frozen=True)
class _Bend:
    """The curvatures that losses are reckoned with, and the loss a request of the pilot as it was measured."""

    basis: Basis
    used: Array
    loss: float
    error: float
    is_told: bool


def _bend(
    churn: Array,
    estimated: Array,
    covariance: Array,
    control: tuple[float, float] | None,
    variances: Array,
    middles: Array,
) -> _Bend:
    """Returns each dimension's own curvature where the log tells each and a loss, else that of churn, scaled.

    It tells each by the rule of `signal`: chi2 is at least `m (1 + PER_DIMENSION)` in m dimensions, whatever
    their signs; so the loss of all has to be told from 0 as well.
    """
    loss = float(estimated @ variances) / 2
    error = float(np.sqrt(variances @ covariance @ variances)) / 2
    told = estimated @ np.linalg.solve(covariance, estimated) >= len(estimated) * (1 + PER_DIMENSION)
    if told and loss > TOLD * error:
        used = _not_below_0(estimated, np.sqrt(covariance.diagonal()))
        return _Bend("curvature", used, loss, error, is_told=True)
    shape = _shape(churn)
    scale = _Scale.of(shape, estimated, covariance, control, variances - middles**2)
    unit = float(shape @ variances) / 2
    basis: Basis = "churn" if churn.any() else "even"
    return _Bend(basis, scale.used * shape, scale.value * unit, scale.error * unit, scale.is_told)


def arms_loss(arms: Arms) -> ControlLoss | None:
    """Returns what explored sessions brought less than control users'; None without either.

    The mean of a session is sum_u y_u / sum_u n_u over users with n_u sessions and returns y_u in all; its
    variance is sum_u (y_u - mean n_u)^2 / (sum_u n_u)^2.
    """
    found = _difference(arms)
    if found is None:
        return None
    loss, error, explored = found
    return ControlLoss(
        sessions=int(arms.sessions[~arms.explored].sum()),
        loss=loss / abs(explored),
        error=error / abs(explored),
    )


def _difference(arms: Arms) -> tuple[float, float, float] | None:
    """Returns the mean return of control sessions above that of explored ones, its error, and the latter mean."""
    if min(int(arms.explored.sum()), int((~arms.explored).sum())) < 2:
        return None
    means, variances = [], []
    for own in (~arms.explored, arms.explored):
        n, y = arms.sessions[own], arms.returns[own]
        means.append(float(y.sum() / n.sum()))
        variances.append(float(np.square(y - means[-1] * n).sum() / n.sum() ** 2))
    return means[0] - means[1], float(np.sqrt(sum(variances))), means[1]


@dataclass(frozen=True)
class _Squares:
    """The Gram matrix [1 + 2 d, 1 + 2 d] of a constant, deviations about a centre [d], and their squares."""

    centre: Array
    gram: Array

    @classmethod
    def of(cls, offsets: NDArray[np.float32]) -> Self:
        centre = offsets.mean(axis=0, dtype=np.float64)
        moves = offsets - centre
        columns = np.column_stack([np.ones(len(moves)), moves, moves**2])
        return cls(centre, columns.T @ columns)

    def about(self, centre: Array) -> Array:
        """Returns the Gram matrix about another centre [d]."""
        by, d = self.centre - centre, len(centre)
        move = np.eye(1 + 2 * d)  # x + b and (x + b)^2 = x^2 + 2 b x + b^2
        move[0, 1:] = np.append(by, by**2)
        move[1 : 1 + d, 1 + d :] = np.diag(2 * by)
        return np.asarray(move.T @ self.gram @ move)

    def __add__(self, other: "_Squares") -> "_Squares":
        return _Squares(self.centre, self.gram + other.about(self.centre))

    def refuse_flat(self, live: NDArray[np.int64], names: Sequence[str]) -> None:
        """Refuses deviations whose squares tell nothing besides: of two values, or of one size in two dimensions."""
        n, d = self.gram[0, 0], len(self.centre)
        kept = np.concatenate([live, d + live])
        gram = self.about(self.centre + self.gram[0, 1 : 1 + d] / n)
        covariance = (gram[1:, 1:] / n - np.outer(gram[0, 1:], gram[0, 1:]) / n**2)[np.ix_(kept, kept)]
        spread, m = covariance.diagonal(), len(live)
        along = covariance[:m, m:].diagonal() / spread[:m]
        besides = spread[m:] - along**2 * spread[:m]
        flat = np.flatnonzero(besides <= FLAT * spread[:m] ** 2)
        if len(flat):
            raise Refusal(
                f"pilot: {names[live[flat[0]]]} was moved to two values only, so what larger moves cost cannot be "
                "told; explore it with uniform or Gaussian noise"
            )
        if np.linalg.cond(covariance / np.sqrt(np.outer(spread, spread))) >= WORST_CONDITION:
            raise Refusal(
                "pilot: dimensions were moved by sizes that go together, so what each costs cannot be told apart; "
                "explore each with noise of its own"
            )


def _first_look(log: ExploredLog) -> tuple[ExploredSums, _Squares]:
    """Returns the sums of everybody, and those of squares."""
    found = [one for one in log.each(_looked_at) if one]
    if not found:
        raise Refusal(NOTHING_EXPLORED)
    seen, squares = zip(*found, strict=True)
    return reduce(add, seen), reduce(add, squares)


def _looked_at(part: ExploredReturns) -> tuple[ExploredSums, _Squares] | None:
    return (sums(part)[None], _Squares.of(part.offsets)) if len(part) else None


@dataclass(frozen=True)
class _Bent:
    """The regression of returns on m deviations and on their squares, what the request explains taken out of each.

    `weights` [1 + f, m] are those of the squares; `gram` [2 m, 2 m] and `slopes` [2 m] as in `Regression`.
    """

    straight: Regression
    weights: Array
    means: Array
    gram: Array
    slopes: Array

    @classmethod
    def of(cls, straight: Regression, grams: Array) -> Self:
        """Returns it by Gram matrices of each fold: a constant and covariates, squares, deviations, returns."""
        m, first = len(straight.live), straight.fit.weights.shape[1]
        least_std = CONSTANT * (1 + np.abs(straight.fit.means[: first - 1]))
        weights = solved(grams[:, : first + m, : first + m], first, least_std)[1]
        what = np.zeros((grams.shape[1], 2 + 2 * m))  # made of the columns
        what[0, 0] = 1
        what[first + m : first + 2 * m, 1 : 1 + m] = np.eye(m)
        what[:first, 1 + m : -1], what[first : first + m, 1 + m : -1] = -weights, np.eye(m)
        what[-1, -1] = 1
        left = what.T @ grams.sum(axis=0) @ what
        means = left[0, 1:] / left[0, 0]
        total = left[1:, 1:] - left[0, 0] * np.outer(means, means)
        slopes = np.linalg.solve(total[:-1, :-1], total[:-1, -1])
        return cls(straight, weights, means, total[:-1, :-1], slopes)


def _squares(told: Regression, part: ExploredReturns) -> Array:
    """Returns what a part adds to the Gram matrices of `_Bent.of`."""
    size = told.fit.weights.shape[1] + 2 * len(told.live) + 1
    grams = np.zeros((FOLDS, size, size))
    for fold, design, left, _ in left_over(told.fit, part):
        moves = left[:, told.live]
        block = np.column_stack([design, moves**2, moves, left[:, -1]])
        grams[fold] += block.T @ block
    return grams


def _spreads(bent: _Bent, part: ExploredReturns) -> tuple[Array, Array]:
    """Returns what a part adds to the `jackknife` of the slopes alone, and of slopes and curvatures."""
    straight, m = bent.straight, len(bent.straight.live)
    left = np.empty((len(part), len(straight.fit.left) - 1))
    columns = np.empty((len(part), 2 * m + 1))
    for _, design, some, own in left_over(straight.fit, part):
        moves = some[:, straight.live]
        left[own] = some
        columns[own] = np.column_stack([moves, moves**2 - design @ bent.weights, some[:, -1]])
    columns -= bent.means
    errors = columns[:, -1] - columns[:, :-1] @ bent.slopes
    both = jackknife(bent.gram, columns[:, :-1], errors, starts_of(part.sessions))
    return straight.spread(left, part.sessions), both


def _shape(churn: Array) -> Array:
    """Returns the curvatures of dimensions in proportion to each other, their mean 1: the squares of the churn."""
    return churn**2 / np.mean(churn**2) if churn.any() else np.ones(len(churn))


def _control(
    arms: Arms, middles: Array, slopes: NDArray, covariance: NDArray, requests: float
) -> tuple[float, float] | None:
    """Returns the second order of what control users have a request above explored ones, and its variance.

    To the baseline's own return it is `c'b + diff`, c the `middles` of the deviations: `sum_i k_i (v_i - c_i^2) / 2`.
    """
    found = _difference(arms)
    if found is None:
        return None
    difference, error = found[0] / requests, found[1] / requests
    return float(difference + middles @ slopes), float(error**2 + middles @ covariance @ middles)


@dataclass(frozen=True)
class _Scale:
    """The factor on a shape of curvatures."""

    value: float
    error: float

    @classmethod
    def of(
        cls,
        shape: Array,
        estimated: Array,
        covariance: Array,
        control: tuple[float, float] | None,
        spread: Array,
    ) -> "_Scale":
        """Returns the scale that fits the estimated curvatures and the control users best, by least squares."""
        weighed = np.linalg.solve(covariance, shape)
        told, known = float(weighed @ estimated), float(weighed @ shape)
        if control is not None:
            unit = float(shape @ spread) / 2
            told, known = told + unit * control[0] / control[1], known + unit**2 / control[1]
        return cls(told / known, known**-0.5)

    @property
    def is_told(self) -> bool:
        return self.value > TOLD * self.error

    @property
    def used(self) -> float:
        """The scale, or where it is not told from 0 what it is at most: the 95 % point of its normal above 0."""
        if self.is_told:
            return self.value
        z = max(self.value / self.error, -10.0)
        return self.error * (z - float(ndtri(SURE * ndtr(z))))


def _not_below_0(values: Array, errors: Array) -> Array:
    """Returns the means of the normals of these means and errors, each given that it is not below 0."""
    z = values / errors
    return values + errors * np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(z))


def _rows(
    names: tuple[str, ...], baseline: tuple[float, ...], live: NDArray[np.int64], figures: dict[str, Array]
) -> tuple[PilotDimension, ...]:
    place = {int(i): j for j, i in enumerate(live)}
    return tuple(
        PilotDimension(
            dimension=name,
            baseline=baseline[i],
            moved=i in place,
            **{key: float(values[place[i]]) if i in place else 0.0 for key, values in figures.items()},
        )
        for i, name in enumerate(names)
    )
