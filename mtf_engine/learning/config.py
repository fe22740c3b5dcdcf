"""Settings that every trainer has, and those that all reinforcement-learning methods share."""

from typing import Literal

from pydantic import Field

from mtf_engine.reward import GAMMA
from mtf_engine.spec import Count, Seed, Spec, Threads

LEAST_STEPS = 500
"""Of a training by passes: in fewer the actor follows the critics' first weights rather than the log."""
SCORE = "validation_gauc"
"""What rows of metrics call the weighted GAUC of validation users."""


class TrainerConfig(Spec):
    """How long, on what, and how often to write; each algorithm adds its own settings."""

    n_steps: Count = Field(default=2_000, description="updates")
    batch_size: Count = Field(default=256, description="transitions per update (paper: 256)")
    checkpoint_every: Count = Field(
        default=100, description="steps between checkpoints, from which a run resumes"
    )
    log_every: Count = Field(default=50, description="steps between rows of metrics")
    validate_every: Count = Field(
        default=250, description="steps between scores on validation users; the best step is kept"
    )
    n_threads: Threads = Field(
        default=1, description="processor threads; results are identical for equal numbers"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the networks live")
    seed: Seed = Field(default=0, description="of the first weights and of the batches drawn")

    def steps(self, n_transitions: int) -> int:
        """Returns how many updates a training on so many transitions does."""
        return self.n_steps


class OffPolicyConfig(TrainerConfig):
    """What actors and critics set; each method adds its own settings, or has another default."""

    n_steps: Count | None = Field(  # type: ignore[assignment]
        default=None, description="updates of the networks; empty: as many as the passes make, 500 at least"
    )
    passes: float = Field(
        default=2.5,
        gt=0,
        le=10_000,
        description="times that batches go over the log's training steps, where n_steps is empty (ours by search)",
    )
    hidden: tuple[Count, ...] = Field(
        default=(64, 64), min_length=1, description="hidden layers of all networks (ours)"
    )
    gamma: float = Field(
        default=GAMMA, ge=0, lt=1, description="discount of later requests (IntegratedRL-MTF: 0.9)"
    )
    n_rewards: int = Field(
        default=1,
        ge=1,
        le=100,
        description="rewards before critics bootstrap, n-step returns (all papers: 1)",
    )
    tau: float = Field(
        default=0.005, gt=0, le=1, description="soft-update rate of the targets at each step (d3rlpy: 0.005)"
    )
    actor_learning_rate: float = Field(default=1e-4, gt=0, description="of Adam (BatchRL-MTF: 1e-4)")
    critic_learning_rate: float = Field(
        default=1e-3, gt=0, description="of Adam (BatchRL-MTF: 2e-4; ours by search)"
    )
    action_level: Literal["request", "item"] = Field(
        default="request",
        description="what an action is for: item gives every item weights of its own, by its features and the user's "
        "(Enhanced-State RL, arXiv 2409.11678)",
    )
    action_input: Literal["deviation", "raw"] = Field(
        default="deviation", description="critics see the action relative to its bounds, or raw (ours)"
    )
    reward_scale: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="rewards are multiplied by this; empty: 1 / std of the discounted return (ours)",
    )

    def steps(self, n_transitions: int) -> int:
        """Returns `n_steps`, or how many batches make the passes over so many transitions, 500 at least."""
        return self.n_steps or max(LEAST_STEPS, round(self.passes * n_transitions / self.batch_size))
