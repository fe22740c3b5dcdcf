"""What would make a method better: variants of its training, each on the same fresh logs, A/B tested on fresh users.

    python benchmarks/variants.py --variants laptop n_steps=500 "relative lambda_std=1 n_rewards=3" bootstrap
        [--method integrated_rl] [--world feed] [--sessions 4000 20000] [--seeds 5] [--users 10000]
        [--set NAME=VALUE]

Every seed has a uniformly explored log of its own and test users of its own. A variant is the method's `laptop`
preset, with settings where some are named, of IntegratedRL also one of the trainers here that were tried:

- `bootstrap`: each critic weighs the sessions of the log by its own Poisson draw, so that critics differ by data.
- `relative`: the actor is charged for the critics' disagreement over what its action gains over the baseline action,
  nothing at the baseline, instead of over its whole Q; `relative_bootstrap`: both.
- `indifferent`: critics start at a Q that is the same for all actions, so that what they prefer is of the log.
- `averaged`: the policy is the mean of the actor's weights over the second half of the training.
- `decay`: both learning rates fall to 0 along a cosine.

The change of session reward and of weighted GAUC against the live policy are told with Student's t over seeds,
and for critics whether their disagreement is what independent logs disagree by: the standard deviation among the
critics of one log over that of the mean critic among logs, of Q(s, a) - Q(s, baseline) for the same 2,000
requests and explored actions. It is 1 where critics are as far apart as logs of that size would set them.
"""

import argparse
import copy
import math
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.progressive import over_seeds, told
from mtf_engine.algos import ALGOS
from mtf_engine.algos.integrated_rl import VARIANCE_FLOOR, IntegratedRL
from mtf_engine.commands.options import parse_settings
from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.session import SessionConfig, SessionEnvironment
from mtf_engine.environments.world import DEFAULT_WORLD, names
from mtf_engine.evaluation.abtest import ab_test
from mtf_engine.evaluation.ranking import Ranking
from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.training import fit, make_config
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.networks import relative_actions
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import BASELINE
from mtf_engine.runs.storage import live_policy
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.study.factorial import GAUC

HALF_WIDTH = 0.15
EXPLORED_SEED, LIVE_SEED, TEST_SEED, PROBE_SEED = 3_000, 4_000, 5_000, 6_000
"""Of the first logs and users; no comparison draws them."""
LIVE_SESSIONS = 3_000
PROBES = 2_000
WORKERS = 2
REWARD = "session_reward"


@dataclass(frozen=True)
class Weighed:
    """A batch, and how often each critic has each of its transitions: [n_critics, n]."""

    batch: Batch
    weights: Tensor

    def __len__(self) -> int:
        return len(self.batch)


class BootstrapData(NamedTuple):
    """Transitions of which each critic has its own Poisson draw of sessions."""

    batches: Batches
    session_of: Tensor  # [n], numbered from 0
    times: Tensor  # [n_sessions, n_critics], uint8

    def draw(self, n: int, generator: torch.Generator) -> Weighed:
        steps = torch.randint(len(self.session_of), (n,), generator=generator)
        return Weighed(self.batches.at(steps), self.times[self.session_of[steps]].t().float())


class Bootstrap(IntegratedRL):
    """IntegratedRL whose critics are a bootstrap of the log, by session."""

    def prepare(self, transitions: Transitions) -> Any:
        """Returns the transitions with the draws of sessions."""
        starts = transitions.session_starts
        lengths = np.diff(np.append(starts, len(transitions)))
        session_of = torch.from_numpy(np.repeat(np.arange(len(starts)), lengths))
        draws = np.random.default_rng(self.config.seed).poisson(1, (len(starts), self.config.n_critics))
        return BootstrapData(
            super().prepare(transitions), session_of, torch.from_numpy(draws.astype(np.uint8))
        )

    def update(self, weighed: Any) -> dict[str, Tensor]:
        """Does a step."""
        self._weights = weighed.weights
        return super().update(weighed.batch)

    def diagnose(self, weighed: Any) -> dict[str, Tensor | float]:
        """Returns what is watched."""
        return super().diagnose(weighed.batch)

    def _critic_loss(self, batch: Batch) -> Tensor:
        errors = (self.critics(batch.state, batch.action_inputs) - self._targets(batch)).square()
        return (self._weights * errors).sum() / len(batch)


class Relative(IntegratedRL):
    """Charges the actor for the disagreement over the gain of its action over the baseline's."""

    def _actor_loss(self, batch: Batch) -> Tensor:
        actions = self.actor.head(batch.observations)
        relative = relative_actions(actions, batch.centre, batch.half_width)
        q = self._q(batch, actions, relative)
        with torch.no_grad():
            baseline = batch.state[:, -actions.shape[1] :]
            there = self._q(batch, baseline, relative_actions(baseline, batch.centre, batch.half_width))
        gain = q - there
        spread = ((gain - gain.mean(dim=0)).square().mean(dim=0) + VARIANCE_FLOOR).sqrt()
        cost = self.config.eta * self._penalty(relative) + self.config.lambda_std * spread
        return (cost - q.mean(dim=0)).mean()


class Indifferent(IntegratedRL):
    """Its critics start without a preference among actions."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        n_explored = len(self.critics.explored)
        for critics in (self.critics, self.target_critics):
            with torch.no_grad():
                critics.weights[0][-n_explored:] = 0


class Averaged(IntegratedRL):
    """Its policy is the mean of the actor's weights over the second half of the training."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Does a step, and takes the actor's weights into the mean."""
        losses = super().update(batch)
        first = self.config.n_steps // 2
        if self.step >= first:
            if self.step == first:
                self.mean_actor = copy.deepcopy(self.actor)
            torch._foreach_lerp_(
                [p.data for p in self.mean_actor.parameters()],
                [p.data for p in self.actor.parameters()],
                1 / (self.step - first + 1),
            )
        if self.step == self.config.n_steps:
            self.actor.load_state_dict(self.mean_actor.state_dict())
        return losses


class Decay(IntegratedRL):
    """Learning rates fall to 0 along a cosine."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Does a step at the rate of its time."""
        share = (1 + math.cos(math.pi * self.step / self.config.n_steps)) / 2
        rates = self.config.actor_learning_rate, self.config.critic_learning_rate
        for optimiser, rate in zip((self.actor_optimiser, self.critic_optimiser), rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * share
        return super().update(batch)


class RelativeBootstrap(Relative, Bootstrap):
    """Both."""


TRAINERS: dict[str, type[IntegratedRL]] = {
    "bootstrap": Bootstrap,
    "relative": Relative,
    "relative_bootstrap": RelativeBootstrap,
    "indifferent": Indifferent,
    "averaged": Averaged,
    "decay": Decay,
}


class Case(NamedTuple):
    """One training."""

    name: str
    sessions: int
    seed: int

    @property
    def trainer(self) -> str | None:
        """Which of the trainers here; None: the method's own."""
        first = self.name.split()[0]
        return first if first in TRAINERS else None

    @property
    def settings(self) -> dict[str, str]:
        """Its settings."""
        return parse_settings([word for word in self.name.split() if "=" in word])


def log_written(folder: Path, world: str, name: str, n_sessions: int, seed: int, kind: Any) -> None:
    """Writes a log of so many sessions of the live policy, explored or not, beside the others."""
    env = SessionEnvironment(SessionConfig(world=world))
    plan = BoundsPlan.symmetric(HALF_WIDTH, env.fusion.n_actions)
    how = Collection(explore=kind, plan=plan, n_sessions=n_sessions, seed=seed)
    write_dataset(folder, name, how.meta(env, name, "session"), collect(env, live_policy(env), how))


def trained(folder: Path, method: str, settings: dict[str, str], case: Case) -> NDArray[np.float64] | None:
    """Saves the policy that a case trains, and returns its critics' gain of the probe's actions, [n_critics, n].

    None where it has no critics; no policy where the training diverged.
    """
    log = Dataset.open(folder / f"explored-{case.sessions}-{case.seed}.duckdb")
    transitions = log.transitions()
    asked = make_config(method, "laptop", settings | case.settings, case.seed)
    config = asked.model_copy(update={"n_steps": asked.steps(len(transitions))})
    algo: Any = (TRAINERS[case.trainer] if case.trainer else ALGOS[method])(config, transitions)
    try:
        for _ in fit(algo, transitions):
            pass
    except Refusal as refusal:
        print(f"{case}: {refusal}", file=sys.stderr)
        return None
    algo.policy.save(policy_path(folder, case))
    if algo.critics is None:
        return None
    asked = Dataset.open(folder / "probe.duckdb").transitions()[:PROBES]
    here = asked.observations, asked.baseline_actions, asked.lower, asked.upper
    q = algo.critics.q(*here, asked.actions) - algo.critics.q(*here, asked.baseline_actions)
    return np.asarray(q, np.float64) / algo.reward_scale.scale


def policy_path(folder: Path, case: Case) -> Path:
    """Returns where the policy of a case is."""
    return folder / f"{case.name.replace(' ', '-')}-{case.sessions}-{case.seed}.policy"


def tested(
    folder: Path, world: str, n_users: int, cases: Sequence[Case], seed: int
) -> dict[Case, dict[str, float]]:
    """Returns what the policies of one seed bring over live, on users of that seed."""
    env = SessionEnvironment(SessionConfig(world=world))
    own = [case for case in cases if case.seed == seed and policy_path(folder, case).exists()]
    arms: dict[str, Any] = {str(i): Policy.load(policy_path(folder, case)) for i, case in enumerate(own)}
    test = ab_test(env, arms | {BASELINE: live_policy(env)}, BASELINE, n_users, (TEST_SEED + seed,))
    score = Ranking(Dataset.open(folder / f"live-{seed}.duckdb").evaluation_rows())
    base = score(live_policy(env))
    return {
        case: {REWARD: told(test.effect(str(i), REWARD).relative), GAUC: score(arms[str(i)]) - base}
        for i, case in enumerate(own)
    }


def calibrated(gains: Sequence[NDArray[np.float64]]) -> str:
    """Returns the critics' spread within a log over that of the mean critic among logs, of `gains` a log each."""
    within = np.mean([gain.var(axis=0, ddof=1).mean() for gain in gains])
    among = np.var([gain.mean(axis=0) for gain in gains], axis=0, ddof=1).mean()
    return f"{math.sqrt(within / among):.2f}"


def table(options: argparse.Namespace, cases: Sequence[Case], tested: Any, gains: Any) -> str:
    """Returns a row a variant and size of log, as markdown."""
    head = [
        "variant",
        "sessions",
        "session reward",
        "each seed",
        "weighted GAUC",
        "spread of critics / of logs",
    ]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for n_sessions in options.sessions:
        for name in dict.fromkeys(case.name for case in cases):
            own = [case for case in cases if case.name == name and case.sessions == n_sessions]
            if not all(case in tested for case in own):
                lines.append(f"| `{name}` | {n_sessions:,} | diverged | | | |")
                continue
            found = pd.DataFrame([tested[case] for case in own])
            seeds = ", ".join(f"{value:+.1%}" for value in found[REWARD])
            critics = [gains[case] for case in own if gains[case] is not None and len(gains[case]) > 1]
            cells = [
                f"`{name}`",
                f"{n_sessions:,}",
                over_seeds(found[REWARD], "+.2%"),
                seeds,
                over_seeds(found[GAUC], "+.4f"),
                calibrated(critics) if len(critics) > 1 else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    """Trains, tests and prints."""
    cases = [
        Case(variant, n, seed)
        for n in sorted(options.sessions, reverse=True)
        for seed in range(options.seeds)
        for variant in options.variants
    ]
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool,
    ):
        folder = Path(name)
        written: list[tuple[Any, ...]] = [("probe", PROBES, PROBE_SEED, "uniform")]
        for seed in range(options.seeds):
            written.append((f"live-{seed}", LIVE_SESSIONS, LIVE_SEED + seed, "baseline"))
            for n in options.sessions:
                written.append((f"explored-{n}-{seed}", n, EXPLORED_SEED + seed, "uniform"))
        for done in [pool.submit(log_written, folder, options.world, *one) for one in written]:
            done.result()
        changed = parse_settings(options.set)
        work = partial(trained, folder, options.method, changed)
        gains = dict(zip(cases, pool.map(work, cases), strict=True))
        test = partial(tested, folder, options.world, options.users, cases)
        found = {case: one for seed in pool.map(test, range(options.seeds)) for case, one in seed.items()}
    print(
        f"Synthetic, world {options.world}: `{options.method}`, {options.seeds} seeds, uniform exploration within "
        f"±{HALF_WIDTH}, each seed with its own log and {options.users:,} users of its own; "
        f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB. Against "
        "the live policy, 95 % interval over seeds; session reward relative, weighted GAUC a difference.\n"
    )
    print(table(options, cases, found, gains))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=ALGOS, default="integrated_rl")
    parser.add_argument(
        "--variants", nargs="+", metavar="'[TRAINER] NAME=VALUE'", help="default: all trainers"
    )
    parser.add_argument("--world", choices=names(), default=DEFAULT_WORLD)
    parser.add_argument("--sessions", type=int, nargs="+", default=[4_000, 20_000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of every variant")
    options = parser.parse_args()
    trainers = list(TRAINERS) if options.method == "integrated_rl" else []
    options.variants = options.variants or ["laptop", *trainers]
    for variant in options.variants:
        first, *rest = variant.split() or [""]
        known = first in ("laptop", *trainers) or "=" in first
        if not known or not all("=" in word for word in rest):
            parser.error(
                f"{variant!r} is no variant of {options.method}: laptop, {', '.join(trainers)}, NAME=VALUE"
            )
    main(options)
