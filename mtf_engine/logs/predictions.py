"""Predictions for a log that has none: a small shared-bottom network, fitted on earlier days only."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mtf_engine.spec import Refusal, Spec

WARM_UP_DAYS = 3
MIN_POSITIVES = 50
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


@dataclass(frozen=True)
class Judged:
    """The rows (bool [m]) that say which behaviours are worth a head, and what those rows are called.

    They stand for the test rows, of which nothing may be known before policies are scored on them.
    """

    rows: NDArray
    called: str


def choose_heads(behaviours: Behaviours, judged: Judged) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the behaviours worth a head, and why each other is dropped.

    Dropped are those with fewer than 50 positives or no others among the `judged` rows, and those that equal
    another one or its complement on all of them.
    """
    kept: list[str] = []
    dropped = {}
    behaviours = Behaviours(behaviours.names, behaviours.values[judged.rows])
    for name, values in zip(behaviours.names, behaviours.values.T, strict=True):
        positives = int(np.nansum(values))
        twins = {other: behaviours.only((other,)).values[:, 0] for other in kept}
        same = [o for o, v in twins.items() if np.array_equal(v, values, equal_nan=True)]
        opposite = [o for o, v in twins.items() if np.array_equal(1 - v, values, equal_nan=True)]
        if positives < MIN_POSITIVES:
            dropped[name] = f"{positives} positives on the {judged.called}, fewer than {MIN_POSITIVES}"
        elif positives == (~np.isnan(values)).sum():
            dropped[name] = f"nothing but positives on the {judged.called}"
        elif same or opposite:
            dropped[name] = (
                f"equals {f'1 - {opposite[0]}' if opposite else same[0]} on every one of the {judged.called}"
            )
        else:
            kept.append(name)
    if not kept:
        raise Refusal(
            f"no behaviour has {MIN_POSITIVES} positives on the {judged.called}, so none can be "
            "predicted and judged; import a longer log"
        )
    return tuple(kept), dropped


@dataclass(frozen=True)
class Before:
    """What another log knows of items: k pairs of an item and a day, coded as in the log that asks.

    `sums` and `counts` [k, b] are of known outcomes, `shown` [k] counts impressions.
    """

    item: NDArray
    day: NDArray
    sums: NDArray
    counts: NDArray
    shown: NDArray


def means_before(group: NDArray, day: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Returns each row's group mean [m, b] over rows of earlier days, and the known rows behind it [m, b].

    `group` [m] and `day` [m] are integer codes; unknown values (NaN) do not count. A mean of none is NaN.
    """
    known = ~np.isnan(values)
    return _means_before(group, day, np.where(known, values, 0), known)


def _means_before(group: NDArray, day: NDArray, sums: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    """Returns what `means_before` does, of rows that stand for `counts` [m, b] outcomes with `sums` [m, b]."""
    order = np.lexsort((day, group))
    sums, counts = (_sum_before(group[order], day[order], values[order]) for values in (sums, counts))
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


def history_features(
    user: NDArray, video: NDArray, day: NDArray, values: NDArray, seed: int, before: Before | None = None
) -> NDArray:
    """Returns user and video means of each behaviour from days before the row's own, float32 [m, 2 b].

    A user's mean is drawn to the average of those days by count. A video's is not, and a video that was not
    shown before gets the means of one of the same day that was: in a selected log the frequency of a video,
    even whether it was seen at all, gives its label away. Showing a video more often alike changes nothing.
    With `before`, what another log knows of videos of earlier days counts as if it had been in this one.
    """
    known = ~np.isnan(values)
    sums, counts, shown = np.where(known, values, 0), known, np.ones((len(day), 1))
    videos, days = video, day
    if before is not None:
        videos, days = np.append(video, before.item), np.append(day, before.day)
        sums, counts = np.concatenate([sums, before.sums]), np.concatenate([counts, before.counts])
        shown = np.append(shown, before.shown)[:, None]
    rows = slice(len(day))
    average = _means_before(np.zeros_like(days), days, sums, counts)[0][rows]
    average = np.where(np.isnan(average), 0.5, average)
    user_mean, n = means_before(user, day, values)
    of_user = (np.nan_to_num(user_mean) * n + average * USER_PRIOR_ROWS) / (n + USER_PRIOR_ROWS)
    was_shown = _means_before(videos, days, shown, shown)[1][rows, 0] > 0
    video_mean = _means_before(videos, days, sums, counts)[0][rows][_donors(was_shown, day, seed)]
    of_video = np.where(np.isnan(video_mean), average, video_mean)
    return np.concatenate([of_user, of_video], axis=1, dtype=np.float32, casting="same_kind")


def _donors(was_shown: NDArray, day: NDArray, seed: int) -> NDArray:
    """Returns each row [m] itself, but a random row of the day for one whose video was not shown before."""
    donor = np.arange(len(day))
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        known = was_shown[rows]
        if known.any():
            generator = np.random.default_rng([seed, int(today)])
            donor[rows[~known]] = generator.choice(rows[known], (~known).sum())
    return donor


class SharedBottom(nn.Module):
    """Two shared layers and one logit per behaviour; inputs are standardised by the training rows."""

    mean: Tensor
    std: Tensor
    layers: nn.Sequential

    def __init__(self, n_features: int, n_heads: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        linear = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise((n_features, *hidden, n_heads))]
        self.layers = nn.Sequential(*[part for layer in linear for part in (layer, nn.ReLU())][:-1])

    def start(self, features: Tensor, generator: torch.Generator) -> None:
        """Standardises by the training rows `features` [m, f], and draws the weights."""
        self.mean, self.std = features.mean(0), features.std(0) + 1e-6
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)

    @torch.inference_mode()
    def predict(self, features: NDArray) -> NDArray[np.float32]:
        """Returns the probability of each behaviour, float32 [m, b], given features, float32 [m, f]."""
        return torch.sigmoid(self(torch.from_numpy(features))).numpy()

    def only(self, behaviours: list[int]) -> "SharedBottom":
        """Returns the network whose outputs are those of the `behaviours` alone, by number."""
        kept = deepcopy(self)
        last = cast("nn.Linear", kept.layers[-1])
        last.weight, last.bias = (nn.Parameter(part[behaviours]) for part in (last.weight, last.bias))
        return kept.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(((features - self.mean) / self.std).clamp(-5, 5))


def fit_predictor(features: NDArray, values: NDArray, config: PredictorConfig) -> SharedBottom:
    """Returns the network fitted to outcomes [m, b] given features [m, f]; unknown outcomes carry no loss."""
    generator = torch.Generator().manual_seed(config.seed)
    inputs, known = torch.from_numpy(features), torch.from_numpy(~np.isnan(values))
    targets = torch.from_numpy(np.nan_to_num(values).astype(np.float32))
    network = SharedBottom(inputs.shape[1], values.shape[1], config.hidden)
    network.start(inputs, generator)
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


def fit_by_day(
    features: NDArray, values: NDArray, day: NDArray, config: PredictorConfig
) -> Iterator[tuple[int, SharedBottom]]:
    """Yields each day after the warm-up with its network, which is fitted on rows of earlier days alone.

    `day` [m] are codes from 0. The last day is the one after the log, whose network has seen all rows.
    """
    for today in range(WARM_UP_DAYS, int(day.max()) + 2):
        past = np.flatnonzero(day < today)
        yield today, fit_predictor(features[past], values[past], config)


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
    low, high = np.nanquantile(_weighted_auc(scores, labels, weights[:, codes]), [0.025, 0.975])
    return BehaviourAUC(
        auc=auc(scores, labels), ci_low=float(low), ci_high=float(high), positives=int(labels.sum())
    )


def auc(scores: NDArray, labels: NDArray) -> float:
    """Returns the AUC of `scores` [m] for bool `labels` [m]."""
    return float(_weighted_auc(scores, labels, np.ones((1, len(scores))))[0])


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
