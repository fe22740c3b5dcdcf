"""The signal of an explored log: does the return hang on the explored actions, and how many sessions would tell?"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import chdtri, chndtrinc, fdtrc, ndtri

from mtf_engine.exploration.explored_returns import ExploredLog
from mtf_engine.exploration.explored_sums import ExploredSums, Regression, Whom, added, spreads, sums
from mtf_engine.spec import Refusal, Spec

ALPHA, POWER = 0.05, 0.8
Z = float(ndtri(1 - ALPHA / 2))
PER_DIMENSION = (Z + float(ndtri(POWER))) ** 2
"""7.85: the noncentrality at which a test of one slope at ALPHA has POWER."""
FEWEST, FEWEST_EACH = 30, 5
"""Sessions that a regression needs at least, in all and for each dimension."""
MOVED, OWN_SHARE = 1e-6, 1e-2
"""A dimension is dead whose offsets spread by MOVED or less, or by this share of that or less on their own."""
NOTHING_EXPLORED = (
    "signal: no training row of this dataset was explored (pscore or action is empty throughout); "
    "collect one with --explore uniform"
)
LEAST_NONCENTRALITY, WORST_CONDITION = 1e-6, 1e10

Verdict = Literal["nothing", "some", "enough"]


class Slope(Spec):
    """What the return of a request gains with a dimension, per unit of its action in [-1, 1]."""

    dimension: str
    slope: float
    error: float = Field(description="standard error")
    low: float = Field(description="of the 95 % interval")
    high: float
    t: float
    half_width: float = Field(description="of the requests' boxes, their mean")


class Signal(Spec):
    """What explored requests tell of the return, see `signal`; returns are discounted by `gamma`."""

    segment: str | None = Field(description="None: everybody")
    gamma: float
    requests: int
    sessions: int
    sessions_cut: int = Field(
        description="that the log does not follow to their end: their returns lack a part"
    )
    mean_return: float | None = Field(description="of a session; None where none begins among the requests")
    explained: float = Field(description="share of the return's variance that V of the observation explains")
    chi2: float
    df: int
    p_value: float
    ratio: float = Field(description="chi2 over df; 1 where there is no effect")
    wished: float = Field(description="chi2 that would tell each slope")
    sessions_needed: int | None = Field(description="for that chi2; None where chi2 is not above df")
    sessions_needed_low: int | None = Field(description="by the 95 % interval of the noncentrality")
    sessions_needed_high: int | None
    gain: float = Field(description="smallest gain in a session's return that such a log tells from none")
    relative_gain: float | None = Field(description="over the size of the mean return; None where that is 0")
    slopes: tuple[Slope, ...]
    dead: tuple[str, ...] = Field(description="dimensions that never move on their own, left out of df")

    @property
    def verdict(self) -> Verdict:
        if self.chi2 >= self.wished:
            return "enough"
        return "some" if self.p_value < ALPHA else "nothing"

    @property
    def sentence(self) -> str:
        """What to expect of learning from the log."""
        who = f"For {self.segment} this log" if self.segment else "This log"
        held = f"{who} holds {_times(self.ratio)} the signal of none"
        if self.verdict == "enough":
            return f"{held}: enough to learn from."
        expect = {"nothing": "expect nothing", "some": "part of it can be learned"}[self.verdict]
        if self.sessions_needed is not None:
            return (
                f"{held}: {expect}; {_times(self.sessions_needed / self.sessions)} as many sessions would do."
            )
        if self.sessions_needed_low is None:
            return f"{held}: {expect}; collect more sessions, or explore wider bounds."
        least = _times(self.sessions_needed_low / self.sessions)
        return f"{held}: {expect}; it takes {least} as many sessions at least, or wider bounds."

    def wishing(self, chi2: float) -> "Signal":
        """Returns the same with the sessions needed for another chi2 than `wished`."""
        if chi2 <= self.df:
            raise Refusal(
                f"signal: a chi2 of {chi2:g} is that of none; give more than {self.df}, its degrees of freedom"
            )
        needed = _sessions_needed(self.sessions, self.chi2, self.df, chi2)
        return self.model_copy(update={"wished": chi2, **needed})


class Signals(Spec):
    """The signal of a log, and of its segments by name."""

    everybody: Signal
    segments: tuple[Signal, ...]
    left_out: dict[str, str] = Field(description="why segments have none, by name")


def signals(log: ExploredLog, names: Sequence[str]) -> Signals:
    """Returns the signal of everybody's requests and of each segment's; one that is refused is left out."""
    found, refused = _told(log, names, by_segment=True)
    return Signals(
        everybody=found[None],
        segments=tuple(found[segment] for segment in sorted(found.keys() - {None}, key=str)),
        left_out={segment: refused[segment] for segment in sorted(refused)},
    )


def fewest_sessions(n_actions: int) -> int:
    """Returns how many explored sessions a regression on so many dimensions asks for."""
    return max(FEWEST, FEWEST_EACH * n_actions)


def signal(log: ExploredLog, names: Sequence[str]) -> Signal:
    """Returns what the explored requests of `log`, whose dimensions have `names`, tell of the return.

    The return minus a linear V of the observation is regressed on the deviations action - baseline action,
    each minus its own linear fit on the observation, which takes out what boxes off centre or cut at an edge
    bring in. V of a request is fitted on other sessions, so it favours no effect. Errors are clustered by
    session.

    `chi2 = b' C^-1 b` of the slopes b with covariance C; where no action matters its expectation is its degrees
    of freedom df. `p_value` is that of `chi2 (g - df) / (df (g - 1))` in F(df, g - df) for g sessions: chi2's
    own distribution for many, and close to honest for few. `wished` is `df (1 + PER_DIMENSION)`: were the effect
    spread evenly, each slope would be told from none at 5 % with 80 % power.

    Slopes are means over the requests: an action that helps some and harms as many others does not show, but by
    segment. Too few sessions, returns that are all alike, and dimensions that move as one are refused.
    """
    return _told(log, names, by_segment=False)[0][None]


def _told(
    log: ExploredLog, names: Sequence[str], by_segment: bool
) -> tuple[dict[Whom, Signal], dict[str, str]]:
    """Returns the signal of everybody, and of segments, and why others have none; the log is read twice."""
    whole = added(log.each(sums))
    if not whole:
        raise Refusal(NOTHING_EXPLORED)
    regressions: dict[Whom, Regression] = {None: regression(whole[None], names)}
    refused = {}
    for segment in whole.keys() - {None} if by_segment else ():
        try:
            regressions[segment] = regression(whole[segment], names)
        except Refusal as refusal:
            refused[str(segment)] = str(refusal)
    spread = added(log.each(partial(spreads, regressions)))
    found = {
        whom: _signal(whom, names, log.gamma, whole[whom], one, spread[whom])
        for whom, one in regressions.items()
    }
    return found, refused


def _signal(
    segment: Whom, names: Sequence[str], gamma: float, of: ExploredSums, told: Regression, spread: NDArray
) -> Signal:
    live, slopes, g = told.live, told.slopes, of.sessions
    covariance = spread * (g - 1) / g
    free, df = tuple(names[int(i)] for i in live), len(live)
    chi2 = float(slopes @ np.linalg.solve(covariance, slopes))
    half_widths = of.widths[live] / of.requests / 2
    mean_return = of.begun_returns / of.begun if of.begun else None
    gain = _gain(of.discounts / g, half_widths, covariance)
    wished = df * (1 + PER_DIMENSION)
    return Signal(
        segment=segment,
        gamma=gamma,
        requests=of.requests,
        sessions=g,
        sessions_cut=of.cut,
        mean_return=mean_return,
        explained=max(0.0, 1 - float(told.fit.variances()[-1] / of.variances()[-1])),
        chi2=chi2,
        df=df,
        p_value=float(fdtrc(df, g - df, chi2 * (g - df) / (df * (g - 1)))),
        ratio=chi2 / df,
        wished=wished,
        **_sessions_needed(g, chi2, df, wished),
        gain=gain,
        relative_gain=gain / abs(mean_return) if mean_return else None,
        slopes=_rows(free, slopes, np.sqrt(covariance.diagonal()), half_widths),
        dead=tuple(name for name in names if name not in free),
    )


def regression(of: ExploredSums, names: Sequence[str]) -> Regression:
    """Returns the regression of what the request does not explain of returns on that of the offsets that move.

    Refuses what `signal` refuses.
    """
    _refuse(of, len(names))
    fit, d = of.fit(), len(names)
    offsets = slice(-1 - d, -1)
    live = np.flatnonzero(moving(np.sqrt(of.variances()[offsets]), np.sqrt(fit.variances()[offsets])))
    told = Regression.of(fit, live)
    _refuse_together(told.gram, [names[int(i)] for i in live])
    return told


def _gain(each_session: float, half_widths: NDArray[np.floating], covariance: NDArray[np.floating]) -> float:
    """Returns the gain in a session's return from which on the test of chi2 tells it: at 5 %, with 80 % power.

    A policy that moves every request to a corner `a` of the box (`a_i` is half_width_i, either sign) gains to
    first order `a'b` a request and `k a'b` a session, k, `each_session`, the mean of a session's `sum_t gamma^t`. As
    `a'b <= sqrt(b' C^-1 b  a' C a)`, a gain of `k sqrt(L a' C a)` or more means a noncentrality of L or more;
    L is that which the test needs. For `a' C a` stands `sum_ij h_i h_j |C_ij|`, at least that of any corner, so
    also of the one that the slopes' signs choose. Smaller gains may be there and not show.
    """
    df = len(half_widths)
    needed = chndtrinc(chdtri(df, ALPHA), df, 1 - POWER)
    return float(each_session * np.sqrt(needed * (half_widths @ np.abs(covariance) @ half_widths)))


def _sessions_needed(g: int, chi2: float, df: int, wished: float) -> dict[str, int | None]:
    """Returns the sessions for the wished chi2, `g (wished - df) / noncentrality`, and their 95 % interval.

    The noncentrality, which grows in proportion to the sessions, is estimated by chi2 - df; its interval
    holds those under which chi2 is neither too small nor too large. None where it is 0.
    """
    high, low = (chndtrinc(chi2, df, share) for share in (ALPHA / 2, 1 - ALPHA / 2))
    found = {"": chi2 - df, "_low": high, "_high": low}
    return {
        f"sessions_needed{end}": math.ceil(g * (wished - df) / noncentrality)
        if noncentrality > LEAST_NONCENTRALITY
        else None
        for end, noncentrality in found.items()
    }


def _rows(
    names: Sequence[str],
    slopes: NDArray[np.floating],
    errors: NDArray[np.floating],
    half_widths: NDArray[np.floating],
) -> tuple[Slope, ...]:
    figures = zip(names, slopes.tolist(), errors.tolist(), half_widths.tolist(), strict=True)
    return tuple(
        Slope(
            dimension=name,
            slope=slope,
            error=error,
            low=slope - Z * error,
            high=slope + Z * error,
            t=slope / error,
            half_width=half_width,
        )
        for name, slope, error, half_width in figures
    )


def varying(middles: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Returns in which dimensions [d] the middles of boxes [n, d] differ."""
    differ: NDArray[np.bool_] = np.ptp(middles, axis=0) > MOVED
    return differ


def moving(spread: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which dimensions [d] move on their own: standard deviations of offsets, and of what is not explained."""
    return (spread > MOVED) & (own > OWN_SHARE * spread)


def too_few(sessions: int, n_actions: int) -> Refusal:
    """Returns what is told of so few sessions."""
    return Refusal(
        f"signal: {sessions} explored sessions are too few for {n_actions} slopes; "
        f"collect {fewest_sessions(n_actions)} or more"
    )


def _refuse(of: ExploredSums, n_actions: int) -> None:
    if of.sessions < fewest_sessions(n_actions):
        raise too_few(of.sessions, n_actions)
    if of.least == of.most:
        raise Refusal("signal: every explored request has the same return; bring a log whose reward varies")


def _refuse_together(gram: NDArray[np.float64], names: Sequence[str]) -> None:
    if not names:
        raise Refusal("signal: no dimension of this log moves on its own; collect one with --explore uniform")
    deviations = np.sqrt(gram.diagonal())
    correlations = np.abs(gram / np.outer(deviations, deviations))
    if np.linalg.cond(correlations) < WORST_CONDITION:
        return
    i, j = divmod(int(np.triu(correlations, 1).argmax()), len(names))
    raise Refusal(
        f"signal: {names[i]} and {names[j]} move as one, so their slopes cannot be told apart; "
        "explore each on its own"
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 9.95 else f"{ratio:.1f} times"
