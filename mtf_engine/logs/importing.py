"""The one entry to importing: a log of any known format, validated, ready to be written."""

from pathlib import Path
from typing import Literal, get_args

from mtf_engine.logs.files import header
from mtf_engine.logs.impressions import read_impressions
from mtf_engine.logs.kuairand_files import IMPRESSION_FILES
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.sessions import ImportedLog, Progress
from mtf_engine.logs.tabular import read_tabular
from mtf_engine.spec import Refusal

Format = Literal["auto", "csv", "parquet", "impressions", "kuairand"]
SUFFIXES = {"csv": (".csv", ".tsv"), "parquet": (".parquet",)}
ANY = (".csv", ".tsv", ".parquet")
KUAIRAND_COLUMNS = {"user_id", "video_id", "time_ms", "play_time_ms"}
"""A file with these columns is KuaiRand's."""


def read_log(
    source: Path,
    format: str = "auto",
    *,
    user_features: Path | None = None,
    mapping: Path | None = None,
    name: str | None = None,
    progress: Progress = lambda done, total: None,
) -> ImportedLog:
    """Returns the log at `source`, a file or a folder. A Refusal carries every defect; nothing is written."""
    for path in (source, user_features, mapping):
        if path is not None and not path.exists():
            raise Refusal(f"there is no {path}; name a file or folder that exists")
    if format not in get_args(Format):
        raise Refusal(f"the format {format} is not known; choose one of {', '.join(get_args(Format))}")
    name = name or source.stem
    kind = _detect(source) if format == "auto" else format
    if kind == "kuairand":
        from mtf_engine.logs.kuairand import read_kuairand  # loads torch, which no other format needs
        from mtf_engine.logs.predictions import PredictorConfig

        return read_kuairand(source, user_features, name, progress, PredictorConfig())
    if user_features is not None:
        raise Refusal(
            f"user features go with KuaiRand logs only, and this one is read as {kind}; leave them out"
        )
    if kind == "impressions":
        return read_impressions(_table(source, "impressions", ANY), Mapping.read(mapping), name)
    suffixes = SUFFIXES.get(kind, ANY)
    requests, impressions = (_table(source, table, suffixes) for table in ("requests", "impressions"))
    return read_tabular(requests, impressions, Mapping.read(mapping), name)


def _detect(source: Path) -> str:
    """Returns the format of `source` as its files tell it: csv, parquet, kuairand or impressions."""
    if source.is_file():
        return "kuairand" if set(header(source)) >= KUAIRAND_COLUMNS else "impressions"
    if any((source / f"requests{suffix}").is_file() for suffix in ANY):
        return "parquet" if _table(source, "requests", ANY).suffix == ".parquet" else "csv"
    logs = [path for pattern in IMPRESSION_FILES for path in source.glob(pattern)]
    return "kuairand" if logs and set(header(logs[0])) >= KUAIRAND_COLUMNS else "impressions"


def _table(source: Path, table: str, suffixes: tuple[str, ...]) -> Path:
    """Returns the one file of `table` in the folder `source`, or `source` where it is a file itself."""
    if source.is_file() and table == "impressions":
        return source
    found = [path for suffix in suffixes if (path := source / f"{table}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    names = " or ".join(f"{table}{suffix}" for suffix in suffixes)
    problem = f"holds {' and '.join(p.name for p in found)}" if found else "does not hold the log"
    raise Refusal(f"{source} {problem}; it needs one file {names}, or say the format")
