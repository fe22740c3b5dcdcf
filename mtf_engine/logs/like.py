"""A log imported like another: read with its features, predictions and fusion, so that its policies can act on it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.columns import Feedback
from mtf_engine.logs.mapping import FusionChoice, Mapping, Predict, ProfileColumns
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.logs.sessions import fit_encoder
from mtf_engine.observation import ObservationEncoder
from mtf_engine.spec import FusionSpec, Refusal

SHOWN = 3
"""Unseen categories that are named."""


@dataclass(frozen=True)
class Encoded:
    """The encoder of a log, profiles with all columns that it reads, and what is to be told of either."""

    encoder: ObservationEncoder
    profiles: pd.DataFrame
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Like:
    """The log that another is imported like: its meta data, and the file of its prediction model if it has one."""

    dataset_id: str
    meta: DatasetMeta
    model: bytes | None = None

    @property
    def name(self) -> str:
        return self.meta.name

    def mapping(self, mapping: Mapping, alone: bool) -> Mapping:
        """Returns `mapping` with what it leaves open as the other log has it; `alone` are impressions without requests.

        A Refusal where it says otherwise than that log, or where nothing was shown there.
        """
        encoder, meta = self.meta.encoder, self.meta
        if not meta.signals:
            raise Refusal(f"{self.name} is a log of steps, in which nothing is shown; leave --like out")
        told = {
            "signals": encoder.signals if encoder else mapping.signals or meta.signals,
            "reward": mapping.reward or meta.reward,
            "profile": _columns(encoder) if encoder else ProfileColumns(may_lack=True),
        }
        if self.model and alone:
            from mtf_engine.logs.prediction_model import PredictionModel  # loads torch

            model = PredictionModel.from_bytes(self.model)
            if model.inputs:
                columns = _columns(model.inputs).model_dump()
                told["predict"] = Predict(signals=model.behaviours, **columns)
        theirs = told | {"fusion": FusionChoice(dimensions=meta.fusion.dimensions)}
        for part in ("fusion", "signals", "profile", "predict"):
            said = getattr(mapping, part)
            if said != Mapping.model_fields[part].get_default() and not _alike(said, theirs.get(part)):
                raise Refusal(
                    f"the mapping says {part}, and {self.name} has its own; leave {part} or --like out"
                )
        return mapping.model_copy(update=told)

    def encode(self, profiles: pd.DataFrame, rows: str) -> Encoded:
        """Returns the other log's encoder and `profiles` as it reads them, see `encoded_by`."""
        encoder = self.meta.encoder
        if encoder is None:
            raise Refusal(
                f"{self.name} brought its own observations and this log brings none; add them, or leave --like out"
            )
        return self.encoded_by(encoder, profiles, rows)

    def encoded_by(self, encoder: ObservationEncoder, profiles: pd.DataFrame, rows: str) -> Encoded:
        """Returns an `encoder` of the other log and `profiles` as it reads them; `rows` is what one of them is of.

        A category that the other log has not is missing, and so is a column that this one lacks.
        """
        numeric = {
            name: f"{fill:g}, its value where it is missing, stands for all"
            for name, fill in zip(encoder.numeric, encoder.fill, strict=True)
            if name not in profiles
        }
        texts = {name: "it is missing for all" for name in encoder.categorical if name not in profiles}
        replaced = numeric | texts
        unseen = {
            name: counts
            for name, known in encoder.categorical.items()
            if name in profiles and len(counts := _unseen(profiles[name], known))
        }
        warnings = [f"the log has no {name} as {self.name} has: {by}" for name, by in replaced.items()]
        for name, counts in unseen.items():
            more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
            warnings.append(
                f"{name}: {counts.sum():,} of {len(profiles):,} {rows} have what {self.name} does not know "
                f"({', '.join(counts.index[:SHOWN])}{more}); it is treated as missing"
            )
        details = {"replaced": replaced, "unseen": {name: int(c.sum()) for name, c in unseen.items()}}
        columns = [*encoder.numeric, *encoder.categorical]
        return Encoded(encoder, profiles.reindex(columns=columns), tuple(warnings), details)

    def features(self, width: int, named: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[bool, ...]]:
        """Returns names and numeric mask of observations that a log brings: `width` numbers, perhaps `named`."""
        names = self.meta.feature_names
        if len(names) != width or named not in ((), names):
            raise Refusal(
                f"the observations hold {', '.join(named) or f'{width} numbers'}, those of {self.name} "
                f"{len(names)}: {', '.join(names[:5])}...; bring the same, or leave --like out"
            )
        return names, self.meta.numeric_mask

    def fusion(self, n_actions: int | None) -> FusionSpec:
        """Returns the other log's fusion, for a log whose actions have `n_actions` entries if it has any."""
        fusion = self.meta.fusion
        if n_actions not in (None, fusion.n_actions):
            raise Refusal(
                f"actions have {n_actions} entries, and the fusion of {self.name} {fusion.n_actions} dimensions "
                f"({', '.join(fusion.names)}); leave --like out"
            )
        return fusion

    def predictions(self, named: tuple[str, ...], values: NDArray) -> tuple[NDArray, tuple[str, ...]]:
        """Returns the predictions [m, p] that the other log has, in its order, and what is to be told.

        `values` [m, k] are those of this log; where nothing tells their names, they are taken as they stand.
        """
        wanted = self.meta.fusion.predictions
        if not named and values.shape[1] == len(wanted):
            return values, (f"predictions have no names, so they are taken to be {', '.join(wanted)}",)
        if lacking := [name for name in wanted if name not in named]:
            raise Refusal(
                f"the log has no prediction of {', '.join(lacking)} as {self.name} has; "
                "name the columns that hold it under predictions: in the mapping, or leave --like out"
            )
        over = [name for name in named if name not in wanted]
        told = (f"predictions that {self.name} has not are left out: {', '.join(over)}",) if over else ()
        return np.ascontiguousarray(values[:, [named.index(name) for name in wanted]]), told

    def told(self, encoded: Encoded | None = None) -> dict[str, Any]:
        """Returns what a dataset's details say of where its meaning is from."""
        found = encoded.details if encoded else {}
        return {"like": {"dataset_id": self.dataset_id, "name": self.name, **found}}


def _columns(encoder: ObservationEncoder) -> ProfileColumns:
    """Returns the columns that an encoder reads, any of which a log may lack."""
    return ProfileColumns(numeric=encoder.numeric, categorical=tuple(encoder.categorical), may_lack=True)


def _alike(said: Any, told: Any) -> bool:
    """Returns whether a part of a mapping names the same columns as that of another log, in whatever order."""
    if isinstance(said, ProfileColumns) and isinstance(told, ProfileColumns):
        parts = ("numeric", "categorical", *(("signals",) if isinstance(said, Predict) else ()))
        return all(_alike(getattr(said, part), getattr(told, part, ())) for part in parts)
    if isinstance(said, tuple) and isinstance(told, tuple):
        return set(said) == set(told)
    return bool(said == told)


def _unseen(values: pd.Series, known: tuple[str, ...]) -> pd.Series:
    """Returns how many rows have each value that is not `known`, most first."""
    counts = values.dropna().astype(str).value_counts()
    return counts[~counts.index.isin(known)]


def encode(
    like: Like | None,
    profiles: pd.DataFrame,
    split: NDArray[np.object_],
    signals: tuple[str, ...],
    columns: ProfileColumns,
) -> Encoded:
    """Returns the encoder of a log whose `profiles` have a row a request: fitted to them, or as in `like`."""
    if like is None:
        return Encoded(fit_encoder(profiles, split, signals, columns), profiles)
    return like.encode(profiles, "requests")


def fused(
    like: Like | None, mapping: Mapping, feedback: Feedback, values: NDArray, n_actions: int | None
) -> tuple[FusionSpec, NDArray, tuple[str, ...]]:
    """Returns how predictions are fused, the predictions [m, p] for that, and what is to be told of them.

    `values` are those of the log, whose actions have `n_actions` entries if it has any.
    """
    if like is None:
        return mapping.fusion_of(feedback.named(values.shape[1]), n_actions), values, ()
    return like.fusion(n_actions), *like.predictions(feedback.predictions, values)
