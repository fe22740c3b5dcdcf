"""The one entry to exporting a dataset's log: as Minari, as d3rlpy's HDF5, or as Parquet that an import reads again."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import yaml

from mtf_engine.logs.d3rlpy_files import write_d3rlpy
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.episodes import kept_of, new_place
from mtf_engine.logs.mapping import FusionChoice, Mapping
from mtf_engine.logs.minari_files import write_minari
from mtf_engine.logs.narrowing import refuse_narrowed
from mtf_engine.spec import Refusal

ExportFormat = Literal["minari", "parquet", "d3rlpy"]
ACTIONS = ("action", "baseline_action", "lower", "upper")


def export_log(dataset: Dataset, format: str, path: Path) -> dict[str, int]:
    """Returns how much was written to `path`, a new file (d3rlpy) or folder; all of it or nothing."""
    writers = {"minari": write_minari, "parquet": _write_parquet, "d3rlpy": write_d3rlpy}
    if format not in writers:
        raise Refusal(f"the format {format} is not known; choose one of {', '.join(get_args(ExportFormat))}")
    if format != "parquet":
        refuse_narrowed(dataset.meta, "export")
    return writers[format](dataset, path.absolute())  # Minari looks for a relative one below itself


def packed(dataset: Dataset, format: str) -> bytes:
    """Returns the export as one file, to be downloaded: a folder as a zip."""
    with TemporaryDirectory() as temp:
        place = Path(temp) / "log"
        export_log(dataset, format, place)
        if place.is_dir():
            place = Path(shutil.make_archive(str(place), "zip", place))
        return place.read_bytes()


def _write_parquet(dataset: Dataset, folder: Path) -> dict[str, int]:
    """Writes requests, impressions where there are any, and the mapping that says what their columns mean."""
    tables = ["requests", *(["impressions"] if dataset.n_impressions else [])]
    with new_place(folder) as temp:
        temp.mkdir()
        for table in tables:
            order = "session_id, step" if table == "requests" else "user_id, request_id, position"
            rows = f"SELECT {_selected(dataset, table)} FROM {table} ORDER BY {order}"
            dataset.copy_to(rows, temp / f"{table}.parquet")
        mapping = _mapping(dataset).model_dump(mode="json", exclude_defaults=True)
        (temp / "mapping.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    return {"requests": dataset.n_requests, "impressions": dataset.n_impressions}


def _selected(dataset: Dataset, table: str) -> str:
    """Returns SQL for the columns of a table; an action that is absent is blank, and one that always is, left out.

    Features of items, which an import does not read, are left out.
    """
    if table != "requests":
        return "* EXCLUDE (item_features)" if dataset.meta.item_features else "*"
    counted = dataset.query("SELECT count(*) FILTER (NOT isnan(action[1])) AS n FROM requests")
    if not counted["n"][0]:
        return f"* EXCLUDE ({', '.join(ACTIONS)}, pscore, clipped)"
    return "* REPLACE (CASE WHEN NOT isnan(action[1]) THEN action END AS action)"


def _mapping(dataset: Dataset) -> Mapping:
    """Returns the mapping that reads the log again; actions of steps alone are written on [-1, 1].

    Uniform exploration is told by `pscore`: said here, it would be believed of a log that never had any.
    """
    meta, kept, shown = dataset.meta, kept_of(dataset.meta), dataset.n_impressions > 0
    return Mapping(
        predictions=meta.fusion.predictions,
        signals=meta.signals if shown else (),
        features=kept.features,
        binary_features=kept.binary_features,
        reward=meta.reward if shown else None,
        fusion=FusionChoice(dimensions=meta.fusion.dimensions, on_unit=not shown),
        exploration=None if meta.exploration == "uniform" else meta.exploration,
        mixture=meta.mixture,
    )
