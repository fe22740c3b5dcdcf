"""Writes scope_rl.npz: what scope-rl 0.2.1 makes of one small log, which tests hold our estimators against.

Run it with the Python of an environment that has it (it forces an older gymnasium, hence one of its own):

    python3 -m venv .venv-scope-rl
    .venv-scope-rl/bin/pip install torch==2.13.0 scope-rl==0.2.1
    .venv-scope-rl/bin/python tests/oracles/make_scope_rl.py

Its sessions are of one length and its kernel is a Gaussian over one dimension, of no box. The box of the log is wide
enough that ours, which ends there, is the same to 1e-12.
"""

from pathlib import Path

import numpy as np
from scope_rl.ope.continuous import DoublyRobust, PerDecisionImportanceSampling, SelfNormalizedPDIS

N_SESSIONS, N_STEPS, GAMMA, TAU, HALF_WIDTH = 40, 3, 0.9, 0.05, 0.6
"""tau in units of the action."""


def main() -> None:
    generator = np.random.default_rng(0)
    n = N_SESSIONS * N_STEPS
    log = {
        "action": generator.uniform(-0.2, 0.2, (n, 1)),
        "reward": generator.normal(2, 1, n),
        "pscore": generator.uniform(1, 3, (n, 1)),
        "evaluation_policy_action": generator.uniform(-0.1, 0.1, (n, 1)),
    }
    predicted = generator.normal(2, 1, (n, 2))
    how = {"step_per_trajectory": N_STEPS, "gamma": GAMMA, "kernel": "gaussian", "bandwidth": TAU}
    values = {
        "per_decision_is": PerDecisionImportanceSampling().estimate_policy_value(**log, **how),
        "ncis": SelfNormalizedPDIS().estimate_policy_value(**log, **how),
        "doubly_robust": DoublyRobust().estimate_policy_value(
            **log, state_action_value_prediction=predicted, **how
        ),
    }
    settings = {"n_steps": N_STEPS, "gamma": GAMMA, "tau": TAU, "half_width": HALF_WIDTH}
    np.savez(Path(__file__).parent / "scope_rl.npz", **log, predicted=predicted, **values, **settings)


if __name__ == "__main__":
    main()
