"""What a world must have before any method is tried in it, measured around its live policy.

Rewards are those of the same users under each policy, with leaving weighed instead of drawn, over that of live: an
offset moves the live action of everybody by the same vector.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from mtf_engine.environments import Acting, world
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import WORLDS, World, f32
from mtf_engine.evaluation.weighted_gauc import weighted_gauc
from mtf_engine.exploration.explored_returns import COLUMNS, explored_returns
from mtf_engine.exploration.signal import signal
from mtf_engine.fusion import log_final_score
from mtf_engine.reward import GAMMA
from mtf_engine.spec import BoundsPlan, Refusal, Spec, Vector
from mtf_engine.study.optima import played, search

STORED = WORLDS / "premises"
"""Written by `benchmarks/premises.py`."""
HALF_WIDTH, WIDE, SIGMA = 0.15, 0.3, 0.2
FAR, FARTHER = 0.4, 0.8
"""How far a dimension is moved alone."""
FIT_USERS, TEST_USERS, GAUC_USERS, SIGNAL_USERS = 78, 79, 80, 81  # seeds of collections
POINTS, POLICIES, DRAWS = 260, 30, 4
SIGNAL_SESSIONS = 20_000
CARRIES, INSIDE = 0.04, 0.98
"""Share of the squared slope, and of the half width, from which a dimension carries, or lies at its bound."""
LEAST_CURVATURE = 0.02  # of the largest


class Premises(Spec):
    """What was measured with one seed of users and catalogue; rewards are relative to the live policy's."""

    world: str
    parameters: str = Field(description="hash of the world's parameters")
    seed: int
    n_users: int
    session_reward: float
    requests: float
    default: float
    slopes: Vector
    curvatures: Vector
    box: Vector
    box_gain: float
    greedy_gain: float
    segments: dict[str, Vector]
    anywhere: Vector
    anywhere_gain: float
    falling: int
    uniform: float
    gaussian: float
    kendall: float
    kendall_wide: float
    gauc: float
    chi2: float

    @property
    def carrying(self) -> int:
        """Dimensions with 4 % of the squared slope or more."""
        squared = np.square(self.slopes)
        return int((squared >= CARRIES * squared.sum()).sum())

    @property
    def inside(self) -> int:
        """Dimensions whose best place in the box is inside it."""
        return int((np.abs(self.box) < INSIDE * HALF_WIDTH).sum())

    @property
    def apart(self) -> int:
        """Dimensions whose best places in the box differ by HALF_WIDTH or more between two segments."""
        return int((np.ptp(list(self.segments.values()), axis=0) >= HALF_WIDTH).sum())


_LIST = TypeAdapter(tuple[Premises, ...])


class Premise(NamedTuple):
    """What a world is asked to be."""

    what: str
    value: Callable[[Premises], float]
    low: float
    high: float = float("inf")
    form: str = ".2f"

    @property
    def asked(self) -> str:
        """The bounds in words."""
        low, high = format(self.low, self.form), format(self.high, self.form)
        if self.high == float("inf"):
            return f"at least {low}"
        return f"at most {high}" if self.low in (-1, 0) else f"{low} to {high}"

    def holds(self, measured: Premises) -> bool:
        return self.low <= self.value(measured) <= self.high


PREMISES = (
    Premise("best within ±0.15, over live", lambda p: p.box_gain, 0.04, form="+.1%"),
    Premise("best anywhere, times that", lambda p: p.anywhere_gain / p.box_gain, 1, 1.5),
    Premise("far-sighted over greedy, within ±0.15", lambda p: p.box_gain - p.greedy_gain, 0.02, form="+.1%"),
    Premise("default weights, over live", lambda p: p.default, -1, -0.01, "+.1%"),
    Premise("dimensions with 4 % of the squared slope", lambda p: p.carrying, 6, form=".0f"),
    Premise("dimensions with the best inside the box", lambda p: p.inside, 4, form=".0f"),
    Premise("dimensions whose best differs by segment", lambda p: p.apart, 4, form=".0f"),
    Premise("dimensions that fall beyond ±0.4", lambda p: p.falling, 6, form=".0f"),
    Premise("cost of uniform ±0.15", lambda p: -p.uniform, 0, 0.01, ".2%"),
    Premise("cost of Gaussian 0.2, times that", lambda p: p.gaussian / p.uniform, 3),
    Premise("Kendall's tau within ±0.15", lambda p: p.kendall, 0.6),
    Premise("Kendall's tau within ±0.3", lambda p: p.kendall_wide, 0.5),
    Premise("weighted GAUC of live", lambda p: p.gauc, 0.68, 0.80, ".3f"),
    Premise("chi2 of 20,000 uniform sessions, of 10 without any", lambda p: p.chi2, 60, form=".0f"),
)
"""Of a world in which what is learned can be told: each with its bounds."""


def measure(
    config: SessionConfig,
    live: Acting,
    n_users: int,
    generations: int,
    n_threads: int = 1,
    n_signal: int = SIGNAL_SESSIONS,
    n_points: int = POINTS,
) -> Premises:
    """Returns the premises of a world around `live`: `n_users` are played with each policy that is tried."""
    from scipy.stats import kendalltau

    env = SessionEnvironment(config, n_threads, weigh_leaving=True)
    fit, test = (Around(env, live, n_users, seed) for seed in (FIT_USERS, TEST_USERS))
    d = env.fusion.n_actions
    rng = np.random.default_rng(config.seed)
    offsets = rng.uniform(-WIDE, WIDE, (n_points, d))
    of_users, of_requests = fit.each(offsets)
    members = {name: fit.segments == name for name in world.SEGMENTS.tolist()}
    slopes, hessian = quadratic(offsets, of_users.mean(axis=1) / fit.rewards.mean())
    box = best_inside(slopes, hessian, HALF_WIDTH)
    greedy = best_inside(*quadratic(offsets, of_users.sum(axis=1) / of_requests.sum(axis=1)), HALF_WIDTH)
    segments = {
        name: best_inside(*quadratic(offsets, of_users[:, rows].mean(axis=1)), HALF_WIDTH)
        for name, rows in members.items()
    }
    anywhere = search(fit.gains, 1.5 * box, 1, 0.1, generations)
    policies = [rng.uniform(-reach, reach, (POLICIES, d)) for reach in (HALF_WIDTH, WIDE)]
    gaucs = [_gaucs(config, live, n_users, p, n_threads) for p in (np.zeros((1, d)), *policies)]
    near, wide = (kendalltau(g, test.gains(p)).statistic for g, p in zip(gaucs[1:], policies, strict=True))
    return Premises(
        world=config.world,
        parameters=env.world.hash,
        seed=config.seed,
        n_users=n_users,
        session_reward=test.rewards.mean(),
        requests=test.requests.mean(),
        default=test.gain(-test.actions),
        slopes=slopes.round(4).tolist(),
        curvatures=(-hessian.diagonal()).round(4).tolist(),
        box=box.round(3).tolist(),
        box_gain=test.gain(box),
        greedy_gain=test.gain(greedy),
        segments={name: offset.round(3).tolist() for name, offset in segments.items()},
        anywhere=anywhere.round(3).tolist(),
        anywhere_gain=test.gain(anywhere),
        falling=_falling(test, d),
        uniform=test.explored(lambda shape: rng.uniform(-HALF_WIDTH, HALF_WIDTH, shape)),
        gaussian=test.explored(lambda shape: rng.normal(0, SIGMA, shape)),
        kendall=near,
        kendall_wide=wide,
        gauc=gaucs[0][0],
        chi2=_chi2(config, live, n_signal, n_threads),
    )


def stored(world: str) -> tuple[Premises, ...]:
    """Returns what was measured of a world, a seed after the other; nothing where it was not."""
    path = STORED / f"{world}.json"
    return _LIST.validate_json(path.read_text()) if path.exists() else ()


def measured(world: str, seed: int) -> Premises:
    """Returns what was measured of a world as it is now with a seed; a Refusal where it was not."""
    own = [one for one in stored(world) if one.seed == seed and one.parameters == World.named(world).hash]
    if not own:
        raise Refusal(
            f"the premises of the world {world} were not measured with seed {seed}; "
            f"run python benchmarks/premises.py --worlds {world}"
        )
    return own[0]


def store(measured: Sequence[Premises]) -> None:
    """Keeps what was measured of a world where `stored` finds it."""
    (STORED / f"{measured[0].world}.json").write_bytes(_LIST.dump_json(tuple(measured), indent=1) + b"\n")


def quadratic(offsets: NDArray, values: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns slopes [d] and Hessian [d, d] at 0 of the quadratic nearest to `values` [p] at `offsets` [p, d]."""
    d = offsets.shape[1]
    rows, columns = np.triu_indices(d)
    terms = np.column_stack([np.ones(len(values)), offsets, offsets[:, rows] * offsets[:, columns]])
    fitted = np.linalg.lstsq(terms, values, rcond=None)[0]
    half = np.zeros((d, d))
    half[rows, columns] = fitted[1 + d :]
    return fitted[1 : 1 + d], half + half.T


def best_inside(slopes: NDArray, hessian: NDArray, reach: float) -> NDArray[np.float64]:
    """Returns where in [-reach, reach]^d the quadratic is largest; directions that bend up are made to bend down.

    By projected gradient (Bertsekas, 1976).
    """
    curvatures, axes = np.linalg.eigh(-hessian)
    curvatures = np.maximum(curvatures, LEAST_CURVATURE * curvatures.max())
    bend = (axes * curvatures) @ axes.T
    x = np.zeros(len(slopes))
    for _ in range(4000):
        x = np.clip(x + (slopes - bend @ x) / curvatures.max(), -reach, reach)
    return x


class Around:
    """Users who are played at offsets from their live actions."""

    def __init__(self, env: SessionEnvironment, live: Acting, n_users: int, seed: int) -> None:
        self.env = env
        self.users, sessions = env.visits(0, n_users, seed)
        env.reset(self.users, sessions)
        self.segments, self.actions = env.active.segments, live.act(env.observe())
        self.rewards, self.requests = self.play(np.zeros(env.fusion.n_actions))

    def play(self, offset: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns reward and requests [n] at an offset [d], or one for each user [n, d]."""
        return played(self.env, self.users, np.clip(self.actions + f32(offset), -1, 1))

    def each(self, offsets: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns rewards and requests [p, n] at each of the offsets [p, d]."""
        rewards, requests = zip(*map(self.play, offsets), strict=True)
        return np.array(rewards), np.array(requests)

    def gain(self, offset: NDArray) -> float:
        """Returns the relative gain in session reward over live."""
        return float(self.play(offset)[0].mean() / self.rewards.mean() - 1)

    def gains(self, offsets: NDArray) -> NDArray[np.float64]:
        """Returns the gain [p] of each of the offsets [p, d]."""
        return np.array([self.gain(offset) for offset in offsets])

    def explored(self, noise: Callable[[tuple[int, ...]], NDArray]) -> float:
        """Returns the gain, below 0 where it costs, of offsets drawn anew for each request."""
        rewards = 0.0
        for _ in range(DRAWS):
            self.env.reset(self.users, np.zeros(len(self.users), np.int64))
            while len(who := self.env.active.sessions):
                actions = self.actions[who]
                step = self.env.step(np.clip(actions + f32(noise(actions.shape)), -1, 1))
                rewards += float(step.rewards.sum())
        return rewards / DRAWS / float(self.rewards.sum()) - 1


def _falling(around: Around, d: int) -> int:
    """Returns how many dimensions, moved alone, are worse at FARTHER than at FAR on both sides."""
    falls = [
        all(around.gain(side * FARTHER * unit) < around.gain(side * FAR * unit) for side in (-1, 1))
        for unit in np.eye(d)
    ]
    return sum(falls)


def _gaucs(
    config: SessionConfig, live: Acting, n_users: int, offsets: NDArray, n_threads: int
) -> list[float]:
    """Returns the weighted GAUC by user of the policies at `offsets` [p, d] on what live has shown."""
    env = SessionEnvironment(config, n_threads)
    env.reset(*env.visits(0, n_users, GAUC_USERS))
    actions = live.act(env.observe())
    shown: dict[str, list[NDArray[Any]]] = {"user": [], "predictions": [], "label": [], "reward": []}
    while len(who := env.active.sessions):
        impressions = env.step(actions[who]).impressions
        shown["user"].append(np.repeat(who, impressions.item_id.shape[1]))
        shown["predictions"].append(impressions.predictions.reshape(-1, len(world.PREDICTIONS)))
        shown["label"].append(impressions.label.ravel())
        shown["reward"].append(impressions.reward.ravel())
    rows = {name: np.concatenate(parts) for name, parts in shown.items()}
    user, predictions = rows["user"], rows["predictions"][:, None]

    def of(offset: NDArray) -> float:
        moved = np.clip(actions + f32(offset), -1, 1)[user]
        scores = log_final_score(env.fusion, moved, predictions)[:, 0]
        value = weighted_gauc(scores, rows["label"], 1 + rows["reward"], user).value
        if value is None:
            raise Refusal(f"no user of the world {config.world} has a label of both kinds; play more users")
        return value

    return [of(offset) for offset in offsets]


def _chi2(config: SessionConfig, live: Acting, n_sessions: int, n_threads: int) -> float:
    """Returns the signal of uniform sessions within the box, of which `n_sessions` are played."""
    env = SessionEnvironment(config, n_threads)
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    how = Collection(explore="uniform", plan=plan, n_sessions=n_sessions, seed=SIGNAL_USERS, control_share=0)
    parts = [
        {**table.requests, "explored": np.ones(len(table.requests["step"]), bool)}
        for table in collect(env, live, how)
    ]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return signal(explored_returns(rows, GAMMA), env.fusion.names).chi2
