"""The one entry to importing: a log of any known format, validated, ready to be written."""

from pathlib import Path
from typing import Literal, get_args

from mtf_engine.logs.endings import HDF5, KINDS, ending_of, minari_place, parts_of, table_at
from mtf_engine.logs.files import header
from mtf_engine.logs.impressions import read_impressions
from mtf_engine.logs.kuairand_files import impression_files
from mtf_engine.logs.like import Like
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.sessions import ImportedLog, Progress
from mtf_engine.logs.splits import UNASKED, Splitting
from mtf_engine.logs.tabular import read_tabular
from mtf_engine.logs.transition_files import are_transitions, read_transitions
from mtf_engine.logs.validation import BadRows
from mtf_engine.spec import Refusal

Format = Literal[
    "auto", "csv", "json", "parquet", "impressions", "kuairand", "transitions", "minari", "d3rlpy"
]
STEPS = ("transitions", "minari", "d3rlpy")
"""Formats of logs in which nothing is shown."""
UNREAD = {
    "impressions": ("requests", "features", "binary_features", "fusion: on_unit"),
    "tables": ("fusion: on_unit",),
}
"""What a mapping may say that is not read of these."""
KUAIRAND_COLUMNS = {"user_id", "video_id", "time_ms", "play_time_ms"}
"""A file with these columns is KuaiRand's."""


def read_log(
    source: Path,
    format: str = "auto",
    *,
    user_features: Path | None = None,
    mapping: Path | None = None,
    name: str | None = None,
    bad_rows: BadRows = "refuse",
    splitting: Splitting = UNASKED,
    like: Like | None = None,
    progress: Progress = lambda done, total: None,
) -> ImportedLog:
    """Returns the log at `source`, a file or a folder. A Refusal carries every defect; nothing is written.

    With `bad_rows` "drop", rows whose defect is of one row alone are left out, and counted by code; the rest of a
    session goes with a request that is left out, and the impressions of both. `like` another log, this one has the
    features, predictions and fusion of that.
    """
    for path in (source, user_features, mapping):
        if path is not None and not path.exists():
            raise Refusal(f"there is no {path}; name a file or folder that exists")
    if format not in get_args(Format):
        raise Refusal(f"the format {format} is not known; choose one of {', '.join(get_args(Format))}")
    name = name or _stem(source)
    kind = _detect(source) if format == "auto" else format
    if kind == "kuairand":
        if mapping is not None:
            raise Refusal(
                f"a mapping does not go with KuaiRand, whose columns are known, and {source.name} is read as it; "
                "leave the mapping out, or say --format impressions"
            )
        from mtf_engine.logs.kuairand import read_kuairand  # loads torch, which no other format needs
        from mtf_engine.logs.predictions import PredictorConfig

        return read_kuairand(
            source, user_features, name, progress, PredictorConfig(), bad_rows, splitting, like
        )
    if user_features is not None:
        raise Refusal(
            f"user features go with KuaiRand logs only, and this one is read as {kind}; leave them out"
        )
    if kind in STEPS:
        if like or splitting != UNASKED:
            raise Refusal(
                f"a log of {kind} has nothing shown, so it is like no other; leave --like and splits out"
            )
        return _read_steps(kind, source, mapping, name, bad_rows)
    told = Mapping.read(mapping)
    if like:
        told = like.mapping(told, alone=kind == "impressions")
    return _read_shown(kind, source, told, name, bad_rows, splitting, like)


def _read_shown(
    kind: str,
    source: Path,
    told: Mapping,
    name: str,
    bad_rows: BadRows,
    splitting: Splitting,
    like: Like | None,
) -> ImportedLog:
    """Returns a log of impressions, with requests or alone."""
    told.refuse_said(UNREAD.get(kind, UNREAD["tables"]), kind)
    if kind == "impressions":
        told = _split_by(told, "impressions", splitting)
        return read_impressions(_table(source, "impressions"), told, name, bad_rows, splitting, like)
    wanted = None if kind == "tables" else kind
    requests, impressions = (_table(source, table, wanted) for table in ("requests", "impressions"))
    if told.predict:
        raise Refusal(
            "predict: in the mapping goes with impressions alone, and this log has requests; leave it out"
        )
    told = _split_by(told, "requests", splitting)
    return read_tabular(requests, impressions, told, name, bad_rows, splitting, like)


def _split_by(mapping: Mapping, table: str, splitting: Splitting) -> Mapping:
    """Returns `mapping` with the column that was named to hold the split, if there is one."""
    if splitting.column is None:
        return mapping
    return mapping.model_copy(update={table: {**getattr(mapping, table), "split": splitting.column}})


def _read_steps(kind: str, source: Path, mapping: Path | None, name: str, bad_rows: BadRows) -> ImportedLog:
    """Returns a log of steps: a table, or the files of a library, which say themselves what they hold."""
    if kind == "transitions":
        return read_transitions(_steps(source), Mapping.read(mapping), name, bad_rows)
    if mapping is not None or bad_rows == "drop":
        raise Refusal(f"a log of {kind} says itself what it holds: leave the mapping and --bad-rows out")
    from mtf_engine.logs.d3rlpy_files import (
        read_d3rlpy,  # loads gymnasium or h5py, which no other format needs
    )
    from mtf_engine.logs.minari_files import read_minari

    return (read_minari if kind == "minari" else read_d3rlpy)(source, name)


def _steps(source: Path) -> Path:
    """Returns the table of transitions at `source`: itself, its parts, or the requests in it, where it has no more."""
    requests = table_at(source, "requests") if source.is_dir() else []
    return requests[0] if len(requests) == 1 else source


def _stem(source: Path) -> str:
    ending = ending_of(source)
    return ending.stem if ending else source.stem


def _detect(source: Path) -> str:
    """Returns the format of `source` as its files tell it: tables of requests and impressions, or another."""
    if minari_place(source):
        return "minari"
    if source.is_file() and source.suffix.lower() in HDF5:
        return "d3rlpy"
    if source.is_file():
        if set(header(source)) >= KUAIRAND_COLUMNS:
            return "kuairand"
        return "transitions" if are_transitions(header(source)) else "impressions"
    if table_at(source, "requests"):
        return "tables" if table_at(source, "impressions") else "transitions"
    logs = impression_files(source)
    return "kuairand" if logs and set(header(logs[0])) >= KUAIRAND_COLUMNS else "impressions"


def _table(source: Path, table: str, kind: str | None = None) -> Path:
    """Returns the one file, or folder of parts, of `table` in the folder `source`; of a certain `kind` if given.

    It is `source` itself where that is a file, or, of impressions, a folder that holds their parts.
    """
    if source.is_file() and table == "impressions":
        return source
    found = (
        [path for path in table_at(source, table) if kind in (None, _kind(path))] if source.is_dir() else []
    )
    if len(found) == 1:
        return found[0]
    if table == "impressions" and not found and _holds_parts(source):
        return source
    problem = f"holds {' and '.join(p.name for p in found)}" if found else "does not hold the log"
    names = " or ".join(f"{table}{suffix}" for suffix, k in KINDS.items() if kind in (None, k))
    raise Refusal(
        f"{source} {problem}; it needs one file {names}, or a folder of its parts, or say the format"
    )


def _holds_parts(source: Path) -> bool:
    """Returns whether a folder is no pair of tables but one table's parts."""
    return not table_at(source, "requests") and any(ending_of(part) for part in parts_of(source))


def _kind(path: Path) -> str | None:
    endings = [ending for part in parts_of(path)[:1] if (ending := ending_of(part))]
    return endings[0].kind if endings else None
