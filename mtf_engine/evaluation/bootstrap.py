"""Poisson bootstrap over users: intervals of ratios, and of differences between policies paired by user."""

import numpy as np

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
    used = (denominators > 0).any(0)
    sums = np.concatenate([numerators, denominators])[:, used].T  # [n_users, 2 k]
    rows = max(1, CHUNK // max(1, len(sums)))
    sizes = [min(rows, n_bootstrap - start) for start in range(0, n_bootstrap, rows)]
    drawn = np.concatenate([generator.poisson(1.0, (size, len(sums))).astype(float) @ sums for size in sizes])
    top, bottom = np.hsplit(drawn, 2)
    told = (bottom > 0) & ((denominators > 0).sum(1) >= 2)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=told)


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
