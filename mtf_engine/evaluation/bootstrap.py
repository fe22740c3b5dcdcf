"""Poisson bootstrap over users: intervals of ratios, and of differences between policies paired by user."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from mtf_engine.environments import draws
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC

CHUNK = 4_000_000
"""Counts drawn at once: 32 MB of them."""


def user_sums(gauc: WeightedGAUC, user_of_group: np.ndarray, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each user's part of the numerator `sum W_g AUC_g` and of the denominator `sum W_g`, [n_users].

    `user_of_group` [n_keys] is the user of each group key, so groups may be finer than users: the requests of
    a user are then drawn together, as they must be. Groups left out add nothing.
    """
    used = ~np.isnan(gauc.aucs)
    user, weights = user_of_group[gauc.keys[used]], gauc.weights[used]
    return (
        np.bincount(user, weights * gauc.aucs[used], n_users),
        np.bincount(user, weights, n_users),
    )


def poisson_bootstrap(
    numerators: np.ndarray, denominators: np.ndarray, n_bootstrap: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns draws [n_bootstrap, k] of k ratios `sum_u c_u numerators_u / sum_u c_u denominators_u`.

    Both are [k, n_users]. Each draw counts user u `c_u ~ Poisson(1)` times, which is resampling users with
    replacement up to the size of the sample (Chamandy et al., "Estimating uncertainty for massive data
    streams", 2012). All k ratios share their counts, so that differences between columns are paired by user.
    A draw without a user of the denominator is NaN, and so are all draws of a ratio that has fewer than two:
    no spread is seen.
    """
    everyone = np.zeros(numerators.shape[1], np.int64)
    return bootstrap_by_part(numerators, denominators, everyone, 1, n_bootstrap, in_turn(generator))[0]


Counts = Callable[[np.ndarray, int, int], np.ndarray]
"""Returns how often each of some users [n] counts in draws start..stop, [stop - start, n]; draws come in turn."""


def in_turn(generator: np.random.Generator) -> Counts:
    """Returns counts from the generator, which depend on how many users there are, and on their places."""

    def counts(users: np.ndarray, start: int, stop: int) -> np.ndarray:
        return generator.poisson(1.0, (stop - start, len(users)))

    return counts


def by_key(keys: np.ndarray, seed: int) -> Counts:
    """Returns counts that depend on a user's key [n_users], the seed and the number of the draw alone."""
    of_user = draws.child(draws.child(draws.root(seed), draws.Channel.BOOTSTRAP) ^ keys, 0)

    def counts(users: np.ndarray, start: int, stop: int) -> np.ndarray:
        fours = np.arange(start // 4, -(-stop // 4))
        drawn = draws.four_poissons(draws.child(of_user[users], fours[:, None]))  # [fours, n, 4]
        return drawn.transpose(0, 2, 1).reshape(4 * len(fours), len(users))[start % 4 :][: stop - start]

    return counts


def bootstrap_by_part(
    numerators: np.ndarray,
    denominators: np.ndarray,
    part: np.ndarray,
    n_parts: int,
    n_bootstrap: int,
    counts: Counts,
) -> np.ndarray:
    """Returns draws [1 + n_parts, n_bootstrap, k]: those of all users, then those of each part's users alone.

    `part` [n_users] numbers the part that a user belongs to, from 0 on. The counts are the same for all: what
    is drawn of everyone is the sum of what is drawn of the parts, so telling them apart costs little.
    """
    return drawn_sums(numerators, denominators, part, n_parts, n_bootstrap, counts).ratios()


@dataclass(frozen=True)
class DrawnSums:
    """Bootstrap draws of k ratios' numerators, and behind them denominators; those of some users and of others add up.

    `by_part` is [n_parts, n_bootstrap, 2 k], `counted` [n_parts, k] how many users each denominator has.
    """

    by_part: np.ndarray
    counted: np.ndarray

    def __add__(self, other: "DrawnSums") -> "DrawnSums":
        return DrawnSums(self.by_part + other.by_part, self.counted + other.counted)

    def ratios(self) -> np.ndarray:
        """Returns what `bootstrap_by_part` does."""
        together = np.concatenate([self.by_part.sum(0, keepdims=True), self.by_part])
        top, bottom = np.split(together, 2, axis=-1)
        enough = np.concatenate([self.counted.sum(0, keepdims=True), self.counted]) >= 2
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=(bottom > 0) & enough[:, None])


def drawn_sums(
    numerators: np.ndarray,
    denominators: np.ndarray,
    part: np.ndarray,
    n_parts: int,
    n_bootstrap: int,
    counts: Counts,
) -> DrawnSums:
    """Returns the sums that `bootstrap_by_part` draws, before they are divided."""
    used = np.flatnonzero((denominators > 0).any(0))
    used = used[np.argsort(part[used], kind="stable")]
    members = [slice(*ends) for ends in pairwise(np.searchsorted(part[used], np.arange(n_parts + 1)))]
    sums = np.concatenate([numerators, denominators])[:, used].T  # [n_users, 2 k]
    rows = max(1, CHUNK // max(1, len(sums)))
    drawn = [
        np.stack([times[:, users] @ sums[users] for users in members])
        for start in range(0, n_bootstrap, rows)
        for times in [counts(used, start, min(start + rows, n_bootstrap)).astype(float)]
    ]
    counted = np.stack([(denominators[:, used[users]] > 0).sum(1) for users in members])
    return DrawnSums(np.concatenate(drawn, axis=1), counted)


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
    """Returns the percentile interval of draws [n_bootstrap], NaN left out; None where nothing is left."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_above_zero(draws: np.ndarray) -> float | None:
    """Returns the share of draws [n_bootstrap] above 0, a draw of 0 counting one half and NaN left out."""
    draws = draws[~np.isnan(draws)]
    return float((draws > 0).mean() + (draws == 0).mean() / 2) if len(draws) else None


def probability_best(draws: np.ndarray) -> list[float] | None:
    """Returns the share of draws [n_bootstrap, k] in which each of the k columns is the highest.

    Columns that tie share the draw, so the k numbers add up to 1. Draws with a NaN are left out; None where
    nothing is left.
    """
    draws = draws[~np.isnan(draws).any(1)]
    if not len(draws):
        return None
    best = draws == draws.max(1, keepdims=True)
    return list((best / best.sum(1, keepdims=True)).mean(0).tolist())


def resolvable_gap(draws: np.ndarray, power: float = 0.8, level: float = 0.95) -> float | None:
    """Returns the smallest true difference that a test on this sample would find with that `power`.

    It is `(z(1 - (1 - level) / 2) + z(power)) * sd`, 2.80 sd as it stands: z are quantiles of the standard
    normal, sd is the standard deviation of the paired difference's bootstrap draws [n_bootstrap], NaN left
    out (Bloom, "Minimum detectable effects", 1995). None where nothing is left.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return None
    z = NormalDist().inv_cdf
    return float((z((1 + level) / 2) + z(power)) * draws.std())
