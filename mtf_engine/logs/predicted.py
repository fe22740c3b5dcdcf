"""Impressions without predictions get them: from features that the mapping names, each day from earlier days only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.like import Like
from mtf_engine.logs.mapping import Predict
from mtf_engine.logs.ordered import TIME
from mtf_engine.logs.prediction_model import Predictable, PredictionModel, digest, predicted
from mtf_engine.logs.predictions import WARM_UP_DAYS, Behaviours, PredictorConfig
from mtf_engine.logs.sessions import Arrays
from mtf_engine.logs.splits import TEST, TRAIN, WARM_UP
from mtf_engine.observation import ObservationEncoder
from mtf_engine.spec import Refusal

MOST_VALUES = 50
"""Of a categorical feature that are told apart, the most frequent ones of training rows."""


@dataclass(frozen=True)
class PredictedLog:
    """Predictions [m, p] of the model's heads, the split of each request [r], and what is said of both."""

    values: NDArray[np.float32]
    split: NDArray[np.object_]
    heads: tuple[str, ...]
    model: bytes
    details: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def meta(self) -> dict[str, Any]:
        """What a dataset's meta data says of them."""
        return {"prediction_model": digest(self.model)}


def predict_log(
    rows: Arrays, first: NDArray[np.int64], split: NDArray[np.object_], predict: Predict, like: Like | None
) -> PredictedLog:
    """Returns predictions for impressions `rows` (`Part.rows`, [m]) by their own model or `like`'s.

    Those of the request i, of `split[i]`, are rows `first[i]:first[i + 1]`.
    Requests of days that cannot be predicted are `WARM_UP`. A Refusal where there are too few days.
    """
    time = rows[TIME]
    date = np.array(
        [int(day.replace("-", "")) for day in np.unique(time.astype("datetime64[D]")).astype(str)]
    )
    date = date[np.unique(time.astype("datetime64[D]"), return_inverse=True)[1]]
    known = PredictionModel.from_bytes(like.model) if like and like.model else None
    split = _without_warm_up(split, date[first[:-1]], known)
    of_row = np.repeat(split, np.diff(first))
    frame = pd.DataFrame({name: rows[name] for name in predict.names if name in rows})
    encoder, frame, warnings = _inputs(frame, of_row != TEST, predict, known, like)
    angle = (time.astype("datetime64[s]").astype(np.int64) % 86_400) * (2 * np.pi / 86_400)
    inputs = np.column_stack([encoder.profile(frame), np.sin(angle), np.cos(angle)]).astype(np.float32)
    outcomes = np.column_stack([rows[signal] > 0 for signal in predict.signals]).astype(np.float64)
    seen = Predictable(rows["user_id"], rows["item_id"], date, Behaviours(predict.signals, outcomes), inputs)
    made = predicted(seen, of_row, known, lambda done, total: None, PredictorConfig(), encoder)
    told = [
        *warnings,
        *(
            f"{head} is predicted, AUC {auc.auc:.3f} ({auc.ci_low:.3f} to {auc.ci_high:.3f})"
            for head, auc in made.auc.items()
        ),
    ]
    told += [f"{name} is not predicted: {why}" for name, why in made.dropped.items()]
    return PredictedLog(
        made.values,
        split,
        made.model.heads,
        like.model if known and like and like.model else made.model.to_bytes(),
        {"predictor": {head: auc.model_dump() for head, auc in made.auc.items()}, "dropped": made.dropped},
        tuple(told),
    )


def _without_warm_up(
    split: NDArray[np.object_], date: NDArray[np.int64], model: PredictionModel | None
) -> NDArray[np.object_]:
    """Returns the split of each request, `WARM_UP` where nothing predicts it; a Refusal where none is left to train."""
    days = np.unique(date)
    n = WARM_UP_DAYS if model is None else int((days < model.first_date).sum())
    kept = date >= days[n] if n < len(days) else np.zeros(len(date), bool)
    trains = kept & ((split == TRAIN) | pd.isna(split))
    if not (trains if model is None else kept).any():
        raise Refusal(
            f"the log covers {len(days)} days, of which {n} only warm up what predicts the others, and none is left to "
            "train on; bring a longer log, or ask for fewer days for test and validation"
        )
    return np.where(kept, split, WARM_UP)


def _inputs(
    frame: pd.DataFrame,
    seen: NDArray[np.bool_],
    predict: Predict,
    known: PredictionModel | None,
    like: Like | None,
) -> tuple[ObservationEncoder, pd.DataFrame, tuple[str, ...]]:
    """Returns what makes numbers of features in `frame` [m], the columns that it reads, and what is to be told of them.

    It is the other log's, or fitted to the rows that may be `seen` [m].
    """
    if known is None or like is None:
        return _encoder(frame[seen], predict), frame, ()
    if known.inputs is None:
        raise Refusal(
            f"{like.name} predicts by what its own format holds, and the mapping says predict; leave it or --like out"
        )
    encoded = like.encoded_by(known.inputs, frame, "impressions")
    return known.inputs, encoded.profiles, encoded.warnings


def _encoder(frame: pd.DataFrame, predict: Predict) -> ObservationEncoder:
    """Returns what turns the features of impressions into numbers, fitted to `frame`, which has no test row."""
    kept = frame.copy()
    for name in predict.categorical:
        common = kept[name].value_counts().index[:MOST_VALUES]
        kept[name] = kept[name].where(kept[name].isin(common))
    return ObservationEncoder.fit(kept, (), predict.numeric, predict.categorical)
