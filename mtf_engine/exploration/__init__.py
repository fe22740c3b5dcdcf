"""How actions are perturbed around the baseline policy, and what that buys."""

from mtf_engine.exploration.density import density_efficiency

__all__ = ["density_efficiency"]
