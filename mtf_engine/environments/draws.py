"""Counter-based random draws: a value depends on its key alone, so any two runs that ask for it agree.

A key is a uint64 made from the seed by `child` steps: seed, user, session, request, item, channel. A child is
an output of the SplitMix64 generator seeded with its parent (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014; its finaliser is variant 13 of Stafford's mixers, 2011).
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, pdtr

Keys = NDArray[np.uint64]

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)

NORMAL_QUANTILES = ndtri((np.arange(65_536) + 0.5) / 65_536).astype(np.float32)
"""The standard normal at 16 bits of resolution: 256 kB, so that it stays in a core's cache."""

POISSON_QUANTILES = np.searchsorted(pdtr(np.arange(9), 1.0), (np.arange(65_536) + 0.5) / 65_536).astype(
    np.uint8
)
"""The Poisson distribution of mean 1 at 16 bits: its mean and variance are right to 1 in 10,000, nine is the most."""


class Channel(IntEnum):
    """What the draws of a seed are for: children of its root, so that none repeats another's numbers.

    Two pairs share a number, which stored logs keep: a replay has no users of a world, and what an episode of a
    Gymnasium environment is drawn from is a grandchild by user and session, where the paper's groups are children.
    """

    REPLAY_START = 0
    USERS = 1
    REPLAY_ORDER = 1
    SESSIONS = 2
    NOISE = 3
    CONTROL = 4
    VALIDATION = 5
    ROUNDS = 6
    PAPER = 7
    EPISODES = 7
    FITNESS = 8
    BOOTSTRAP = 9


def root(seed: int) -> Keys:
    """Returns the key [1] of a seed."""
    return child(np.zeros(1, np.uint64), seed)


def child(parents: Keys, index: ArrayLike) -> Keys:
    """Returns the keys of the `index`-th (an integer >= 0) children of `parents`; the two broadcast."""
    steps = np.atleast_1d(index).astype(np.uint64)
    steps += np.uint64(1)
    steps *= GOLDEN_GAMMA
    keys = steps + parents
    shifted = np.empty_like(keys)
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        keys ^= np.right_shift(keys, shift, out=shifted)
        keys *= multiplier
    keys ^= np.right_shift(keys, SHIFTS[-1], out=shifted)
    return keys


def seed(keys: Keys) -> int:
    """Returns the seed, below 2**30, that the first of `keys` stands for; small ones are left to people."""
    return int(keys[0] >> np.uint64(34)) | 1 << 29


def uniform(keys: Keys) -> NDArray[np.float32]:
    """Returns a uniform draw in (0, 1) for each key, at 23 bits of resolution (0 and 1 are never reached)."""
    return ((keys >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


def normal(keys: Keys) -> NDArray[np.float32]:
    """Returns a standard normal draw for each key, from its upper 16 bits."""
    return NORMAL_QUANTILES.take(keys >> np.uint64(48))


def four_normals(keys: Keys) -> NDArray[np.float32]:
    """Returns four standard normal draws [4, ...] for each key [...], one from each of its 16-bit words."""
    words = np.ascontiguousarray(keys).astype("<u8", copy=False).view("<u2").reshape(*keys.shape, 4)
    return NORMAL_QUANTILES.take(np.moveaxis(words, -1, 0))


def four_poissons(keys: Keys) -> NDArray[np.uint8]:
    """Returns four draws [..., 4] of a Poisson variable of mean 1 for each key [...], one from each 16-bit word."""
    words = np.ascontiguousarray(keys).astype("<u8", copy=False).view("<u2")
    return POISSON_QUANTILES.take(words).reshape(*keys.shape, 4)


def below(keys: Keys, n: ArrayLike) -> NDArray[np.int64]:
    """Returns an integer in 0..n-1 for each key (n < 2**31, broadcast; the bias is below n / 2**32)."""
    return ((keys >> np.uint64(32)) * np.asarray(n).astype(np.uint64) >> np.uint64(32)).astype(np.int64)
