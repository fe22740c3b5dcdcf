"""Mixed exploration of BatchRL-MTF: some requests draw at random over the whole range, the others add noise."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_ndtr, ndtr, ndtri

from mtf_engine.spec import Spec

Floats = NDArray[np.floating]


class Mixture(Spec):
    """What `explore` draws of kind "mixed": random exploration and action noise, at a stated share.

    Zhang et al., "Multi-Task Fusion via Reinforcement Learning for Long-Term User Satisfaction in Recommender
    Systems", KDD 2022, arXiv 2208.04560, section 3.3: half of the trajectories by a Gaussian "while having no priori
    knowledge", half by the target policy's action plus N(0, 0.1). What it leaves open, and what is done here:

    - The random Gaussian has no centre and spread: here the middle of each weight's range, 0, and `random_sigma` 0.5,
      so that the range is two of it to either side. It is drawn anew beyond the range, so its density is exact.
    - 0.1 may be a variance or a standard deviation, of weights scaled otherwise: `sigma` is as of Gaussian noise.
    - The two kinds have users of their own; here each request draws which it is, so that the density of a session
      is the product of those of its requests, and the density of a request that of the mixture.
    """

    sigma: float = Field(default=0.2, gt=0, description="standard deviation of the action noise")
    random_share: float = Field(default=0.5, gt=0, lt=1, description="share of requests drawn at random")
    random_sigma: float = Field(default=0.5, gt=0, description="standard deviation of the random draws")

    def draw(self, baseline_actions: Floats, luck: Floats, part: Floats) -> Floats:
        """Returns offsets from the baseline actions [n, d]; `luck` [n, d] and `part` [n] are uniform in (0, 1)."""
        low, high = ndtr([-1 / self.random_sigma, 1 / self.random_sigma])
        at_random = self.random_sigma * ndtri(low + luck * (high - low)) - baseline_actions
        return np.where(part[:, None] < self.random_share, at_random, self.sigma * ndtri(luck))

    def density(self, baseline_actions: Floats, offsets: Floats, free: NDArray[np.bool_]) -> Floats:
        """Returns the density [n] of offsets [n, d] in the dimensions that are `free` [n, d]."""
        noise, at_random = (
            np.where(free, log, 0).sum(axis=1) for log in self._logs(baseline_actions, offsets)
        )
        return np.exp(
            np.logaddexp(math.log1p(-self.random_share) + noise, math.log(self.random_share) + at_random)
        )

    def quantiles(self, baseline_actions: Floats, offsets: Floats, free: NDArray[np.bool_]) -> Floats:
        """Returns, of each offset [n, d], the share of draws below it given those of the dimensions before it.

        They are uniform in (0, 1) and independent where the offsets are the mixture's (Rosenblatt, "Remarks on a
        multivariate transformation", 1952); in a dimension that is not `free` they mean nothing.
        """
        noise, at_random = self._logs(baseline_actions, offsets)
        low, high = ndtr([-1 / self.random_sigma, 1 / self.random_sigma])
        of_noise = ndtr(offsets / self.sigma)
        of_random = (ndtr((baseline_actions + offsets) / self.random_sigma).clip(low, high) - low) / (
            high - low
        )
        odds = np.full(len(offsets), math.log(self.random_share) - math.log1p(-self.random_share))
        below = np.empty(offsets.shape)
        for i in range(offsets.shape[1]):  # what is seen so far tells which of the two a request is
            random = 1 / (1 + np.exp(-odds.clip(-700, 700)))
            below[:, i] = of_noise[:, i] + random * (of_random[:, i] - of_noise[:, i])
            odds = odds + np.where(free[:, i], at_random[:, i] - noise[:, i], 0)
        return below

    def _logs(self, baseline_actions: Floats, offsets: Floats) -> tuple[Any, Any]:
        """Returns the log densities [n, d] of offsets under the noise and under the random draws."""
        noise = -np.square(offsets / self.sigma) / 2 - math.log(self.sigma * math.sqrt(2 * math.pi))
        actions = baseline_actions + offsets
        scale = math.log(self.random_sigma * math.sqrt(2 * math.pi)) + log_mass_in_range(self.random_sigma)
        at_random = -np.square(actions / self.random_sigma) / 2 - scale
        return noise, np.where(np.abs(actions) <= 1 + EDGE, at_random, -np.inf)


EDGE = 1e-6
"""What float32 may make of an action at the end of its range."""


def log_mass_in_range(sigma: float) -> float:
    """Returns the log of the share of N(0, sigma^2) that lies in [-1, 1]."""
    return float(np.log1p(-2 * np.exp(log_ndtr(-1 / sigma))))
