"""KuaiRand as published (Gao et al., CIKM 2022): real impressions, with predictions made here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtf_engine.logs.kuairand_files import CATEGORIES, COUNTS, FLAGS, find_files, read_files
from mtf_engine.logs.mapping import WEIGHTS, ProfileColumns
from mtf_engine.logs.predictions import (
    WARM_UP_DAYS,
    BehaviourAUC,
    Behaviours,
    PredictorConfig,
    bootstrap_auc,
    choose_heads,
    history_features,
    predict_by_day,
)
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
from mtf_engine.logs.splits import TEST, TEST_DAYS, TRAIN, VALIDATION_DAYS, split_by_day
from mtf_engine.logs.suspicions import one_label
from mtf_engine.logs.validation import BadRows
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec

PER_REQUEST, PER_SESSION = 8, 5
"""A request is the next 8 logged impressions of a user, a session at most 5 requests, as in replay."""

SIGNALS = ("watch_time", "valid", "finish", "like", "hate", *FLAGS)
BEHAVIOURS = SIGNALS[1:]
REWARD = RewardSpec(weights={signal: WEIGHTS[signal] for signal in SIGNALS if signal in WEIGHTS})

WARM_UP = "warm-up"
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
) -> ImportedLog:
    """Returns the log at `source` with predictions by models of earlier days; a Refusal lists all defects."""
    files = find_files(source, user_features)
    raw = read_files(files, bad_rows)
    log = _with_signals(raw.impressions)
    told = one_label(source.name, log["valid"].to_numpy() > 0)
    warnings = (*files.warnings, *raw.warnings, *told)
    split = _split(log["date"].to_numpy(), source.name)
    cut = deal(pd.factorize(log["user_id"])[0], split, PER_REQUEST, PER_SESSION)
    columns = ProfileColumns(
        numeric=tuple(c for c in COUNTS if c in raw.users),
        categorical=tuple(c for c in CATEGORIES if c in raw.users),
    )
    training = np.where(raw.users.index.isin(log["user_id"][split == TRAIN]), TRAIN, "other")
    encoder = fit_encoder(raw.users, training, SIGNALS, columns)
    profiles = raw.users.reindex(log["user_id"])
    predicted = _predict(log, split == TEST, encoder.profile(profiles), config, progress)
    fusion = FusionSpec.default(predicted.names, bias=_rarest(predicted.names, log[split != TEST]))
    meta = DatasetMeta(
        name=name,
        source="kuairand",
        fusion=fusion,
        reward=REWARD,
        signals=SIGNALS,
        seed=config.seed,
        details={
            "predictor": {behaviour: auc.model_dump() for behaviour, auc in predicted.auc.items()},
            "dropped": predicted.dropped,
            "rows": raw.counts,
            "requests_are": DEALT,
            "finish_is": FINISHED,
            "history_is": REMEMBERED,
            "warnings": list(warnings),
            **raw.left_out,
        },
        **encoder_meta(encoder),
    )
    requests, impressions = _columns(log, split, cut, predicted, profiles, fusion.n_actions)
    observe = observe_log(encoder, profiles.iloc[cut.first[:-1]], requests, impressions, cut.first)
    kept = np.flatnonzero(requests["split"] != WARM_UP)
    return ImportedLog(meta, batches(requests, impressions, cut.first, observe, kept), warnings)


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


def _split(date: NDArray[np.int64], source: str) -> NDArray[np.object_]:
    """Returns each row's split; the first days are `WARM_UP`. A Refusal where the log has too few days."""
    days = np.unique(date)
    needed = WARM_UP_DAYS + 1 + VALIDATION_DAYS + TEST_DAYS
    if len(days) < needed:
        raise Refusal(
            f"{source} covers {len(days)} days and {needed} are needed ({WARM_UP_DAYS} to warm up, "
            f"1 to train, {VALIDATION_DAYS} to validate, {TEST_DAYS} to test); import a longer log"
        )
    return np.where(date < days[WARM_UP_DAYS], WARM_UP, split_by_day(date))


@dataclass(frozen=True)
class Predicted:
    """Predictions [m, p] of the named behaviours, NaN in the warm-up; their test AUC; what was dropped."""

    names: tuple[str, ...]
    values: NDArray[np.float32]
    auc: dict[str, BehaviourAUC]
    dropped: dict[str, str]


def _predict(
    log: pd.DataFrame,
    test: NDArray[np.bool_],
    profile: NDArray[np.float32],
    config: PredictorConfig,
    progress: Progress,
) -> Predicted:
    outcomes = log[list(BEHAVIOURS)].to_numpy("float64")
    outcomes[log["duration_ms"].isna(), BEHAVIOURS.index("finish")] = np.nan
    behaviours = Behaviours(BEHAVIOURS, outcomes)
    names, dropped = choose_heads(behaviours, test)
    day, user, video = (pd.factorize(log[c], sort=True)[0] for c in ("date", "user_id", "video_id"))
    means = history_features(user, video, day, outcomes, config.seed)
    features = np.concatenate([means, profile, _context(log)], axis=1, dtype=np.float32)
    targets = behaviours.only(names).values
    values = np.full(targets.shape, np.nan, np.float32)
    n_predicted = int(day.max()) + 1 - WARM_UP_DAYS
    for done, (rows, predictions) in enumerate(predict_by_day(features, targets, day, config), start=1):
        values[rows] = predictions
        progress(done, n_predicted)
    generator = np.random.default_rng(config.seed)
    auc = {}
    for name, scores, labels in zip(names, values.T, targets.T, strict=True):
        judged = test & ~np.isnan(labels)
        auc[name] = bootstrap_auc(scores[judged], labels[judged] == 1, user[judged], generator)
    return Predicted(names, values, auc, dropped)


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
    log: pd.DataFrame, split: NDArray, cut: Cut, predicted: Predicted, profiles: pd.DataFrame, n_actions: int
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
        "segment": _segments(profiles)[first],
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
        "predictions": predicted.values,
        **signals,
        "reward": reward,
        "label": signals["valid"] > 0,
    }
    return requests, impressions


def _segments(profiles: pd.DataFrame) -> NDArray[np.object_]:
    if SEGMENT not in profiles:
        return np.full(len(profiles), "all", object)
    return profiles[SEGMENT].fillna("unknown").to_numpy(object)
