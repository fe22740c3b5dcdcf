"""KuaiRand as published (Gao et al., CIKM 2022): real impressions, with predictions made here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.kuairand_files import CATEGORIES, COUNTS, FLAGS, find_files, read_files
from mtf_engine.logs.like import Encoded, Like
from mtf_engine.logs.mapping import WEIGHTS, ProfileColumns
from mtf_engine.logs.prediction_model import Predictable, Predicted, PredictionModel, digest, predicted
from mtf_engine.logs.predictions import WARM_UP_DAYS, Behaviours, PredictorConfig
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.logs.sessions import (
    Arrays,
    Cut,
    ImportedLog,
    Progress,
    batches,
    deal,
    encoder_meta,
    fit_encoder,
    observe_log,
    within,
    without_actions,
)
from mtf_engine.logs.splits import TEST, TRAIN, UNASKED, WARM_UP, Splitting, split_log
from mtf_engine.logs.suspicions import one_label
from mtf_engine.logs.validation import BadRows
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec

PER_REQUEST, PER_SESSION = 8, 5
"""A request is the next 8 logged impressions of a user, a session at most 5 requests, as in replay."""

SIGNALS = ("watch_time", "valid", "finish", "like", "hate", *FLAGS)
BEHAVIOURS = SIGNALS[1:]
REWARD = RewardSpec(weights={signal: WEIGHTS[signal] for signal in SIGNALS if signal in WEIGHTS})

SEGMENT = "user_active_degree"
UTC_OFFSET_HOURS = 8
"""Dates and hours of the log are local to China."""

DEALT = (
    f"the next {PER_REQUEST} logged impressions of a user in time order within one split, "
    f"at most {PER_SESSION} requests a session: the log has no request lists"
)
FINISHED = "played to the end; 0 where the duration is unknown: such rows do not train its prediction"
REMEMBERED = f"all earlier days; the first {WARM_UP_DAYS} only warm up and are not in the dataset"


def read_kuairand(
    source: Path,
    user_features: Path | None,
    name: str,
    progress: Progress,
    config: PredictorConfig,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
) -> ImportedLog:
    """Returns the log at `source` with predictions by models of earlier days; a Refusal lists all defects.

    The model is the log's own, or that of the log which it is `like`.
    """
    model = _model_of(like) if like else None
    files = find_files(source, user_features)
    raw = read_files(files, bad_rows, splitting)
    log = _with_signals(raw.impressions)
    told = one_label(source.name, log["valid"].to_numpy() > 0)
    split, how = _split(log, source.name, splitting, model)
    cut = deal(pd.factorize(log["user_id"])[0], split, PER_REQUEST, PER_SESSION)
    encoded = _encode(raw.users, log["user_id"], split, like)
    encoder, users = encoded.encoder, encoded.profiles
    profiles = users.reindex(log["user_id"])
    made = _predict(log, split, encoder.profile(profiles), config, progress, model)
    warnings = (
        *files.warnings,
        *raw.warnings,
        *told,
        *encoded.warnings,
        *([how] if splitting != UNASKED else []),
    )
    rarest = _rarest(made.model.heads, log[split != TEST])
    fusion = like.fusion(None) if like else FusionSpec.default(made.model.heads, bias=rarest)
    content = like.model if like else made.model.to_bytes()
    meta = DatasetMeta(
        name=name,
        source="kuairand",
        fusion=fusion,
        reward=REWARD,
        signals=SIGNALS,
        seed=made.model.config.seed,
        prediction_model=digest(content or b""),
        details={
            **_details(made, like, encoded),
            "rows": raw.counts,
            "split_is": how,
            "warnings": list(warnings),
            **raw.left_out,
        },
        **encoder_meta(encoder),
    )
    segments = _segments(raw.users.reindex(log["user_id"]))
    requests, impressions = _columns(log, split, cut, made.values, segments, fusion.n_actions)
    observe = observe_log(encoder, profiles.iloc[cut.first[:-1]], requests, impressions, cut.first)
    kept = np.flatnonzero(requests["split"] != WARM_UP)
    return ImportedLog(meta, batches(requests, impressions, cut.first, observe, kept), warnings, content)


def _details(made: Predicted, like: Like | None, encoded: Encoded) -> dict[str, Any]:
    """Returns what is said of how the predictions and requests came about."""
    warmed_up = f"days before; those that {like.name if like else ''} cannot predict are not in the dataset"
    return {
        "predictor": {behaviour: auc.model_dump() for behaviour, auc in made.auc.items()},
        "dropped": made.dropped,
        "requests_are": DEALT,
        "finish_is": FINISHED,
        "history_is": warmed_up if like else REMEMBERED,
        **(like.told(encoded) if like else {}),
    }


def _model_of(like: Like) -> PredictionModel:
    """Returns the prediction model of the log that this one is like; a Refusal where it kept none."""
    if like.model is None:
        raise Refusal(
            f"{like.name} keeps no prediction model, and a KuaiRand log has no predictions of its own; name a KuaiRand "
            "log of this version, or one that was collected from it"
        )
    return PredictionModel.from_bytes(like.model)


def _encode(
    users: pd.DataFrame, user_id: pd.Series, split: NDArray[np.object_], like: Like | None
) -> Encoded:
    """Returns the encoder, fitted to users with training rows or as in `like`, and the users' features."""
    if like:
        encoded = like.encode(users[users.index.isin(user_id)], "users")
        return replace(encoded, profiles=users.reindex(columns=encoded.profiles.columns))
    columns = ProfileColumns(
        numeric=tuple(c for c in COUNTS if c in users), categorical=tuple(c for c in CATEGORIES if c in users)
    )
    training = np.where(users.index.isin(user_id[split == TRAIN]), TRAIN, "other")
    return Encoded(fit_encoder(users, training, SIGNALS, columns), users)


def _with_signals(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with a column for every signal. `label` is 1 for like and 0 for hate."""
    like = rows["is_like"] if "is_like" in rows else rows["label"]
    hate = rows["is_hate"] if "is_hate" in rows else 1 - like
    return rows.assign(
        watch_time=rows["play_time_ms"] / 1000,
        valid=(rows["play_time_ms"] > REWARD.valid_seconds * 1000).astype(float),
        finish=(rows["play_time_ms"] >= rows["duration_ms"]).astype(float),
        like=like,
        hate=hate,
        **{signal: rows[column] for signal, column in FLAGS.items()},
    )


def _split(
    log: pd.DataFrame, source: str, splitting: Splitting, model: PredictionModel | None
) -> tuple[NDArray[np.object_], str]:
    """Returns each row's split and how it came about; days that cannot be predicted are `WARM_UP`.

    A Refusal where the log has too few days.
    """
    date = log["date"].to_numpy()
    days = np.unique(date)
    warm_up = WARM_UP_DAYS if model is None else int((days < model.first_date).sum())
    told = splitting.kind is None and "split" in log and not log["split"].isna().all()
    by_day = splitting.kind == "day" or (splitting.kind is None and not told)
    test, validation = splitting.days if by_day else (0, 0)
    needed = warm_up + 1 + validation + test
    if len(days) < needed:
        of_them = f"1 to train, {validation} to validate, {test} to test" if by_day else "1 to predict"
        raise Refusal(
            f"{source} covers {len(days)} days and {needed} are needed ({warm_up} to warm up, {of_them}); "
            "import a longer log"
        )
    if told:
        split, how = log["split"].to_numpy(object), f"the column {splitting.column or 'split'} says it"
    else:
        asked = splitting if splitting.kind else Splitting(by="day")
        split, how = split_log(log["user_id"].to_numpy(object), date, False, asked)
    return np.where(date < days[warm_up], WARM_UP, split), how


def _predict(
    log: pd.DataFrame,
    split: NDArray[np.object_],
    profile: NDArray[np.float32],
    config: PredictorConfig,
    progress: Progress,
    model: PredictionModel | None,
) -> Predicted:
    outcomes = log[list(BEHAVIOURS)].to_numpy("float64")
    outcomes[log["duration_ms"].isna(), BEHAVIOURS.index("finish")] = np.nan
    rows = Predictable(
        log["user_id"].to_numpy(object),
        log["video_id"].to_numpy(),
        log["date"].to_numpy(np.int64),
        Behaviours(BEHAVIOURS, outcomes),
        np.concatenate([profile, _context(log)], axis=1, dtype=np.float32),
    )
    return predicted(rows, split, model, progress, config)


def _context(log: pd.DataFrame) -> NDArray[np.float64]:
    """Returns the local hour on a circle, log(1 + duration in seconds) and if that is unknown, [m, 4]."""
    hour = (log["time_ms"] // 3_600_000 + UTC_OFFSET_HOURS) % 24
    if "hourmin" in log:
        hour = (log["hourmin"] // 100).fillna(hour)
    angle = hour.to_numpy("float64") * (2 * np.pi / 24)
    duration = np.log1p(log["duration_ms"].to_numpy("float64") / 1000)
    unknown = np.isnan(duration)
    return np.stack([np.sin(angle), np.cos(angle), np.nan_to_num(duration), unknown], axis=1)


def _rarest(names: tuple[str, ...], log: pd.DataFrame) -> tuple[str, ...]:
    """Returns the two rarest of `names`: a bias in [0, 0.1] matters where predictions are small."""
    return tuple(log[list(names)].mean().nsmallest(2).index)


def _columns(
    log: pd.DataFrame, split: NDArray, cut: Cut, predictions: NDArray, segments: NDArray, n_actions: int
) -> tuple[Arrays, Arrays]:
    """Returns the request and impression columns of the dataset, observations aside."""
    signals = {s: log[s].to_numpy(np.float32) for s in SIGNALS}
    reward = impression_rewards(REWARD, signals)
    first, n = cut.first[:-1], len(cut.session)
    user_id = log["user_id"].to_numpy(object)
    requests = {
        "request_id": np.arange(n),
        "session_id": cut.session,
        "user_id": user_id[first],
        "step": cut.step.astype(np.int32),
        "timestamp": (log["time_ms"].to_numpy(np.int64)[first] * 1000).astype("datetime64[us]"),
        "split": split[first],
        "segment": segments[first],
        **without_actions(n, n_actions),
        "reward": np.bincount(cut.request, reward),
        "terminal": cut.left == 0,
        "truncated": np.zeros(n, bool),
    }
    impressions = {
        "request_id": cut.request,
        "user_id": user_id,
        "item_id": log["video_id"].to_numpy(),
        "position": within(cut.request).astype(np.int32),
        "predictions": predictions,
        **signals,
        "reward": reward,
        "label": signals["valid"] > 0,
    }
    return requests, impressions


def _segments(profiles: pd.DataFrame) -> NDArray[np.object_]:
    if SEGMENT not in profiles:
        return np.full(len(profiles), "all", object)
    return profiles[SEGMENT].fillna("unknown").to_numpy(object)
