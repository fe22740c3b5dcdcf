"""Predictions for a log that has none: a small shared-bottom network, fitted on earlier days only."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mtf_engine.spec import Refusal, Spec

WARM_UP_DAYS = 3
MIN_TEST_POSITIVES = 50
USER_PRIOR_ROWS = 10.0
"""A user's mean is taken as if this many average rows had come before."""


class PredictorConfig(Spec):
    """Size and training of the shared-bottom network."""

    hidden: tuple[int, int] = (64, 32)
    n_steps: int = 600
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0


class BehaviourAUC(Spec):
    """How well a behaviour is predicted on the test days, with a 95 % interval over users."""

    auc: float
    ci_low: float
    ci_high: float
    positives: int


@dataclass(frozen=True)
class Behaviours:
    """0/1 outcomes of m impressions: `values` [m, b] by `names`, NaN where an outcome is unknown."""

    names: tuple[str, ...]
    values: NDArray

    def only(self, names: tuple[str, ...]) -> "Behaviours":
        return Behaviours(names, self.values[:, [self.names.index(n) for n in names]])


def choose_heads(behaviours: Behaviours, test: NDArray) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the behaviours worth a head, and why each other is dropped.

    Dropped are those with fewer than 50 positives or no others among the `test` rows (bool [m]), and those that
    equal another one or its complement on every row.
    """
    kept: list[str] = []
    dropped = {}
    for name, values in zip(behaviours.names, behaviours.values.T, strict=True):
        positives = int(np.nansum(values[test]))
        twins = {other: behaviours.only((other,)).values[:, 0] for other in kept}
        same = [o for o, v in twins.items() if np.array_equal(v, values, equal_nan=True)]
        opposite = [o for o, v in twins.items() if np.array_equal(1 - v, values, equal_nan=True)]
        if positives < MIN_TEST_POSITIVES:
            dropped[name] = f"{positives} positives on the test days, fewer than {MIN_TEST_POSITIVES}"
        elif positives == (~np.isnan(values[test])).sum():
            dropped[name] = "nothing but positives on the test days"
        elif same or opposite:
            dropped[name] = (
                f"equals {same[0]} on every row" if same else f"equals 1 - {opposite[0]} on every row"
            )
        else:
            kept.append(name)
    if not kept:
        raise Refusal(
            f"no behaviour has {MIN_TEST_POSITIVES} positives on the last days of the log, so none can be "
            "predicted and judged; import a longer log"
        )
    return tuple(kept), dropped


def means_before(group: NDArray, day: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Returns each row's group mean [m, b] over rows of earlier days, and the known rows behind it [m, b].

    `group` [m] and `day` [m] are integer codes; unknown values (NaN) do not count. A mean of none is NaN.
    """
    known = ~np.isnan(values)
    order = np.lexsort((day, group))
    sums, counts = (
        _sum_before(group[order], day[order], v[order]) for v in (np.where(known, values, 0), known)
    )
    inverse = np.argsort(order, kind="stable")
    with np.errstate(invalid="ignore"):
        return (sums / counts)[inverse], counts[inverse]


def _sum_before(group: NDArray, day: NDArray, values: NDArray) -> NDArray:
    """Returns sums over earlier days of the same group; rows sorted by group and day."""
    before = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    rows = np.arange(len(group))
    new_group = np.append(True, group[1:] != group[:-1])
    new_day = new_group | np.append(True, day[1:] != day[:-1])
    group_start, day_start = (np.maximum.accumulate(np.where(s, rows, 0)) for s in (new_group, new_day))
    return before[day_start] - before[group_start]


def history_features(user: NDArray, video: NDArray, day: NDArray, values: NDArray, seed: int) -> NDArray:
    """Returns user and video means of each behaviour from days before the row's own, float32 [m, 2 b].

    A user's mean is drawn to the average of those days by count. A video's is not, and a video that was not
    shown before gets the means of one of the same day that was: in a selected log the frequency of a video,
    even whether it was seen at all, gives its label away. Showing a video more often alike changes nothing.
    """
    average, _ = means_before(np.zeros_like(day), day, values)
    average = np.where(np.isnan(average), 0.5, average)
    user_mean, n = means_before(user, day, values)
    of_user = (np.nan_to_num(user_mean) * n + average * USER_PRIOR_ROWS) / (n + USER_PRIOR_ROWS)
    donor = _donors(video, day, seed)
    video_mean = means_before(video, day, values)[0][donor]
    of_video = np.where(np.isnan(video_mean), average, video_mean)
    return np.concatenate([of_user, of_video], axis=1, dtype=np.float32, casting="same_kind")


def _donors(video: NDArray, day: NDArray, seed: int) -> NDArray:
    """Returns each row [m] itself, but a random row of the day for one whose video was not shown before."""
    donor = np.arange(len(day))
    _, shown = means_before(video, day, np.ones((len(day), 1)))
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        known = shown[rows, 0] > 0
        if known.any():
            generator = np.random.default_rng([seed, int(today)])
            donor[rows[~known]] = generator.choice(rows[known], (~known).sum())
    return donor


class SharedBottom(nn.Module):
    """Two shared layers and one logit per behaviour; inputs are standardised by the training rows."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, features: Tensor, n_heads: int, hidden: tuple[int, int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0) + 1e-6)
        sizes = (features.shape[1], *hidden, n_heads)
        layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(((features - self.mean) / self.std).clamp(-5, 5))


def fit_predictor(features: NDArray, values: NDArray, config: PredictorConfig) -> SharedBottom:
    """Returns the network fitted to outcomes [m, b] given features [m, f]; unknown outcomes carry no loss."""
    generator = torch.Generator().manual_seed(config.seed)
    inputs, known = torch.from_numpy(features), torch.from_numpy(~np.isnan(values))
    targets = torch.from_numpy(np.nan_to_num(values).astype(np.float32))
    network = SharedBottom(inputs, values.shape[1], config.hidden, generator)
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.n_steps)
    for _ in range(config.n_steps):
        rows = torch.randint(len(inputs), (config.batch_size,), generator=generator)
        losses = functional.binary_cross_entropy_with_logits(
            network(inputs[rows]), targets[rows], reduction="none"
        )
        optimiser.zero_grad()
        (losses * known[rows]).sum(1).mean().backward()
        optimiser.step()
        schedule.step()
    return network


def predict_by_day(
    features: NDArray, values: NDArray, day: NDArray, config: PredictorConfig
) -> Iterator[tuple[NDArray, NDArray]]:
    """Returns, for each day after the warm-up in turn, its rows (int) and their predictions [rows, b].

    `day` [m] are codes from 0. Each day has a network of its own, fitted on rows of earlier days.
    """
    for today in range(WARM_UP_DAYS, int(day.max()) + 1):
        past, rows = np.flatnonzero(day < today), np.flatnonzero(day == today)
        network = fit_predictor(features[past], values[past], config)
        with torch.inference_mode():
            yield rows, torch.sigmoid(network(torch.from_numpy(features[rows]))).numpy()


def bootstrap_auc(
    scores: NDArray,
    labels: NDArray,
    users: NDArray,
    generator: np.random.Generator,
    n_bootstrap: int = 1000,
) -> BehaviourAUC:
    """Returns the AUC of `scores` [m] for bool `labels` [m], with a Poisson bootstrap over `users` [m]."""
    codes, n_users = np.unique(users, return_inverse=True)[1], len(np.unique(users))
    weights = generator.poisson(1.0, (n_bootstrap, n_users)).astype(np.float64)
    value = _weighted_auc(scores, labels, np.ones((1, len(scores))))[0]
    low, high = np.nanquantile(_weighted_auc(scores, labels, weights[:, codes]), [0.025, 0.975])
    return BehaviourAUC(auc=float(value), ci_low=float(low), ci_high=float(high), positives=int(labels.sum()))


def _weighted_auc(scores: NDArray, labels: NDArray, weights: NDArray) -> NDArray:
    """Returns the chance that a positive outscores a negative, ties one half, per row of `weights` [n, m].

    It is the weighted GAUC of one group (`evaluation.weighted_gauc`, which lies above logs), sorted once for all n.
    """
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    positive, negative = (
        np.add.reduceat(weights[:, order] * mask[order], ties, axis=1) for mask in (labels, ~labels)
    )
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
