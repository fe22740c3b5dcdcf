"""When to stop rounds: what the next one is expected to gain, against what a test can show and what exploring costs."""

import numpy as np
from pydantic import Field

from mtf_engine.release.rounds import Round, reward_effect
from mtf_engine.spec import Refusal, Spec

Z = 1.96
SHOWN = Z + 0.842
"""Standard errors of a gain that a test shows at 5 % with 80 % power."""


class NextRound(Spec):
    """The next round of some, told before it is played."""

    number: int
    metric: str = Field(description="session reward in A/B tests, relative; else weighted GAUC, a difference")
    gain: float = Field(description="expected, by a line through the gains so far, at least 0")
    ci_low: float
    ci_high: float
    smallest: float = Field(description="gain that the last round's test would have shown: 80 % power at 5 %")
    cost: float | None = Field(
        description="of a round: share of a session's reward lost by exploring, times its sessions; None: not known"
    )
    pays_after: float | None = Field(
        description="sessions under the new policy until the expected gain has paid for it; None: never, or not known"
    )
    stop: bool
    sentence: str


def next_round(rounds: tuple[Round, ...]) -> NextRound:
    """Returns what the round after `rounds` is expected to bring; needs two whose gains have intervals.

    The line is fitted to gains weighted by 1 / error^2, and read at the next round. It says to stop where its upper
    end is below what a test can show, or its expectation is 0; the decision is people's.
    """
    tested = all(reward_effect(one.effects) is not None for one in rounds)
    numbers, gains, errors = _gains(rounds, tested)
    if len(numbers) < 2:
        raise Refusal(
            "To tell when to stop, two rounds with a measured gain are needed; play another one first"
        )
    number = rounds[-1].number + 1
    design = np.stack([np.ones(len(numbers)), numbers - number], axis=1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    expected = float((covariance @ design.T @ (gains / errors))[0])
    error, smallest = float(np.sqrt(covariance[0, 0])), float(SHOWN * errors[-1])
    gain, high = max(0.0, expected), expected + Z * error
    cost = _cost(rounds[-1])
    pays_after = cost / gain if tested and cost is not None and gain > 0 else None
    stop = gain == 0 or high < smallest
    unit = "{:+.2%} of session reward" if tested else "{:+.4f} of weighted GAUC"
    because = (
        "no gain is expected"
        if gain == 0
        else "at best it is less than a test of this size can show"
        if stop
        else "a test may show it"
    )
    paid = "" if pays_after is None else f"; it pays for itself after {pays_after:,.0f} sessions"
    return NextRound(
        number=number,
        metric="session_reward" if tested else "weighted_gauc",
        gain=gain,
        ci_low=expected - Z * error,
        ci_high=high,
        smallest=smallest,
        cost=cost,
        pays_after=pays_after,
        stop=stop,
        sentence=(
            f"Round {number}: {unit.format(gain)} expected ({unit.format(expected - Z * error).split()[0]} to "
            f"{unit.format(high).split()[0]}), {unit.format(smallest).split()[0]} would show{paid}. "
            f"{'Stop' if stop else 'Go on'}: {because}."
        ),
    )


def _gains(rounds: tuple[Round, ...], tested: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns number, gain over the round's baseline and its standard error of each round that has all."""
    found = []
    for one in rounds:
        effect = reward_effect(one.effects)
        value, low, high = (
            (effect.relative, effect.ci_low, effect.ci_high)
            if tested and effect is not None
            else (one.policy.difference.value, one.policy.difference.ci_low, one.policy.difference.ci_high)
        )
        if value is not None and low is not None and high is not None and high > low:
            found.append((one.number, value, (high - low) / (2 * Z)))
    numbers, gains, errors = np.array(found, np.float64).reshape(-1, 3).T
    return numbers, gains, errors


def _cost(one: Round) -> float | None:
    """Returns what a round's exploration lost, in sessions' worth of its control users' reward; at least 0."""
    control, explored = one.log.control_reward.value, one.log.explored_reward.value
    if control is None or explored is None or control == 0:
        return None
    return max(0.0, (control - explored) / abs(control)) * one.sessions
