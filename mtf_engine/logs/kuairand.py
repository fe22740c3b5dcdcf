"""KuaiRand as published (Gao et al., CIKM 2022): impressions and, if given, user features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from mtf_engine.logs.columns import Columns
from mtf_engine.logs.files import RawTable, connect, load, quoted
from mtf_engine.logs.mapping import WEIGHTS
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
    TEST_DAYS,
    VALIDATION_DAYS,
    Cut,
    ImportedLog,
    Progress,
    batches,
    deal,
    encoder_meta,
    observe_log,
    split_by_day,
    within,
    without_actions,
)
from mtf_engine.logs.validation import negative_watch_time
from mtf_engine.observation import ObservationEncoder
from mtf_engine.reward import impression_rewards
from mtf_engine.spec import Defect, FusionSpec, Refusal, RewardSpec

PER_REQUEST, PER_SESSION = 8, 5
"""A request is the next 8 logged impressions of a user, a session at most 5 requests, as in replay."""

FLAGS = {
    "click": "is_click", "long_view": "long_view", "comment": "is_comment", "follow": "is_follow",
    "forward": "is_forward", "profile_enter": "is_profile_enter",
}  # fmt: skip
"""Signals that are a 0/1 column of the log."""

SIGNALS = ("watch_time", "valid", "click", "long_view", "finish", "like", "hate", *list(FLAGS)[2:])
BEHAVIOURS = SIGNALS[1:]
REWARD = RewardSpec(weights={signal: WEIGHTS[signal] for signal in SIGNALS if signal in WEIGHTS})

COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
"""User features that are counts; they enter as log(1 + x)."""
CATEGORIES = ("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author")
"""User features that are categories with few levels. Ranges repeat the counts; the anonymous ones name users."""
SEGMENT = "user_active_degree"

WARM_UP = "warm-up"
UTC_OFFSET_HOURS = 8
"""Dates and hours of the log are local to China."""

IMPRESSION_FILES = ("impressions.tsv", "impressions.csv", "log_standard*.csv", "log_standard*.tsv")
USER_FILES = ("user_features*.csv",)


@dataclass(frozen=True)
class Published:
    """The files of a KuaiRand log that were found, and what a reader should know of the choice."""

    impressions: tuple[Path, ...]
    user_features: Path | None
    warnings: tuple[str, ...] = ()


def find_files(source: Path, user_features: Path | None) -> Published:
    """Returns the files of a KuaiRand log at `source`, a file or its folder."""
    folder = source if source.is_dir() else source.parent
    logs = _matching(folder, IMPRESSION_FILES) if source.is_dir() else (source,)
    if not logs:
        raise Refusal(
            f"{source.name} holds no KuaiRand log; it needs impressions.tsv, impressions.csv or log_standard*.csv"
        )
    if user_features is not None:
        return Published(logs, user_features)
    beside = _matching(folder, USER_FILES) if source.is_dir() else ()
    if not beside:
        return Published(logs, None, ("no user features: all users are of one segment",))
    return Published(logs, beside[0], (f"user features are taken from {beside[0].name} in the same folder",))


def _matching(folder: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    return tuple(sorted({path for pattern in patterns for path in folder.glob(pattern)}))


def read_kuairand(
    source: Path,
    user_features: Path | None,
    name: str,
    progress: Progress,
    config: PredictorConfig = PredictorConfig(),  # noqa: B008
) -> ImportedLog:
    """Returns the log at `source` with predictions by models of earlier days; a Refusal lists all defects."""
    files = find_files(source, user_features)
    log, users, counts = _read(files)
    split = _split(log["date"].to_numpy(), source.name)
    cut = deal(pd.factorize(log["user_id"])[0], split, PER_REQUEST, PER_SESSION)
    encoder = _fit_encoder(users, log["user_id"][split == "train"])
    profiles = users.reindex(log["user_id"])
    predicted = _predict(log, split, encoder.profile(profiles), config, progress)
    fusion = FusionSpec.default(predicted.names, bias=_rarest(predicted.names, log[split != "test"]))
    warnings = (*files.warnings, *_warnings(counts))
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
            "rows": counts,
            "requests_are": f"the next {PER_REQUEST} logged impressions of a user in time order within one split, "
            f"at most {PER_SESSION} requests a session: the log has no request lists",
            "finish_is": "played to the end; 0 where the duration is unknown (such rows do not train its prediction)",
            "history_is": f"all earlier days; the first {WARM_UP_DAYS} only warm up and are not in the dataset",
            "warnings": list(warnings),
        },
        **encoder_meta(encoder),
    )
    requests, impressions = _columns(log, split, cut, predicted, profiles, fusion.n_actions)
    observe = observe_log(encoder, profiles.iloc[cut.first[:-1]], requests, impressions, cut.first, cut.left)
    kept = np.flatnonzero(requests["split"] != WARM_UP)
    return ImportedLog(meta, batches(requests, impressions, cut.first, observe, kept), warnings)


def _read(files: Published) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Returns distinct impressions by user and time with their signals, user features, and counts."""
    with connect() as con:
        raw = [load(con, path, f"raw_{i}") for i, path in enumerate(files.impressions)]
        defects = [d for r in raw for d in (_type_impressions(con, r) if isinstance(r, RawTable) else r)]
        users, user_defects = _read_users(con, files.user_features)
        if defects or user_defects:
            raise Refusal.of([*defects, *user_defects])
        parts = [f"SELECT * FROM typed_{r.table}" for r in raw if isinstance(r, RawTable)]
        rows = con.sql(
            f"{' UNION ALL BY NAME '.join(parts)} ORDER BY user_id, date, time_ms, video_id, row"
        ).df()
        read = sum(con.execute(f"SELECT count(*) FROM raw_{i}").fetchall()[0][0] for i in range(len(parts)))
    log = _with_signals(rows)
    unknown = ~log["user_id"].isin(users.index)
    return log, users, {
        "read": read,
        "duplicates": read - len(log),
        "unknown_duration": int(log["duration_ms"].isna().sum()),
        "users": log["user_id"].nunique(),
        "users_without_features": log["user_id"][unknown].nunique() if len(users) else 0,
        "blank_user_features": int(users.isna().sum().sum()),
    }  # fmt: skip


def _type_impressions(con: duckdb.DuckDBPyConnection, raw: RawTable) -> list[Defect]:
    """Returns what is wrong with the impressions; creates `typed_<table>` without exact duplicates."""
    columns = Columns(raw, {}, None)
    for name in ("video_id", "date", "time_ms"):
        columns.require(name, "integer", "key")
    columns.require("user_id", "text", "key")
    columns.require("play_time_ms", "number")
    columns.require("duration_ms", "number", "optional")
    columns.add("hourmin", "integer", "optional")
    for source in FLAGS.values():
        columns.require(source, "number")
    if not columns.add("is_like", "number"):
        columns.require("label", "number")
    if not columns.add("is_hate", "number"):
        columns.add("label", "number")
    table = f"typed_{raw.table}"
    defects = columns.create(con, table)
    if "play_time_ms" in columns.names:
        defects += columns.check(con, table, [negative_watch_time("play_time_ms")])
    everything = ", ".join(map(quoted, raw.types))
    repeated = f"row_number() OVER (PARTITION BY {everything} ORDER BY rowid) > 1"
    con.execute(f"DELETE FROM {table} WHERE row IN (SELECT rowid + 1 FROM {raw.table} QUALIFY {repeated})")
    return defects


def _read_users(con: duckdb.DuckDBPyConnection, path: Path | None) -> tuple[pd.DataFrame, list[Defect]]:
    """Returns features by user id, counts as log(1 + x) and NaN where blank, and what is wrong with the file."""
    if path is None:
        return pd.DataFrame(index=pd.Index([], dtype="str")), []
    raw = load(con, path, "raw_users")
    if not isinstance(raw, RawTable):
        return pd.DataFrame(), raw
    columns = Columns(raw, {}, None)
    columns.require("user_id", "text", "key")
    for name in COUNTS:
        columns.add(name, "number", "optional")
    for name in CATEGORIES:
        columns.add(name, "text", "optional")
    defects = columns.create(con, "users")
    if defects:
        return pd.DataFrame(), defects
    users = con.sql("SELECT DISTINCT ON (user_id) * EXCLUDE (row) FROM users ORDER BY user_id, row").df()
    counts = [c for c in COUNTS if c in users]
    users[counts] = np.log1p(users[counts].clip(lower=0))
    return users.set_index("user_id"), []


def _with_signals(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with a column for every signal; duration 0 is unknown."""
    like = rows["is_like"] if "is_like" in rows else rows["label"]
    hate = rows["is_hate"] if "is_hate" in rows else 1 - rows["label"] if "label" in rows else 0.0
    duration = rows["duration_ms"].where(rows["duration_ms"] > 0)
    return rows.assign(
        duration_ms=duration,
        watch_time=rows["play_time_ms"] / 1000,
        valid=(rows["play_time_ms"] > REWARD.valid_seconds * 1000).astype(float),
        finish=(rows["play_time_ms"] >= duration).astype(float),
        like=like,
        hate=hate,
        **{signal: rows[column] for signal, column in FLAGS.items()},
    )


def _split(date: np.ndarray, source: str) -> np.ndarray:
    """Returns each row's split; the first days are `WARM_UP`. A Refusal where the log has too few days."""
    days = np.unique(date)
    needed = WARM_UP_DAYS + 1 + VALIDATION_DAYS + TEST_DAYS
    if len(days) < needed:
        raise Refusal(
            f"{source} covers {len(days)} days and {needed} are needed ({WARM_UP_DAYS} to warm up, 1 to train, "
            f"{VALIDATION_DAYS} to validate, {TEST_DAYS} to test); import a longer log"
        )
    return np.where(date < days[WARM_UP_DAYS], WARM_UP, split_by_day(date))


def _fit_encoder(users: pd.DataFrame, training_users: pd.Series) -> ObservationEncoder:
    known = users.loc[users.index.isin(training_users)]
    return ObservationEncoder.fit(
        known, SIGNALS, [c for c in COUNTS if c in users], [c for c in CATEGORIES if c in users]
    )


@dataclass(frozen=True)
class Predicted:
    """Predictions [m, p] by behaviour name (NaN in the warm-up), their test AUC, and what was dropped and why."""

    names: tuple[str, ...]
    values: np.ndarray
    auc: dict[str, BehaviourAUC]
    dropped: dict[str, str]


def _predict(
    log: pd.DataFrame, split: np.ndarray, profile: np.ndarray, config: PredictorConfig, progress: Progress
) -> Predicted:
    outcomes = log[list(BEHAVIOURS)].to_numpy("float64")
    outcomes[log["duration_ms"].isna(), BEHAVIOURS.index("finish")] = np.nan
    behaviours, test = Behaviours(BEHAVIOURS, outcomes), split == "test"
    names, dropped = choose_heads(behaviours, test)
    day = np.unique(log["date"], return_inverse=True)[1]
    user, video = pd.factorize(log["user_id"])[0], pd.factorize(log["video_id"])[0]
    means = history_features(user, video, day, outcomes, config.seed)
    features = np.concatenate([means, profile, _context(log)], axis=1, dtype=np.float32)
    targets = behaviours.only(names).values
    values = np.full(targets.shape, np.nan, np.float32)
    n_days = int(day.max()) + 1
    for done, (rows, predictions) in enumerate(predict_by_day(features, targets, day, config), start=1):
        values[rows] = predictions
        progress(done, n_days - WARM_UP_DAYS)
    generator = np.random.default_rng(config.seed)
    auc = {}
    for name, scores, labels in zip(names, values.T, targets.T, strict=True):
        judged = test & ~np.isnan(labels)
        auc[name] = bootstrap_auc(scores[judged], labels[judged] == 1, user[judged], generator)
    return Predicted(names, values, auc, dropped)


def _context(log: pd.DataFrame) -> np.ndarray:
    """Returns the local hour on a circle, log(1 + duration in seconds) and whether that is unknown, [m, 4]."""
    hour = (
        log["hourmin"] // 100 if "hourmin" in log else (log["time_ms"] // 3_600_000 + UTC_OFFSET_HOURS) % 24
    )
    angle = hour.fillna(0).to_numpy("float64") * (2 * np.pi / 24)
    duration = np.log1p(log["duration_ms"].to_numpy("float64") / 1000)
    unknown = np.isnan(duration)
    return np.stack([np.sin(angle), np.cos(angle), np.nan_to_num(duration), unknown], axis=1)


def _rarest(names: tuple[str, ...], log: pd.DataFrame) -> tuple[str, ...]:
    """Returns the two rarest of `names`: a bias in [0, .1] matters where predictions are small."""
    return tuple(log[list(names)].mean().nsmallest(2).index)


def _warnings(counts: dict[str, int]) -> tuple[str, ...]:
    sentences = {
        "duplicates": "{} exact duplicates were dropped",
        "unknown_duration": "{} rows have no duration; it is treated as missing",
        "users_without_features": "{} users have no features; they are treated as missing",
        "blank_user_features": "{} user features are blank; they are treated as missing",
    }
    return tuple(sentence.format(counts[key]) for key, sentence in sentences.items() if counts[key])


def _columns(
    log: pd.DataFrame,
    split: np.ndarray,
    cut: Cut,
    predicted: Predicted,
    profiles: pd.DataFrame,
    n_actions: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
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
        "item_id": log["video_id"].to_numpy(np.int64),
        "position": within(cut.request).astype(np.int32),
        "predictions": predicted.values,
        **signals,
        "reward": reward,
        "label": signals["valid"] > 0,
    }
    return requests, impressions


def _segments(profiles: pd.DataFrame) -> np.ndarray:
    if SEGMENT not in profiles:
        return np.full(len(profiles), "all", object)
    return profiles[SEGMENT].fillna("unknown").to_numpy(object)
