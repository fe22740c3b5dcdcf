"""Settings that every trainer has."""

from typing import Literal

from pydantic import Field

from mtf_engine.spec import Spec

SCORE = "validation_gauc"
"""What rows of metrics call the weighted GAUC of validation users."""


class TrainerConfig(Spec):
    """How long, on what, and how often to write; each algorithm adds its own settings."""

    n_steps: int = Field(default=2_000, ge=1, description="updates of the networks (ours by search)")
    batch_size: int = Field(default=256, ge=1, description="transitions per update (paper: 256)")
    checkpoint_every: int = Field(
        default=100, ge=1, description="steps between checkpoints, from which a run resumes"
    )
    log_every: int = Field(default=50, ge=1, description="steps between rows of metrics")
    validate_every: int = Field(
        default=250, ge=1, description="steps between scores on validation users; the best step is kept"
    )
    n_threads: int = Field(
        default=1, ge=1, description="processor threads; results are identical for equal numbers"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the networks live")
    seed: int = Field(default=0, ge=0, description="of the first weights and of the batches drawn")
