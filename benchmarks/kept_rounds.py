"""What rounds leave that promote a policy only where an A/B test finds it better, beside rounds that always promote.

    python benchmarks/kept_rounds.py [--rounds 5] [--sessions 300] [--seeds 3] [--users 200] [--test-users 300]

Five rounds of IntegratedRL (`laptop`, 8 critics, 6 passes) in environments of others: SARDINE Uncertain (sardine-rec, a
recommender that shows 10 of 1,000 items; half width 0.5) and Pendulum (half width 1, gamma 0.97). A round is judged on
--users who are met once. What each run promoted last is then A/B tested, on --test-users whom no round has met, against
the policy of its first round. The command fails where what was kept is worse than that by more than the interval, which
is what promoting by A/B test promises. With `--workspace DIR` a second call does only what is missing.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.gymnasium import GymnasiumEnvironment
from mtf_engine.evaluation.abtest import ABTest, ab_test
from mtf_engine.registry import BASELINE, RunRow
from mtf_engine.release.rounds import Promote
from mtf_engine.runs import executor
from mtf_engine.runs.storage import open_policy
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.workspace import Workspace

TEST_SEED = 1_000
"""Of the first seed's test users; those of the rounds are drawn from the rounds' own seeds."""
SETTINGS = {"n_critics": "8", "passes": "6"}
PLAYED: dict[str, tuple[str, float, dict[str, str]]] = {
    "SARDINE": ("gym:benchmarks.sardine_ideal:SardineIdeal-v0", 0.5, {}),
    "Pendulum": ("gym:Pendulum-v1", 1.0, {"gamma": "0.97"}),
}
KEPT, ALWAYS = "if-better", "always"
PROMOTE: tuple[Promote, ...] = (KEPT, ALWAYS)


def started(workspace: Workspace, name: str, promote: Promote, seed: int, o: argparse.Namespace) -> RunRow:
    """Returns the run of these rounds, submitted or resumed where it is not done."""
    env, half_width, own = PLAYED[name]
    label = f"{name}, {o.rounds} rounds of {o.sessions}, {promote} by {o.users}, seed {seed}"
    known = [run for run in workspace.registry.runs(kind="progressive") if run.name == label]
    run_id = (
        known[0].id
        if known
        else submit_progressive(
            workspace,
            env=env,
            rounds=o.rounds,
            sessions_per_round=o.sessions,
            algo="integrated_rl",
            preset="laptop",
            settings=SETTINGS | own,
            half_width=half_width,
            promote=promote,
            ab_users=o.users if promote == KEPT else 0,
            seed=seed,
            name=label,
        )
    )
    if workspace.registry.run(run_id).state.can_resume:
        executor.resume(workspace, run_id)
    return workspace.registry.run(run_id)


def tested(
    workspace: Workspace, env: GymnasiumEnvironment, runs: dict[str, RunRow], seed: int, n_users: int
) -> ABTest:
    """Returns the A/B test of what each run left against the policy of its first round.

    Both runs have the same first round, to the bit, as they share its seed.
    """
    results = {promote: run.result or {} for promote, run in runs.items()}
    arms = {promote: open_policy(workspace, told["promoted"], env) for promote, told in results.items()}
    arms["round 1"] = open_policy(workspace, results[KEPT]["rounds"][0]["candidate"], env)
    arms[BASELINE] = open_policy(workspace, BASELINE, env)
    return ab_test(env, arms, "round 1", n_users, (TEST_SEED + seed,))


def row(name: str, seed: int, runs: dict[str, RunRow], test: ABTest) -> list[str]:
    """Returns a line of the table: who was promoted, the mean of each arm, and the difference to round 1's policy."""
    told: list[dict[str, Any]] = (runs[KEPT].result or {})["rounds"]
    promoted = ", ".join(str(one["number"]) for one in told if one["promoted"]) or "none"
    means = {mean.policy: mean for mean in test.means if mean.metric == "return"}
    cells = [name, str(seed), promoted, f"{means[BASELINE].mean:.1f}", f"{means['round 1'].mean:.1f}"]
    for arm in PROMOTE:
        effect = test.effect(arm, "return")
        low, high = (abs(test.base_means["return"]) * (end or 0) for end in (effect.ci_low, effect.ci_high))
        cells.append(f"{means[arm].mean:.1f} ({low:+.1f} to {high:+.1f})")
    return cells


def main() -> bool:
    """Prints the table; returns whether what some rounds kept is worse than their first round's policy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workspace", default=None)
    for option, default in (
        ("rounds", 5),
        ("sessions", 300),
        ("seeds", 3),
        ("users", 200),
        ("test-users", 300),
    ):
        parser.add_argument(f"--{option}", type=int, default=default)
    o = parser.parse_args()
    heads = (
        "environment",
        "seed",
        "promoted rounds",
        "baseline",
        "round 1",
        "kept if better",
        "always promoted",
    )
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|", flush=True)
    worse = False
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(o.workspace or Path(folder) / "workspace")
        runs = {
            (name, seed): {promote: started(workspace, name, promote, seed, o) for promote in PROMOTE}
            for name in PLAYED
            for seed in range(o.seeds)
        }
        for (name, seed), of_seed in runs.items():
            done = {
                promote: executor.completed(workspace, executor.wait(workspace, run.id))
                for promote, run in of_seed.items()
            }
            env = GymnasiumEnvironment.named(PLAYED[name][0])
            test = tested(workspace, env, done, seed, o.test_users)
            print("| " + " | ".join(row(name, seed, done, test)) + " |", flush=True)
            worse |= (test.effect(KEPT, "return").ci_high or 0) < 0
    print(f"\nWorse than round 1 by more than the interval: {'some' if worse else 'none'}.")
    return worse


if __name__ == "__main__":
    sys.exit(main())
