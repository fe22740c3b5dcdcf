"""The prediction model of a log, kept with it: a network for each day, and what items were worth before each.

It is what another log's impressions are predicted with, as a live system would have: those of a day by the network
that was fitted on days before it, with means of the items over days before it. So nothing that is predicted knows
its own day or a later one, whichever log it is from. What is predicted of users they have done in the log at hand.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mtf_engine.logs.predictions import (
    WARM_UP_DAYS,
    Before,
    BehaviourAUC,
    Behaviours,
    Judged,
    PredictorConfig,
    SharedBottom,
    auc,
    bootstrap_auc,
    choose_heads,
    fit_by_day,
    history_features,
)
from mtf_engine.logs.splits import TEST, VALIDATION, WARM_UP
from mtf_engine.observation import ObservationEncoder
from mtf_engine.spec import Refusal

SCHEMA_VERSION = 1
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Predictable:
    """m impressions as the model reads them.

    `user` and `item` [m] are ids, `date` [m] is 20261122 and the like, `outcomes` what the users did; `inputs`
    [m, k] is what is known of user and context when a row is predicted.
    """

    user: NDArray
    item: NDArray
    date: NDArray[np.int64]
    outcomes: Behaviours
    inputs: NDArray[np.float32]


@dataclass(frozen=True)
class ItemHistory:
    """What each item was worth on each day of a log: k pairs of an item and a date.

    `items` are the ids as texts, `item` [k] counts in them; `sums` [k, b] of outcomes, `counts` [k, b] of known ones.
    """

    items: tuple[str, ...]
    item: NDArray[np.int32]
    date: NDArray[np.int32]
    sums: NDArray[np.float32]
    counts: NDArray[np.int32]
    shown: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Predictable) -> Self:
        item, items = pd.factorize(pd.Series(rows.item).astype(str), sort=True)
        values = rows.outcomes.values
        pairs, of_row = np.unique(np.stack([item, rows.date], axis=1), axis=0, return_inverse=True)
        summed = [
            np.stack([np.bincount(of_row, column, len(pairs)) for column in of.T], axis=1)
            for of in (np.nan_to_num(values), ~np.isnan(values))
        ]
        return cls(
            tuple(items),
            pairs[:, 0].astype(np.int32),
            pairs[:, 1].astype(np.int32),
            summed[0].astype(np.float32),
            summed[1].astype(np.int32),
            np.bincount(of_row, minlength=len(pairs)).astype(np.int32),
        )


@dataclass(frozen=True)
class PredictionModel:
    """Networks by the date from which each is used, which is later than all that it was fitted on.

    `behaviours` are the outcomes whose means the networks read, `heads` those that they predict.
    """

    behaviours: tuple[str, ...]
    heads: tuple[str, ...]
    config: PredictorConfig
    networks: dict[int, SharedBottom]
    history: ItemHistory
    inputs: ObservationEncoder | None = None

    @classmethod
    def fit(
        cls,
        rows: Predictable,
        heads: tuple[str, ...],
        config: PredictorConfig,
        progress: Progress,
        inputs: ObservationEncoder | None = None,
    ) -> tuple[Self, NDArray[np.float32]]:
        """Returns the model of a log and the predictions [m, p] of its rows, NaN in the warm-up.

        `inputs`, what made the rows' inputs of named features, is kept with it.
        """
        dates, day = np.unique(rows.date, return_inverse=True)
        user, item = (pd.factorize(ids, sort=True)[0] for ids in (rows.user, rows.item))
        features = _features(rows, history_features(user, item, day, rows.outcomes.values, config.seed))
        targets = rows.outcomes.only(heads).values
        values = np.full(targets.shape, np.nan, np.float32)
        networks = {}
        for today, network in fit_by_day(features, targets, day, config):
            used_from = dates[today] if today < len(dates) else dates[-1] + 1
            networks[int(used_from)] = network.requires_grad_(False)
            if today < len(dates):
                values[day == today] = network.predict(features[day == today])
                progress(today + 1 - WARM_UP_DAYS, len(dates) - WARM_UP_DAYS)
        return cls(rows.outcomes.names, heads, config, networks, ItemHistory.of(rows), inputs), values

    def only(self, heads: tuple[str, ...]) -> Self:
        """Returns the model of these `heads` alone."""
        kept = [self.heads.index(head) for head in heads]
        networks = {date: network.only(kept) for date, network in self.networks.items()}
        return replace(self, heads=heads, networks=networks)

    @property
    def first_date(self) -> int:
        """The first date whose impressions can be predicted."""
        return min(self.networks)

    def predict(self, rows: Predictable, progress: Progress) -> NDArray[np.float32]:
        """Returns predictions [m, p] of another log's rows, NaN on dates before `first_date`.

        A Refusal where those rows hold other outcomes than the model was fitted on.
        """
        if rows.outcomes.names != self.behaviours:
            raise Refusal(
                f"the prediction model reads {', '.join(self.behaviours)}, and the log holds "
                f"{', '.join(rows.outcomes.names)}; import it like a log with the same"
            )
        features = _features(rows, self._history_of(rows))
        values = np.full((len(rows.date), len(self.heads)), np.nan, np.float32)
        starts = np.array(sorted(self.networks))
        used = np.searchsorted(starts, rows.date, side="right") - 1
        for done, network in enumerate(starts):
            today = used == done
            values[today] = self.networks[int(network)].predict(features[today])
            progress(done + 1, len(starts))
        return values

    def _history_of(self, rows: Predictable) -> NDArray[np.float32]:
        known = self.history
        user = pd.factorize(rows.user, sort=True)[0]
        ids = pd.Index([*known.items, *pd.Series(rows.item).astype(str)])
        item = pd.factorize(ids)[0]
        day = np.unique(np.append(rows.date, known.date), return_inverse=True)[1]
        n = len(known.items)
        before = Before(item[:n][known.item], day[len(rows.date) :], known.sums, known.counts, known.shown)
        values = rows.outcomes.values
        return history_features(user, item[n:], day[: len(rows.date)], values, self.config.seed, before)

    def to_bytes(self) -> bytes:
        """Returns the model as the content of a .safetensors file; the same model gives the same bytes."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "behaviours": self.behaviours,
            "heads": self.heads,
            "config": self.config.model_dump(mode="json"),
            "inputs": self.inputs and self.inputs.model_dump(mode="json"),
            "n_features": len(next(iter(self.networks.values())).mean),
            "dates": sorted(self.networks),
            "items": self.history.items,
        }
        tensors = {
            f"{date}.{name}": tensor.numpy()
            for date, network in self.networks.items()
            for name, tensor in network.state_dict().items()
        }
        history = {name: getattr(self.history, name) for name in HISTORY}
        return save({"head": np.frombuffer(json.dumps(head).encode(), np.uint8), **history, **tensors})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Returns the model that `to_bytes` wrote; a Refusal where the bytes are none of this version."""
        try:
            tensors = load(content)
            head = json.loads(tensors["head"].tobytes())
            if head["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"it is of version {head['schema_version']}")
            networks = {date: _network(head, tensors, date) for date in head["dates"]}
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise Refusal(f"the prediction model cannot be read: {error}; import its log again") from None
        return cls(
            tuple(head["behaviours"]),
            tuple(head["heads"]),
            PredictorConfig.model_validate(head["config"]),
            networks,
            ItemHistory(tuple(head["items"]), **{name: tensors[name] for name in HISTORY}),
            head["inputs"] and ObservationEncoder.model_validate(head["inputs"]),
        )


@dataclass(frozen=True)
class Predicted:
    """Predictions [m, p] of the model's heads, NaN in the warm-up; their AUC; what is not predicted, and why."""

    model: PredictionModel
    values: NDArray[np.float32]
    auc: dict[str, BehaviourAUC]
    dropped: dict[str, str]


def predicted(
    rows: Predictable,
    split: NDArray[np.object_],
    model: PredictionModel | None,
    progress: Progress,
    config: PredictorConfig,
    inputs: ObservationEncoder | None = None,
) -> Predicted:
    """Returns the predictions of m `rows` of `split` [m], by `model` or by one fitted to them.

    Which heads are worth it is told by rows that are not for test; AUCs are of test rows where there are any.
    """
    judged = judged_rows(split)
    dropped: dict[str, str] = {}
    if model:
        values = model.predict(rows, progress)
    else:
        heads, dropped = choose_heads(rows.outcomes, judged)
        model, values = PredictionModel.fit(rows, heads, config, progress, inputs)
        model, values, below = above_chance(model, values, rows, judged)
        dropped |= below
    user = pd.factorize(rows.user, sort=True)[0]
    test = split == TEST if (split == TEST).any() else judged.rows
    aucs = behaviour_aucs(values, rows.outcomes.only(model.heads), user, test, model.config.seed)
    return Predicted(model, values, aucs, dropped)


def judged_rows(split: NDArray[np.object_]) -> Judged:
    """Returns the rows that say what is worth predicting: for validation, or where there are none all but test."""
    validation = split == VALIDATION
    if validation.any():
        return Judged(validation, "validation rows")
    return Judged(np.isin(split, (TEST, WARM_UP), invert=True), "rows that are not for test")


def above_chance(
    model: PredictionModel, values: NDArray[np.float32], rows: Predictable, judged: Judged
) -> tuple[PredictionModel, NDArray[np.float32], dict[str, str]]:
    """Returns the model and its predictions `values` [m, p] without the heads that are worse than chance, and why.

    They are where the whole interval of their AUC on the judged rows is below one half.
    """
    user, below = pd.factorize(rows.user, sort=True)[0], {}
    for head, scores in zip(model.heads, values.T, strict=True):
        known, positive = _known(scores, rows.outcomes.only((head,)).values[:, 0], judged.rows)
        if _tells(positive) and auc(scores[known], positive) < 0.5:
            generator = np.random.default_rng(model.config.seed)
            found = bootstrap_auc(scores[known], positive, user[known], generator)
            if found.ci_high < 0.5:
                told = f"AUC {found.auc:.3f}, at most {found.ci_high:.3f}"
                below[head] = f"worse than chance on the {judged.called}: {told}"
    kept = tuple(head for head in model.heads if head not in below)
    if not kept:
        raise Refusal(f"nothing is predicted better than by chance ({', '.join(below)}); import a longer log")
    if not below:
        return model, values, {}
    return model.only(kept), values[:, [model.heads.index(head) for head in kept]], below


def behaviour_aucs(
    values: NDArray[np.float32], behaviours: Behaviours, user: NDArray, judged: NDArray[np.bool_], seed: int
) -> dict[str, BehaviourAUC]:
    """Returns the AUC of the predictions `values` [m, p] of each behaviour on the `judged` rows [m].

    A behaviour that all or none of those rows show has none.
    """
    generator = np.random.default_rng(seed)
    aucs = {}
    for name, scores, labels in zip(behaviours.names, values.T, behaviours.values.T, strict=True):
        known, positive = _known(scores, labels, judged)
        if _tells(positive):
            aucs[name] = bootstrap_auc(scores[known], positive, user[known], generator)
    return aucs


def _known(scores: NDArray, labels: NDArray, judged: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which of the judged rows [m] are predicted and known, and whether those show the behaviour."""
    known = judged & ~np.isnan(labels) & ~np.isnan(scores)
    return known, labels[known] == 1


def _tells(positive: NDArray[np.bool_]) -> bool:
    return bool(positive.any() and not positive.all())


HISTORY = ("item", "date", "sums", "counts", "shown")
"""Tensors of the history of items."""


def _features(rows: Predictable, history: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([history, rows.inputs], axis=1, dtype=np.float32, casting="same_kind")


def _network(head: dict[str, Any], tensors: dict[str, NDArray], date: int) -> SharedBottom:
    network = SharedBottom(head["n_features"], len(head["heads"]), tuple(head["config"]["hidden"]))
    state = {name: torch.from_numpy(tensors[f"{date}.{name}"].copy()) for name in network.state_dict()}
    network.load_state_dict(state)
    return network.requires_grad_(False)


def digest(content: bytes) -> str:
    """Returns the SHA-256 of a stored model, by which a damaged one is told."""
    return hashlib.sha256(content).hexdigest()
