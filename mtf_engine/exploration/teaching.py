"""The box that teaches most for what it costs its users, by closed forms, beside Gaussian noise.

Explore dimension i with deviations of variance v_i, independent of each other and of the request. The precision
of the slope of the return in it is `r_i v_i`, with `r_i` the precision for each unit of variance at the stated
traffic: sessions / residual variance, which the pilot's own standard errors tell. Where the live action is the
best, the return bends down around it, and a request loses `k_i v_i / 2` on average, `k_i` the curvature. Uniform
deviations within +-w have variance `w^2 / 3`, Gaussian ones `sigma^2`: to second order nothing else of the noise
matters, so at equal variance both tell as much for as much; they differ in how far they reach. What clipping at the
ends of the range takes off Gaussian noise is not counted.

The information of a box is the precision of an average slope, 1 / (mean over dimensions of `1 / (r_i v_i)`).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr

from mtf_engine.exploration.pilot import Basis, Pilot
from mtf_engine.exploration.spending import SLACK, cheapest, cost, information, most_telling
from mtf_engine.spec import MIN_WIDTH, BoundsPlan, Refusal, Spec

WIDEST, SIGMA, FAR = 0.4, 0.2, 0.4
DIGITS = 4
"""Of a plan's half widths."""
CURVE = 40
"""Points of the frontier."""

Array = NDArray[np.float64]
Noise = Literal["uniform", "gaussian"]


class TaughtDimension(Spec):
    """One dimension of the box that teaches most."""

    dimension: str
    half_width: float = Field(description="of the action in [-1, 1]")
    at_most: bool = Field(description="no wider one is allowed")
    error: float = Field(description="standard error of the slope that the box's log will have")
    information: float = Field(description="precision of the slope, times the pilot's")
    loss: float = Field(description="share of a session's return that users lose by exploring it")


class Way(Spec):
    """One way to explore: what it tells, what it costs, and how far it reaches."""

    name: str
    noise: Noise
    information: float = Field(description="precision of an average slope, times the pilot's")
    error: float = Field(
        description="root mean square standard error of the slopes, return per unit of action"
    )
    loss: float = Field(description="share of a session's return that users lose on average")
    beyond: float = Field(description="chance that some weight of a request moves farther than `far`")


class Teaching(Spec):
    """The box that teaches most for what it costs, and other ways to explore; see this module's first lines."""

    sessions: int = Field(description="of the log to come, control and validation users among them")
    learned: int = Field(description="sessions among them that are explored and trained on, as in the pilot")
    far: float
    basis: Basis = Field(description="what the losses of dimensions rest on")
    at_most: bool = Field(
        description="the pilot does not tell the loss from none: losses are upper ends of 95 %"
    )
    dimensions: tuple[TaughtDimension, ...]
    fixed: tuple[str, ...] = Field(description="dimensions that stay at the baseline action")
    uniform: Way
    matched: Way = Field(description="Gaussian noise of the box's own variances")
    gaussian: Way = Field(description="Gaussian noise of one sigma in every dimension")
    cube: Way | None = Field(
        description="one half width in every dimension, for the same information; None beyond the widest"
    )
    frontier: tuple[tuple[float, float], ...] = Field(description="loss and information of the best boxes")
    plan: BoundsPlan

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways to explore that are compared, the box that teaches most first."""
        return (self.uniform, self.matched, self.gaussian, *([self.cube] if self.cube else []))

    @property
    def sentence(self) -> str:
        """What the three ways tell and cost beside each other."""
        box, gaussian, most = self.uniform, self.gaussian, "at most " if self.at_most else ""
        price = f", at {gaussian.loss / box.loss:.2g} times the price" if box.loss > 0 else ""
        return (
            f"The box tells {box.information:.2g} times as much as the pilot, costs users {most}{box.loss:.2%} of a "
            f"session's return, and moves {_reach(box, self.far)}. Gaussian noise of equal variance tells and "
            f"costs the same on average, and moves {_reach(self.matched, self.far)}. {gaussian.name} tells "
            f"{gaussian.information / box.information:.2g} times as much as the box{price}, and moves "
            f"{_reach(gaussian, self.far)}."
        )


def _reach(way: Way, far: float) -> str:
    return (
        f"some weight beyond {far:g} in {100 * way.beyond:.2g}% of requests"
        if way.beyond > 0
        else f"no weight beyond {far:g}"
    )


def teach(
    pilot: Pilot,
    sessions: int,
    *,
    loss: float | None = None,
    information: float | None = None,
    each: bool = False,
    widest: float = WIDEST,
    sigma: float = SIGMA,
    far: float = FAR,
) -> Teaching:
    """Returns the box of most information for a `loss`, or that of least loss for an `information`.

    `loss` is a share of a session's return, `information` in times the pilot's. With `each` the slopes of all
    dimensions are told with one standard error, else their mean square counts. No half width exceeds `widest`, nor
    what the mean baseline action leaves to the nearer end of the range. What the pilot did not move stays.
    """
    _refuse(sessions, loss, information, widest, sigma)
    traffic = _Traffic(pilot, sessions, widest)
    rates, curvatures, most = traffic.rates, traffic.curvatures, traffic.most
    if information is not None:
        variances = cheapest(rates, curvatures, most, information * traffic.unit, each)
    else:
        variances = most_telling(rates, curvatures, most, float(loss or 0) / pilot.share, each)
    uniform = traffic.way("Uniform in the box", "uniform", variances, far)
    free = {one.dimension for one in traffic.free}
    return Teaching(
        sessions=sessions,
        learned=round(traffic.learned),
        far=far,
        basis=pilot.basis,
        at_most=not pilot.loss_told,
        dimensions=traffic.rows(variances),
        fixed=tuple(name for name in pilot.names if name not in free),
        uniform=uniform,
        matched=traffic.way("Gaussian, equal variance", "gaussian", variances, far),
        gaussian=traffic.way(f"Gaussian, sigma {sigma:g}", "gaussian", np.full(len(rates), sigma**2), far),
        cube=traffic.cube(uniform.information, far),
        frontier=tuple(traffic.frontier(each)),
        plan=traffic.plan(_half_widths(variances)),
    )


def origin(pilot_name: str, found: Teaching) -> str:
    """Returns the note of a plan found by the log of that name."""
    box = found.uniform
    return (
        f"teaches most by {pilot_name}: {box.information:.2g} times its information for {box.loss:.2%} of return, "
        f"{found.sessions} sessions"
    )


def _refuse(
    sessions: int, loss: float | None, information: float | None, widest: float, sigma: float
) -> None:
    if (loss is None) == (information is None):
        raise Refusal("teach: give a loss that is accepted or an information that is wished, one of the two")
    for name, value in (
        ("loss", loss),
        ("information", information),
        ("sigma", sigma),
        ("sessions", sessions),
    ):
        if value is not None and not value > 0:
            raise Refusal(f"teach: a {name} of {value:g} teaches nothing; give more than 0")
    if not 0 < widest <= 2:
        raise Refusal(f"teach: a widest half width of {widest:g} is no box; give more than 0, at most 2")


def _half_widths(variances: Array) -> Array:
    return np.sqrt(3 * variances)


class _Traffic:
    """The dimensions that can be explored, and what each tells and costs at a stated traffic."""

    def __init__(self, pilot: Pilot, sessions: int, widest: float) -> None:
        room = {one.dimension: min(widest, 1 - abs(one.baseline)) for one in pilot.dimensions}
        self.pilot = pilot
        self.free = tuple(one for one in pilot.dimensions if one.moved and room[one.dimension] >= MIN_WIDTH)
        if not self.free:
            raise Refusal(
                "teach: the baseline stands at the ends of every range the pilot explored; none is left"
            )
        self.learned = sessions * pilot.learned / pilot.sessions
        self.rates = self.learned * np.array([one.rate for one in self.free])
        self.curvatures = np.array([one.curvature for one in self.free])
        self.most = np.array([room[one.dimension] ** 2 / 3 for one in self.free])
        self.told = np.array([one.error**-2 for one in self.free])  # by the pilot
        self.unit = 1 / float(np.mean(1 / self.told))

    def way(self, name: str, noise: Noise, variances: Array, far: float) -> Way:
        """Returns what noise of these variances [m] tells and costs, and how far it reaches."""
        told = information(self.rates, variances)
        return Way(
            name=name,
            noise=noise,
            information=told / self.unit,
            error=told**-0.5,
            loss=self.pilot.share * cost(self.curvatures, variances),
            beyond=self._beyond(noise, variances, far),
        )

    def _beyond(self, noise: Noise, variances: Array, far: float) -> float:
        """Returns the chance that some weight moves farther than `far`, 1 - prod_i (1 - p_i).

        To either side of dimension i that is `(1 - far / w_i) / 2` of uniform deviations within +-w_i, 0 for
        w_i <= far, and `Phi(-far / sigma_i)` of Gaussian ones; 0 where the range ends first.
        """
        if noise == "uniform":
            side = np.maximum(0, 1 - far / _half_widths(variances)) / 2
        else:
            side = ndtr(-far / np.sqrt(variances))
        at = np.array([one.baseline for one in self.free])
        sides = (at + far < 1).astype(int) + (at - far > -1)
        return 0.0 - float(np.expm1(np.log1p(-sides * side).sum()))

    def plan(self, half_widths: Array) -> BoundsPlan:
        """Returns the symmetric box of these half widths [m], rounded, and fixed in what is not free."""
        edges = np.maximum(half_widths.round(DIGITS), 10.0**-DIGITS).tolist()
        by_name = dict(zip([one.dimension for one in self.free], edges, strict=True))
        upper = [by_name.get(name, 0.0) for name in self.pilot.names]
        return BoundsPlan(lower=[-edge for edge in upper], upper=upper)

    def cube(self, wished: float, far: float) -> Way | None:
        """Returns one half width in every dimension, of the same information; None where it is not allowed."""
        variance = wished * self.unit / information(self.rates, np.ones(len(self.rates)))
        if variance > self.most.min() * (1 + SLACK):
            return None
        return self.way("Uniform, one half width", "uniform", np.full(len(self.rates), variance), far)

    def frontier(self, each: bool) -> list[tuple[float, float]]:
        """Returns loss and information of the best boxes, from none to the widest; both are told as a `Way` does."""
        widest = most_telling(self.rates, self.curvatures, self.most, np.inf, each)
        losses = cost(self.curvatures, widest) * np.linspace(0, 1, CURVE)[1:] ** 2
        boxes = [most_telling(self.rates, self.curvatures, self.most, loss, each) for loss in losses]
        told = [information(self.rates, box) / self.unit for box in boxes]
        return [(0.0, 0.0), *zip((self.pilot.share * losses).tolist(), told, strict=True)]

    def rows(self, variances: Array) -> tuple[TaughtDimension, ...]:
        precisions, losses = self.rates * variances, self.pilot.share * self.curvatures * variances / 2
        return tuple(
            TaughtDimension(
                dimension=one.dimension,
                half_width=float(_half_widths(variances)[i]),
                at_most=bool(variances[i] >= self.most[i] * (1 - SLACK)),
                error=float(precisions[i] ** -0.5),
                information=float(precisions[i] / self.told[i]),
                loss=float(losses[i]),
            )
            for i, one in enumerate(self.free)
        )
